#ifndef CORE_DOMAIN_AI_CATALOGUE_INTERNAL_H
#define CORE_DOMAIN_AI_CATALOGUE_INTERNAL_H

#include "core/domain/ai/catalogue.h"

#include <stdatomic.h>

/* What the files of the catalogue share; nobody else includes it. */

/* Memory of a snapshot: it may be freed on another thread than made it, and has keys in it, so it is wiped. */
struct catalogue_piece {
    struct catalogue_piece *next;
    size_t size;
};

struct catalogue {
    atomic_uint references;
    struct catalogue_piece *pieces;
    struct provider *providers; /* by name; behind `provider_count` those that are not enabled */
    size_t provider_count;
    size_t provider_total;
    struct model *models; /* by id; behind `model_count` rows that are not served */
    size_t model_count;
    size_t model_total;
};

/* The models that the program knows. Prices are US dollars for a million tokens. */
struct catalogue_known {
    const char *id;
    enum provider_kind kind;
    const char *owned_by;
    const char *price_in;
    const char *price_out;
    const char *price_cached;
    int64_t context;
    int64_t max_output;
    int64_t created_s;
};
extern const struct catalogue_known catalogue_known[];
extern const size_t catalogue_known_count;
/* NULL: the program does not know it. */
const struct catalogue_known *catalogue_known_find(struct str id);

/* A row's values, NULL or negative where it has none. */
struct catalogue_row {
    struct str id;
    struct str owned_by;
    struct str price_in;
    struct str price_out;
    struct str price_cached;
    int64_t max_output;
    int64_t default_output;
    int64_t context;
    int64_t cache_s;
    int64_t cache_percent;
    int64_t created_s;
    bool enabled;
};
struct catalogue_route_row {
    struct str model;
    struct str provider;
    struct str upstream_model;
};

/* What a snapshot is made of. Providers' texts are copied, keys with them. */
struct catalogue_parts {
    const struct provider *providers; /* rows */
    size_t provider_count;
    const struct catalogue_row *models;
    size_t model_count;
    const struct catalogue_route_row *routes; /* by model and position */
    size_t route_count;
};

struct catalogue *catalogue_make(const struct catalogue_parts *parts);

#endif

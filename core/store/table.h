#ifndef CORE_STORE_TABLE_H
#define CORE_STORE_TABLE_H

#include "core/base/list.h"
#include "core/base/str.h"

#include <stdint.h>

/*
 * A hash table of structs that bring their own link, found by a text of theirs. Several may have the same text.
 * The hash is seeded, so that nobody outside can choose texts that meet in one bucket. One thread only.
 */
struct table {
    struct link *buckets; /* NULL while nothing was ever added */
    size_t bucket_count;  /* a power of two */
    size_t count;
    uint64_t seed;
    struct str (*text_of)(struct link *item);
};

void table_init(struct table *table, struct str (*text_of)(struct link *item));
/* Frees the buckets; the table is empty by then. */
void table_clear(struct table *table);

void table_add(struct table *table, struct link *item);
void table_remove(struct table *table, struct link *item);

/* The first item with this text, or NULL; and the one after `item`. */
struct link *table_find(const struct table *table, struct str text);
struct link *table_find_next(const struct table *table, const struct link *item, struct str text);

/* Calls `visit` for every item, in no order. It must not change the table. */
void table_each(const struct table *table, void (*visit)(struct link *item, void *arg), void *arg);

#endif

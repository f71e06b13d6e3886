/* How a snapshot is made of what the program knows, its settings and rows: see catalogue.h. */
#include "core/domain/ai/catalogue_internal.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"

#include <stdlib.h>

enum { DEFAULT_OUTPUT = 4096, DEFAULT_CONTEXT = 131072, DEFAULT_MAX_OUTPUT = 16384, MILLION = 1000000 };

/* ---- memory ---- */

static void *piece(struct catalogue *catalogue, size_t size)
{
    struct catalogue_piece *made = mem_zalloc(sizeof *made + size);
    made->next = catalogue->pieces;
    made->size = size;
    catalogue->pieces = made;
    return made + 1;
}

static const char *keep(struct catalogue *catalogue, struct str text)
{
    if (!text.at)
        return NULL;
    char *copy = piece(catalogue, text.size + 1);
    if (text.size)
        memcpy(copy, text.at, text.size);
    return copy;
}

void catalogue_unref(struct catalogue *catalogue)
{
    if (!catalogue || atomic_fetch_sub(&catalogue->references, 1) > 1)
        return;
    while (catalogue->pieces) {
        struct catalogue_piece *first = catalogue->pieces;
        catalogue->pieces = first->next;
        crypto_wipe(first + 1, first->size);
        free(first);
    }
    free(catalogue);
}

/* ---- providers ---- */

static const struct provider defaults = {
    .enabled = true,
    .max_in_flight = 1024,
    .queue_calls = 10000,
    .queue_bytes = 256 << 20,
    .queue_wait_ms = 30000,
    .connect_ms = 5000,
    .header_ms = 120000,
    .idle_ms = 60000,
    .total_ms = 600000,
    .sandbox = {.stall_after = -1},
};

static const struct provider *find_provider(const struct catalogue *catalogue, size_t count, struct str name)
{
    for (size_t i = 0; i < count; i++)
        if (str_equal(name, str_from(catalogue->providers[i].name)))
            return &catalogue->providers[i];
    return NULL;
}

static void add_provider(struct catalogue *catalogue, const struct provider *given)
{
    struct provider *provider = &catalogue->providers[catalogue->provider_total++];
    struct str url = str_from(given->base_url);
    *provider = *given;
    while (url.size && url.at[url.size - 1] == '/')
        url.size--;
    provider->name = keep(catalogue, str_from(given->name));
    provider->base_url = keep(catalogue, url);
    provider->api_key = keep(catalogue, str_from(given->api_key));
    provider->ca = keep(catalogue, str_from(given->ca));
}

/* A provider as the settings have it. Of a row without a URL only what it lacks: a key of theirs goes nowhere else. */
static void take_settings(struct provider *provider)
{
    const char *url = provider->kind == PROVIDER_OPENAI ? config->openai_url : config->anthropic_url;
    const char *key = provider->kind == PROVIDER_OPENAI ? config->openai_key : config->anthropic_key;
    if (provider->kind == PROVIDER_SANDBOX || provider->base_url ||
        strcmp(provider->name, provider_kind_name(provider->kind)) != 0)
        return;
    provider->base_url = url;
    if (!provider->api_key && key[0])
        provider->api_key = key;
}

/* Unless a row of that name stands in its place. */
static void add_own_provider(struct catalogue *catalogue, enum provider_kind kind)
{
    struct provider provider = defaults;
    provider.name = provider_kind_name(kind);
    provider.kind = kind;
    take_settings(&provider);
    if ((kind == PROVIDER_SANDBOX || provider.api_key) &&
        !find_provider(catalogue, catalogue->provider_total, str_from(provider.name)))
        add_provider(catalogue, &provider);
}

static int by_name(const void *a, const void *b)
{
    const struct provider *one = a;
    const struct provider *other = b;
    return one->enabled != other->enabled ? other->enabled - one->enabled : strcmp(one->name, other->name);
}

static void add_providers(struct catalogue *catalogue, const struct catalogue_parts *parts)
{
    catalogue->providers =
        piece(catalogue, (parts->provider_count + PROVIDER_KINDS) * sizeof *catalogue->providers);
    for (size_t i = 0; i < parts->provider_count; i++) {
        struct provider provider = parts->providers[i];
        take_settings(&provider);
        add_provider(catalogue, &provider);
    }
    for (int kind = 0; kind < PROVIDER_KINDS; kind++)
        add_own_provider(catalogue, (enum provider_kind)kind);
    qsort(catalogue->providers, catalogue->provider_total, sizeof *catalogue->providers, by_name);
    while (catalogue->provider_count < catalogue->provider_total &&
           catalogue->providers[catalogue->provider_count].enabled)
        catalogue->provider_count++;
}

/* ---- models ---- */

static bool has_real_provider(const struct catalogue *catalogue)
{
    for (size_t i = 0; i < catalogue->provider_count; i++)
        if (catalogue->providers[i].kind != PROVIDER_SANDBOX)
            return true;
    return false;
}

/* The provider that a known model goes to by itself: that of its maker, which has its kind's name; the sandbox where there is no
 * other provider at all. Others of the same kind speak the same API, and have other models: only who routes a model there says
 * that it is had there. */
static const struct provider *provider_for(const struct catalogue *catalogue, enum provider_kind kind)
{
    const struct provider *named = catalogue_provider(catalogue, str_from(provider_kind_name(kind)));
    if (named && named->kind == kind)
        return named;
    return has_real_provider(catalogue) ? NULL : catalogue_provider(catalogue, STR("sandbox"));
}

/* A price for a million tokens as one for a token; prices of ours divide. */
static money per_token(const char *price)
{
    money amount;
    CHECK(money_parse(str_from(price), &amount) && amount % MILLION == 0);
    return amount / MILLION;
}

static void take_price(money *price, struct str text)
{
    if (text.at && !money_parse(text, price))
        LOG(WARN, "a price is too fine or too high, and is passed over", LOG_STR("price", text));
}

static void take_number(int64_t *number, int64_t given)
{
    if (given > 0)
        *number = given;
}

static void add_routes(struct catalogue *catalogue, struct model *model, const struct catalogue_parts *parts)
{
    for (size_t i = 0; i < parts->route_count; i++) {
        const struct catalogue_route_row *row = &parts->routes[i];
        const struct provider *provider =
            str_equal(row->model, model->id) ? catalogue_provider(catalogue, row->provider) : NULL;
        if (provider && model->route_count < MODEL_ROUTES_MAX)
            model->routes[model->route_count++] =
                (struct model_route){provider, keep(catalogue, row->upstream_model)};
    }
}

static bool has_route_rows(const struct catalogue_parts *parts, struct str id)
{
    for (size_t i = 0; i < parts->route_count; i++)
        if (str_equal(parts->routes[i].model, id))
            return true;
    return false;
}

static void take_known(struct model *model, const struct catalogue_known *known)
{
    model->owned_by = known->owned_by;
    model->created_s = known->created_s;
    model->context = known->context;
    model->max_output = known->max_output;
    /* The sandbox alone costs nothing: a call may end at any of the routes. */
    for (size_t i = 0; i < model->route_count; i++)
        if (model->routes[i].provider->kind != PROVIDER_SANDBOX) {
            model->price_in = per_token(known->price_in);
            model->price_out = per_token(known->price_out);
            model->price_cached = per_token(known->price_cached);
            return;
        }
}

static void take_row(struct catalogue *catalogue, struct model *model, const struct catalogue_row *row)
{
    model->owned_by = keep(catalogue, row->owned_by);
    model->enabled = row->enabled;
    take_price(&model->price_in, row->price_in);
    take_price(&model->price_out, row->price_out);
    model->price_cached = row->price_in.at ? model->price_in : model->price_cached;
    take_price(&model->price_cached, row->price_cached);
    take_number(&model->max_output, row->max_output);
    take_number(&model->context, row->context);
    model->cache_s = row->cache_s;
    model->cache_percent = row->cache_percent;
}

/* One of `known` and `row` may be NULL. */
static void add_model(struct catalogue *catalogue, const struct catalogue_parts *parts,
                      const struct catalogue_known *known, const struct catalogue_row *row)
{
    struct model *model = &catalogue->models[catalogue->model_total];
    struct str id = row ? row->id : str_from(known->id);
    *model = (struct model){
        .id = str_of(keep(catalogue, id), id.size),
        .enabled = true,
        .created_s = row ? row->created_s : 0,
        .context = DEFAULT_CONTEXT,
        .max_output = DEFAULT_MAX_OUTPUT,
        .cache_percent = 100,
    };
    if (has_route_rows(parts, id)) {
        add_routes(catalogue, model, parts);
    } else if (known) {
        const struct provider *provider = provider_for(catalogue, known->kind);
        if (provider)
            model->routes[model->route_count++] = (struct model_route){provider, keep(catalogue, id)};
        model->routed_by_itself = provider;
    }
    if (known)
        take_known(model, known);
    if (row)
        take_row(catalogue, model, row);
    model->default_output = DEFAULT_OUTPUT;
    take_number(&model->default_output, row ? row->default_output : 0);
    if (model->default_output > model->max_output)
        model->default_output = model->max_output;
    catalogue->model_total++;
}

static bool has_row(const struct catalogue_parts *parts, const char *id)
{
    for (size_t i = 0; i < parts->model_count; i++)
        if (str_equal(parts->models[i].id, str_from(id)))
            return true;
    return false;
}

static int compare_ids(struct str a, struct str b)
{
    int order = memcmp(a.at, b.at, a.size < b.size ? a.size : b.size);
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static bool is_served(const struct model *model)
{
    return model->enabled && model->route_count > 0;
}

static int by_id(const void *a, const void *b)
{
    const struct model *one = a;
    const struct model *other = b;
    bool served = is_served(one);
    return served != is_served(other) ? is_served(other) - served : compare_ids(one->id, other->id);
}

struct catalogue *catalogue_make(const struct catalogue_parts *parts)
{
    struct catalogue *catalogue = mem_zalloc(sizeof *catalogue);
    atomic_init(&catalogue->references, 1);
    add_providers(catalogue, parts);
    catalogue->models =
        piece(catalogue, (parts->model_count + catalogue_known_count) * sizeof *catalogue->models);
    for (size_t i = 0; i < parts->model_count; i++)
        add_model(catalogue, parts, catalogue_known_find(parts->models[i].id), &parts->models[i]);
    for (size_t i = 0; i < catalogue_known_count; i++)
        if (!has_row(parts, catalogue_known[i].id))
            add_model(catalogue, parts, &catalogue_known[i], NULL);
    qsort(catalogue->models, catalogue->model_total, sizeof *catalogue->models, by_id);
    while (catalogue->model_count < catalogue->model_total &&
           is_served(&catalogue->models[catalogue->model_count]))
        catalogue->model_count++;
    return catalogue;
}

/* ---- looking ---- */

/* Among models[first] to models[end], without the last. */
static const struct model *find_model(const struct catalogue *catalogue, size_t first, size_t end,
                                      struct str id)
{
    while (id.at && first < end) {
        size_t middle = first + (end - first) / 2;
        int order = compare_ids(id, catalogue->models[middle].id);
        if (order == 0)
            return &catalogue->models[middle];
        if (order < 0)
            end = middle;
        else
            first = middle + 1;
    }
    return NULL;
}

const struct model *catalogue_model(const struct catalogue *catalogue, struct str id)
{
    return find_model(catalogue, 0, catalogue->model_count, id);
}

const struct model *catalogue_any_model(const struct catalogue *catalogue, struct str id)
{
    const struct model *model = catalogue_model(catalogue, id);
    return model ? model : find_model(catalogue, catalogue->model_count, catalogue->model_total, id);
}

bool catalogue_knows(struct str id)
{
    return catalogue_known_find(id) != NULL;
}

const struct provider *catalogue_provider(const struct catalogue *catalogue, struct str name)
{
    return find_provider(catalogue, catalogue->provider_count, name);
}

const struct provider *catalogue_any_provider(const struct catalogue *catalogue, struct str name)
{
    return find_provider(catalogue, catalogue->provider_total, name);
}

size_t catalogue_model_count(const struct catalogue *catalogue)
{
    return catalogue->model_count;
}

const struct model *catalogue_model_at(const struct catalogue *catalogue, size_t index)
{
    CHECK(index < catalogue->model_total);
    return &catalogue->models[index];
}

size_t catalogue_provider_count(const struct catalogue *catalogue)
{
    return catalogue->provider_count;
}

const struct provider *catalogue_provider_at(const struct catalogue *catalogue, size_t index)
{
    CHECK(index < catalogue->provider_total);
    return &catalogue->providers[index];
}

size_t catalogue_model_total(const struct catalogue *catalogue)
{
    return catalogue->model_total;
}

size_t catalogue_provider_total(const struct catalogue *catalogue)
{
    return catalogue->provider_total;
}

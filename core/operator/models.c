/* Models, for operators. */
#include "core/domain/ai/catalogue.h"
#include "core/domain/ai/catalogue_change.h"
#include "core/operator/verbs.h"

#include <errno.h>

static const struct {
    const char *name;
    enum model_number number;
} numbers[] = {
    {"max_output", MODEL_MAX_OUTPUT},
    {"default_output", MODEL_DEFAULT_OUTPUT},
    {"context", MODEL_CONTEXT},
    {"cache_seconds", MODEL_CACHE_SECONDS},
    {"cache_percent", MODEL_CACHE_PERCENT},
};

static const char *const prices[] = {"price_in", "price_out", "price_cached"};

const struct operator_argument operator_model_set_arguments[] = {
    {.name = "model", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "its id, as clients name it"},
    {.name = "owned_by", .help = "whose it is (operator)"},
    {.name = "price_in", .help = "US dollars for a million tokens of a prompt: \"0.15\""},
    {.name = "price_out", .help = "the same of an answer"},
    {.name = "price_cached", .help = "the same of a prompt that its provider had in a cache (price_in)"},
    {.name = "max_output", .type = OPERATOR_NUMBER, .help = "tokens of an answer, at most"},
    {.name = "default_output", .type = OPERATOR_NUMBER, .help = "tokens where a client asks for no number"},
    {.name = "context", .type = OPERATOR_NUMBER, .help = "tokens of prompt and answer together"},
    {.name = "cache_seconds",
     .type = OPERATOR_NUMBER,
     .help = "keep answers for the same request (0: for who asks for it)"},
    {.name = "cache_percent",
     .type = OPERATOR_NUMBER,
     .help = "what a kept answer costs, of what it would (100)"},
    {.name = "enabled", .type = OPERATOR_SWITCH, .help = "clients see it (true)"},
    {.name = "routes",
     .help =
         "providers in the order in which they are tried, separated by spaces: name, or name=its own model id"},
    {.name = NULL},
};

static int read_routes(struct operator_call *call, struct model_change *change, struct str *providers,
                       struct str *upstream_models)
{
    struct str words[MODEL_ROUTES_MAX];
    int result = operator_words(call, "routes", words, MODEL_ROUTES_MAX, &change->route_count);
    for (size_t i = 0; i < change->route_count; i++) {
        struct str rest = words[i];
        str_split(&rest, '=', &providers[i]);
        upstream_models[i] = rest.at ? rest : change->id;
        if (rest.at && rest.size == 0)
            return operator_fail(call, -EINVAL, "routes are provider or provider=model");
    }
    change->providers = providers;
    change->upstream_models = upstream_models;
    return result;
}

static int check_routes(struct operator_call *call, const struct model_change *change)
{
    struct catalogue *catalogue;
    int result = catalogue_read(&catalogue);
    for (size_t i = 0; result == 0 && i < change->route_count; i++)
        if (!catalogue_any_provider(catalogue, change->providers[i]))
            result = operator_fail(call, -EINVAL, "there is no provider %.*s", STR_ARG(change->providers[i]));
    if (result == 0 && change->route_count == 0 && !catalogue_any_model(catalogue, change->id) &&
        !catalogue_knows(change->id))
        result = operator_fail(call, -EINVAL, "a model that the program does not know needs routes");
    catalogue_unref(catalogue);
    return result;
}

static int read_change(struct operator_call *call, struct model_change *change, struct str *providers,
                       struct str *upstream_models)
{
    *change = (struct model_change){
        .id = operator_text(call, "model"),
        .owned_by = operator_text(call, "owned_by"),
        .price_in = operator_text(call, prices[0]),
        .price_out = operator_text(call, prices[1]),
        .price_cached = operator_text(call, prices[2]),
    };
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        change->numbers[numbers[i].number] = operator_number(call, numbers[i].name, CATALOGUE_KEEP);
    change->numbers[MODEL_ENABLED] =
        operator_text(call, "enabled").at ? operator_switch(call, "enabled") : CATALOGUE_KEEP;
    if (change->id.size > MODEL_ID_MAX)
        return operator_fail(call, -EINVAL, "a model's id has %d bytes at most", MODEL_ID_MAX);
    for (size_t i = 0; i < change->id.size; i++)
        if ((unsigned char)change->id.at[i] <= ' ' || change->id.at[i] == 0x7f)
            return operator_fail(call, -EINVAL, "a model's id has neither spaces nor control characters");
    /* Of a million tokens; a token costs whole picodollars. */
    for (size_t i = 0; i < ARRAY_SIZE(prices); i++) {
        struct str price = operator_text(call, prices[i]);
        if (price.at && !money_is_decimal(price, 6, 6))
            return operator_fail(call, -EINVAL, "%s must be a number like 0.15, with 6 decimals at most",
                                 prices[i]);
    }
    return read_routes(call, change, providers, upstream_models);
}

/* A price of a token as one of a million. */
static void put_price(struct json_out *out, const char *name, money price)
{
    char text[MONEY_TEXT_SIZE];
    if (price > INT64_MAX / 1000000) /* a row that no operator has made */
        price = INT64_MAX / 1000000;
    json_put_str(out, name, money_format(text, price * 1000000));
}

static void put_model(struct operator_call *call, const struct model *model)
{
    struct json_out *out = call->out;
    json_open(out, '{');
    json_put_str(out, "id", model->id);
    json_put_text(out, "owned_by", model->owned_by);
    json_put_bool(out, "enabled", model->enabled);
    put_price(out, "price_in", model->price_in);
    put_price(out, "price_out", model->price_out);
    put_price(out, "price_cached", model->price_cached);
    json_put_int(out, "max_output", model->max_output);
    json_put_int(out, "default_output", model->default_output);
    json_put_int(out, "context", model->context);
    json_put_int(out, "cache_seconds", model->cache_s);
    json_put_int(out, "cache_percent", model->cache_percent);
    json_key(out, "routes");
    json_open(out, '[');
    for (size_t i = 0; i < model->route_count; i++)
        json_put_text(out, NULL,
                      arena_printf(call->arena, "%s=%s", model->routes[i].provider->name,
                                   model->routes[i].upstream_model));
    json_close(out, ']');
    json_put_text(out, "routed_by",
                  model->route_count == 0   ? NULL
                  : model->routed_by_itself ? "program"
                                            : "operator");
    json_close(out, '}');
}

static int show_model(struct operator_call *call, struct str id)
{
    struct catalogue *catalogue;
    int result = catalogue_read(&catalogue);
    if (result)
        return result;
    const struct model *model = catalogue_any_model(catalogue, id);
    if (model)
        put_model(call, model);
    else
        result = operator_fail(call, -ENOENT, "there is no model %.*s", STR_ARG(id));
    catalogue_unref(catalogue);
    return result;
}

int operator_model_set(struct operator_call *call)
{
    struct model_change change;
    struct str providers[MODEL_ROUTES_MAX];
    struct str upstream_models[MODEL_ROUTES_MAX];
    int result = read_change(call, &change, providers, upstream_models);
    if (result == 0)
        result = check_routes(call, &change);
    if (result)
        return result;
    result = model_save(&change);
    if (result == -ERANGE)
        return operator_fail(call, -EINVAL, "numbers of tokens are over 0, cache_percent is 0 to 100");
    return result ? result : show_model(call, change.id);
}

const struct operator_argument operator_model_list_arguments[] = {
    {.name = NULL},
};

int operator_model_list(struct operator_call *call)
{
    struct catalogue *catalogue;
    int result = catalogue_read(&catalogue);
    if (result)
        return result;
    json_open(call->out, '[');
    for (size_t i = 0; i < catalogue_model_total(catalogue); i++)
        put_model(call, catalogue_model_at(catalogue, i));
    json_close(call->out, ']');
    catalogue_unref(catalogue);
    return 0;
}

const struct operator_argument operator_model_show_arguments[] = {
    {.name = "model", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "its id"},
    {.name = NULL},
};

int operator_model_show(struct operator_call *call)
{
    return show_model(call, operator_text(call, "model"));
}

const struct operator_argument operator_model_delete_arguments[] = {
    {.name = "model", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "its id"},
    {.name = NULL},
};

int operator_model_delete(struct operator_call *call)
{
    struct str id = operator_text(call, "model");
    int result = model_delete(id);
    if (result == -ENOENT)
        return operator_fail(call, result, "there is no row of model %.*s", STR_ARG(id));
    if (result)
        return result;
    json_open(call->out, '{');
    json_put_str(call->out, "id", id);
    json_put_bool(call->out, "deleted", true);
    json_close(call->out, '}');
    return 0;
}

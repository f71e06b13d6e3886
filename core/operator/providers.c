/* Providers of AI. */
#include "core/domain/ai/catalogue.h"
#include "core/domain/ai/catalogue_change.h"
#include "core/domain/ai/state.h"
#include "core/operator/verbs.h"
#include "proto/tls.h"

#include <errno.h>

enum { NAME_MAX_SIZE = 31, KEY_MAX_SIZE = 4096, CA_MAX_SIZE = 256 * 1024, CA_ERROR_SIZE = 400 };

/* In place of a file of certificates: those of the system. */
#define CA_SYSTEM "system"

/* The arguments that are numbers, and what they are of a provider. */
static const struct {
    const char *name;
    enum catalogue_number number;
} numbers[] = {
    {"max_in_flight", PROVIDER_MAX_IN_FLIGHT},
    {"queue_calls", PROVIDER_QUEUE_CALLS},
    {"queue_bytes", PROVIDER_QUEUE_BYTES},
    {"queue_wait_ms", PROVIDER_QUEUE_WAIT_MS},
    {"connect_ms", PROVIDER_CONNECT_MS},
    {"header_ms", PROVIDER_HEADER_MS},
    {"idle_ms", PROVIDER_IDLE_MS},
    {"total_ms", PROVIDER_TOTAL_MS},
    {"delay_ms", PROVIDER_DELAY_MS},
    {"chunk_ms", PROVIDER_CHUNK_MS},
    {"fail_status", PROVIDER_FAIL_STATUS},
    {"stall_after", PROVIDER_STALL_AFTER},
    {"answer_tokens", PROVIDER_ANSWER_TOKENS},
};

const struct operator_argument operator_provider_set_arguments[] = {
    {.name = "provider",
     .flags = OPERATOR_REQUIRED | OPERATOR_WORD,
     .help = "its name: a letter, then a-z, 0-9, _ and -"},
    {.name = "kind", .help = "the API that it speaks: openai, anthropic or sandbox"},
    {.name = "base_url", .help = "where it is: https://host/v1 for openai, https://host for anthropic"},
    {.name = "api_key", .help = "its key", .variable = "WAKEGATE_PROVIDER_KEY"},
    {.name = "ca",
     .type = OPERATOR_FILE,
     .help = "PEM of who alone may sign its certificate; " CA_SYSTEM ": whom the system trusts"},
    {.name = "max_in_flight",
     .type = OPERATOR_NUMBER,
     .help = "calls at once, however many it seems to bear (1024)"},
    {.name = "queue_calls",
     .type = OPERATOR_NUMBER,
     .help = "calls that may wait, half of them one account's (10000)"},
    {.name = "queue_bytes", .type = OPERATOR_NUMBER, .help = "of these calls (268435456)"},
    {.name = "queue_wait_ms", .type = OPERATOR_NUMBER, .help = "how long one may wait (30000)"},
    {.name = "connect_ms", .type = OPERATOR_NUMBER, .help = "time for a connection (5000)"},
    {.name = "header_ms", .type = OPERATOR_NUMBER, .help = "time until an answer begins (120000)"},
    {.name = "idle_ms", .type = OPERATOR_NUMBER, .help = "time between two pieces of it (60000)"},
    {.name = "total_ms", .type = OPERATOR_NUMBER, .help = "time for all of it (600000)"},
    {.name = "native_completions",
     .type = OPERATOR_SWITCH,
     .help = "it takes prompts as such (false: as a message)"},
    {.name = "enabled", .type = OPERATOR_SWITCH, .help = "calls go to it (true)"},
    {.name = "delay_ms", .type = OPERATOR_NUMBER, .help = "of a sandbox: before its answers"},
    {.name = "chunk_ms", .type = OPERATOR_NUMBER, .help = "of a sandbox: between pieces of a stream"},
    {.name = "fail_status",
     .type = OPERATOR_NUMBER,
     .help = "of a sandbox: the error that it answers with; 0: none"},
    {.name = "stall_after",
     .type = OPERATOR_NUMBER,
     .help = "of a sandbox: the pieces after which it says no more"},
    {.name = "answer_tokens",
     .type = OPERATOR_NUMBER,
     .help = "of a sandbox: the length of its answers; 0: as they come"},
    {.name = NULL},
};

static bool name_is_fine(struct str name)
{
    bool fine = name.size > 0 && name.size <= NAME_MAX_SIZE && name.at[0] >= 'a' && name.at[0] <= 'z';
    for (size_t i = 0; fine && i < name.size; i++) {
        char c = name.at[i];
        fine = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    }
    return fine;
}

/* A switch of the call as a number of the row. */
static int64_t flag(const struct operator_call *call, const char *name)
{
    return operator_text(call, name).at ? operator_switch(call, name) : CATALOGUE_KEEP;
}

/* A kind is the name of the program's own provider of that kind, which is of no other. */
static int check_name(struct operator_call *call, const struct provider_change *change)
{
    enum provider_kind own;
    enum provider_kind kind;
    if (!name_is_fine(change->name))
        return operator_fail(call, -EINVAL,
                             "a provider's name is a letter and up to 30 of a-z, 0-9, _ and -");
    if (str_equal(change->name, STR(PROVIDER_NONE)))
        return operator_fail(call, -EINVAL, "no provider can have the name " PROVIDER_NONE);
    if (!change->kind.at)
        return 0;
    if (!provider_kind_find(change->kind, &kind))
        return operator_fail(call, -EINVAL, "kind must be openai, anthropic or sandbox");
    if (provider_kind_find(change->name, &own) && own != kind)
        return operator_fail(call, -EINVAL, "the provider %s is of that kind", provider_kind_name(own));
    return 0;
}

static int check_ca(struct operator_call *call, struct provider_change *change)
{
    char error[CA_ERROR_SIZE];
    if (str_equal(change->ca, STR(CA_SYSTEM)))
        change->ca = STR("");
    if (change->ca.size > CA_MAX_SIZE)
        return operator_fail(call, -EINVAL, "ca has %d bytes at most", CA_MAX_SIZE);
    if (change->ca.size > 0 && tls_check_authorities(change->ca, "ca", error, sizeof error))
        return operator_fail(call, -EINVAL, "%s", error);
    return 0;
}

static int read_change(struct operator_call *call, struct provider_change *change)
{
    *change = (struct provider_change){
        .name = operator_text(call, "provider"),
        .kind = operator_text(call, "kind"),
        .base_url = operator_text(call, "base_url"),
        .api_key = operator_text(call, "api_key"),
        .ca = operator_text(call, "ca"),
    };
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        change->numbers[numbers[i].number] = operator_number(call, numbers[i].name, CATALOGUE_KEEP);
    change->numbers[PROVIDER_NATIVE_COMPLETIONS] = flag(call, "native_completions");
    change->numbers[PROVIDER_ENABLED] = flag(call, "enabled");
    int result = check_name(call, change);
    if (result)
        return result;
    const char *problem = change->base_url.at ? provider_url_problem(change->base_url) : NULL;
    if (problem)
        return operator_fail(call, -EINVAL, "base_url %s", problem);
    result = check_ca(call, change);
    if (result)
        return result;
    if (change->api_key.size > KEY_MAX_SIZE)
        return operator_fail(call, -EINVAL, "api_key has %d characters at most", KEY_MAX_SIZE);
    for (size_t i = 0; i < change->api_key.size; i++)
        if (change->api_key.at[i] <= ' ' || change->api_key.at[i] > '~')
            return operator_fail(call, -EINVAL, "api_key must be printable, without spaces");
    return 0;
}

/* As the queue sees it; absent members while it can't be asked. */
static void put_state(struct json_out *out, const struct ai_state *state)
{
    if (!state)
        return;
    json_put_int(out, "waiting", state->waiting);
    json_put_int(out, "in_flight", state->in_flight);
    json_put_int(out, "cap", state->cap);
    json_put_text(out, "breaker", ai_breaker_name(state->breaker));
}

static void put_provider(struct json_out *out, const struct provider *provider, const struct ai_state *state)
{
    json_open(out, '{');
    json_put_text(out, "name", provider->name);
    json_put_text(out, "kind", provider_kind_name(provider->kind));
    json_put_text(out, "base_url", provider->base_url);
    json_put_bool(out, "has_key", provider->api_key);
    json_put_bool(out, "has_ca", provider->ca);
    json_put_bool(out, "enabled", provider->enabled);
    put_state(out, state);
    json_put_int(out, "max_in_flight", provider->max_in_flight);
    json_put_int(out, "queue_calls", provider->queue_calls);
    json_put_int(out, "queue_bytes", provider->queue_bytes);
    json_put_int(out, "queue_wait_ms", provider->queue_wait_ms);
    json_put_int(out, "connect_ms", provider->connect_ms);
    json_put_int(out, "header_ms", provider->header_ms);
    json_put_int(out, "idle_ms", provider->idle_ms);
    json_put_int(out, "total_ms", provider->total_ms);
    json_put_bool(out, "native_completions", provider->native_completions);
    if (provider->kind == PROVIDER_SANDBOX) {
        json_put_int(out, "delay_ms", provider->sandbox.delay_ms);
        json_put_int(out, "chunk_ms", provider->sandbox.chunk_ms);
        json_put_int(out, "fail_status", provider->sandbox.fail_status);
        json_put_int(out, "stall_after", provider->sandbox.stall_after);
        json_put_int(out, "answer_tokens", provider->sandbox.answer_tokens);
    }
    json_close(out, '}');
}

static void put_providers(struct operator_call *call, const struct provider **providers, size_t count)
{
    struct ai_state *states;
    bool known = ai_state_read(call->arena, providers, count, &states) == 0;
    for (size_t i = 0; i < count; i++)
        put_provider(call->out, providers[i], known ? &states[i] : NULL);
}

static int show_provider(struct operator_call *call, struct str name)
{
    struct catalogue *catalogue;
    int result = catalogue_read(&catalogue);
    if (result)
        return result;
    const struct provider *provider = catalogue_any_provider(catalogue, name);
    if (provider)
        put_providers(call, &provider, 1);
    else
        result = operator_fail(call, -ENOENT, "there is no provider %.*s", STR_ARG(name));
    catalogue_unref(catalogue);
    return result;
}

/* What a kind needs to be called at all. Of the program's own the settings say where they are. */
static int check_complete(struct operator_call *call, const struct provider_change *change)
{
    struct catalogue *catalogue;
    enum provider_kind kind = PROVIDER_OPENAI;
    if (change->base_url.at || provider_kind_find(change->name, &kind))
        return 0;
    int result = catalogue_read(&catalogue);
    if (result)
        return result;
    const struct provider *known = catalogue_any_provider(catalogue, change->name);
    if (change->kind.at)
        CHECK(provider_kind_find(change->kind, &kind));
    else if (known)
        kind = known->kind;
    bool complete = kind == PROVIDER_SANDBOX || (known && known->base_url);
    catalogue_unref(catalogue);
    return complete ? 0 : operator_fail(call, -EINVAL, "base_url is required");
}

int operator_provider_set(struct operator_call *call)
{
    struct provider_change change;
    int result = read_change(call, &change);
    if (result == 0)
        result = check_complete(call, &change);
    if (result)
        return result;
    result = provider_save(call->arena, &change);
    if (result == -ERANGE)
        return operator_fail(call, -EINVAL,
                             "max_in_flight and times are over 0, fail_status is 0 or 400 to 599");
    return result ? result : show_provider(call, change.name);
}

const struct operator_argument operator_provider_list_arguments[] = {
    {.name = NULL},
};

int operator_provider_list(struct operator_call *call)
{
    struct catalogue *catalogue;
    int result = catalogue_read(&catalogue);
    if (result)
        return result;
    size_t count = catalogue_provider_total(catalogue);
    const struct provider **providers = arena_alloc(call->arena, (count + 1) * sizeof *providers);
    for (size_t i = 0; i < count; i++)
        providers[i] = catalogue_provider_at(catalogue, i);
    json_open(call->out, '[');
    put_providers(call, providers, count);
    json_close(call->out, ']');
    catalogue_unref(catalogue);
    return 0;
}

const struct operator_argument operator_provider_show_arguments[] = {
    {.name = "provider", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "its name"},
    {.name = NULL},
};

int operator_provider_show(struct operator_call *call)
{
    return show_provider(call, operator_text(call, "provider"));
}

const struct operator_argument operator_provider_delete_arguments[] = {
    {.name = "provider", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "its name"},
    {.name = NULL},
};

int operator_provider_delete(struct operator_call *call)
{
    struct str name = operator_text(call, "provider");
    int result = provider_delete(name);
    if (result == -ENOENT)
        return operator_fail(call, result, "there is no provider %.*s but what the program brings along",
                             STR_ARG(name));
    if (result)
        return result;
    json_open(call->out, '{');
    json_put_str(call->out, "name", name);
    json_put_bool(call->out, "deleted", true);
    json_close(call->out, '}');
    return 0;
}

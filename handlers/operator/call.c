/* A request becomes a call of a verb, and its answer the response. */
#include "handlers/operator/operator.h"

#include "core/base/crypto.h"
#include "core/net/stream.h"
#include "core/operator/operator.h"
#include "proto/url.h"

#include <errno.h>

/* Routes are made from the verbs' names: "/admin/v1/NOUN/VERB". */
static const struct operator_verb *verb_of(const struct request *request)
{
    struct str path = str_from(request->route->path);
    struct str noun = STR_NONE, verb = STR_NONE;
    for (int i = 0; i < 3; i++)
        CHECK(url_next_segment(&path, &noun));
    CHECK(url_next_segment(&path, &verb));
    return operator_find(noun, verb);
}

static bool refuse(struct request *request, const char *message)
{
    reply_error(request, ERROR_INVALID_PARAMETER, message);
    return false;
}

/* ---- arguments ---- */

/* A parameter that the verb has not is a mistake that its author would like to know of. */
static bool read_query(struct request *request, struct operator_call *call)
{
    struct str rest = request->query;
    struct str pair;
    while (str_split(&rest, '&', &pair)) {
        struct str name;
        if (pair.size == 0 || !str_split(&pair, '=', &name))
            continue;
        size_t place = operator_argument(call->verb, name);
        if (place == OPERATOR_ARGUMENTS_MAX)
            return refuse(request, "There is no parameter of that name");
        if (call->values[place].at)
            return refuse(request, "A parameter is given twice");
        const char *own_name = call->verb->arguments[place].name;
        if (!url_query(request->arena, request->query, own_name, &call->values[place]))
            return refuse(request, arena_printf(request->arena, "%s can't be read", own_name));
    }
    return true;
}

struct reading {
    struct request *request;
    struct operator_call *call;
    bool fine;
};

/* Numbers may stand where a text is asked for: {"account":12}. */
static struct str value_text(const struct operator_argument *argument, const struct json *value)
{
    bool truth;
    switch (argument->type) {
    case OPERATOR_FILE: return json_string(value);
    case OPERATOR_TEXT: return json_string(value).at ? json_string(value) : json_number_text(value);
    case OPERATOR_TIME: return json_string(value);
    case OPERATOR_NUMBER: return json_number_text(value);
    case OPERATOR_SWITCH: return !json_to_bool(value, &truth) ? STR_NONE : truth ? STR("true") : STR("false");
    }
    UNREACHABLE();
}

static bool read_member(struct str name, const struct json *value, void *arg)
{
    static const char *const types[] = {"a string", "a whole number", "true or false", "a string", "a time"};
    struct reading *reading = arg;
    const struct operator_verb *verb = reading->call->verb;
    size_t place = operator_argument(verb, name);
    if (place == OPERATOR_ARGUMENTS_MAX)
        return reading->fine = refuse(reading->request, "There is no member of that name");
    if (json_type_of(value) == JSON_NULL) /* as if it were not there */
        return true;
    const struct operator_argument *argument = &verb->arguments[place];
    struct str text = value_text(argument, value);
    if (!text.at || reading->call->values[place].at)
        return reading->fine = refuse(reading->request, arena_printf(reading->request->arena, "%s must be %s",
                                                                     argument->name, types[argument->type]));
    reading->call->values[place] = text;
    return true;
}

static bool read_body(struct request *request, struct operator_call *call)
{
    struct reading reading = {.request = request, .call = call, .fine = true};
    const struct json *body = request_json(request);
    if (!body)
        return false;
    json_each(body, read_member, &reading);
    return reading.fine;
}

/* ---- answers ---- */

static void reply_problem(struct request *request, const struct operator_call *call, int result)
{
    switch (result) {
    case -EINVAL: reply_error(request, ERROR_INVALID_PARAMETER, call->problem); return;
    case -ENOENT: reply_error(request, ERROR_NOT_FOUND, call->problem); return;
    case -EEXIST: reply_error(request, ERROR_CONFLICT, call->problem); return;
    case -EBUSY: /* too many passwords are hashed already */
        reply_header(request, "Retry-After", "1");
        reply_error(request, ERROR_UNAVAILABLE, NULL);
        return;
    default: reply_failure(request, result);
    }
}

void operator_handle(struct request *request)
{
    struct operator_call call = {.verb = verb_of(request), .arena = request->arena};
    reply_header(request, "Cache-Control", "no-store");
    if (!(call.verb->how == OPERATOR_READS ? read_query(request, &call) : read_body(request, &call)))
        return;
    struct buf body = stream_spare_take();
    struct json_out out = json_out_to(&body);
    call.out = &out;
    int result = operator_check(&call);
    if (result == 0)
        result = call.verb->run(&call);
    if (result == 0) {
        buf_add_char(&body, '\n');
        reply_body(request, 200, "application/json", buf_str(&body));
    } else {
        reply_problem(request, &call, result);
    }
    if (call.shows_secret && body.at)
        crypto_wipe(body.at, body.size);
    stream_spare_give(&body);
}

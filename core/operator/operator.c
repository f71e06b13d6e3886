/* The table of verbs, and how they read what they are given: see operator.h. */
#include "core/operator/operator.h"

#include "core/base/clock.h"
#include "core/operator/verbs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const struct operator_verb operator_verbs[] = {
#define OPERATOR_ROW(noun_, verb_, how_, help_)                                                              \
    {#noun_,                                                                                                 \
     #verb_,                                                                                                 \
     OPERATOR_##how_,                                                                                        \
     help_,                                                                                                  \
     operator_##noun_##_##verb_,                                                                             \
     operator_##noun_##_##verb_##_arguments},
    OPERATOR_VERBS(OPERATOR_ROW)
#undef OPERATOR_ROW
};
const size_t operator_verb_count = ARRAY_SIZE(operator_verbs);

const struct operator_verb *operator_find(struct str noun, struct str verb)
{
    for (size_t i = 0; i < operator_verb_count; i++)
        if (str_equal(noun, str_from(operator_verbs[i].noun)) &&
            str_equal(verb, str_from(operator_verbs[i].verb)))
            return &operator_verbs[i];
    return NULL;
}

static bool is_name(const char *name, struct str given)
{
    if (strlen(name) != given.size)
        return false;
    for (size_t i = 0; i < given.size; i++)
        if (given.at[i] != name[i] && !(given.at[i] == '-' && name[i] == '_'))
            return false;
    return true;
}

size_t operator_argument(const struct operator_verb *verb, struct str name)
{
    size_t i;
    for (i = 0; verb->arguments[i].name; i++) {
        CHECK(i < OPERATOR_ARGUMENTS_MAX);
        if (is_name(verb->arguments[i].name, name))
            return i;
    }
    return OPERATOR_ARGUMENTS_MAX;
}

int operator_fail(struct operator_call *call, int result, const char *format, ...)
{
    va_list args;
    struct buf text = {0};
    char *at = buf_reserve(&text, 512);
    va_start(args, format);
    vsnprintf(at, 512, format, args);
    va_end(args);
    call->problem = arena_strdup(call->arena, at);
    buf_clear(&text);
    return result;
}

/* ---- checking ---- */

static bool read_time(struct arena *arena, struct str text, int64_t *unix_ms)
{
    static const char *const formats[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"};
    static const size_t sizes[] = {20, 10};
    const char *terminated = arena_dup(arena, text.at, text.size);
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        struct tm parts = {0};
        const char *end = text.size == sizes[i] ? strptime(terminated, formats[i], &parts) : NULL;
        if (!end || *end)
            continue;
        /* timegm makes the 1st of March of the 29th of February where there is none. */
        int day = parts.tm_mday;
        time_t seconds = timegm(&parts);
        *unix_ms = (int64_t)seconds * 1000;
        return parts.tm_mday == day && seconds > 0;
    }
    return false;
}

static int check_value(struct operator_call *call, const struct operator_argument *argument, struct str value)
{
    uint64_t number;
    int64_t time_ms;
    switch (argument->type) {
    case OPERATOR_TEXT:
    case OPERATOR_FILE:
        if (value.size == 0)
            return operator_fail(call, -EINVAL, "%s must not be empty", argument->name);
        if (!str_is_utf8(value) || memchr(value.at, '\0', value.size))
            return operator_fail(call, -EINVAL, "%s must be UTF-8 without NUL", argument->name);
        return 0;
    case OPERATOR_NUMBER:
        if (!str_to_u64(value, &number) || number > INT64_MAX)
            return operator_fail(call, -EINVAL, "%s must be a whole number", argument->name);
        return 0;
    case OPERATOR_SWITCH:
        if (!str_equal(value, STR("true")) && !str_equal(value, STR("false")))
            return operator_fail(call, -EINVAL, "%s must be true or false", argument->name);
        return 0;
    case OPERATOR_TIME:
        if (!read_time(call->arena, value, &time_ms))
            return operator_fail(call, -EINVAL, "%s must be a time as 2026-01-31T12:00:00Z, or a day",
                                 argument->name);
        return 0;
    }
    UNREACHABLE();
}

int operator_check(struct operator_call *call)
{
    const struct operator_argument *arguments = call->verb->arguments;
    int result = 0;
    for (size_t i = 0; result == 0 && arguments[i].name; i++) {
        if (call->values[i].at)
            result = check_value(call, &arguments[i], call->values[i]);
        else if (arguments[i].flags & OPERATOR_REQUIRED)
            result = operator_fail(call, -EINVAL, "%s is required", arguments[i].name);
    }
    return result;
}

/* ---- reading ---- */

struct str operator_text(const struct operator_call *call, const char *name)
{
    size_t i = operator_argument(call->verb, str_from(name));
    CHECK(i < OPERATOR_ARGUMENTS_MAX);
    return call->values[i];
}

int64_t operator_number(const struct operator_call *call, const char *name, int64_t otherwise)
{
    int64_t number;
    return str_to_i64(operator_text(call, name), &number) ? number : otherwise;
}

bool operator_switch(const struct operator_call *call, const char *name)
{
    return str_equal(operator_text(call, name), STR("true"));
}

int64_t operator_time_ms(const struct operator_call *call, const char *name)
{
    int64_t unix_ms;
    struct str text = operator_text(call, name);
    return text.at && read_time(call->arena, text, &unix_ms) ? unix_ms : 0;
}

int operator_words(struct operator_call *call, const char *name, struct str *words, size_t most,
                   size_t *count)
{
    struct str text = operator_text(call, name);
    *count = 0;
    for (size_t i = 0; i < text.size;) {
        size_t start = i;
        while (i < text.size && text.at[i] != ' ' && text.at[i] != ',')
            i++;
        if (i > start) {
            if (*count == most)
                return operator_fail(call, -EINVAL, "%s can have %zu at most", name, most);
            words[(*count)++] = str_of(text.at + start, i - start);
        }
        i++;
    }
    return 0;
}

int operator_page(struct operator_call *call, int64_t *limit, int64_t *cursor)
{
    *limit = operator_number(call, "limit", OPERATOR_PAGE);
    *cursor = operator_number(call, "cursor", 0);
    if (*limit >= 1 && *limit <= OPERATOR_PAGE_MAX)
        return 0;
    return operator_fail(call, -EINVAL, "limit must be a whole number from 1 to %d", OPERATOR_PAGE_MAX);
}

/* ---- writing ---- */

void operator_put_time(struct json_out *out, const char *name, int64_t unix_ms)
{
    char text[CLOCK_ISO_SIZE];
    json_put_text(out, name, unix_ms ? clock_format_iso(text, unix_ms) : NULL);
}

void operator_put_words(struct json_out *out, const char *name, struct str words)
{
    if (!words.at) {
        json_put_null(out, name);
        return;
    }
    struct str word;
    json_key(out, name);
    json_open(out, '[');
    while (str_split(&words, ' ', &word))
        if (word.size)
            json_put_str(out, NULL, word);
    json_close(out, ']');
}

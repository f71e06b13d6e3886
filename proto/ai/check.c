/* Checks of single values in a client's request: see check.h. */
#include "proto/ai/check.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- refusals ---- */

/* Calls itself once a level: paths are as deep as our own code makes them. */
static void put_path(struct buf *out, const struct ai_path *path)
{
    if (!path)
        return;
    put_path(out, path->above);
    if (!path->name) {
        buf_printf(out, "[%zu]", path->item);
        return;
    }
    if (out->size > 0)
        buf_add_char(out, '.');
    buf_add_text(out, path->name);
}

static struct str path_text(struct arena *arena, const struct ai_path *path)
{
    if (!path)
        return STR_NONE;
    struct buf text = {0};
    put_path(&text, path);
    struct str copy = arena_str(arena, buf_str(&text));
    buf_clear(&text);
    return copy;
}

bool ai_refuse(const struct ai_check *check, const struct ai_path *path, const char *code, const char *format,
               ...)
{
    va_list args;
    char text[256];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct str param = path_text(check->arena, path);
    const char *message = arena_strdup(check->arena, text);
    if (param.at)
        message = arena_printf(check->arena, "%.*s: %s", STR_ARG(param), text);
    *check->refusal = (struct ai_refusal){.message = str_from(message), .param = param, .code = code};
    return false;
}

enum { UNKNOWN_SHOWN_MAX = 100 /* bytes of such a name */ };

bool ai_refuse_unknown(const struct ai_check *check, const struct ai_path *above, struct str name)
{
    struct str shown = str_of(name.at, name.size > UNKNOWN_SHOWN_MAX ? UNKNOWN_SHOWN_MAX : name.size);
    while (shown.size > 0 && !str_is_utf8(shown))
        shown.size--;
    char *copy = arena_dup(check->arena, shown.at, shown.size);
    struct str param = path_text(check->arena, AI_PATH(above, copy));
    const char *message =
        arena_printf(check->arena, "Unrecognized request argument supplied: %.*s", STR_ARG(param));
    *check->refusal =
        (struct ai_refusal){.message = str_from(message), .param = param, .code = "unknown_parameter"};
    return false;
}

/* ---- types ---- */

static const char *const type_names[] = {
    [JSON_NULL] = "null",       [JSON_BOOL] = "a boolean", [JSON_NUMBER] = "a number",
    [JSON_STRING] = "a string", [JSON_ARRAY] = "an array", [JSON_OBJECT] = "an object",
};

bool ai_check_type(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                   enum json_type type)
{
    if (json_type_of(value) == type)
        return true;
    return ai_refuse(check, path, "invalid_type", "expected %s, but got %s", type_names[type],
                     type_names[json_type_of(value)]);
}

bool ai_check_integer(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                      int64_t low, int64_t high)
{
    int64_t number;
    if (!ai_check_type(check, path, value, JSON_NUMBER))
        return false;
    if (!json_to_i64(value, &number))
        return ai_refuse(check, path, "invalid_type", "expected an integer");
    if (number < low)
        return ai_refuse(check, path, "integer_below_min_value", "expected at least %lld", (long long)low);
    if (number > high)
        return ai_refuse(check, path, "integer_above_max_value", "expected at most %lld", (long long)high);
    return true;
}

/* ---- numbers, by their digits ---- */

/* Beyond, more makes no difference to a body of any size. */
#define EXPONENT_MAX INT64_C(1000000000000000)

/* 0.DIGITS times ten to the `point`; the first digit is not 0. No digits: 0. */
struct decimal {
    bool negative;
    struct str digits; /* there may be a point in them */
    int64_t point;
};

static int64_t exponent_of(struct str text)
{
    bool negative = text.size > 0 && text.at[0] == '-';
    int64_t exponent = 0;
    for (size_t i = 0; i < text.size; i++)
        if (text.at[i] >= '0' && text.at[i] <= '9' && exponent < EXPONENT_MAX)
            exponent = exponent * 10 + (text.at[i] - '0');
    return negative ? -exponent : exponent;
}

static struct decimal decimal_of(struct str text)
{
    struct decimal decimal = {.negative = text.size > 0 && text.at[0] == '-'};
    size_t i = decimal.negative ? 1 : 0;
    size_t end = i;
    while (end < text.size && text.at[end] != 'e' && text.at[end] != 'E')
        end++;
    const char *point = memchr(text.at + i, '.', end - i);
    size_t whole_end = point ? (size_t)(point - text.at) : end;
    while (i < end && (text.at[i] == '0' || text.at[i] == '.'))
        i++;
    decimal.digits = str_of(text.at + i, end - i);
    decimal.point = i <= whole_end ? (int64_t)(whole_end - i) : -(int64_t)(i - whole_end - 1);
    if (end < text.size)
        decimal.point += exponent_of(str_of(text.at + end + 1, text.size - end - 1));
    return decimal;
}

/* The n-th digit without the point, 0 beyond the last. */
static char next_digit(struct str digits, size_t *at)
{
    if (*at < digits.size && digits.at[*at] == '.')
        ++*at;
    return *at < digits.size ? digits.at[(*at)++] : '0';
}

static int compare_sizes(const struct decimal *a, const struct decimal *b)
{
    if (a->digits.size == 0 || b->digits.size == 0)
        return (a->digits.size > 0) - (b->digits.size > 0);
    if (a->point != b->point)
        return a->point < b->point ? -1 : 1;
    for (size_t i = 0, k = 0; i < a->digits.size || k < b->digits.size;) {
        char left = next_digit(a->digits, &i);
        char right = next_digit(b->digits, &k);
        if (left != right)
            return left < right ? -1 : 1;
    }
    return 0;
}

int ai_compare_number(struct str number, int64_t with)
{
    struct buf text = {0};
    buf_add_i64(&text, with);
    struct decimal a = decimal_of(number);
    struct decimal b = decimal_of(buf_str(&text));
    bool below = a.negative && a.digits.size > 0;
    int result = below ? -1 : 1;
    if (below == (with < 0))
        result *= compare_sizes(&a, &b);
    buf_clear(&text);
    return result;
}

bool ai_check_number(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                     int low, int high)
{
    if (!ai_check_type(check, path, value, JSON_NUMBER))
        return false;
    if (ai_compare_number(json_number_text(value), low) < 0)
        return ai_refuse(check, path, "decimal_below_min_value", "expected at least %d", low);
    if (ai_compare_number(json_number_text(value), high) > 0)
        return ai_refuse(check, path, "decimal_above_max_value", "expected at most %d", high);
    return true;
}

/* ---- texts ---- */

bool ai_check_string(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                     size_t least, size_t most)
{
    if (!ai_check_type(check, path, value, JSON_STRING))
        return false;
    struct str text = json_string(value);
    if (text.size < least)
        return ai_refuse(check, path, "string_too_short", "expected at least %zu bytes", least);
    if (text.size > most)
        return ai_refuse(check, path, "string_too_long", "expected at most %zu bytes", most);
    return true;
}

bool ai_check_word(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                   const char *words)
{
    struct str rest = str_from(words);
    struct str word;
    if (!ai_check_type(check, path, value, JSON_STRING))
        return false;
    while (str_split(&rest, ' ', &word))
        if (str_equal(json_string(value), word))
            return true;
    return ai_refuse(check, path, "invalid_value", "supported values are: %s", words);
}

bool ai_check_name(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    if (!ai_check_string(check, path, value, 1, 64))
        return false;
    struct str name = json_string(value);
    for (size_t i = 0; i < name.size; i++) {
        char c = name.at[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                    c == '-';
        if (!fine)
            return ai_refuse(check, path, "invalid_value", "expected letters, digits, '_' and '-' alone");
    }
    return true;
}

/* ---- objects ---- */

struct members_check {
    const struct ai_check *check;
    const struct ai_path *path;
    const struct ai_member *members;
    bool fine;
};

static bool check_member(struct str name, const struct json *value, void *arg)
{
    struct members_check *all = arg;
    const struct ai_member *member = all->members;
    while (member->name && !str_equal(name, str_from(member->name)))
        member++;
    if (!member->name)
        all->fine = ai_refuse_unknown(all->check, all->path, name);
    else if (member->check && json_type_of(value) != JSON_NULL)
        all->fine = member->check(all->check, AI_PATH(all->path, member->name), value);
    return all->fine;
}

bool ai_check_members(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                      const struct ai_member *members)
{
    if (!ai_check_type(check, path, value, JSON_OBJECT))
        return false;
    struct members_check all = {.check = check, .path = path, .members = members, .fine = true};
    json_each(value, check_member, &all);
    for (; all.fine && members->name; members++)
        if (members->required && json_type_of(json_member(value, members->name)) == JSON_NULL)
            all.fine =
                ai_refuse(check, AI_PATH(path, members->name), "missing_required_parameter", "is required");
    return all.fine;
}

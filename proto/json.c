/*
 * JSON: reading on yyjson, writing by hand.
 *
 *     text ──copy──▶ arena ──yyjson, in place──▶ its values ──convert──▶ struct json in the arena
 *
 * yyjson decides what is JSON, but it checks neither duplicate names nor depth, and its items can only be walked in
 * turn. So its values are turned into our own, where the n-th item costs nothing to find, and both checks are made
 * on the way; yyjson's memory is given back at once. Nothing here calls itself without a bound: fibers' stacks are
 * small, and the input is a stranger's.
 */
#include "proto/json.h"

#include "core/base/crypto.h"
#include "core/base/escape.h"

#include <stdlib.h>
#include <yyjson.h>

/* An object's items are its members, each a name (a JSON_STRING) and the value behind it. */
struct json {
    uint32_t type;  /* enum json_type */
    uint32_t count; /* bytes, items or members; of a JSON_BOOL its truth */
    union {
        const char *text;
        const struct json *items;
    } is;
};

static struct str text_of(const struct json *value)
{
    return str_of(value->is.text, value->count);
}

/* ---- duplicate names ---- */

enum { PAIRWISE_MAX = 8 };

__extension__ typedef unsigned __int128 wide;

/* 2^61 - 1: a prime, so that the hash is a polynomial over a field. */
#define FIELD ((UINT64_C(1) << 61) - 1)

static uint64_t field_multiply(uint64_t a, uint64_t b)
{
    wide product = (wide)a * b;
    uint64_t sum = (uint64_t)(product & FIELD) + (uint64_t)(product >> 61);
    return sum >= FIELD ? sum - FIELD : sum;
}

/* The name as a polynomial, at a point that a peer can't know: names made to collide are no more likely to than
 * others, so a hostile object costs what a friendly one does. */
static uint64_t hash_name(struct str name, uint64_t point)
{
    uint64_t hash = field_multiply(name.size + 1, point);
    for (size_t at = 0; at < name.size; at += 7) {
        uint64_t word = 0;
        memcpy(&word, name.at + at, name.size - at < 7 ? name.size - at : 7);
        uint64_t sum = hash + word;
        hash = field_multiply(sum >= FIELD ? sum - FIELD : sum, point);
    }
    return hash;
}

static uint64_t hash_point(void)
{
    static _Thread_local uint64_t point;
    while (UNLIKELY(point == 0)) {
        crypto_random(&point, sizeof point);
        point %= FIELD;
    }
    return point;
}

static bool repeats_pairwise(const struct json *members, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        for (uint32_t k = 0; k < i; k++)
            if (str_equal(text_of(&members[2 * i]), text_of(&members[2 * k])))
                return true;
    return false;
}

/* A table of chains; members are counted from 1, 0 ends a chain. */
static bool repeats_hashed(const struct json *members, uint32_t count)
{
    size_t heads = PAIRWISE_MAX;
    while (heads < count)
        heads *= 2;
    uint32_t *head = mem_zalloc((heads + count + 1) * sizeof *head);
    uint32_t *next = head + heads;
    uint64_t point = hash_point();
    bool found = false;
    for (uint32_t i = 1; i <= count && !found; i++) {
        struct str name = text_of(&members[2 * (i - 1)]);
        uint32_t *chain = &head[hash_name(name, point) & (heads - 1)];
        for (uint32_t k = *chain; k && !found; k = next[k])
            found = str_equal(name, text_of(&members[2 * (k - 1)]));
        next[i] = *chain;
        *chain = i;
    }
    free(head);
    return found;
}

static bool repeats_name(const struct json *object)
{
    if (object->count <= PAIRWISE_MAX)
        return repeats_pairwise(object->is.items, object->count);
    return repeats_hashed(object->is.items, object->count);
}

/* ---- reading ---- */

/* A container whose items are being converted. */
struct level {
    const struct json *container;
    struct json *to;
    yyjson_val *from;
    size_t left;
};

static size_t items_of(const struct json *container)
{
    return container->type == JSON_OBJECT ? (size_t)container->count * 2 : container->count;
}

/* Fills `to`; returns true when it is a container whose items are still to be made. */
static bool convert(struct json *to, yyjson_val *from)
{
    *to = (struct json){.type = JSON_NULL};
    switch (yyjson_get_type(from)) {
    case YYJSON_TYPE_BOOL:
        to->type = JSON_BOOL;
        to->count = yyjson_get_bool(from);
        return false;
    case YYJSON_TYPE_RAW:
        to->type = JSON_NUMBER;
        to->count = (uint32_t)yyjson_get_len(from);
        to->is.text = yyjson_get_raw(from);
        return false;
    case YYJSON_TYPE_STR:
        to->type = JSON_STRING;
        to->count = (uint32_t)yyjson_get_len(from);
        to->is.text = yyjson_get_str(from);
        return false;
    case YYJSON_TYPE_ARR:
    case YYJSON_TYPE_OBJ:
        to->type = yyjson_is_obj(from) ? JSON_OBJECT : JSON_ARRAY;
        to->count = (uint32_t)unsafe_yyjson_get_len(from);
        return true;
    default: CHECK(yyjson_is_null(from)); return false;
    }
}

static struct json *convert_all(struct arena *arena, yyjson_val *from, const char **error)
{
    struct level levels[JSON_DEPTH_MAX];
    unsigned depth = 0;
    struct json *root = arena_alloc(arena, sizeof *root);
    struct json *to = root;
    for (;;) {
        if (convert(to, from)) {
            if (depth == JSON_DEPTH_MAX) {
                *error = "nested too deeply";
                return NULL;
            }
            size_t items = items_of(to);
            struct json *space = arena_alloc(arena, items * sizeof *space);
            to->is.items = space;
            levels[depth++] = (struct level){to, space, unsafe_yyjson_get_first(from), items};
        }
        while (depth > 0 && levels[depth - 1].left == 0) {
            const struct json *container = levels[--depth].container;
            if (container->type == JSON_OBJECT && repeats_name(container)) {
                *error = "a name appears twice in an object";
                return NULL;
            }
        }
        if (depth == 0)
            return root;
        struct level *level = &levels[depth - 1];
        level->left--;
        to = level->to++;
        from = level->from;
        /* Behind the last item there may be nothing to look at. */
        if (level->left > 0)
            level->from = unsafe_yyjson_get_next(from);
    }
}

const struct json *json_read(struct arena *arena, struct str text, const char **error)
{
    if (text.size == 0) {
        *error = "empty";
        return NULL;
    }
    if (text.size > UINT32_MAX) {
        *error = "too long";
        return NULL;
    }
    char *copy = arena_alloc(arena, text.size + YYJSON_PADDING_SIZE);
    memcpy(copy, text.at, text.size);
    memset(copy + text.size, 0, YYJSON_PADDING_SIZE);
    yyjson_read_err problem;
    yyjson_doc *doc =
        yyjson_read_opts(copy, text.size, YYJSON_READ_INSITU | YYJSON_READ_NUMBER_AS_RAW, NULL, &problem);
    if (!doc) {
        CHECK(problem.code != YYJSON_READ_ERROR_MEMORY_ALLOCATION);
        *error = problem.msg;
        return NULL;
    }
    struct json *root = convert_all(arena, yyjson_doc_get_root(doc), error);
    yyjson_doc_free(doc);
    return root;
}

/* ---- looking ---- */

static bool is_a(const struct json *value, enum json_type type)
{
    return value && value->type == type;
}

enum json_type json_type_of(const struct json *value)
{
    return value ? (enum json_type)value->type : JSON_NULL;
}

const struct json *json_member(const struct json *object, const char *name)
{
    if (!is_a(object, JSON_OBJECT))
        return NULL;
    struct str wanted = str_from(name);
    for (size_t i = 0; i < object->count; i++)
        if (str_equal(text_of(&object->is.items[2 * i]), wanted))
            return &object->is.items[2 * i + 1];
    return NULL;
}

struct str json_string(const struct json *value)
{
    return is_a(value, JSON_STRING) ? text_of(value) : STR_NONE;
}

struct str json_number_text(const struct json *value)
{
    return is_a(value, JSON_NUMBER) ? text_of(value) : STR_NONE;
}

bool json_to_i64(const struct json *value, int64_t *number)
{
    return is_a(value, JSON_NUMBER) && str_to_i64(text_of(value), number);
}

bool json_to_bool(const struct json *value, bool *truth)
{
    if (!is_a(value, JSON_BOOL))
        return false;
    *truth = value->count != 0;
    return true;
}

size_t json_count(const struct json *value)
{
    return is_a(value, JSON_ARRAY) || is_a(value, JSON_OBJECT) ? value->count : 0;
}

const struct json *json_item(const struct json *array, size_t index)
{
    return is_a(array, JSON_ARRAY) && index < array->count ? &array->is.items[index] : NULL;
}

void json_each(const struct json *object, bool (*each)(struct str name, const struct json *value, void *arg),
               void *arg)
{
    if (!is_a(object, JSON_OBJECT))
        return;
    for (size_t i = 0; i < object->count; i++)
        if (!each(text_of(&object->is.items[2 * i]), &object->is.items[2 * i + 1], arg))
            return;
}

/* ---- writing ---- */

/* Calls itself for each container: JSON_DEPTH_MAX times at most. */
void json_write_value(struct buf *out, const struct json *value)
{
    switch (json_type_of(value)) {
    case JSON_NULL: buf_add_literal(out, "null"); return;
    case JSON_BOOL: buf_add_str(out, value->count ? STR("true") : STR("false")); return;
    case JSON_NUMBER: buf_add_str(out, text_of(value)); return;
    case JSON_STRING: escape_json(out, text_of(value)); return;
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    bool object = value->type == JSON_OBJECT;
    buf_add_char(out, object ? '{' : '[');
    for (size_t i = 0; i < items_of(value); i++) {
        if (i > 0)
            buf_add_char(out, object && i % 2 ? ':' : ',');
        json_write_value(out, &value->is.items[i]);
    }
    buf_add_char(out, object ? '}' : ']');
}

struct json_out json_out_to(struct buf *to)
{
    return (struct json_out){.to = to, .comma = false};
}

/* What stands before a value: a comma after another one, and its name. */
static void begin_value(struct json_out *out, const char *name)
{
    if (name) {
        json_key(out, name);
        return;
    }
    if (out->comma)
        buf_add_char(out->to, ',');
}

void json_key(struct json_out *out, const char *name)
{
    if (out->comma)
        buf_add_char(out->to, ',');
    escape_json(out->to, str_from(name));
    buf_add_char(out->to, ':');
    out->comma = false;
}

void json_open(struct json_out *out, char bracket)
{
    begin_value(out, NULL);
    buf_add_char(out->to, bracket);
    out->comma = false;
}

void json_close(struct json_out *out, char bracket)
{
    buf_add_char(out->to, bracket);
    out->comma = true;
}

void json_put_raw(struct json_out *out, const char *name, struct str json)
{
    begin_value(out, name);
    buf_add_str(out->to, json);
    out->comma = true;
}

void json_put_null(struct json_out *out, const char *name)
{
    json_put_raw(out, name, STR("null"));
}

void json_put_bool(struct json_out *out, const char *name, bool value)
{
    json_put_raw(out, name, value ? STR("true") : STR("false"));
}

void json_put_str(struct json_out *out, const char *name, struct str value)
{
    if (!value.at) {
        json_put_null(out, name);
        return;
    }
    begin_value(out, name);
    escape_json(out->to, value);
    out->comma = true;
}

void json_put_text(struct json_out *out, const char *name, const char *value)
{
    json_put_str(out, name, str_from(value));
}

void json_put_int(struct json_out *out, const char *name, int64_t value)
{
    begin_value(out, name);
    buf_add_i64(out->to, value);
    out->comma = true;
}

void json_put_value(struct json_out *out, const char *name, const struct json *value)
{
    begin_value(out, name);
    json_write_value(out->to, value);
    out->comma = true;
}

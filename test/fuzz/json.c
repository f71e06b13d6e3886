/* JSON: what was read, written and read again is the same; what the emitter writes of any bytes can be read. */
#include "proto/json.h"
#include "test/fuzz/support.h"

#include <stdlib.h>

static const struct json *must_read(struct arena *arena, struct str text)
{
    const char *error = NULL;
    const struct json *value = json_read(arena, text, &error);
    CHECK(value);
    return value;
}

/* Deep as the reader allows, and no deeper. */
static void check_value(const struct json *value, int depth);

struct walk {
    size_t members;
    int depth;
};

static bool check_member(struct str name, const struct json *value, void *arg)
{
    struct walk *walk = arg;
    walk->members++;
    CHECK(str_is_utf8(name));
    check_value(value, walk->depth);
    return true;
}

static void check_value(const struct json *value, int depth)
{
    int64_t number;
    bool truth;
    struct walk walk = {.members = 0, .depth = depth + 1};
    CHECK(depth <= JSON_DEPTH_MAX);
    switch (json_type_of(value)) {
    case JSON_NULL: break;
    case JSON_BOOL: CHECK(json_to_bool(value, &truth)); break;
    case JSON_NUMBER:
        CHECK(json_number_text(value).size > 0);
        CHECK(!json_to_i64(value, &number) ||
              !memchr(json_number_text(value).at, '.', json_number_text(value).size));
        break;
    case JSON_STRING: CHECK(str_is_utf8(json_string(value))); break;
    case JSON_ARRAY:
        for (size_t i = 0; i < json_count(value); i++)
            check_value(json_item(value, i), depth + 1);
        CHECK(!json_item(value, json_count(value)));
        break;
    case JSON_OBJECT:
        json_each(value, check_member, &walk);
        CHECK(walk.members == json_count(value));
        break;
    }
}

static void check_read(struct arena *arena, struct str input)
{
    const char *error = NULL;
    const struct json *value = json_read(arena, input, &error);
    if (!value) {
        CHECK(error);
        return;
    }
    check_value(value, 0);
    struct buf once = {0};
    struct buf twice = {0};
    json_write_value(&once, value);
    json_write_value(&twice, must_read(arena, buf_str(&once)));
    CHECK(str_equal(buf_str(&once), buf_str(&twice)));
    struct json_out out = json_out_to(&twice);
    twice.size = 0;
    json_open(&out, '[');
    json_put_value(&out, NULL, value);
    json_put_int(&out, NULL, INT64_MIN);
    json_close(&out, ']');
    /* One container more than was read may be too deep. */
    const struct json *list = json_read(arena, buf_str(&twice), &error);
    CHECK(!list || json_count(list) == 2);
    buf_clear(&once);
    buf_clear(&twice);
}

static void check_emitter(struct arena *arena, struct str input)
{
    struct buf text = {0};
    struct json_out out = json_out_to(&text);
    json_open(&out, '{');
    json_put_str(&out, "text", input);
    json_put_null(&out, "nothing");
    json_key(&out, "list");
    json_open(&out, '[');
    json_put_str(&out, NULL, input);
    json_put_bool(&out, NULL, true);
    json_close(&out, ']');
    json_close(&out, '}');
    const struct json *value = must_read(arena, buf_str(&text));
    CHECK(json_count(value) == 3);
    CHECK(!str_is_utf8(input) || str_equal(json_string(json_member(value, "text")), input));
    CHECK(json_type_of(json_item(json_member(value, "list"), 1)) == JSON_BOOL);
    buf_clear(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct arena arena;
    arena_init(&arena);
    /* In a block of its own, that ends with the text. */
    char *exact = mem_alloc(size ? size : 1);
    if (size)
        memcpy(exact, bytes, size);
    check_read(&arena, str_of(exact, size));
    check_emitter(&arena, str_of(exact, size));
    free(exact);
    arena_clear(&arena);
    return 0;
}

#ifndef PROTO_JSON_H
#define PROTO_JSON_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * JSON (RFC 8259). Reading is strict: one value and nothing behind it, valid UTF-8, no lone surrogates, no
 * duplicate keys, nesting up to JSON_DEPTH_MAX; numbers keep their exact spelling. Writing is a small emitter
 * into a buffer, so an answer costs no tree.
 */

enum { JSON_DEPTH_MAX = 64 };

struct json; /* one value of a document; lives in the arena it was read into */

/* Reads `text` into the arena (the text is copied). NULL on bad input, with a short reason for people in
 * *error, never quoting the input. */
const struct json *json_read(struct arena *arena, struct str text, const char **error);

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* JSON_NULL for NULL. */
enum json_type json_type_of(const struct json *value);

/* The member of an object; NULL when it has none of that name or is no object (NULL included). */
const struct json *json_member(const struct json *object, const char *name);

/* Absent (STR_NONE) when the value is NULL or no string. May contain NUL bytes. */
struct str json_string(const struct json *value);
/* False when the value is NULL, no number, has a fraction or exponent, or does not fit. */
bool json_to_i64(const struct json *value, int64_t *number);
bool json_to_bool(const struct json *value, bool *truth);
/* The number as it was spelled; absent when the value is no number. */
struct str json_number_text(const struct json *value);

size_t json_count(const struct json *value);                          /* of an array or object, else 0 */
const struct json *json_item(const struct json *array, size_t index); /* NULL beyond the end */
/* Calls back for each member in the order of the text, until it returns false. */
void json_each(const struct json *object, bool (*each)(struct str name, const struct json *value, void *arg),
               void *arg);

/* Appends the value's JSON text, compact, in its own member order, with numbers as they were spelled. */
void json_write_value(struct buf *out, const struct json *value);

/*
 * The emitter. Commas and colons come by themselves:
 *
 *     struct json_out out = json_out_to(&buf);
 *     json_open(&out, '{');
 *     json_put_str(&out, "uuid", uuid);
 *     json_put_int(&out, "queue_length", 3);
 *     json_key(&out, "session"); json_open(&out, '{'); ... json_close(&out, '}');
 *     json_close(&out, '}');
 *
 * Inside an array `name` is NULL. Strings are escaped; what is not UTF-8 becomes U+FFFD.
 */
struct json_out {
    struct buf *to;
    bool comma; /* the next value needs one before it */
};

struct json_out json_out_to(struct buf *to);
void json_open(struct json_out *out, char bracket);
void json_close(struct json_out *out, char bracket);
void json_key(struct json_out *out, const char *name);
void json_put_str(struct json_out *out, const char *name, struct str value);   /* absent: null */
void json_put_text(struct json_out *out, const char *name, const char *value); /* NULL: null */
void json_put_int(struct json_out *out, const char *name, int64_t value);
void json_put_bool(struct json_out *out, const char *name, bool value);
void json_put_null(struct json_out *out, const char *name);
/* `json` is one JSON value already. */
void json_put_raw(struct json_out *out, const char *name, struct str json);
void json_put_value(struct json_out *out, const char *name, const struct json *value);

#endif

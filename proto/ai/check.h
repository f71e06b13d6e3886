#ifndef PROTO_AI_CHECK_H
#define PROTO_AI_CHECK_H

#include "proto/ai/request.h"

/*
 * Checks of single values in a client's request. Each returns false with the refusal filled when the value is not as it should be;
 * where in the body it stands is told by a path, which costs nothing until it has to be shown.
 */

struct ai_path {
    const struct ai_path *above; /* NULL: the body */
    const char *name;            /* of the member; NULL: an item of an array */
    size_t item;
};

#define AI_PATH(above, name) (&(const struct ai_path){(above), (name), 0})
#define AI_PATH_ITEM(above, item) (&(const struct ai_path){(above), NULL, (item)})

struct ai_check {
    struct arena *arena;
    struct ai_refusal *refusal;
};

/* Fills the refusal; always false. `code` may be NULL. */
bool ai_refuse(const struct ai_check *check, const struct ai_path *path, const char *code, const char *format,
               ...) PRINTF_LIKE(4, 5);
/* For a name that the client has chosen, and that is known nowhere. */
bool ai_refuse_unknown(const struct ai_check *check, const struct ai_path *above, struct str name);

bool ai_check_type(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                   enum json_type type);
bool ai_check_integer(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                      int64_t low, int64_t high);
/* Any number, with fraction or exponent, from `low` to `high`; compared by its digits, exactly. */
bool ai_check_number(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                     int low, int high);
/* Of `least` to `most` bytes. */
bool ai_check_string(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                     size_t least, size_t most);
/* One of `words`, which are separated by spaces. */
bool ai_check_word(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                   const char *words);
/* A function's or tool's name: 1 to 64 of [A-Za-z0-9_-]. */
bool ai_check_name(const struct ai_check *check, const struct ai_path *path, const struct json *value);

/* Below 0, 0 or above: the number, as JSON spells it, against a whole one. */
int ai_compare_number(struct str number, int64_t with);

/* A member of an object of the client's; rows end with a NULL name. */
struct ai_member {
    const char *name;
    bool required;
    /* NULL: any value. `path` is the member's. A null value is as an absent one, and not checked. */
    bool (*check)(const struct ai_check *check, const struct ai_path *path, const struct json *value);
};

/* An object with these members and no others. */
bool ai_check_members(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                      const struct ai_member *members);

/* ---- parts of a request ---- */

bool ai_check_messages(const struct ai_check *check, const struct ai_path *path, const struct json *value);
bool ai_check_tools(const struct ai_check *check, const struct ai_path *path, const struct json *value);
bool ai_check_tool_choice(const struct ai_check *check, const struct ai_path *path, const struct json *value);
bool ai_check_functions(const struct ai_check *check, const struct ai_path *path, const struct json *value);
bool ai_check_function_call(const struct ai_check *check, const struct ai_path *path,
                            const struct json *value);
bool ai_check_response_format(const struct ai_check *check, const struct ai_path *path,
                              const struct json *value);

/* Adds what the request's parts are in tokens: bound and estimate. */
void ai_count_tokens(struct ai_request *request);

#endif

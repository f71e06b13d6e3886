#ifndef PROTO_AI_PARAMETERS_H
#define PROTO_AI_PARAMETERS_H

#include "proto/ai/check.h"

/* The members that a request's body may have: one table for checking them, passing them on and comparing requests. */

enum ai_parameter_flags {
    AI_IN_COMPLETION = 1 << AI_COMPLETION,
    AI_IN_CHAT = 1 << AI_CHAT,
    AI_IN_BOTH = AI_IN_COMPLETION | AI_IN_CHAT,
    AI_PASSED =
        1
        << 2, /* as it stands to providers of the OpenAI kind; all others are written anew where they are needed */
    AI_COUNTS = 1 << 3, /* an answer depends on it */
};

enum ai_value {
    AI_VALUE_BOOL,
    AI_VALUE_FALSE, /* said, but not to be had */
    AI_VALUE_INTEGER,
    AI_VALUE_NUMBER,
    AI_VALUE_STRING,
    AI_VALUE_WORD,
    AI_VALUE_OWN, /* `check` */
    AI_VALUE_REFUSED
};

struct ai_parameter {
    const char *name;
    unsigned flags;
    enum ai_value value;
    int64_t low; /* numbers: the range; strings: bytes */
    int64_t high;
    const char *words;
    bool (*check)(const struct ai_check *check, const struct ai_path *path, const struct json *value);
};

/* NULL: a body of this kind has no such member. */
const struct ai_parameter *ai_parameter_find(enum ai_kind kind, struct str name);

bool ai_parameter_check(const struct ai_check *check, const struct ai_parameter *parameter,
                        const struct json *value);

#endif

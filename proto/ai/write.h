#ifndef PROTO_AI_WRITE_H
#define PROTO_AI_WRITE_H

#include "proto/ai/ai.h"
#include "proto/json.h"

/*
 * How our answers and chunks are written, for those who read a provider's. A choice is the same thing in both: a whole
 * message of an answer, or what a chunk adds to one.
 */

struct ai_tool_call {
    unsigned index;       /* of a chunk: which of the choice's */
    struct str id;        /* of a chunk: absent but in the first piece of a call; so `name` */
    struct str name;      /* of the function */
    struct str arguments; /* JSON text as the model wrote it; of a chunk, a piece of it, or absent */
    bool custom;          /* a tool that takes plain text, in `arguments` */
};

struct ai_choice {
    unsigned index;
    bool first;         /* of a chunk: nothing of the choice was written before */
    struct str content; /* absent: null, or nothing added; and so are all that follow */
    struct str refusal;
    struct str reasoning;
    struct ai_tool_call *calls;
    size_t call_count;
    const struct json *function_call;
    const struct json *annotations;
    const struct json *logprobs;
    const char *finish_reason; /* of a chunk: NULL: it goes on */
};

/* Members of answers and chunks beside the choices; absent ones are left out. */
struct ai_extras {
    struct str system_fingerprint;
    struct str service_tier;
};

/* An answer: open, each choice, close. */
void ai_open_answer(struct json_out *json, const struct ai_identity *identity);
void ai_put_choice(struct json_out *json, const struct ai_identity *identity, const struct ai_choice *choice);
void ai_close_answer(struct json_out *json, const struct ai_usage *usage, const struct ai_extras *extras);

/* A chunk: the same. */
void ai_open_chunk(struct json_out *json, const struct ai_identity *identity);
void ai_put_delta(struct json_out *json, const struct ai_identity *identity, const struct ai_choice *choice);
void ai_close_chunk(struct json_out *json, const struct ai_identity *identity,
                    const struct ai_extras *extras);
/* Whether a chunk with that in it would tell a client of this kind anything. */
bool ai_delta_shows(const struct ai_identity *identity, const struct ai_choice *choice);

/* The bytes of a choice that the model made. */
uint64_t ai_choice_bytes(const struct ai_choice *choice);

/* A count of tokens in `object`. False when it is missing, no whole number, below 0 or over AI_TOKENS_MAX. */
bool ai_read_count(const struct json *object, const char *name, int64_t *count);
/* Sets a detail, cut to what it is a part of. The counts are there already. */
void ai_usage_tell(struct ai_usage *usage, enum ai_usage_detail detail, int64_t count);

#endif

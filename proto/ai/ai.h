#ifndef PROTO_AI_AI_H
#define PROTO_AI_AI_H

#include "core/base/check.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * What calls of language models have in common, whoever answers them: the kinds of call, tokens, and our answers in the
 * shape of the OpenAI API, which is what our clients speak. Reading a client's request is in request.h, what went wrong in
 * failure.h, the providers in provider.h.
 */

enum ai_kind {
    AI_COMPLETION, /* POST /v1/completions: a prompt */
    AI_CHAT,       /* POST /v1/chat/completions: messages */
};

enum {
    AI_CHOICES_MAX = 8, /* of `n` */
    /* No call has more of them: a count over it, or below 0, counts as not told. */
    AI_TOKENS_MAX = 1000000000,
    AI_TOOL_CALLS_MAX = 128, /* of one choice */
};

/* ---- tokens ---- */

/*
 * The tokens that so many bytes of text are likely to be: a fourth, rounded up. It stands for a count where a provider has
 * told none, as when a stream was cut off; the same bytes always give the same number. English text has some four bytes a
 * token, code some three, Chinese some three to five.
 */
int64_t ai_estimate_tokens(uint64_t bytes);

/* Parts of the two counts, where a provider tells them: member of the API's usage object, name in it. */
#define AI_USAGE_DETAILS(X)                                                                                  \
    X(AI_CACHED_TOKENS, "prompt_tokens_details", "cached_tokens")                                            \
    X(AI_CACHE_WRITE_TOKENS, "prompt_tokens_details", "cache_write_tokens")                                  \
    X(AI_PROMPT_AUDIO_TOKENS, "prompt_tokens_details", "audio_tokens")                                       \
    X(AI_REASONING_TOKENS, "completion_tokens_details", "reasoning_tokens")                                  \
    X(AI_AUDIO_TOKENS, "completion_tokens_details", "audio_tokens")                                          \
    X(AI_ACCEPTED_TOKENS, "completion_tokens_details", "accepted_prediction_tokens")                         \
    X(AI_REJECTED_TOKENS, "completion_tokens_details", "rejected_prediction_tokens")

#define AI_USAGE_ENUM(name, group, member) name,
enum ai_usage_detail { AI_USAGE_DETAILS(AI_USAGE_ENUM) AI_USAGE_DETAIL_COUNT };
#undef AI_USAGE_ENUM

/* All of them from 0 to AI_TOKENS_MAX. */
struct ai_usage {
    int64_t prompt_tokens; /* all of the prompt, cached or not */
    int64_t completion_tokens;
    int64_t details[AI_USAGE_DETAIL_COUNT]; /* never more than the count that they are a part of */
    unsigned details_told; /* bits 1 << enum ai_usage_detail; the others are 0 and not shown */
    bool estimated;        /* one of the two counts is ai_estimate_tokens', not the provider's */
};

/* ---- our answers ---- */

/* Whose answer it is, as our client knows it. */
struct ai_identity {
    enum ai_kind kind;
    struct str id;         /* "job_…", "chatcmpl-…" */
    struct str model;      /* as the client named it */
    int64_t created_s;     /* Unix seconds */
    unsigned choices;      /* how many were asked for, 1 to AI_CHOICES_MAX */
    int64_t prompt_tokens; /* estimate, for providers that don't tell */
    struct str secret;     /* the key that the provider was called with, struck out of its words; or absent */
    bool include_usage;    /* of a stream: ends with the usage, and says "usage": null until then */
};

/* The API's word for why a choice ended ("stop", "length", "tool_calls", "content_filter", "function_call"), in memory that
 * stays, for that word or what a provider says in its place; "stop" for any other. */
const char *ai_finish_reason(struct str said);

/* A whole answer with one choice, from plain text, in the shape of its kind. */
void ai_answer_from_text(struct buf *out, const struct ai_identity *identity, struct str text,
                         const char *finish_reason, const struct ai_usage *usage);

/*
 * The same as a stream: chunks, each the `data` of one event. The first says whose turn it is and may have text in it; the
 * last but one says why it ends; ai_chunk_usage is for clients that wanted it, behind all others. AI_DONE is the data of
 * the event behind that.
 */
void ai_chunk_from_text(struct buf *out, const struct ai_identity *identity, bool first, struct str text);
void ai_chunk_finish(struct buf *out, const struct ai_identity *identity, const char *finish_reason);
void ai_chunk_usage(struct buf *out, const struct ai_identity *identity, const struct ai_usage *usage);
#define AI_DONE STR("[DONE]")

#endif

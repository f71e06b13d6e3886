#ifndef PROTO_AI_REQUEST_H
#define PROTO_AI_REQUEST_H

#include "core/base/arena.h"
#include "core/base/crypto.h"
#include "proto/ai/ai.h"
#include "proto/json.h"

/*
 * What a client asks for, read from the body of POST /v1/chat/completions or /v1/completions as the OpenAI API describes
 * them. Every member is either known, checked and passed on, or refused by its name: none is dropped in silence, but for
 * those that say what is the case anyway ("echo": false, null), and in messages of the assistant those that only answers and the SDKs'
 * own objects have ("annotations", "parsed", "index").
 */

/* Why a request can't be served: always the client's fault, status 400, type "invalid_request_error". */
struct ai_refusal {
    struct str message; /* for people; in the arena or constant */
    struct str param;   /* the member it is about ("messages[2].content"); absent: the body as such */
    const char *code;   /* "invalid_type", "unknown_parameter" …; NULL: none */
};

/* Our own member "cache" of a request: whether an answer may be one that was given before. */
enum ai_cache_wish { AI_CACHE_AS_MODEL /* not said */, AI_CACHE_YES, AI_CACHE_NO };

/* All of it lives in the arena of the document. */
struct ai_request {
    enum ai_kind kind;
    const struct json *body;
    struct str model;
    bool stream;
    bool include_usage; /* stream_options.include_usage */
    enum ai_cache_wish cache;
    unsigned choices;            /* `n`, 1 to AI_CHOICES_MAX */
    int64_t max_tokens;          /* of one choice: max_completion_tokens or max_tokens; 0: not said */
    struct str prompt;           /* AI_COMPLETION */
    const struct json *messages; /* AI_CHAT: an array of at least one */
    int64_t prompt_tokens_most;  /* bound, for what is reserved */
    int64_t prompt_tokens;       /* estimate, never over the bound */
};

/*
 * What the bound counts. The tokenizers in use (byte-level BPE, or SentencePiece that falls back on bytes) never make more
 * tokens of a text than it has bytes, and hostile text comes near that, so text counts byte by byte: of messages, names, tool
 * calls, tools and schemas alike. On top comes what providers put around it, and for an image the most that a model in use
 * counts; its own bytes count nothing. What is reserved in excess is free again as soon as the call has ended.
 */
enum {
    AI_REQUEST_OVERHEAD_TOKENS = 32,
    AI_MESSAGE_OVERHEAD_TOKENS = 16,
    AI_TOOLS_OVERHEAD_TOKENS = 1024, /* providers explain tools to their models */
    AI_IMAGE_TOKENS_MOST = 49152,
    AI_IMAGE_LOW_TOKENS_MOST = 3072, /* with "detail": "low" */
    AI_IMAGE_TOKENS = 1024,          /* estimate */
};

/* Checks a JSON value against all that is said above. 0; -EINVAL with the refusal. */
int ai_request_read(struct arena *arena, enum ai_kind kind, const struct json *body,
                    struct ai_request *request, struct ai_refusal *refusal) MUST_USE;

/* The same from its text. */
int ai_request_parse(struct arena *arena, enum ai_kind kind, struct str text, struct ai_request *request,
                     struct ai_refusal *refusal) MUST_USE;

/*
 * The digest of all that an answer depends on: kind and members, whatever their order and spacing in the body, without those that only say
 * how it is delivered or on whose behalf (stream, stream_options, cache, user, metadata, store, safety_identifier,
 * prompt_cache_*, service_tier). Requests with the same digest may have the same answer.
 */
void ai_request_digest(const struct ai_request *request, unsigned char digest[CRYPTO_DIGEST_SIZE]);

#endif

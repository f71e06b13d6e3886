#ifndef PROTO_AI_PROVIDER_H
#define PROTO_AI_PROVIDER_H

#include "proto/ai/failure.h"
#include "proto/ai/request.h"

/*
 * One interface to the APIs of providers: a table of functions each (proto/ai/openai.h, proto/ai/anthropic.h), so that whoever calls
 * one need not know which it is. Requests are written from our clients' (request.h), answers and streams read into our
 * clients' shape (ai.h). Nothing here trusts what a provider sends: whatever it is becomes an answer, a chunk or a failure,
 * of bounded size.
 */

/* What is decided for a call before it is written. */
struct ai_upstream {
    struct str model; /* the provider's name of it */
    bool stream;
    bool native_completions; /* the provider takes a prompt as such; otherwise it becomes a message */
    int64_t max_tokens;      /* of a choice, over 0; used when the client has said none */
};

struct ai_answer {
    struct ai_usage usage;     /* there in any case; estimated where the provider told none */
    const char *finish_reason; /* of the first choice */
    struct str text;           /* of the first choice, in the arena; perhaps empty */
};

enum ai_stream_state {
    AI_STREAM_MORE,
    AI_STREAM_END, /* the provider has said that this was all */
    AI_STREAM_FAILED
};

/* A stream at work: of fixed size, owns nothing. Only ai_stream_… and a provider's functions change it. */
struct ai_stream {
    struct ai_identity identity; /* its texts stay the caller's */
    uint64_t bytes;              /* of text, tool calls and the like that went into chunks so far */
    unsigned begun;              /* choices whose first chunk was written, a bit each */
    unsigned finished;           /* and whose last one */
    const char *finish_reason;   /* of the first choice; NULL: not yet */
    struct str text;             /* that the last event brought of the first choice; lives in its scratch */
    struct ai_usage told;        /* as the provider told it so far */
    bool has_prompt_tokens;
    bool has_completion_tokens;
    int64_t block;       /* Anthropic: the content block at hand; -1: none */
    bool block_is_tool;  /* it is a tool call */
    unsigned tool_calls; /* that have begun */
    uint32_t tool_ids
        [AI_TOOL_CALLS_MAX]; /* OpenAI: of these calls, by their numbers, a hash of the id; 0: not begun */
    bool renumbers;          /* the provider gives several calls one number */
    uint64_t block_bytes;    /* of its input so far */
};

/* The value of an answer's header; absent when it has none of that name (in lower case). */
typedef struct str ai_header_get(const void *arg, const char *name);

struct ai_provider_ops {
    const char *name;

    /* What stands behind the provider's base URL: OpenAI's "https://host/v1" + "/chat/completions", Anthropic's
     * "https://host" + "/v1/messages", as their SDKs have it. */
    const char *(*path)(enum ai_kind kind, bool native_completions);

    /* The headers of a request: "Name: value", NULL-terminated, in the arena. `api_key` may be absent. */
    const char *const *(*headers)(struct arena *arena, struct str api_key, bool stream);

    /* The headers of answers that read_rate and read_error look at, NULL-terminated; as fetch_request.headers_wanted. */
    const char *const *headers_wanted;

    /* Whether this provider can do what the request wants. 0; -EINVAL with the refusal. */
    int (*accepts)(struct arena *arena, const struct ai_request *request, const struct ai_upstream *upstream,
                   struct ai_refusal *refusal) MUST_USE;

    /* Appends the body of the provider's request. As `accepts`, and nothing is written when it fails. */
    int (*write_request)(struct arena *arena, const struct ai_request *request,
                         const struct ai_upstream *upstream, struct buf *out, struct ai_refusal *refusal)
        MUST_USE;

    /* Reads the body of an unstreamed answer with status 2xx and appends ours, JSON. 0; -EPROTO: it is none, or an error,
     * with the failure; then nothing is written. */
    int (*read_answer)(struct arena *arena, const struct ai_identity *identity, struct str body,
                       struct buf *out, struct ai_answer *answer, struct ai_failure *failure) MUST_USE;

    /* Begins a stream; the identity's texts must outlive it. */
    void (*stream_begin)(struct ai_stream *stream, const struct ai_identity *identity);

    /*
     * Takes one event of the provider's stream (its type, perhaps absent, and data) and appends at most one chunk for our
     * client, JSON; nothing when it has nothing to show. What is read, and of a failure the texts, lives in `scratch`, which the caller clears when it
     * likes. After END or FAILED (with the failure) the stream is over; text that came before counts all the same.
     */
    enum ai_stream_state (*stream_event)(struct ai_stream *stream, struct arena *scratch, struct str type,
                                         struct str data, struct buf *out, struct ai_failure *failure)
        MUST_USE;

    /* What an answer with a status other than 2xx means. Texts in the arena. `secret`, the key that was used, is struck out of
     * them. `now_ms` is Unix time. */
    void (*read_error)(struct arena *arena, int status, struct str body, ai_header_get *header,
                       const void *arg, struct str secret, int64_t now_ms, struct ai_failure *failure);

    /* What any answer's headers say of limits. */
    void (*read_rate)(ai_header_get *header, const void *arg, int64_t now_ms, struct ai_rate *rate);
};

/* All choices that were asked for have ended: when the bytes of the stream end now, none are missing, though the provider
 * has not said so. */
bool ai_stream_is_whole(const struct ai_stream *stream);

/* What the stream has cost so far: the provider's counts, and ai_estimate_tokens of what was delivered where it has told none,
 * as when the stream was cut off. */
void ai_stream_usage(const struct ai_stream *stream, struct ai_usage *usage);

#endif

#ifndef TEST_UNIT_PROTO_AI_SUPPORT_H
#define TEST_UNIT_PROTO_AI_SUPPORT_H

#include "proto/ai/provider.h"

/* What the tests of providers share. */

/* JSON that is written with single quotes, with double ones; in the arena. */
struct str ai_quoted(struct arena *arena, const char *text);

/* Fails the test unless they are equal; `wanted` with single quotes. */
void ai_assert_text(struct str text, const char *wanted);

/* An identity of that kind: id "ID", model "M", created 7, one choice, five tokens of prompt. */
struct ai_identity ai_test_identity(enum ai_kind kind);

/* The request of a body with single quotes, which must be taken. */
struct ai_request ai_test_request(struct arena *arena, enum ai_kind kind, const char *body);

/* Fails the test unless the provider writes the request of `body` as `wanted`, or for wanted "!param" refuses it for that. */
void ai_assert_written(const struct ai_provider_ops *provider, enum ai_kind kind, const char *body,
                       const struct ai_upstream *upstream, const char *wanted);

/* Fails the test unless the provider's answer `body` becomes `wanted`, or a failure for wanted "!code". */
void ai_assert_answer(const struct ai_provider_ops *provider, const struct ai_identity *identity,
                      const char *body, const char *wanted, struct ai_answer *answer);

/* How many tool calls the first choice has of the provider's answer that is `head`, many times `call`, and `tail`. */
size_t ai_count_calls(const struct ai_provider_ops *provider, const char *head, const char *call,
                      size_t times, const char *tail);

/*
 * Reads events, each "data" or "type|data" (data with single quotes), to the NULL; fails the test unless the chunks are the lines of
 * `wanted`, the last line being "END", "FAILED code" or "MORE". The stream is left for a look at it.
 */
void ai_assert_stream(const struct ai_provider_ops *provider, const struct ai_identity *identity,
                      const char *const *events, const char *wanted, struct ai_stream *stream);

/* Headers for read_error and read_rate: names and values in turn, to a NULL. */
struct str ai_test_header(const void *arg, const char *name);

#endif

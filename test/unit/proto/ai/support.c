/* What the tests of providers share: see support.h. */
#include "test/unit/proto/ai/support.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct str ai_quoted(struct arena *arena, const char *text)
{
    char *copy = arena_strdup(arena, text);
    size_t size = strlen(copy);
    for (size_t i = 0; i < size; i++)
        if (copy[i] == '\'')
            copy[i] = '"';
    return str_of(copy, size);
}

void ai_assert_text(struct str text, const char *wanted)
{
    struct arena arena;
    arena_init(&arena);
    struct str other = ai_quoted(&arena, wanted);
    if (!str_equal(text, other))
        fail_msg("\n%.*s\nis not\n%.*s", STR_ARG(text), STR_ARG(other));
    arena_clear(&arena);
}

struct ai_identity ai_test_identity(enum ai_kind kind)
{
    return (struct ai_identity){
        .kind = kind,
        .id = STR("ID"),
        .model = STR("M"),
        .created_s = 7,
        .choices = 1,
        .prompt_tokens = 5,
        .secret = STR("the-operators-own-key"),
    };
}

struct ai_request ai_test_request(struct arena *arena, enum ai_kind kind, const char *body)
{
    struct ai_request request;
    struct ai_refusal refusal;
    int result = ai_request_parse(arena, kind, ai_quoted(arena, body), &request, &refusal);
    if (result)
        fail_msg("%s: %.*s", body, STR_ARG(refusal.message));
    return request;
}

void ai_assert_written(const struct ai_provider_ops *provider, enum ai_kind kind, const char *body,
                       const struct ai_upstream *upstream, const char *wanted)
{
    struct arena arena;
    arena_init(&arena);
    struct buf out = {0};
    struct ai_refusal refusal = {.param = STR_NONE};
    struct ai_request request = ai_test_request(&arena, kind, body);
    int result = provider->write_request(&arena, &request, upstream, &out, &refusal);
    if (wanted[0] == '!') {
        assert_int_equal(result, -EINVAL);
        assert_int_equal(out.size, 0);
        assert_int_equal(provider->accepts(&arena, &request, upstream, &refusal), -EINVAL);
        ai_assert_text(refusal.param, wanted + 1);
    } else {
        if (result)
            fail_msg("%s: %.*s", body, STR_ARG(refusal.message));
        assert_int_equal(provider->accepts(&arena, &request, upstream, &refusal), 0);
        ai_assert_text(buf_str(&out), wanted);
    }
    buf_clear(&out);
    arena_clear(&arena);
}

void ai_assert_answer(const struct ai_provider_ops *provider, const struct ai_identity *identity,
                      const char *body, const char *wanted, struct ai_answer *answer)
{
    struct arena arena;
    arena_init(&arena);
    struct buf out = {0};
    struct ai_failure failure = {.code = NULL};
    int result = provider->read_answer(&arena, identity, ai_quoted(&arena, body), &out, answer, &failure);
    if (wanted[0] == '!') {
        assert_int_equal(result, -EPROTO);
        assert_int_equal(out.size, 0);
        assert_string_equal(failure.code, wanted + 1);
    } else {
        assert_int_equal(result, 0);
        ai_assert_text(buf_str(&out), wanted);
        /* What of it lives in the arena ends with it. */
        answer->text = STR_NONE;
    }
    buf_clear(&out);
    arena_clear(&arena);
}

size_t ai_count_calls(const struct ai_provider_ops *provider, const char *head, const char *call,
                      size_t times, const char *tail)
{
    struct arena arena;
    struct buf body = {0};
    struct buf out = {0};
    struct ai_answer answer;
    struct ai_failure failure;
    const char *error = NULL;
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    arena_init(&arena);
    buf_add_text(&body, head);
    for (size_t i = 0; i < times; i++) {
        buf_add_text(&body, i > 0 ? "," : "");
        buf_add_text(&body, call);
    }
    buf_add_text(&body, tail);
    buf_add_char(&body, '\0');
    assert_int_equal(
        provider->read_answer(&arena, &identity, ai_quoted(&arena, body.at), &out, &answer, &failure), 0);
    const struct json *choices = json_member(json_read(&arena, buf_str(&out), &error), "choices");
    size_t count = json_count(json_member(json_member(json_item(choices, 0), "message"), "tool_calls"));
    buf_clear(&out);
    buf_clear(&body);
    arena_clear(&arena);
    return count;
}

static void put_state(struct buf *seen, enum ai_stream_state state, const struct ai_failure *failure)
{
    switch (state) {
    case AI_STREAM_MORE: buf_add_literal(seen, "MORE"); return;
    case AI_STREAM_END: buf_add_literal(seen, "END"); return;
    case AI_STREAM_FAILED: buf_printf(seen, "FAILED %s", failure->code); return;
    }
}

void ai_assert_stream(const struct ai_provider_ops *provider, const struct ai_identity *identity,
                      const char *const *events, const char *wanted, struct ai_stream *stream)
{
    struct buf seen = {0};
    struct ai_failure failure = {.code = NULL};
    enum ai_stream_state state = AI_STREAM_MORE;
    provider->stream_begin(stream, identity);
    for (size_t i = 0; events[i] && state == AI_STREAM_MORE; i++) {
        struct arena scratch;
        arena_init(&scratch);
        const char *bar = strchr(events[i], '|');
        struct str type = bar ? str_of(events[i], (size_t)(bar - events[i])) : STR_NONE;
        struct str data = ai_quoted(&scratch, bar ? bar + 1 : events[i]);
        size_t before = seen.size;
        state = provider->stream_event(stream, &scratch, type, data, &seen, &failure);
        if (seen.size > before)
            buf_add_char(&seen, '\n');
        stream->text = STR_NONE;
        arena_clear(&scratch);
    }
    put_state(&seen, state, &failure);
    ai_assert_text(buf_str(&seen), wanted);
    buf_clear(&seen);
}

struct str ai_test_header(const void *arg, const char *name)
{
    for (const char *const *pair = arg; pair && pair[0]; pair += 2)
        if (strcmp(pair[0], name) == 0)
            return str_from(pair[1]);
    return STR_NONE;
}

/*
 * What providers send, hostile ones too. The input is read as an answer, as an error, and by its lines as the events of a stream, by
 * both kinds of provider, for both kinds of call. What comes of it for our client is JSON of the right shape, with counts that can
 * be, and without the key.
 */
#include "proto/ai/anthropic.h"
#include "proto/ai/openai.h"
#include "proto/json.h"
#include "test/fuzz/support.h"

#include <errno.h>
#include <stdlib.h>

#define SECRET STR("the-operators-own-key")
#define NOW_MS INT64_C(1795881600000)

static const struct ai_provider_ops *const providers[] = {&ai_openai, &ai_anthropic};

static bool contains(struct str text, struct str part)
{
    return text.size > 0 && memmem(text.at, text.size, part.at, part.size);
}

static void check_failure(const struct ai_failure *failure)
{
    struct buf out = {0};
    CHECK(failure->status >= 400 && failure->status < 600);
    CHECK(failure->message.size > 0 && failure->message.size <= AI_FAILURE_TEXT_MAX);
    CHECK(failure->detail.size <= AI_FAILURE_TEXT_MAX);
    CHECK(failure->retry_after_ms >= -1 && failure->retry_after_ms <= AI_RETRY_AFTER_MAX_MS);
    CHECK(!contains(failure->message, SECRET) && !contains(failure->detail, SECRET) &&
          !contains(failure->param, SECRET));
    ai_put_error(&out, failure);
    struct arena arena;
    const char *error = NULL;
    arena_init(&arena);
    const struct json *object = json_member(json_read(&arena, buf_str(&out), &error), "error");
    CHECK(json_count(object) == 4);
    arena_clear(&arena);
    buf_clear(&out);
}

static void check_usage(const struct ai_usage *usage)
{
    CHECK(usage->prompt_tokens >= 0 && usage->prompt_tokens <= AI_TOKENS_MAX);
    CHECK(usage->completion_tokens >= 0 && usage->completion_tokens <= AI_TOKENS_MAX);
    for (unsigned i = 0; i < AI_USAGE_DETAIL_COUNT; i++) {
        int64_t whole = i < AI_REASONING_TOKENS ? usage->prompt_tokens : usage->completion_tokens;
        CHECK(usage->details[i] >= 0 && usage->details[i] <= whole);
        CHECK((usage->details_told & 1U << i) || usage->details[i] == 0);
    }
}

/* Objects that a client would see must be read as they stand; NULL when they are nested as deeply as the provider's own. */
static const struct json *must_read(struct arena *arena, struct str text)
{
    const char *error = NULL;
    const struct json *object = json_read(arena, text, &error);
    CHECK(object || strcmp(error, "nested too deeply") == 0);
    return object;
}

static void check_choice(const struct json *choice, const struct ai_identity *identity, bool in_chunk)
{
    int64_t index;
    const struct json *message = json_member(choice, in_chunk ? "delta" : "message");
    CHECK(json_to_i64(json_member(choice, "index"), &index) && index >= 0 && index < identity->choices);
    if (identity->kind == AI_COMPLETION) {
        CHECK(json_string(json_member(choice, "text")).at && !message);
        return;
    }
    CHECK(json_type_of(message) == JSON_OBJECT);
    const struct json *calls = json_member(message, "tool_calls");
    CHECK(json_count(calls) <= AI_TOOL_CALLS_MAX);
    for (size_t i = 0; !in_chunk && i < json_count(calls); i++)
        CHECK(json_string(json_member(json_item(calls, i), "id")).at &&
              json_string(json_member(json_item(calls, i), "type")).at);
}

static void check_object(struct arena *arena, struct str text, const struct ai_identity *identity,
                         bool in_chunk)
{
    const struct json *object = must_read(arena, text);
    const struct json *choices = json_member(object, "choices");
    if (!object)
        return;
    CHECK(str_equal(json_string(json_member(object, "id")), identity->id));
    CHECK(json_count(choices) > 0 && json_count(choices) <= (in_chunk ? AI_CHOICES_MAX : identity->choices));
    for (size_t i = 0; i < json_count(choices); i++)
        check_choice(json_item(choices, i), identity, in_chunk);
    CHECK(in_chunk || json_type_of(json_member(object, "usage")) == JSON_OBJECT);
}

/* Our own answer, read as a provider's, is the same. */
static void check_again(struct arena *arena, const struct ai_identity *identity, struct str text)
{
    struct buf out = {0};
    struct ai_answer answer;
    struct ai_failure failure;
    CHECK(ai_openai.read_answer(arena, identity, text, &out, &answer, &failure) == 0);
    CHECK(str_equal(buf_str(&out), text));
    buf_clear(&out);
}

static void check_answer(const struct ai_provider_ops *provider, const struct ai_identity *identity,
                         struct str input)
{
    struct arena arena;
    struct buf out = {0};
    struct ai_answer answer;
    struct ai_failure failure;
    arena_init(&arena);
    int result = provider->read_answer(&arena, identity, input, &out, &answer, &failure);
    if (result == 0) {
        check_object(&arena, buf_str(&out), identity, false);
        if (must_read(&arena, buf_str(&out)))
            check_again(&arena, identity, buf_str(&out));
        check_usage(&answer.usage);
        CHECK(answer.finish_reason && answer.text.at);
    } else {
        CHECK(result == -EPROTO && out.size == 0);
        check_failure(&failure);
    }
    buf_clear(&out);
    arena_clear(&arena);
}

static void check_stream(const struct ai_provider_ops *provider, const struct ai_identity *identity,
                         struct str input)
{
    struct ai_stream stream;
    struct ai_usage usage;
    struct ai_failure failure;
    enum ai_stream_state state = AI_STREAM_MORE;
    struct str line;
    uint64_t bytes = 0;
    provider->stream_begin(&stream, identity);
    while (state == AI_STREAM_MORE && str_split(&input, '\n', &line)) {
        struct arena scratch;
        struct buf out = {0};
        arena_init(&scratch);
        state = provider->stream_event(&stream, &scratch, STR_NONE, line, &out, &failure);
        if (out.size > 0)
            check_object(&scratch, buf_str(&out), identity, true);
        CHECK(out.size > 0 || stream.bytes == bytes);
        CHECK(stream.bytes >= bytes && stream.bytes - bytes >= stream.text.size);
        CHECK(state != AI_STREAM_FAILED || out.size == 0);
        if (state == AI_STREAM_FAILED)
            check_failure(&failure);
        bytes = stream.bytes;
        arena_clear(&scratch);
        buf_clear(&out);
        ai_stream_usage(&stream, &usage);
        check_usage(&usage);
    }
    CHECK(state != AI_STREAM_END || ai_stream_is_whole(&stream));
}

/* The whole input for whatever header is asked for. */
static struct str any_header(const void *arg, const char *name)
{
    (void)name;
    return *(const struct str *)arg;
}

static void check_error(const struct ai_provider_ops *provider, struct str input)
{
    static const int statuses[] = {200, 302, 400, 401, 404, 413, 422, 429, 500, 503, 529, 999};
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        struct arena arena;
        struct ai_failure failure;
        arena_init(&arena);
        provider->read_error(&arena, statuses[i], input, any_header, &input, SECRET, NOW_MS, &failure);
        check_failure(&failure);
        arena_clear(&arena);
    }
}

static void check_times(struct str input)
{
    int64_t times[] = {ai_read_retry_after(input, NOW_MS), ai_read_span(input), ai_read_time(input, NOW_MS)};
    for (size_t i = 0; i < ARRAY_SIZE(times); i++)
        CHECK(times[i] >= -1 && times[i] <= AI_RETRY_AFTER_MAX_MS);
}

static void check_words(struct str input)
{
    struct arena arena;
    arena_init(&arena);
    struct str clean = ai_sanitise(&arena, input, SECRET);
    CHECK(clean.size <= AI_FAILURE_TEXT_MAX && !contains(clean, SECRET) && !contains(clean, STR("\n")));
    CHECK(!str_is_utf8(input) || str_is_utf8(clean));
    arena_clear(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    /* In a block of its own, that ends with the text. */
    char *exact = mem_alloc(size ? size : 1);
    struct str input = str_of(exact, size);
    if (size)
        memcpy(exact, bytes, size);
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(providers); i++) {
        struct ai_identity identity = {
            .kind = i % 2 ? AI_CHAT : AI_COMPLETION,
            .id = STR("chatcmpl-1"),
            .model = STR("m"),
            .created_s = 1,
            .choices = i / 2 == 0 ? 2 : 1,
            .prompt_tokens = 5,
            .secret = SECRET,
            .include_usage = true,
        };
        check_answer(providers[i / 2], &identity, input);
        check_stream(providers[i / 2], &identity, input);
        check_error(providers[i / 2], input);
    }
    check_times(input);
    check_words(input);
    free(exact);
    return 0;
}

/*
 * Requests of clients, by both kinds: refused with a reason, or taken and then written for each kind of provider, where what is
 * written is JSON and, for those that are like OpenAI, a request that would be taken again.
 */
#include "proto/ai/anthropic.h"
#include "proto/ai/openai.h"
#include "test/fuzz/support.h"

#include <errno.h>
#include <stdlib.h>

static void check_refusal(const struct ai_refusal *refusal)
{
    CHECK(refusal->message.size > 0 && str_is_utf8(refusal->message));
    CHECK(str_is_utf8(refusal->param));
}

static void check_taken(const struct ai_request *request)
{
    CHECK(request->model.size > 0);
    CHECK(request->choices >= 1 && request->choices <= AI_CHOICES_MAX);
    CHECK(request->max_tokens >= 0 && request->max_tokens <= AI_TOKENS_MAX);
    CHECK(request->stream || !request->include_usage);
    CHECK(request->prompt_tokens >= 0 && request->prompt_tokens <= request->prompt_tokens_most);
    CHECK(request->prompt_tokens_most <= AI_TOKENS_MAX);
    CHECK(request->kind == AI_CHAT ? json_count(request->messages) > 0 : request->prompt.at != NULL);
}

/* Arguments that were text become part of the tree, so what is written may be nested more deeply than may be read. */
static const struct json *read_written(struct arena *arena, struct str text)
{
    const char *error = NULL;
    const struct json *object = json_read(arena, text, &error);
    CHECK(object || strcmp(error, "nested too deeply") == 0);
    return object;
}

static void check_openai(struct arena *arena, const struct ai_request *request, bool native,
                         const struct json *body)
{
    struct ai_request again;
    struct ai_refusal refusal;
    enum ai_kind kind = request->kind == AI_COMPLETION && native ? AI_COMPLETION : AI_CHAT;
    CHECK(body);
    CHECK(str_equal(json_string(json_member(body, "model")), STR("up")));
    CHECK(!json_member(body, "cache"));
    CHECK(ai_request_read(arena, kind, body, &again, &refusal) == 0);
    CHECK(again.max_tokens == (request->max_tokens ? request->max_tokens : 100));
    CHECK(again.stream && again.include_usage);
    CHECK(again.choices == request->choices);
    CHECK(request->kind == AI_CHAT ? json_count(again.messages) == json_count(request->messages)
                                   : again.kind == AI_CHAT || str_equal(again.prompt, request->prompt));
}

static void check_anthropic(const struct ai_request *request, const struct json *body)
{
    int64_t number;
    const struct json *messages = json_member(body, "messages");
    if (!body)
        return;
    CHECK(str_equal(json_string(json_member(body, "model")), STR("up")));
    CHECK(json_to_i64(json_member(body, "max_tokens"), &number) &&
          number == (request->max_tokens ? request->max_tokens : 100));
    struct str before = STR_NONE;
    for (size_t i = 0; i < json_count(messages); i++) {
        struct str role = json_string(json_member(json_item(messages, i), "role"));
        CHECK(str_equal(role, STR("user")) || str_equal(role, STR("assistant")));
        CHECK(!str_equal(role, before));
        CHECK(json_count(json_member(json_item(messages, i), "content")) > 0);
        before = role;
    }
}

static void check_written(struct arena *arena, const struct ai_provider_ops *provider,
                          const struct ai_request *request, bool native)
{
    struct buf out = {0};
    struct ai_refusal refusal = {.message = STR_NONE};
    struct ai_upstream upstream = {
        .model = STR("up"), .stream = true, .native_completions = native, .max_tokens = 100};
    int accepted = provider->accepts(arena, request, &upstream, &refusal);
    int result = provider->write_request(arena, request, &upstream, &out, &refusal);
    CHECK(result == accepted && (result == 0 || result == -EINVAL));
    if (result) {
        CHECK(out.size == 0);
        check_refusal(&refusal);
    } else if (provider == &ai_openai) {
        check_openai(arena, request, native, read_written(arena, buf_str(&out)));
    } else {
        check_anthropic(request, read_written(arena, buf_str(&out)));
    }
    buf_clear(&out);
}

static void check_kind(enum ai_kind kind, struct str text)
{
    struct arena arena;
    struct ai_request request;
    struct ai_refusal refusal = {.message = STR_NONE};
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    arena_init(&arena);
    int result = ai_request_parse(&arena, kind, text, &request, &refusal);
    CHECK(result == 0 || result == -EINVAL);
    if (result == 0) {
        check_taken(&request);
        ai_request_digest(&request, digest);
        check_written(&arena, &ai_openai, &request, false);
        check_written(&arena, &ai_openai, &request, true);
        check_written(&arena, &ai_anthropic, &request, false);
    } else {
        check_refusal(&refusal);
    }
    arena_clear(&arena);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    crypto_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    /* In a block of its own, that ends with the text. */
    char *exact = mem_alloc(size ? size : 1);
    if (size)
        memcpy(exact, bytes, size);
    check_kind(AI_CHAT, str_of(exact, size));
    check_kind(AI_COMPLETION, str_of(exact, size));
    free(exact);
    return 0;
}

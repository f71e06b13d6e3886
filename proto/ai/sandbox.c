/* The built-in provider's words: see sandbox.h. */
#include "proto/ai/sandbox.h"

enum { SLOW_MS = 500, SLOW_CHUNK_MS = 50, FAIL_STATUS = 503, STALL_AFTER = 3, STOPS_MAX = 16 };

void sandbox_take_model(struct sandbox_options *options, struct str model)
{
    if (str_equal(model, STR("sandbox-slow"))) {
        options->delay_ms = SLOW_MS;
        options->chunk_ms = SLOW_CHUNK_MS;
    } else if (str_equal(model, STR("sandbox-fail"))) {
        options->fail_status = FAIL_STATUS;
    } else if (str_equal(model, STR("sandbox-stall"))) {
        options->stall_after = STALL_AFTER;
    }
}

/* ---- what was said ---- */

/* The text of a message's content: a string, or the first text among its parts. */
static struct str text_of(const struct json *content)
{
    struct str text = json_string(content);
    for (size_t i = 0; !text.at && i < json_count(content); i++)
        text = json_string(json_member(json_item(content, i), "text"));
    return text;
}

static struct str last_words(const struct ai_request *request)
{
    if (request->kind == AI_COMPLETION)
        return request->prompt;
    for (size_t i = json_count(request->messages); i-- > 0;) {
        const struct json *message = json_item(request->messages, i);
        if (str_equal(json_string(json_member(message, "role")), STR("user")))
            return text_of(json_member(message, "content"));
    }
    return STR_NONE;
}

/* ---- the answer ---- */

static void write_text(struct buf *out, const struct ai_request *request, int64_t tokens)
{
    struct str said = last_words(request);
    buf_add_literal(out, "This is the sandbox of Wakegate, in place of ");
    buf_add_str(out, request->model);
    if (said.size) {
        buf_add_literal(out, ". You said: ");
        buf_add_str(out, said);
    } else {
        buf_add_literal(out, ". You said nothing.");
    }
    for (int64_t i = 0; i < tokens; i++)
        buf_add_literal(out, " word");
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

bool sandbox_next_piece(struct str *rest, struct str *piece)
{
    size_t size = 0;
    while (size < rest->size && is_space(rest->at[size]))
        size++;
    while (size < rest->size && !is_space(rest->at[size]))
        size++;
    if (size == 0)
        return false;
    *piece = str_of(rest->at, size);
    *rest = str_of(rest->at + size, rest->size - size);
    return true;
}

/* Cuts the text after so many pieces; returns how many it has. */
static int64_t cut(struct str *text, int64_t most)
{
    struct str rest = *text;
    struct str piece;
    int64_t count = 0;
    while (count < most && sandbox_next_piece(&rest, &piece))
        count++;
    text->size -= rest.size;
    return count;
}

static void stop_at(struct str *text, struct str stop)
{
    const char *found = stop.size && text->size ? memmem(text->at, text->size, stop.at, stop.size) : NULL;
    if (found)
        text->size = (size_t)(found - text->at);
}

static void stop_where_wanted(struct str *text, const struct ai_request *request)
{
    const struct json *stop = json_member(request->body, "stop");
    stop_at(text, json_string(stop));
    for (size_t i = 0; i < json_count(stop) && i < STOPS_MAX; i++)
        stop_at(text, json_string(json_item(stop, i)));
}

void sandbox_answer(struct arena *arena, const struct ai_request *request,
                    const struct sandbox_options *options, int64_t max_tokens, struct sandbox_answer *answer)
{
    struct buf out = {0};
    int64_t tokens = options->answer_tokens;
    int64_t extra = tokens < max_tokens ? tokens : max_tokens;
    write_text(&out, request, extra);
    struct str text = arena_str(arena, buf_str(&out));
    buf_clear(&out);
    if (tokens > 0)
        cut(&text, tokens);
    size_t whole = text.size;
    stop_where_wanted(&text, request);
    bool stopped = text.size < whole;
    whole = text.size;
    *answer = (struct sandbox_answer){.finish_reason = "stop"};
    answer->usage.completion_tokens = cut(&text, max_tokens);
    answer->usage.prompt_tokens = request->prompt_tokens;
    if (text.size < whole || (tokens > max_tokens && !stopped))
        answer->finish_reason = "length";
    answer->text = text;
}

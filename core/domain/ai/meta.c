/* What travels with an AI call: see meta.h. */
#include "core/domain/ai/meta.h"

#include "proto/json.h"

#include <errno.h>

static const char *const kinds[] = {[AI_CHAT] = "chat", [AI_COMPLETION] = "completion"};

const char *ai_kind_name(enum ai_kind kind)
{
    return kinds[kind];
}

void ai_meta_write(struct buf *out, const struct ai_meta *meta)
{
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_put_text(&json, "kind", kinds[meta->kind]);
    json_put_int(&json, "key", meta->key_id);
    json_put_str(&json, "surface", meta->surface);
    json_put_str(&json, "model", meta->model);
    json_put_str(&json, "request_id", meta->request_id);
    json_put_int(&json, "created", meta->created_ms);
    json_put_int(&json, "prompt", meta->prompt_tokens);
    json_put_int(&json, "most", meta->max_tokens);
    json_put_int(&json, "choices", meta->choices);
    json_put_int(&json, "call_price", meta->call_price);
    json_put_bool(&json, "usage", meta->wants_usage);
    json_put_bool(&json, "usage_last", meta->ends_with_usage);
    json_close(&json, '}');
}

static bool read_kind(const struct json *value, enum ai_kind *kind)
{
    struct str name = json_string(value);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (str_equal(name, str_from(kinds[i]))) {
            *kind = (enum ai_kind)i;
            return true;
        }
    return false;
}

int ai_meta_read(struct arena *arena, struct str text, struct ai_meta *meta)
{
    const char *error;
    const struct json *json = json_read(arena, text, &error);
    *meta = (struct ai_meta){
        .surface = json_string(json_member(json, "surface")),
        .model = json_string(json_member(json, "model")),
        .request_id = json_string(json_member(json, "request_id")),
    };
    bool fine = read_kind(json_member(json, "kind"), &meta->kind) && meta->surface.at && meta->model.at &&
                json_to_i64(json_member(json, "key"), &meta->key_id) &&
                json_to_i64(json_member(json, "created"), &meta->created_ms) &&
                json_to_i64(json_member(json, "prompt"), &meta->prompt_tokens) &&
                json_to_i64(json_member(json, "most"), &meta->max_tokens) &&
                json_to_i64(json_member(json, "choices"), &meta->choices) &&
                json_to_i64(json_member(json, "call_price"), &meta->call_price) &&
                json_to_bool(json_member(json, "usage"), &meta->wants_usage);
    /* Rows of before have it not. */
    if (!json_to_bool(json_member(json, "usage_last"), &meta->ends_with_usage))
        meta->ends_with_usage = false;
    return fine ? 0 : -EINVAL;
}

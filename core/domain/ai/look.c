/* AI jobs wherever they are: see look.h. */
#include "core/domain/ai/look.h"

#include "core/domain/ai/internal.h"
#include "core/domain/ai/worker.h"
#include "core/store/redis.h"

#include <errno.h>

static void from_meta(struct ai_job *job, struct str id, const struct ai_meta *meta, enum ai_status status)
{
    *job = (struct ai_job){
        .id = id,
        .model = meta->model,
        .kind = str_from(ai_kind_name(meta->kind)),
        .status = str_from(ai_status_name(status)),
        .created_ms = meta->created_ms,
    };
}

static void from_end(struct arena *arena, const struct ai_end *end, struct ai_job *job)
{
    char text[MONEY_TEXT_SIZE];
    from_meta(job, end->id, &end->meta, end->status);
    job->completed_ms = end->ended_ms;
    job->cost = arena_str(arena, money_format(text, end->cost));
    job->prompt_tokens = end->prompt_tokens;
    job->completion_tokens = end->completion_tokens;
    job->text = end->text;
    job->answer = end->answer;
    job->error_code = end->code;
    job->error_message = end->message;
    job->streamed = end->streamed;
}

/* What Redis knows of it. -ENOENT: nothing. */
static int look_in_queue(struct arena *arena, int64_t account_id, struct str id, struct ai_job *job)
{
    char key[AI_KEY_SIZE];
    struct redis_value reply;
    struct ai_meta meta;
    int64_t owner;
    int result = redis_call(redis_shared(), &reply, arena, STR("HMGET"), ai_key(key, id), STR("a"), STR("s"),
                            STR("f"), STR("m"));
    if (result)
        return result;
    if (reply.count != 4 || !str_to_i64(reply.items[0].text, &owner) || owner != account_id ||
        ai_meta_read(arena, reply.items[3].text, &meta))
        return -ENOENT;
    struct str state = reply.items[1].text;
    struct str flags = reply.items[2].text;
    if (str_equal(state, STR("end"))) {
        struct ai_end end;
        result = ai_ended_read(arena, id, &end);
        if (result == 0)
            from_end(arena, &end, job);
        return result;
    }
    from_meta(job, id, &meta, str_equal(state, STR("run")) ? AI_PROCESSING : AI_QUEUED);
    job->streamed = flags.size && memchr(flags.at, 's', flags.size) != NULL;
    return 0;
}

int ai_look(struct arena *arena, int64_t account_id, struct str id, struct ai_job *job)
{
    if (!ai_job_id_is_valid(id))
        return -ENOENT;
    int queue = look_in_queue(arena, account_id, id, job);
    if (queue == 0)
        return 0;
    int row = ai_job_get(arena, account_id, id, job);
    /* Only who could look in both places can say that there is none. */
    return row == -ENOENT && queue != -ENOENT ? queue : row;
}

/* The job queue: what is in it, what has died, once more please, and how fast it is. */
#include "core/domain/instance/job.h"

#include "core/operator/verbs.h"

#include <errno.h>
#include <stdio.h>

enum { LIST_PAGE = 1000, PING_COUNT = 10000, PING_FIBERS = 256, PING_FIBERS_MAX = 10000 };

/* ---- looking ---- */

const struct operator_argument operator_jobs_counts_arguments[] = {{.name = NULL}};

int operator_jobs_counts(struct operator_call *call)
{
    struct job_count *counts;
    size_t count;
    int result = job_counts(call->arena, &counts, &count);
    if (result)
        return result;
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++) {
        json_open(call->out, '{');
        json_put_str(call->out, "kind", counts[i].kind);
        json_put_str(call->out, "state", counts[i].state);
        json_put_int(call->out, "count", counts[i].count);
        json_put_int(call->out, "oldest_seconds", counts[i].oldest_s);
        json_close(call->out, '}');
    }
    json_close(call->out, ']');
    return 0;
}

static void put_dead(struct json_out *out, const struct job_row *row)
{
    json_open(out, '{');
    json_put_int(out, "id", row->id);
    json_put_str(out, "kind", row->kind);
    json_put_str(out, "tenant", row->tenant);
    json_put_str(out, "key", row->key);
    json_put_int(out, "tries", row->tries);
    json_put_int(out, "crashes", row->crashes);
    json_put_str(out, "last_error", row->last_error);
    operator_put_time(out, "created_at", row->created_ms);
    json_close(out, '}');
}

const struct operator_argument operator_jobs_dead_arguments[] = {
    {.name = "limit", .type = OPERATOR_NUMBER, .help = "how many: 1 to 1000 (100)"},
    {.name = "cursor",
     .type = OPERATOR_NUMBER,
     .help = "go on behind the job of this id (the last one seen)"},
    {.name = NULL},
};

int operator_jobs_dead(struct operator_call *call)
{
    struct job_row *rows;
    int64_t limit, cursor;
    size_t count = 0;
    int result = operator_page(call, &limit, &cursor);
    if (result == 0)
        result = job_list_dead(call->arena, cursor, (size_t)limit, &rows, &count);
    if (result)
        return result;
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++)
        put_dead(call->out, &rows[i]);
    json_close(call->out, ']');
    return 0;
}

/* ---- once more ---- */

const struct operator_argument operator_jobs_redrive_arguments[] = {
    {.name = "job", .type = OPERATOR_NUMBER, .flags = OPERATOR_WORD, .help = "its number"},
    {.name = "kind", .help = "or all dead ones of a kind"},
    {.name = NULL},
};

int operator_jobs_redrive(struct operator_call *call)
{
    struct str kind_name = operator_text(call, "kind");
    bool has_job = operator_text(call, "job").at;
    enum job_kind kind;
    size_t count = 1;
    int result;
    if (has_job == (kind_name.at != NULL))
        return operator_fail(call, -EINVAL, "job or kind is required");
    if (kind_name.at && job_kind_of(kind_name, &kind))
        return operator_fail(call, -EINVAL, "there is no kind of job %.*s", STR_ARG(kind_name));
    if (has_job)
        result = job_redrive(operator_number(call, "job", 0));
    else
        result = job_redrive_kind(kind, &count);
    if (result == -ENOENT)
        return operator_fail(call, result, "no such job is dead");
    if (result)
        return result;
    json_open(call->out, '{');
    json_put_int(call->out, "redriven", (int64_t)count);
    json_close(call->out, '}');
    return 0;
}

/* ---- how fast ---- */

const struct operator_argument operator_jobs_ping_arguments[] = {
    {.name = "count", .type = OPERATOR_NUMBER, .help = "how many jobs (10000)"},
    {.name = "fibers", .type = OPERATOR_NUMBER, .help = "how many at once (256)"},
    {.name = "volatile", .type = OPERATOR_SWITCH, .help = "jobs without a row"},
    {.name = NULL},
};

static void put_decimal(struct json_out *out, const char *name, double value, int digits)
{
    char text[64];
    int size = snprintf(text, sizeof text, "%.*f", digits, value);
    json_put_raw(out, name, str_of(text, (size_t)size));
}

int operator_jobs_ping(struct operator_call *call)
{
    int64_t count = operator_number(call, "count", PING_COUNT);
    int64_t fibers = operator_number(call, "fibers", PING_FIBERS);
    struct job_ping_times times;
    if (count < 1 || fibers < 1 || fibers > PING_FIBERS_MAX)
        return operator_fail(call, -EINVAL, "count and fibers must be above 0, and fibers %d at most",
                             PING_FIBERS_MAX);
    int result = job_ping((uint64_t)count, !operator_switch(call, "volatile"), (unsigned)fibers, &times);
    if (result == -ETIMEDOUT)
        return operator_fail(call, result, "the pings were not all done: does a worker run?");
    if (result)
        return result;
    double seconds = (double)times.done_ns / 1e9;
    json_open(call->out, '{');
    json_put_int(call->out, "jobs", count);
    put_decimal(call->out, "seconds", seconds, 4);
    put_decimal(call->out, "jobs_per_second", (double)count / seconds, 0);
    put_decimal(call->out, "added_seconds", (double)times.added_ns / 1e9, 4);
    json_close(call->out, '}');
    return 0;
}

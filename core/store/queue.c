/* The job queue's outside: the table of kinds, and how jobs get in. What takes them out is workers/pool.c. */
#include "core/store/queue.h"

#include "core/base/config.h"
#include "core/base/metrics.h"
#include "core/store/embed.h"
#include "core/store/redis.h"

#include <errno.h>
#include <stdio.h>

/* ---- kinds ---- */

/* A pod is stopped, started and waited for; the rest is for the statements around it. */
static uint64_t scale_limit_ms(void)
{
    return (uint64_t)(config->pod_stop_ms + config->pod_ready_ms) + 10000;
}

static uint64_t deliver_limit_ms(void)
{
    return (uint64_t)(config->pod_connect_ms + config->pod_answer_ms) + 10000;
}

/* A slice of time, an attempt that begins at its end, and the statements around them. */
static uint64_t webhook_limit_ms(void)
{
    return WEBHOOK_SLICE_MS + (uint64_t)config->webhook_timeout_ms + 5000;
}

static uint64_t ping_limit_ms(void)
{
    return 1000;
}

const struct job_policy job_policies[JOB_KINDS] = {
    [JOB_SCALE] = {"scale", "scale", 5, 500, 30000, true, scale_limit_ms},
    [JOB_DELIVER] = {"deliver", "deliver", 8, 500, 60000, true, deliver_limit_ms},
    [JOB_WEBHOOK] = {"webhook", "webhook", 8, 500, 30000, true, webhook_limit_ms},
    [JOB_PING] = {"ping", "ping", 3, 100, 1000, true, ping_limit_ms},
    [JOB_PING_VOLATILE] = {"ping_volatile", "ping", 1, 0, 0, false, ping_limit_ms},
};

int job_kind_of(struct str name, enum job_kind *kind)
{
    for (size_t i = 0; i < JOB_KINDS; i++)
        if (str_equal(name, str_from(job_policies[i].name))) {
            *kind = (enum job_kind)i;
            return 0;
        }
    return -EINVAL;
}

void queue_name_metrics(void)
{
    static const enum metric labelled[] = {M_JOBS_ADDED,   M_JOBS_DONE,   M_JOBS_RETRIED, M_JOBS_DEAD,
                                           M_JOBS_CRASHED, M_JOBS_FENCED, M_JOB_SECONDS,  M_JOB_WAIT_SECONDS};
    for (size_t i = 0; i < ARRAY_SIZE(labelled); i++)
        for (unsigned kind = 0; kind < JOB_KINDS; kind++)
            metric_name_slot(labelled[i], kind, job_policies[kind].name);
}

/* ---- lanes ---- */

struct str queue_lane_key(char out[QUEUE_KEY_SIZE], const char *queue, unsigned lane)
{
    int size = snprintf(out, QUEUE_KEY_SIZE, "jobs:%s:%u", queue, lane);
    CHECK(size > 0 && size < QUEUE_KEY_SIZE);
    return str_of(out, (size_t)size);
}

/* FNV-1a: spreads tenants over lanes, nothing more. */
static uint64_t tenant_hash(struct str tenant)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < tenant.size; i++)
        hash = (hash ^ (unsigned char)tenant.at[i]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 29;
}

struct lane_pair {
    char first[QUEUE_KEY_SIZE];
    char second[QUEUE_KEY_SIZE];
    struct str keys[2];
};

/* Never twice the same. */
static void lane_pair_of(struct lane_pair *pair, enum job_kind kind, struct str tenant)
{
    uint64_t hash = tenant_hash(tenant);
    unsigned first = (unsigned)(hash % QUEUE_LANES);
    unsigned step = 1 + (unsigned)((hash >> 32) % (QUEUE_LANES - 1));
    pair->keys[0] = queue_lane_key(pair->first, job_policies[kind].queue, first);
    pair->keys[1] = queue_lane_key(pair->second, job_policies[kind].queue, (first + step) % QUEUE_LANES);
}

static struct str ring_script(void)
{
    for (size_t i = 0; i < embedded_script_count; i++)
        if (strcmp(embedded_scripts[i].name, "ring.lua") == 0)
            return str_of(embedded_scripts[i].text, embedded_scripts[i].size);
    UNREACHABLE();
}

/* The words of one ring. EVAL with the whole script and not EVALSHA: nobody is there to repeat it when Redis has
 * forgotten the script. */
enum { RING_WORDS = 7 };
struct ring {
    struct lane_pair lanes;
    char id[24];
    struct str words[RING_WORDS];
};

static void ring_init(struct ring *ring, const struct queue_bell *bell)
{
    lane_pair_of(&ring->lanes, bell->kind, bell->tenant);
    CHECK(bell->job_id > 0);
    ring->words[0] = STR("EVAL");
    ring->words[1] = ring_script();
    ring->words[2] = STR("2");
    ring->words[3] = ring->lanes.keys[0];
    ring->words[4] = ring->lanes.keys[1];
    ring->words[5] = STR("id");
    ring->words[6] = str_of(ring->id, format_u64(ring->id, (uint64_t)bell->job_id));
}

void queue_ring(enum job_kind kind, struct str tenant, int64_t job_id)
{
    struct ring ring;
    ring_init(&ring, &(struct queue_bell){kind, tenant, job_id});
    redis_send(redis_shared(), ring.words, RING_WORDS);
    metric_add_slot(M_JOBS_ADDED, kind, 1);
}

int queue_ring_all(const struct queue_bell *bells, size_t count)
{
    if (count == 0)
        return 0;
    struct arena arena;
    arena_init(&arena);
    struct ring *rings = arena_alloc(&arena, count * sizeof *rings);
    struct redis_step *steps = arena_zalloc(&arena, count * sizeof *steps);
    for (size_t i = 0; i < count; i++) {
        ring_init(&rings[i], &bells[i]);
        steps[i].args = rings[i].words;
        steps[i].count = RING_WORDS;
    }
    int result = redis_steps(redis_shared(), &arena, steps, count);
    for (size_t i = 0; result == 0 && i < count; i++)
        result = steps[i].result;
    arena_clear(&arena);
    return result;
}

/* ---- in ---- */

static const struct pg_statement add = {"job_add", "SELECT job_add($1, $2, $3, $4, $5::jsonb, $6)"};

static void ring_bell(void *arg)
{
    const struct queue_bell *bell = arg;
    queue_ring(bell->kind, bell->tenant, bell->job_id);
}

/* Once it is committed, as queue_ring wants it. */
void queue_ring_committed(const struct queue_bell *bell)
{
    struct queue_bell own = *bell;
    struct queue_bell *kept = &own;
    struct arena *arena = pg_scope_arena();
    if (arena) {
        kept = arena_alloc(arena, sizeof *kept);
        *kept = *bell;
        kept->tenant = arena_str(arena, bell->tenant);
    }
    pg_after_commit(ring_bell, kept);
}

int queue_add(enum job_kind kind, struct str tenant, struct str key, struct str payload, uint64_t delay_ms,
              int64_t *job_id)
{
    CHECK(job_policies[kind].durable);
    struct pg_rows *rows = NULL;
    int result = pg_write(&add,
                          PG_VALUES(PG_TEXT(str_from(job_policies[kind].name)),
                                    PG_TEXT(str_from(job_policies[kind].queue)), PG_TEXT(tenant),
                                    PG_TEXT(key), PG_TEXT(payload), PG_INT(delay_ms)),
                          &rows);
    if (result == 0) {
        *job_id = pg_i64(rows, 0, 0);
        if (delay_ms == 0)
            queue_ring_committed(&(struct queue_bell){kind, tenant, *job_id});
        else
            metric_add_slot(M_JOBS_ADDED, kind, 1);
    }
    pg_rows_free(rows);
    return result;
}

int queue_add_volatile(enum job_kind kind, struct str tenant, struct str payload)
{
    CHECK(!job_policies[kind].durable);
    struct lane_pair lanes;
    lane_pair_of(&lanes, kind, tenant);
    struct arena arena;
    arena_init(&arena);
    struct redis_value reply;
    /* An absent payload has no field: empty would be a payload of its own. */
    const struct str args[] = {
        lanes.keys[0], lanes.keys[1], STR("kind"),    str_from(job_policies[kind].name),
        STR("tenant"), tenant,        STR("payload"), payload};
    int result = redis_script(redis_shared(), &reply, &arena, "ring.lua", args,
                              ARRAY_SIZE(args) - (payload.at ? 0 : 2), 2);
    if (result == 0)
        metric_add_slot(M_JOBS_ADDED, kind, 1);
    arena_clear(&arena);
    return result;
}

/* ---- done, with its effect ---- */

static const struct pg_statement done = {"job_done", "SELECT job_done($1, $2)"};

int queue_done_in(struct pg_tx *tx, struct job *job)
{
    struct pg_rows *rows = NULL;
    int result = pg_query(tx, &done, PG_VALUES(PG_INT(job->id), PG_INT(job->fence)), &rows);
    if (result == 0 && !pg_bool(rows, 0, 0))
        result = -ESTALE;
    pg_rows_free(rows);
    if (result == 0)
        job->finished = true;
    else if (result == -ESTALE)
        metric_add_slot(M_JOBS_FENCED, job->kind, 1);
    return result;
}

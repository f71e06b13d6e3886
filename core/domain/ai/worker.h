#ifndef CORE_DOMAIN_AI_WORKER_H
#define CORE_DOMAIN_AI_WORKER_H

#include "core/base/money.h"
#include "core/base/str.h"
#include "core/domain/ai/job.h"
#include "core/run/fiber.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The queue of AI calls (core/domain/ai/queue.h), from the side of who runs them. Calls come by themselves, as many as there is
 * room; each is a task, which ends by ai_task_finish or ai_task_again, whatever happens.
 *
 * A worker shows every second that it lives (AI_WORKER_LIFE_MS). Another takes over the calls of one that does not: those of which
 * nothing was delivered run again, the others end there. If this one was only slow, its tasks hear -ESTALE from then on.
 */

enum { AI_WORKER_LIFE_MS = 5000, AI_WINDOW_BYTES = 256 * 1024 };

struct ai_task {
    struct link link;
    struct str id;
    uint64_t try;
    struct str provider; /* its name */
    int64_t route;       /* its place in the list of the model's, from 1 */
    int64_t account_id;
    int64_t generation; /* of the account's lease */
    money most;         /* what was reserved */
    bool streamed;
    bool durable;
    struct str channel; /* of who waits; absent: nobody does */
    struct str meta;    /* ai_meta_read's */
    struct str body;
    struct fiber *fiber; /* the runner's: cancelled when the client leaves. NULL: there is none */
    bool left;           /* the client has left */
    bool stale;          /* another worker has it */
    bool begun;          /* a piece was delivered */
    uint64_t number;     /* of the next message */
    uint64_t sent;       /* bytes of pieces */
    uint64_t taken;      /* of these, what the client has taken */
    struct wait *room;   /* who waits for it to take more */
};

struct ai_worker_options {
    int64_t room;                      /* calls at once */
    void (*run)(struct ai_task *task); /* a call has come. From a callback: starts a fiber */
    /* Calls that ended and whose worker has not said so to PostgreSQL for seconds. On a fiber. */
    void (*recover)(const struct str *ids, size_t count);
};

/* Begins to take calls. Once per process, on its loop; needs Redis open, but not up. */
void ai_worker_open(struct loop *loop, const struct ai_worker_options *options);
/* Takes no more calls; waits until those that run have ended, or `deadline_ns`. Waits. */
void ai_worker_drain(uint64_t deadline_ns);
/* Gives what is left to other workers. No task is left here: their fibers have ended. Waits. */
void ai_worker_close(void);
/* Tasks that have not ended, and this worker's name in rows and in Redis. */
unsigned ai_worker_tasks(void);
struct str ai_worker_name(void);
/* Calls back for each task; it must neither end one nor wait. */
void ai_worker_each(void (*visit)(struct ai_task *task, void *arg), void *arg);
/* With false no more calls come, from the next beat on. */
void ai_worker_take(bool takes);

/*
 * A piece of a streamed answer for the client, with the number of tokens that were delivered up to and with it. Waits while the
 * client has more than AI_WINDOW_BYTES to take. 0; -EPIPE: nobody hears it any more; -ESTALE; -ECANCELED; errors of Redis.
 */
int ai_task_piece(struct ai_task *task, struct str payload, int64_t tokens) MUST_USE;

/* What an end says of the provider. */
enum ai_lesson { AI_LESSON_NONE, AI_LESSON_OK, AI_LESSON_RATE, AI_LESSON_FAIL };
struct ai_learned {
    enum ai_lesson lesson;
    int64_t latency_ms; /* until the first byte of its answer */
    int64_t retry_ms;   /* as it wants to be left alone; 0: it did not say */
};

/*
 * Ends the call: what it has not cost is free again, the client hears the last message (`status` and `payload`), the record lies
 * in Redis until ai_ended_forget. 0: it is the caller's to settle, also when Redis has forgotten it; -ESTALE: it is not.
 * Waits, cancelled or not, for some seconds while Redis is away; after that it is told when it is back.
 */
int ai_task_finish(struct ai_task *task, const struct ai_end *end, const struct ai_learned *learned,
                   int status, struct str payload) MUST_USE;
/* Nothing was delivered: to the next provider (or, `same`, to any worker for this one). 0: it is no longer ours; -ENOENT: there
 * is none, and it still is; -ESTALE. Waits likewise. */
int ai_task_again(struct ai_task *task, const struct ai_learned *learned, bool same) MUST_USE;
/* Frees it; after one of these, on the fiber that ran it. */
void ai_task_free(struct ai_task *task);

/* Reads the end of a call that lies in Redis. Texts in the arena. -ENOENT: there is none. Waits. */
int ai_ended_read(struct arena *arena, struct str id, struct ai_end *end) MUST_USE;
/* They are committed: takes them out of Redis. Does not wait. */
void ai_ended_forget(const struct str *ids, size_t count);

#endif

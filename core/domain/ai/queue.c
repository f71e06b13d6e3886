/* AI calls from the side of who waits for them: see queue.h. What is sent to Redis and what comes back: schema/ai.lua. */
#include "core/domain/ai/queue.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/id.h"
#include "core/base/log.h"
#include "core/domain/ai/internal.h"
#include "core/domain/money/lease.h"
#include "core/run/sync.h"
#include "core/store/redis.h"
#include "core/store/table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CHANNEL_RANDOM = 20,
    CHANNEL_SIZE = 32,
    MONEY_TRIES = 8,
    SILENCE_MS = 3000,      /* after which a call is looked at */
    TAKEN_STEP = 64 * 1024, /* the worker hears of what was taken so often */
    SUBMIT_WORDS = 14 + 5 * AI_ROUTES_MAX,
    DAY_SIZE = 9,
    CANCEL_PAUSE_LEAST_MS = 20, /* between two tries to cancel */
    CANCEL_PAUSE_MOST_MS = 500,
};

/* What a loop listens with. */
struct ai_ear {
    char channel[CHANNEL_SIZE];
    struct table calls;
    struct link cancels; /* that are under way */
    struct group cancelling;
    bool hurries; /* the server ends */
};

void ai_new_id(char out[AI_ID_SIZE])
{
    memcpy(out, "job_", 4);
    id_random_base62(out + 4, AI_ID_SIZE - 5);
}

/* ---- what is heard ---- */

static struct str id_of(struct link *item)
{
    return LIST_ENTRY(item, struct ai_call, link)->id;
}

static struct ai_ear *ear_self(void)
{
    struct ai_ear *ear = loop_self()->slots[LOOP_AI];
    CHECK(ear);
    return ear;
}

static void wake(struct ai_call *call)
{
    if (call->waiter)
        wait_done(call->waiter, 0);
}

static bool said_of(struct str word, enum ai_said *said)
{
    static const char letters[] = {[AI_PIECE] = 'c', [AI_END] = 'e', [AI_FAILED] = 'f'};
    for (size_t i = 0; i < sizeof letters; i++)
        if (word.size == 1 && word.at[0] == letters[i]) {
            *said = (enum ai_said)i;
            return true;
        }
    return false;
}

/* Whether the message is the one that is due, of the run that speaks. What a worker says that was taken for dead is left out. */
static bool is_due(struct ai_call *call, uint64_t try, enum ai_said said, struct str *rest)
{
    struct str word;
    uint64_t number;
    if (try < call->try)
        return false;
    if (try > call->try) {
        call->try = try;
        call->number = 0;
    }
    if (said == AI_FAILED)
        return true;
    str_split(rest, ' ', &word);
    if (!str_to_u64(word, &number) || number < call->number)
        return false;
    call->broken = call->broken || number > call->number;
    call->number = number + 1;
    return true;
}

static struct ai_message *message_new(enum ai_said said, struct str rest, struct str payload)
{
    struct ai_message *message = mem_alloc(sizeof *message + rest.size + payload.size + 2);
    char *text = (char *)(message + 1);
    *message = (struct ai_message){.said = said, .rest = str_of(text, rest.size)};
    if (rest.size)
        memcpy(text, rest.at, rest.size);
    text[rest.size] = '\0';
    text += rest.size + 1;
    memcpy(text, payload.at, payload.size);
    text[payload.size] = '\0';
    message->payload = str_of(text, payload.size);
    return message;
}

/* Nobody waits for it here any more, and its worker goes on: the word that its client has left was lost. `head`: "NUMBER WORKER". */
static void tell_left(struct str id, struct str try, struct str head)
{
    char channel[96];
    char words[96];
    struct str number;
    if (!str_split(&head, ' ', &number) || !head.at || head.size >= 64 || id.size >= AI_ID_SIZE ||
        try.size > 20)
        return;
    int channel_size = snprintf(channel, sizeof channel, "ai:work:%.*s", STR_ARG(head));
    int size = snprintf(words, sizeof words, "x %.*s %.*s\n", STR_ARG(id), STR_ARG(try));
    redis_send(redis_shared(), REDIS_ARGS(STR("PUBLISH"), str_of(channel, (size_t)channel_size),
                                          str_of(words, (size_t)size)));
}

/* "KIND ID TRY REST\nPAYLOAD"; REST of a piece "NUMBER WORKER", of an end "NUMBER STATUS", of a failure its code. */
static void on_heard(void *arg, struct str text)
{
    struct ai_ear *ear = arg;
    const char *end = memchr(text.at, '\n', text.size);
    struct str head = str_of(text.at, end ? (size_t)(end - text.at) : 0);
    struct str kind;
    struct str id;
    struct str try_word;
    uint64_t try;
    enum ai_said said;
    if (!end || !str_split(&head, ' ', &kind) || !said_of(kind, &said) || !str_split(&head, ' ', &id) ||
        !str_split(&head, ' ', &try_word) || !str_to_u64(try_word, &try) || !head.at)
        return;
    struct link *item = table_find(&ear->calls, id);
    struct ai_call *call = item ? LIST_ENTRY(item, struct ai_call, link) : NULL;
    if (!call && said == AI_PIECE)
        tell_left(id, try_word, head);
    if (!call || call->over || !is_due(call, try, said, &head))
        return;
    if (said == AI_PIECE && head.size < sizeof call->worker) {
        memcpy(call->worker, head.at, head.size);
        call->worker[head.size] = '\0';
    }
    struct str payload = str_of(end + 1, text.size - (size_t)(end + 1 - text.at));
    struct ai_message *message = message_new(said, head, payload);
    list_push_back(&call->inbox, &message->link);
    call->over = said != AI_PIECE;
    wake(call);
}

void ai_open_loop(struct loop *loop)
{
    CHECK(!loop->slots[LOOP_AI]);
    struct ai_ear *ear = mem_zalloc(sizeof *ear);
    char random[CHANNEL_RANDOM + 1];
    id_random(random, CHANNEL_RANDOM);
    snprintf(ear->channel, sizeof ear->channel, "ai:for:%s", random);
    table_init(&ear->calls, id_of);
    list_init(&ear->cancels);
    loop->slots[LOOP_AI] = ear;
    redis_subscribe(str_from(ear->channel), on_heard, ear);
}

static void hurry(struct link *item, void *unused)
{
    (void)unused;
    wake(LIST_ENTRY(item, struct ai_call, link));
}

void ai_end_waits(struct loop *loop)
{
    struct ai_ear *ear = loop->slots[LOOP_AI];
    if (!ear)
        return;
    ear->hurries = true;
    table_each(&ear->calls, hurry, NULL);
}

/* In a fiber of its own: whoever closes a call may have been cancelled, or be in a hurry. */
struct cancelling {
    struct link link;
    struct ai_ear *ear;
    struct fiber *fiber;
    int64_t account_id;
    char id[AI_ID_SIZE];
};

/* Each has been tried once at least. */
static void end_cancels(struct ai_ear *ear)
{
    LIST_EACH (&ear->cancels, item, after)
        fiber_cancel(LIST_ENTRY(item, struct cancelling, link)->fiber);
    fiber_hold();
    CHECK(group_wait(&ear->cancelling, "AI calls to be cancelled", CLOCK_NEVER) == 0);
    fiber_release();
}

void ai_close_loop(struct loop *loop)
{
    struct ai_ear *ear = loop->slots[LOOP_AI];
    if (!ear)
        return;
    end_cancels(ear);
    redis_unsubscribe(str_from(ear->channel));
    table_clear(&ear->calls);
    loop->slots[LOOP_AI] = NULL;
    free(ear);
}

/* ---- submitting ---- */

struct submission {
    struct str words[SUBMIT_WORDS];
    size_t count;
    char day[DAY_SIZE];
    char numbers[8 + 4 * AI_ROUTES_MAX][24];
    size_t number_count;
};

static void add(struct submission *submission, struct str word)
{
    CHECK(submission->count < SUBMIT_WORDS);
    submission->words[submission->count++] = word;
}

static void add_number(struct submission *submission, int64_t number)
{
    char *digits = submission->numbers[submission->number_count++];
    CHECK(submission->number_count <= ARRAY_SIZE(submission->numbers));
    int size = snprintf(digits, 24, "%lld", (long long)number);
    add(submission, str_of(digits, (size_t)size));
}

static void write_submission(struct submission *submission, const struct ai_order *order, struct str channel)
{
    char now[CLOCK_ISO_SIZE];
    clock_format_iso(now, clock_wall_ms());
    snprintf(submission->day, sizeof submission->day, "%.4s%.2s%.2s", now, now + 5, now + 8);
    submission->count = submission->number_count = 0;
    add(submission, STR("submit"));
    add(submission, order->id);
    add_number(submission, order->account_id);
    add_number(submission, order->most);
    add_number(submission, order->limit < 0 ? -1 : order->limit);
    add(submission, str_of(submission->day, DAY_SIZE - 1));
    add(submission, order->streamed  ? order->durable ? STR("sd") : STR("s")
                     : order->durable ? STR("d")
                                     : STR("-"));
    add_number(submission, order->wait_ms);
    add(submission, channel);
    add(submission, order->meta);
    add(submission, order->body);
    add_number(submission, order->call_price);
    add_number(submission, order->prompt_price);
    add_number(submission, order->token_price);
    add_number(submission, (int64_t)order->route_count);
    for (size_t i = 0; i < order->route_count; i++) {
        const struct ai_route *route = &order->routes[i];
        add(submission, route->name);
        add_number(submission, route->most);
        add_number(submission, route->calls_most);
        add_number(submission, route->tenant_most);
        add_number(submission, route->bytes_most);
    }
}

static const struct {
    const char *word;
    enum ai_entry entry;
} entries[] = {
    {"run", AI_ACCEPTED},     {"wait", AI_ACCEPTED}, {"spend", AI_SPENT},       {"full", AI_FULL},
    {"mine", AI_TENANT_FULL}, {"late", AI_TOO_LATE}, {"open", AI_OUT_OF_ORDER},
};

/* One attempt. -EAGAIN: what was missing is there now. */
static int try_submit(const struct ai_order *order, struct str channel, enum ai_entry *entry,
                      int64_t *retry_ms)
{
    struct arena arena;
    struct submission submission;
    struct redis_value reply;
    arena_init(&arena);
    write_submission(&submission, order, channel);
    int result =
        redis_script(redis_shared(), &reply, &arena, "ai.lua", submission.words, submission.count, 0);
    if (result == 0 && (reply.type != REDIS_ARRAY || reply.count == 0))
        result = -EIO;
    if (result == -EIO)
        LOG(WARN, "an AI call could not be submitted", LOG_STR("reply", reply.text));
    struct str word = result == 0 ? reply.items[0].text : STR_NONE;
    for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
        if (str_equal(word, str_from(entries[i].word))) {
            *entry = entries[i].entry;
            *retry_ms = *entry != AI_ACCEPTED && reply.count > 1 ? reply.items[1].integer : 0;
            arena_clear(&arena);
            return 0;
        }
    if (str_equal(word, STR("known"))) {
        result = -EALREADY;
    } else if (str_equal(word, STR("load"))) {
        result = lease_load_spend(order->account_id);
        result = result ? result : -EAGAIN;
    } else if (str_equal(word, STR("short"))) {
        int64_t generation = 0;
        int64_t applied = 0;
        bool fine = reply.count == 3 && str_to_i64(reply.items[1].text, &generation) &&
                    str_to_i64(reply.items[2].text, &applied);
        result = fine ? lease_refill(order->account_id, generation, applied, order->most) : -EIO;
        result = result ? result : -EAGAIN;
    }
    arena_clear(&arena);
    return result;
}

static int submit(const struct ai_order *order, struct str channel, enum ai_entry *entry, int64_t *retry_ms)
{
    int result = -EAGAIN;
    CHECK(order->route_count > 0 && order->route_count <= AI_ROUTES_MAX);
    *retry_ms = 0;
    for (int tries = 0; result == -EAGAIN && tries < MONEY_TRIES; tries++)
        result = try_submit(order, channel, entry, retry_ms);
    if (result == -EDQUOT) {
        *entry = AI_NO_MONEY;
        return 0;
    }
    return result;
}

int ai_submit_unheard(const struct ai_order *order, enum ai_entry *entry, int64_t *retry_ms)
{
    return submit(order, STR(""), entry, retry_ms);
}

int ai_submit(struct ai_call *call, const struct ai_order *order, enum ai_entry *entry, int64_t *retry_ms)
{
    struct ai_ear *ear = ear_self();
    *call = (struct ai_call){.id = order->id, .account_id = order->account_id};
    list_init(&call->inbox);
    table_add(&ear->calls, &call->link);
    int result = submit(order, str_from(ear->channel), entry, retry_ms);
    if (result == 0 && *entry == AI_ACCEPTED)
        return 0;
    /* With these it may have been carried out. */
    bool unsure = result == -ECONNRESET || result == -ETIMEDOUT || result == -ECANCELED;
    if (unsure)
        ai_call_close(call);
    else
        ai_call_leave(call);
    return result;
}

/* ---- hearing ---- */

static void drop_shown(struct ai_call *call)
{
    free(call->shown);
    call->shown = NULL;
}

/* Nothing was heard for long: whether there is nothing to be heard any more, also because it was submitted anew, unheard. */
static bool is_gone(const struct ai_call *call)
{
    struct arena arena;
    struct redis_value reply;
    char key[AI_KEY_SIZE];
    arena_init(&arena);
    int result =
        redis_call(redis_shared(), &reply, &arena, STR("HMGET"), ai_key(key, call->id), STR("s"), STR("c"));
    bool gone = result == 0 && reply.count == 2 &&
                (str_equal(reply.items[0].text, STR("end")) ||
                 !str_equal(reply.items[1].text, str_from(ear_self()->channel)));
    arena_clear(&arena);
    return gone && list_empty(&call->inbox);
}

static int wait_message(struct ai_call *call, uint64_t deadline_ns)
{
    for (bool suspected = false; list_empty(&call->inbox);) {
        if (ear_self()->hurries)
            return -ESHUTDOWN;
        uint64_t look_ns = clock_in_ms(SILENCE_MS);
        struct wait wait = WAIT_INIT;
        call->waiter = &wait;
        int result = wait_for(&wait, "an AI answer", look_ns < deadline_ns ? look_ns : deadline_ns);
        call->waiter = NULL;
        if (result == -ETIMEDOUT && look_ns < deadline_ns) {
            bool gone = is_gone(call);
            if (gone && suspected)
                return -EPIPE;
            suspected = gone; /* its last word may be under way */
        } else if (result) {
            return result;
        }
    }
    return call->broken ? -EPIPE : 0;
}

int ai_next(struct ai_call *call, const struct ai_message **message, uint64_t deadline_ns)
{
    drop_shown(call);
    int result = call->broken ? -EPIPE : wait_message(call, deadline_ns);
    if (result)
        return result;
    call->shown = LIST_ENTRY(list_pop_front(&call->inbox), struct ai_message, link);
    call->taken += call->shown->payload.size;
    *message = call->shown;
    return 0;
}

void ai_taken(struct ai_call *call)
{
    char channel[96];
    char words[96];
    if (call->taken - call->told < TAKEN_STEP || !call->worker[0] || call->over)
        return;
    call->told = call->taken;
    int channel_size = snprintf(channel, sizeof channel, "ai:work:%s", call->worker);
    int size = snprintf(words, sizeof words, "a %.*s %llu %llu\n", STR_ARG(call->id),
                        (unsigned long long)call->try, (unsigned long long)call->taken);
    CHECK(channel_size < (int)sizeof channel && size < (int)sizeof words);
    redis_send(redis_shared(), REDIS_ARGS(STR("PUBLISH"), str_of(channel, (size_t)channel_size),
                                          str_of(words, (size_t)size)));
}

/* ---- ending ---- */

int ai_cancel(int64_t account_id, struct str id, bool only_waiting, enum ai_cancel_outcome *outcome)
{
    static const struct {
        const char *word;
        enum ai_cancel_outcome outcome;
    } outcomes[] = {{"none", AI_CANCEL_NONE}, {"removed", AI_CANCEL_REMOVED}, {"running", AI_CANCEL_RUNNING}};
    struct arena arena;
    struct redis_value reply;
    char account[24];
    int size = snprintf(account, sizeof account, "%lld", (long long)account_id);
    arena_init(&arena);
    const struct str words[] = {STR("cancel"), id, str_of(account, (size_t)size),
                                only_waiting ? STR("late") : STR("left")};
    fiber_hold();
    int result = redis_script(redis_shared(), &reply, &arena, "ai.lua", words, ARRAY_SIZE(words), 0);
    fiber_release();
    *outcome = AI_CANCEL_NONE;
    for (size_t i = 0; result == 0 && i < ARRAY_SIZE(outcomes); i++)
        if (str_equal(reply.text, str_from(outcomes[i].word)))
            *outcome = outcomes[i].outcome;
    arena_clear(&arena);
    return result;
}

/* Until Redis has taken it, or the call's time is over: else it would go on at its provider, unheard. To no harm when it was taken
 * already. */
static int insist(const struct cancelling *cancelling)
{
    uint64_t until_ns = clock_in_ms((uint64_t)config->ai_call_s * 1000);
    uint64_t pause_ms = CANCEL_PAUSE_LEAST_MS;
    for (;;) {
        enum ai_cancel_outcome outcome;
        int result = ai_cancel(cancelling->account_id, str_from(cancelling->id), false, &outcome);
        if (result == 0 || result == -EIO || clock_now_ns() >= until_ns || fiber_sleep_ms(pause_ms))
            return result;
        pause_ms = 2 * pause_ms < CANCEL_PAUSE_MOST_MS ? 2 * pause_ms : CANCEL_PAUSE_MOST_MS;
    }
}

static void cancel_run(void *arg)
{
    struct cancelling *cancelling = arg;
    int result = insist(cancelling);
    if (result)
        LOG(WARN, "an AI call could not be cancelled", LOG_TEXT("job", cancelling->id), LOG_ERRNO(result));
    list_remove(&cancelling->link);
    group_done(&cancelling->ear->cancelling);
    free(cancelling);
}

static void cancel_soon(const struct ai_call *call)
{
    struct cancelling *cancelling = mem_zalloc(sizeof *cancelling);
    CHECK(call->id.size < sizeof cancelling->id);
    cancelling->ear = ear_self();
    cancelling->account_id = call->account_id;
    memcpy(cancelling->id, call->id.at, call->id.size);
    list_push_back(&cancelling->ear->cancels, &cancelling->link);
    group_add(&cancelling->ear->cancelling);
    cancelling->fiber = fiber_start(loop_self(), "AI cancel", cancel_run, cancelling);
}

void ai_call_leave(struct ai_call *call)
{
    struct link *item;
    table_remove(&ear_self()->calls, &call->link);
    drop_shown(call);
    while ((item = list_pop_front(&call->inbox)) != NULL)
        free(LIST_ENTRY(item, struct ai_message, link));
}

void ai_call_close(struct ai_call *call)
{
    if (!call->over)
        cancel_soon(call);
    ai_call_leave(call);
}

/* What a loop believes of keys, and for how long. */
#include "core/domain/identity/verdict.h"

#include "test/unit/core/domain/identity/fixture.h"

enum { CROWD = 50 };
static const enum loop_slot slot = LOOP_TEST;

static struct {
    int calls;
    int result;
    int64_t key_id;
    int64_t wait_ms;
} store;

static int ask(const unsigned char *hash, const void *arg, struct principal *principal)
{
    (void)hash;
    (void)arg;
    store.calls++;
    int64_t key_id = store.key_id;
    int result = store.result;
    if (store.wait_ms && fiber_sleep_ms((uint64_t)store.wait_ms))
        return -ECANCELED;
    if (result == 0)
        *principal = (struct principal){.kind = PRINCIPAL_KEY, .key_id = key_id};
    return result;
}

/* Two of the same `place` share a place in the table. */
struct hash {
    unsigned char bytes[CRYPTO_DIGEST_SIZE];
};

static struct hash hash_of(int place, unsigned char tail)
{
    struct hash hash = {.bytes = {(unsigned char)place}};
    hash.bytes[CRYPTO_DIGEST_SIZE - 1] = tail;
    return hash;
}

static bool is_known(struct hash hash)
{
    return verdict_is_known(slot, hash.bytes);
}

static int find(struct hash hash, int64_t *key_id)
{
    struct principal principal = {.key_id = 0};
    int result = verdict_find(slot, hash.bytes, ask, NULL, &principal);
    *key_id = principal.key_id;
    return result;
}

static void run(void *arg)
{
    void (*body)(void);
    memcpy(&body, &arg, sizeof body);
    body();
    verdict_close_loop(loop_self(), slot);
}

static void on_loop(void (*body)(void))
{
    struct loop loop;
    void *arg;
    memcpy(&arg, &body, sizeof arg);
    store.calls = 0;
    store.result = 0;
    store.key_id = 7;
    store.wait_ms = 0;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run, arg);
    loop_close(&loop);
}

/* ---- ---- */

static void believe(void)
{
    int64_t id;
    struct hash hash = hash_of(1, 1);
    uint64_t start_ns = clock_now_ns();
    assert_false(is_known(hash));
    assert_int_equal(find(hash, &id), 0);
    assert_int_equal(id, 7);
    assert_true(is_known(hash));
    assert_false(is_known(hash_of(1, 2)));
    store.key_id = 8;
    store.result = -EACCES;
    assert_int_equal(find(hash, &id), 0);
    assert_int_equal(id, 7);
    assert_int_equal(store.calls, 1);
    UNTIL(find(hash, &id) == -EACCES);
    assert_in_range((clock_now_ns() - start_ns) / CLOCK_MS, 850, 1000);
    assert_int_equal(store.calls, 2);
    store.result = 0;
    assert_int_equal(find(hash, &id), -EACCES);
    assert_int_equal(store.calls, 2);
}

static void a_verdict_is_believed_for_less_than_a_second(void **state)
{
    (void)state;
    on_loop(believe);
}

static void time_of_asking(void)
{
    int64_t id;
    store.wait_ms = 600;
    assert_int_equal(find(hash_of(1, 1), &id), 0);
    store.wait_ms = 0;
    assert_int_equal(fiber_sleep_ms(400), 0);
    assert_false(is_known(hash_of(1, 1)));
}

static void it_is_as_old_as_the_question(void **state)
{
    (void)state;
    on_loop(time_of_asking);
}

static void fail_once(void)
{
    int64_t id;
    store.result = -ENOTCONN;
    assert_int_equal(find(hash_of(1, 1), &id), -ENOTCONN);
    assert_false(is_known(hash_of(1, 1)));
    store.result = 0;
    assert_int_equal(find(hash_of(1, 1), &id), 0);
}

static void a_failure_is_not_remembered(void **state)
{
    (void)state;
    on_loop(fail_once);
}

static int crowd_results[CROWD];
static int64_t crowd_ids[CROWD];

static void ask_in_crowd(int number)
{
    crowd_results[number] = find(hash_of(number % 2, 1), &crowd_ids[number]);
}

static void crowd(void)
{
    store.wait_ms = 20;
    identity_race(CROWD, ask_in_crowd);
    assert_int_equal(store.calls, 2);
    for (int i = 0; i < CROWD; i++) {
        assert_int_equal(crowd_results[i], 0);
        assert_int_equal(crowd_ids[i], 7);
    }
}

static void those_who_ask_at_once_wait_for_one_look_up(void **state)
{
    (void)state;
    on_loop(crowd);
}

static void crowd_that_fails(void)
{
    store.wait_ms = 20;
    store.result = -ENOTCONN;
    identity_race(CROWD, ask_in_crowd);
    assert_int_equal(store.calls, 2);
    for (int i = 0; i < CROWD; i++)
        assert_int_equal(crowd_results[i], -ENOTCONN);
}

static void all_hear_of_its_failure(void **state)
{
    (void)state;
    on_loop(crowd_that_fails);
}

static int first_result;
static struct wait first_done;

static void run_first(void *unused)
{
    int64_t id;
    (void)unused;
    first_result = find(hash_of(1, 1), &id);
    wait_done(&first_done, 0);
}

static void leave(void)
{
    int64_t id;
    store.wait_ms = 50;
    first_done = WAIT_INIT;
    struct fiber *first = fiber_start(loop_self(), "first", run_first, NULL);
    UNTIL(store.calls == 1);
    fiber_cancel(first);
    assert_int_equal(find(hash_of(1, 1), &id), 0);
    assert_int_equal(store.calls, 1);
    assert_int_equal(wait_for(&first_done, "the first", CLOCK_NEVER), 0);
    assert_int_equal(first_result, 0);
}

static void a_client_that_leaves_does_not_take_the_others_answer_along(void **state)
{
    (void)state;
    on_loop(leave);
}

static void drive_out(void)
{
    int64_t id;
    assert_int_equal(find(hash_of(1, 1), &id), 0);
    store.result = -EACCES;
    assert_int_equal(find(hash_of(1, 2), &id), -EACCES);
    assert_true(is_known(hash_of(1, 1)));
    store.result = 0;
    assert_int_equal(find(hash_of(1, 3), &id), 0);
    assert_false(is_known(hash_of(1, 1)));
    assert_true(is_known(hash_of(1, 3)));
}

static void what_is_nobodys_drives_out_nothing_that_holds(void **state)
{
    (void)state;
    on_loop(drive_out);
}

static int setup(void **state)
{
    (void)state;
    crypto_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_verdict_is_believed_for_less_than_a_second),
        cmocka_unit_test(it_is_as_old_as_the_question),
        cmocka_unit_test(a_failure_is_not_remembered),
        cmocka_unit_test(those_who_ask_at_once_wait_for_one_look_up),
        cmocka_unit_test(all_hear_of_its_failure),
        cmocka_unit_test(a_client_that_leaves_does_not_take_the_others_answer_along),
        cmocka_unit_test(what_is_nobodys_drives_out_nothing_that_holds),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}

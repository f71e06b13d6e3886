/* Kept answers against a real PostgreSQL: one effect for a key, the same answer again, and nothing of it in clear. */
#include "core/domain/idempotency.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/domain/vault.h"
#include "test/unit/core/store/pg_fixture.h"

static struct arena arena;

static struct idempotency which_of(struct str owner, struct str key, char request)
{
    struct idempotency which = {.owner = owner, .key = key};
    memset(which.request, request, sizeof which.request);
    return which;
}

static const struct idempotency *mine(void)
{
    static struct idempotency which;
    which = which_of(STR("session:1"), STR("key"), 'a');
    return &which;
}

static enum idempotency_state begin(const struct idempotency *which)
{
    enum idempotency_state state;
    int status = 0;
    struct str answer = STR_NONE;
    assert_int_equal(idempotency_begin(&arena, which, &state, &status, &answer), 0);
    assert_int_equal(pg_in_scope(), state == IDEMPOTENCY_NEW);
    assert_int_equal(status != 0, answer.at != NULL);
    assert_true(answer.at || state != IDEMPOTENCY_DONE);
    return state;
}

static void check_answer(const struct idempotency *which, enum idempotency_state wanted, int status,
                         struct str answer)
{
    enum idempotency_state state;
    int kept_status;
    struct str kept;
    assert_int_equal(idempotency_begin(&arena, which, &state, &kept_status, &kept), 0);
    assert_int_equal(state, wanted);
    assert_int_equal(kept_status, status);
    assert_true(str_equal(kept, answer));
    assert_false(pg_in_scope());
}

static void check_done(const struct idempotency *which, int status, struct str answer)
{
    check_answer(which, IDEMPOTENCY_DONE, status, answer);
}

/* Runs `body` with tables that are empty, an open client and the vault. */
static void (*body)(void);
static void with_vault(void)
{
    char reason[256] = "";
    assert_int_equal(vault_open(reason, sizeof reason), 0);
    arena_init(&arena);
    body();
    arena_clear(&arena);
    vault_close();
}

static void run(void (*test)(void))
{
    body = test;
    sql("DELETE FROM idempotency");
    on_loop(with_vault);
}

/* ---- one after the other ---- */

static void test_again(void)
{
    assert_int_equal(begin(mine()), IDEMPOTENCY_NEW);
    assert_int_equal(insert(1), 0);
    assert_int_equal(idempotency_keep(&arena, mine(), 201, STR("the\0answer"), 0), 0);
    assert_false(pg_in_scope());
    assert_int_equal(sql("SELECT count(*) FROM item"), 1);
    for (int i = 0; i < 2; i++)
        check_done(mine(), 201, STR("the\0answer"));

    const struct idempotency other_body = which_of(mine()->owner, mine()->key, 'b');
    assert_int_equal(begin(&other_body), IDEMPOTENCY_OTHER);

    /* Another's key, and the same owner and key cut elsewhere, are others. */
    const struct idempotency others[] = {which_of(STR("session:2"), STR("key"), 'a'),
                                         which_of(STR("session"), STR("1:key"), 'a'),
                                         which_of(STR("session:1"), STR("KEY"), 'a')};
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        assert_int_equal(begin(&others[i]), IDEMPOTENCY_NEW);
        assert_int_equal(idempotency_keep(&arena, &others[i], 200, STR(""), 0), 0);
    }
    check_done(mine(), 201, STR("the\0answer"));
    check_done(&others[1], 200, STR(""));
}

static void first_answer_is_given_again(void **state)
{
    (void)state;
    run(test_again);
}

static void test_drop(void)
{
    assert_int_equal(begin(mine()), IDEMPOTENCY_NEW);
    assert_int_equal(insert(1), 0);
    idempotency_drop();
    assert_false(pg_in_scope());
    assert_int_equal(sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 0);
    assert_int_equal(begin(mine()), IDEMPOTENCY_NEW);
    idempotency_drop();
}

static void what_is_dropped_has_not_happened(void **state)
{
    (void)state;
    run(test_drop);
}

static void test_failing_commit(void)
{
    assert_int_equal(begin(mine()), IDEMPOTENCY_NEW);
    assert_int_equal(pg_write(&insert_child, PG_VALUES(PG_INT(7)), NULL), 0);
    assert_int_equal(idempotency_keep(&arena, mine(), 200, STR("fine"), 0), -EIO);
    assert_false(pg_in_scope());
    assert_int_equal(begin(mine()), IDEMPOTENCY_NEW);
    idempotency_drop();
}

static void answer_is_not_kept_without_its_effect(void **state)
{
    (void)state;
    run(test_failing_commit);
}

/* ---- at once ---- */

static int told_running;

static int insert_once(int number)
{
    enum idempotency_state state;
    int status;
    struct str answer;
    struct arena own;
    arena_init(&own);
    int result = idempotency_begin(&own, mine(), &state, &status, &answer);
    if (result == 0 && state == IDEMPOTENCY_NEW) {
        result = insert(number);
        if (result == 0)
            result = fiber_sleep_ms(20);
        int kept = idempotency_keep(&own, mine(), 200, STR("one"), 0);
        result = result ? result : kept;
    } else if (result == 0 && state == IDEMPOTENCY_DONE) {
        result = str_equal(answer, STR("one")) ? 0 : -EPROTO;
    } else if (result == 0) {
        result = state == IDEMPOTENCY_RUNNING ? 0 : -EPROTO;
        told_running++;
    }
    arena_clear(&own);
    return result;
}

static void test_at_once(void)
{
    told_running = 0;
    run_tasks(50, insert_once);
    for (int i = 0; i < 50; i++)
        assert_int_equal(tasks[i].result, 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 1);
    assert_true(told_running > 0);
    check_done(mine(), 200, STR("one"));
}

static void of_many_at_once_one_runs(void **state)
{
    (void)state;
    run(test_at_once);
}

static int keep_and_leave(int number)
{
    if (begin(mine()) != IDEMPOTENCY_NEW || insert(number) || fiber_sleep_ms(60000) != -ECANCELED)
        return -EPROTO;
    return idempotency_keep(&arena, mine(), 200, STR("gone"), 0);
}

static void test_client_left(void)
{
    begin_task(1, keep_and_leave);
    until("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wakegate' AND "
          "state = 'idle in transaction' AND backend_xid IS NOT NULL");
    assert_int_equal(begin(mine()), IDEMPOTENCY_RUNNING);
    fiber_cancel(tasks[1].fiber);
    end_tasks();
    assert_int_equal(tasks[1].result, 0);
    check_done(mine(), 200, STR("gone"));
    assert_int_equal(sql("SELECT count(*) FROM item"), 1);
}

static void client_that_leaves_after_the_effect_finds_it(void **state)
{
    (void)state;
    run(test_client_left);
}

/* ---- an early commit ---- */

static void keep_early(struct str answer)
{
    assert_int_equal(begin(mine()), IDEMPOTENCY_NEW);
    assert_int_equal(idempotency_keep(&arena, mine(), 202, answer, 60), 0);
    check_answer(mine(), IDEMPOTENCY_RUNNING, 202, answer);
}

static void test_early(void)
{
    keep_early(STR("queued"));
    const struct idempotency other_body = which_of(mine()->owner, mine()->key, 'b');
    assert_int_equal(begin(&other_body), IDEMPOTENCY_OTHER);
    assert_int_equal(idempotency_finish(&arena, mine(), 200, STR("delivered")), 0);
    check_done(mine(), 200, STR("delivered"));
    /* It was given: now it stays. */
    assert_int_equal(idempotency_finish(&arena, mine(), 200, STR("better still")), 0);
    check_done(mine(), 200, STR("delivered"));

    sql("DELETE FROM idempotency");
    keep_early(STR("queued"));
    assert_int_equal(idempotency_finish(&arena, mine(), 0, STR_NONE), 0);
    check_done(mine(), 202, STR("queued"));

    /* Its server has died: who asks later gets what was certain. */
    sql("DELETE FROM idempotency");
    keep_early(STR("queued"));
    sql("UPDATE idempotency SET running_until = now() - interval '1 ms'");
    check_done(mine(), 202, STR("queued"));
    assert_int_equal(idempotency_finish(&arena, mine(), 200, STR("too late")), 0);
    check_done(mine(), 202, STR("queued"));
}

static void early_answer_holds_unless_a_final_one_comes(void **state)
{
    (void)state;
    run(test_early);
}

/* ---- rest ---- */

static void test_sealed(void)
{
    const struct idempotency other = which_of(STR("session:2"), STR("key"), 'a');
    assert_int_equal(begin(mine()), IDEMPOTENCY_NEW);
    assert_int_equal(idempotency_keep(&arena, mine(), 200, STR("wgs_secret_in_the_answer"), 0), 0);
    assert_int_equal(
        sql("SELECT count(*) FROM idempotency WHERE position('wgs_secret'::bytea IN answer) > 0"), 0);
    /* An answer that is moved to another's row can't be opened there. */
    assert_int_equal(begin(&other), IDEMPOTENCY_NEW);
    assert_int_equal(idempotency_keep(&arena, &other, 200, STR("other"), 0), 0);
    sql("UPDATE idempotency SET answer = (SELECT answer FROM idempotency WHERE owner = 'session:1') "
        "WHERE owner = 'session:2'");
    enum idempotency_state state;
    int status;
    struct str answer;
    assert_int_equal(idempotency_begin(&arena, &other, &state, &status, &answer), -EBADMSG);
    assert_false(pg_in_scope());
}

static void answers_are_sealed_and_bound_to_their_row(void **state)
{
    (void)state;
    run(test_sealed);
}

static void test_a_day(void)
{
    assert_int_equal(begin(mine()), IDEMPOTENCY_NEW);
    assert_int_equal(idempotency_keep(&arena, mine(), 200, STR("yesterday"), 0), 0);
    sql("UPDATE idempotency SET created_at = now() - interval '23 hours 59 minutes'");
    check_done(mine(), 200, STR("yesterday"));
    assert_int_equal(idempotency_forget(), 0);
    assert_int_equal(sql("SELECT count(*) FROM idempotency"), 1);

    sql("UPDATE idempotency SET created_at = now() - interval '24 hours 1 second'");
    const struct idempotency anew = which_of(mine()->owner, mine()->key, 'b');
    assert_int_equal(begin(&anew), IDEMPOTENCY_NEW);
    assert_int_equal(idempotency_keep(&arena, &anew, 201, STR("today"), 0), 0);
    check_done(&anew, 201, STR("today"));

    sql("INSERT INTO idempotency (owner, key, request, status, answer, created_at) "
        "SELECT 'session:3', n::text, '\\x00', 200, '\\x00', now() - interval '25 hours' "
        "FROM generate_series(1, 12345) n");
    assert_int_equal(idempotency_forget(), 0);
    assert_int_equal(sql("SELECT count(*) FROM idempotency"), 1);
    check_done(&anew, 201, STR("today"));
}

static void after_a_day_a_key_is_new_and_its_row_is_removed(void **state)
{
    (void)state;
    run(test_a_day);
}

static int start(void **state)
{
    fixture_start(state);
    set("ENCRYPTION_KEY", "a secret of the operator, for tests alone");
    assert_int_equal(migrate_run(error, sizeof error), 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_answer_is_given_again),
        cmocka_unit_test(what_is_dropped_has_not_happened),
        cmocka_unit_test(answer_is_not_kept_without_its_effect),
        cmocka_unit_test(of_many_at_once_one_runs),
        cmocka_unit_test(client_that_leaves_after_the_effect_finds_it),
        cmocka_unit_test(early_answer_holds_unless_a_final_one_comes),
        cmocka_unit_test(answers_are_sealed_and_bound_to_their_row),
        cmocka_unit_test(after_a_day_a_key_is_new_and_its_row_is_removed),
    };
    return cmocka_run_group_tests(tests, start, fixture_stop);
}

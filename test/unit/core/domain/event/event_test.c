/* Events: their names, their numbers, and where a reader goes on. */
#include "core/domain/event/event.h"

#include "test/unit/core/domain/identity/fixture.h"

#include <stdlib.h>

enum { WRITERS = 8, EACH = 40 };

static const struct pg_statement sql_add = {
    "test_event_add",
    "SELECT event_add($1::bigint, 'session', 'instance.ready', jsonb_build_object('number', $2::bigint))"};
static const struct pg_statement sql_relay = {
    "test_event_relay", "SELECT account_id, seq, id, name, body FROM event_relay($1::bigint)"};

static struct str next_word(struct str *list)
{
    struct str word = STR("");
    assert_true(str_split(list, ' ', &word));
    return word;
}

/* ---- names ---- */

static void patterns_are_names_beginnings_or_all(void **state)
{
    (void)state;
    assert_true(event_name_matches(STR("job.completed"), STR("job.completed")));
    assert_true(event_name_matches(STR("job.*"), STR("job.completed")));
    assert_true(event_name_matches(STR("*"), STR("job.completed")));
    assert_false(event_name_matches(STR("job"), STR("job.completed")));
    assert_false(event_name_matches(STR("job."), STR("job.completed")));
    assert_false(event_name_matches(STR("jo*"), STR("job.completed")));
    assert_false(event_name_matches(STR("job.*"), STR("jobs.completed")));
    assert_false(event_name_matches(STR("job.*"), STR("job.")));
    assert_false(event_name_matches(STR(".*"), STR("job.completed")));
    assert_false(event_name_matches(STR("*.completed"), STR("job.completed")));
    assert_false(event_name_matches(STR(""), STR("job.completed")));
}

static void only_what_fits_something_is_a_pattern(void **state)
{
    (void)state;
    const struct str good[] = {STR("*"), STR("job.*"), STR("instance.ready")};
    const struct str bad[] = {STR("job.*"), STR("jobs.*"), STR("*")};
    struct str wrong = STR_NONE;
    assert_true(event_validate_patterns(good, 3, &wrong));
    assert_true(event_validate_patterns(good, 0, &wrong));
    assert_null(wrong.at);
    assert_false(event_validate_patterns(bad, 3, &wrong));
    assert_true(str_equal(wrong, STR("jobs.*")));
}

static void who_gives_a_name_that_is_none_is_told_those_that_are(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    const char *text = event_unknown(&arena, STR("job.complete"));
    assert_non_null(strstr(text, "no event job.complete. There are: instance.created, "));
    for (size_t i = 0; i < EVENT_COUNT; i++)
        assert_non_null(strstr(text, event_rows[i].name));
    static const struct str unfit[] = {{"a\nb", 3}, {"", 0}, {"\x01", 1}, {"a b", 3}};
    for (size_t i = 0; i < ARRAY_SIZE(unfit); i++)
        assert_non_null(strstr(event_unknown(&arena, unfit[i]), "no event of that name. "));
    arena_clear(&arena);
}

static void a_set_holds_what_its_patterns_match(void **state)
{
    (void)state;
    for (size_t i = 0; i < EVENT_COUNT; i++) {
        struct str name = str_from(event_rows[i].name);
        assert_int_equal(event_find(name), i);
        assert_true(event_set_of(name) & event_set_of_pattern(STR("*")));
        assert_true(event_set_of(name) == event_set_of_pattern(name));
        bool is_job = str_starts(name, STR("job."));
        assert_int_equal((event_set_of(name) & event_set_of_pattern(STR("job.*"))) != 0, is_job);
    }
    assert_true(event_set_of(STR("of.tomorrow")) == EVENT_OTHERS);
    assert_true(event_set_of_pattern(STR("*")) & EVENT_OTHERS);
    assert_true(event_set_of_pattern(STR("of.tomorrow")) == 0);
}

static void a_message_has_a_line_for_each_event(void **state)
{
    (void)state;
    struct str message = STR("7 evt_00000000000000000000000000007 job.failed {\"a\": 1}\n"
                             "8 evt_00000000000000000000000000008 job.completed {}\n");
    struct event_told event;
    assert_true(event_next(&message, &event));
    assert_int_equal(event.seq, 7);
    assert_true(str_equal(event.id, STR("evt_00000000000000000000000000007")));
    assert_true(str_equal(event.name, STR("job.failed")));
    assert_true(str_equal(event.body, STR("{\"a\": 1}")));
    assert_true(event_next(&message, &event));
    assert_int_equal(event.seq, 8);
    assert_false(event_next(&message, &event));
    const struct str bad[] = {
        STR(""), STR("x"), STR("7"), STR("7 evt"), STR("x evt_0 name {}"), STR("7 evt_0 name {}")};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        message = bad[i];
        assert_false(event_next(&message, &event));
    }
}

/* ---- numbers ---- */

static void relay_all(void)
{
    size_t count = 0;
    do {
        struct pg_tx *tx;
        struct pg_rows *rows = NULL;
        int result = pg_begin(&tx);
        if (result == 0)
            result = pg_query(tx, &sql_relay, PG_VALUES(PG_INT(7)), &rows);
        assert_int_equal(pg_end(tx, result), 0);
        count = pg_count(rows);
        pg_rows_free(rows);
    } while (count > 0);
}

/* Each transaction has both accounts, every other one in the other order, and lets the others go on in between. */
static void write_and_relay(int number)
{
    for (int i = 0; i < EACH; i++) {
        struct pg_tx *tx;
        int first = 1 + (number + i) % 2;
        int result = pg_begin(&tx);
        if (result == 0)
            result = pg_query(tx, &sql_add, PG_VALUES(PG_INT(first), PG_INT(i)), NULL);
        if (result == 0)
            result = fiber_yield();
        if (result == 0)
            result = pg_query(tx, &sql_add, PG_VALUES(PG_INT(3 - first), PG_INT(i)), NULL);
        /* Every eighth is taken back. */
        int wanted = result == 0 && i % 8 == 7 ? -EINVAL : result;
        assert_int_equal(pg_end(tx, wanted), wanted);
        relay_all();
    }
}

static void race(void)
{
    identity_set("PG_POOL_SIZE", "8");
    identity_race(WRITERS, write_and_relay);
    relay_all();
    int64_t kept = WRITERS * EACH * 7 / 8;
    assert_int_equal(identity_sql("SELECT count(*) FROM event_outbox"), 0);
    for (int account = 1; account <= 2; account++) {
        assert_int_equal(identity_sql("SELECT count(*) FROM event WHERE account_id = %d", account), kept);
        assert_int_equal(identity_sql("SELECT max(seq) FROM event WHERE account_id = %d", account), kept);
        assert_int_equal(identity_sql("SELECT min(seq) FROM event WHERE account_id = %d", account), 1);
        assert_int_equal(
            identity_sql("SELECT count(*) FROM event_head h JOIN event e USING (account_id, seq, id) "
                         "WHERE account_id = %d AND seq = %lld",
                         account, (long long)kept),
            1);
    }
    assert_int_equal(identity_sql("SELECT count(DISTINCT id) FROM event"), 2 * kept);
}

static void numbers_have_no_gaps_whatever_order_writers_have(void **state)
{
    (void)state;
    identity_on_loop(race);
}

static struct str id_of(int64_t account, int64_t seq)
{
    struct event_told *events;
    size_t count;
    assert_int_equal(event_read_after(&identity_arena, account, seq - 1, 1, &events, &count), 0);
    assert_int_equal(count, 1);
    return events[0].id;
}

static void order(void)
{
    identity_sql(
        "SELECT count(*) FROM event_add_all(ARRAY[1, 2, 1, 1], ARRAY['session', 'gpu', 'session', 'session'], "
        "ARRAY['job.failed', 'x', 'instance.ready', 'y'], ARRAY['{\"n\":1}', '{}', '{\"n\":2}', '{\"n\":3}']::jsonb[])");
    assert_int_equal(identity_sql("SELECT count(*) FROM event"), 0); /* before a relay nobody is told */
    relay_all();
    assert_int_equal(
        identity_sql(
            "SELECT string_agg((data->>'n'), '' ORDER BY seq)::bigint FROM event WHERE account_id = 1"),
        123);
    struct event_told *events;
    size_t count;
    assert_int_equal(event_read_after(&identity_arena, 1, 1, 1, &events, &count), 0);
    assert_int_equal(count, 1);
    assert_int_equal(events[0].seq, 2);
    assert_true(str_equal(events[0].name, STR("instance.ready")));
    assert_int_equal(events[0].id.size, EVENT_ID_SIZE);
    struct str rest = events[0].body;
    assert_true(str_starts(next_word(&rest), STR("{\"id\":\"evt_0")));
    assert_true(str_equal(rest, STR("2}}")));
    struct event_head heads[3];
    assert_int_equal(event_heads((const int64_t[]){2, 99, 1}, 3, heads), 0);
    assert_int_equal(heads[0].seq, 1);
    assert_int_equal(heads[1].seq, 0);
    assert_int_equal(heads[2].seq, 3);
    assert_memory_equal(heads[1].id, EVENT_START, EVENT_ID_SIZE);
    assert_memory_equal(heads[2].id, id_of(1, 3).at, EVENT_ID_SIZE);
}

static void events_are_numbered_in_the_order_of_their_causes(void **state)
{
    (void)state;
    identity_on_loop(order);
}

/* ---- where to go on ---- */

static void place_is(int64_t account, struct str id, int result, int64_t seq)
{
    int64_t found;
    assert_int_equal(event_place(account, id, &found), result);
    if (result != -ENOENT)
        assert_int_equal(found, seq);
}

static void find_places(void)
{
    place_is(1, STR(EVENT_START), 0, 0);
    identity_sql(
        "SELECT event_add(a, 'session', 'job.failed', '{}') FROM generate_series(1, 2) a, generate_series(1, 5)");
    relay_all();
    struct str second = id_of(1, 2);
    struct str foreign = id_of(2, 2);
    struct str last = id_of(1, 5);
    place_is(1, STR(EVENT_START), 0, 0);
    place_is(1, second, 0, 2);
    place_is(1, last, 0, 5);
    place_is(1, foreign, -ENOENT, 0);
    place_is(3, second, -ENOENT, 0);
    const struct str bad[] = {STR(""),
                              STR("2"),
                              STR("evt_2"),
                              STR("evt_0064a1b2c3d4e5fXXXXXXXXXXXXXXX"),
                              STR("evt_ffffffffffffffffffffffffffff0"),
                              STR("evt_0ffffffffffffffffffffffffffff")};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        place_is(1, bad[i], -ENOENT, 0);

    /* The first three are gone: what came after them is not all there any more, but for the third's. */
    struct str third = id_of(1, 3);
    identity_sql("UPDATE event SET at = now() - interval '8 days' WHERE account_id = 1 AND seq <= 3");
    assert_int_equal(event_forget(), 0);
    assert_int_equal(identity_sql("SELECT count(*) FROM event"), 7);
    place_is(1, STR(EVENT_START), -ESTALE, 3);
    place_is(1, second, -ESTALE, 3);
    place_is(1, third, -ESTALE, 3);
    place_is(1, last, 0, 5);
    /* All are gone: only who has had the last one has missed nothing. */
    identity_sql("UPDATE event SET at = now() - interval '8 days'");
    assert_int_equal(event_forget(), 0);
    place_is(1, last, 0, 5);
    place_is(1, STR(EVENT_START), -ESTALE, 5);
    place_is(1, STR("evt_0000000000000100000000000000a"), -ESTALE, 5);
}

static void a_reader_goes_on_after_what_it_has_had(void **state)
{
    (void)state;
    identity_on_loop(find_places);
}

/* The plans are made and kept while two accounts have events. */
static void a_relay_reads_what_it_moves_however_many_accounts_there_are(void **state)
{
    (void)state;
    struct buf sql = {0};
    buf_add_literal(&sql, "SELECT event_add(n, 'gpu', 'job.failed', '{}') FROM generate_series(1, 2) AS n; "
                          "SELECT count(*) FROM event_relay(100); ANALYZE event_head, event_outbox; ");
    for (int i = 0; i < 8; i++)
        buf_add_literal(&sql,
                        "SELECT event_add(n, 'gpu', 'job.failed', '{}') FROM generate_series(1, 2) AS n; "
                        "SELECT count(*) FROM event_relay(100); ");
    buf_add_literal(&sql,
                    "INSERT INTO event_head (account_id) SELECT n FROM generate_series(1001, 21000) AS n; "
                    "SELECT event_add(n, 'gpu', 'job.failed', '{}') FROM generate_series(1001, 5000) AS n; "
                    "CREATE TEMPORARY TABLE before AS SELECT sum(seq_tup_read + idx_tup_fetch) AS count "
                    "FROM pg_stat_xact_user_tables WHERE relname IN ('event_head', 'event_outbox'); "
                    "SELECT count(*) FROM event_relay(100); "
                    "SELECT sum(seq_tup_read + idx_tup_fetch) - min(before.count) "
                    "FROM pg_stat_xact_user_tables, before WHERE relname IN ('event_head', 'event_outbox')");
    buf_add_char(&sql, '\0');
    assert_in_range(identity_sql_text(sql.at), 400, 4000);
    buf_clear(&sql);
}

static int empty(void **state)
{
    identity_sql("TRUNCATE event, event_head, event_outbox");
    return identity_fixture_empty(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup(name, empty)
        CASE(patterns_are_names_beginnings_or_all),
        CASE(only_what_fits_something_is_a_pattern),
        CASE(who_gives_a_name_that_is_none_is_told_those_that_are),
        CASE(a_set_holds_what_its_patterns_match),
        CASE(a_message_has_a_line_for_each_event),
        CASE(numbers_have_no_gaps_whatever_order_writers_have),
        CASE(events_are_numbered_in_the_order_of_their_causes),
        CASE(a_relay_reads_what_it_moves_however_many_accounts_there_are),
        CASE(a_reader_goes_on_after_what_it_has_had),
#undef CASE
    };
    return cmocka_run_group_tests(tests, identity_fixture_start, identity_fixture_stop);
}

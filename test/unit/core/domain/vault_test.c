/* The vault against a real server: what is sealed opens in its row alone, and ENCRYPTION_KEY is changed under load. */
#include "core/domain/vault.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/domain/secret.h"
#include "core/run/fiber.h"
#include "core/store/pg.h"
#include "test/unit/support/services.h"
#include "test/unit/support/until.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OLD "the operator's first secret, of forty c."
#define NEW "the operator's second secret, forty too."
#define THIRD "the operator's third secret, forty also."
#define ANSWER "idempotency.answer"
#define SIGNING "api_key.signing_secret"

static struct services services;
static char error[256];

static const struct pg_statement sql_put = {
    "test_put", "INSERT INTO idempotency (owner, key, request, status, answer) "
                "VALUES ('session:1', $1::text, '', 200, $2::bytea) "
                "ON CONFLICT (owner, key) DO UPDATE SET answer = excluded.answer"};
static const struct pg_statement sql_get = {
    "test_get", "SELECT answer FROM idempotency WHERE owner = 'session:1' AND key = $1::text"};
static const struct pg_statement sql_put_key = {
    "test_put_key",
    "INSERT INTO api_key (account_id, surface, name, shown, hash, ref, signing_secret) "
    "SELECT id, 'session', '', '', sha256($1::text::bytea), $1::text, $2::bytea FROM account LIMIT 1"};
static const struct pg_statement sql_get_key = {"test_get_key",
                                                "SELECT signing_secret FROM api_key WHERE ref = $1::text"};

static void set(const char *name, const char *value)
{
    assert_int_equal(config_set(name, value, error, sizeof error), 0);
}

static int64_t sql(const char *text)
{
    return services_sql(&services, text);
}

/* ---- loops ---- */

static void run_opened(void *arg)
{
    void (**body)(void) = arg;
    CHECK(pg_open_loop(loop_self(), error, sizeof error) == 0);
    CHECK(pg_wait_ready(clock_in_ms(20000)) == 0);
    (*body)();
    pg_close_loop(loop_self());
}

static void on_loop(void (*body)(void))
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run_opened, &body);
    loop_close(&loop);
}

static void open_with(const char *encryption_key)
{
    vault_close();
    set("ENCRYPTION_KEY", encryption_key);
    int result = vault_open(error, sizeof error);
    if (result)
        fail_msg("%s: %s", log_errno(result), error);
}

/* ---- values ---- */

static struct str row_of(struct arena *arena, const char *key)
{
    return str_from(arena_printf(arena, "session:1:%s", key));
}

static int put(const char *key, const char *text)
{
    struct arena arena;
    arena_init(&arena);
    struct str sealed = vault_seal(&arena, str_from(text), ANSWER, row_of(&arena, key));
    int result = pg_write(&sql_put, PG_VALUES(PG_TEXT(str_from(key)), PG_BYTES(sealed)), NULL);
    arena_clear(&arena);
    return result;
}

/* 0 when the row opens and says `text`. */
static int look(const char *key, const char *text)
{
    struct arena arena;
    struct pg_rows *rows;
    struct str plain = STR_NONE;
    int result = pg_read(&sql_get, PG_VALUES(PG_TEXT(str_from(key))), &rows);
    if (result)
        return result;
    arena_init(&arena);
    result = vault_unseal(&arena, pg_bytes(&arena, rows, 0, 0), ANSWER, row_of(&arena, key), &plain);
    if (result == 0 && !str_equal(plain, str_from(text)))
        result = -EILSEQ;
    pg_rows_free(rows);
    arena_clear(&arena);
    return result;
}

/* How many values are sealed under the key of this id. */
static int64_t under_key(int id)
{
    char text[256];
    snprintf(
        text, sizeof text,
        "SELECT (SELECT count(*) FROM idempotency WHERE substring(answer FROM 2 FOR 4) = int4send(%d)) + "
        "(SELECT count(*) FROM api_key WHERE substring(signing_secret FROM 2 FOR 4) = int4send(%d))",
        id, id);
    return sql(text);
}

/* ---- at rest ---- */

static void sealed_values_body(void)
{
    struct arena arena;
    struct str plain = STR_NONE;
    open_with(OLD);
    arena_init(&arena);
    struct str sealed = vault_seal(&arena, STR("shh"), SIGNING, STR("key_1"));
    struct str again = vault_seal(&arena, STR("shh"), SIGNING, STR("key_1"));
    assert_int_equal(sealed.size, 3 + VAULT_EXTRA);
    assert_false(str_equal(sealed, again));
    assert_memory_equal(sealed.at, "\x01\x00\x00\x00\x02", 5);
    assert_null(memmem(sealed.at, sealed.size, "shh", 3));
    assert_int_equal(vault_unseal(&arena, sealed, SIGNING, STR("key_1"), &plain), 0);
    assert_true(str_equal(plain, STR("shh")));
    assert_int_equal(vault_unseal(&arena, sealed, SIGNING, STR("key_2"), &plain), -EBADMSG);
    assert_int_equal(vault_unseal(&arena, sealed, ANSWER, STR("key_1"), &plain), -EBADMSG);
    for (size_t size = 0; size < sealed.size; size++)
        assert_int_equal(vault_unseal(&arena, str_of(sealed.at, size), SIGNING, STR("key_1"), &plain),
                         -EBADMSG);
    /* Every byte counts: the version, the key's id, and what is sealed. */
    for (size_t i = 0; i < sealed.size; i++) {
        char *bad = arena_dup(&arena, sealed.at, sealed.size);
        bad[i] ^= 1;
        assert_int_equal(vault_unseal(&arena, str_of(bad, sealed.size), SIGNING, STR("key_1"), &plain),
                         -EBADMSG);
    }
    struct str nothing = vault_seal(&arena, STR(""), SIGNING, STR(""));
    assert_int_equal(vault_unseal(&arena, nothing, SIGNING, STR(""), &plain), 0);
    assert_int_equal(plain.size, 0);
    assert_int_equal(vault_unseal(&arena, STR_NONE, SIGNING, STR(""), &plain), -EBADMSG);
    arena_clear(&arena);
}

static void a_sealed_value_opens_in_its_row_alone(void **state)
{
    (void)state;
    on_loop(sealed_values_body);
}

static void swapped_body(void)
{
    open_with(OLD);
    assert_int_equal(put("a", "of a"), 0);
    assert_int_equal(put("b", "of b"), 0);
    assert_int_equal(look("a", "of a"), 0);
    sql("UPDATE idempotency i SET answer = o.answer FROM idempotency o WHERE i.key <> o.key");
    assert_int_equal(look("a", "of b"), -EBADMSG);
    assert_int_equal(look("b", "of a"), -EBADMSG);
}

static void values_whose_rows_are_swapped_do_not_open(void **state)
{
    (void)state;
    on_loop(swapped_body);
}

static void hash_body(void)
{
    unsigned char wanted[CRYPTO_KEY_SIZE];
    open_with(OLD);
    crypto_derive(wanted, STR(OLD), "api key hash");
    assert_memory_equal(vault_hash_key(), wanted, sizeof wanted);
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    secret_hash(hash, STR("wgs_presented"));
    crypto_digest(wanted, STR("wgs_presented"), vault_hash_key());
    assert_memory_equal(hash, wanted, sizeof wanted);
    assert_int_equal(sql("SELECT count(*) FROM vault_key WHERE (id, purpose) IN ((1, 'hash'), (2, 'seal')) "
                         "AND length(wrapped) = 60 AND wrapped_by ~ '^[0-9a-f]{16}$'"),
                     2);
    vault_close();
    open_with(OLD);
    assert_int_equal(sql("SELECT count(*) FROM vault_key"), 2);
}

static void keys_are_hashed_as_they_were_before_there_was_a_vault(void **state)
{
    (void)state;
    on_loop(hash_body);
}

static int open_fails(const char *encryption_key)
{
    error[0] = '\0';
    vault_close();
    set("ENCRYPTION_KEY", encryption_key);
    int result = vault_open(error, sizeof error);
    assert_true(error[0] && !strstr(error, encryption_key));
    return result;
}

static void wrong_body(void)
{
    open_with(OLD);
    assert_int_equal(open_fails(NEW), -EACCES);
    assert_non_null(strstr(error, "ENCRYPTION_KEY"));
    assert_int_equal(sql("SELECT count(*) FROM vault_key"), 2);
    sql("UPDATE vault_key k SET wrapped = o.wrapped FROM vault_key o WHERE k.id <> o.id");
    assert_int_equal(open_fails(OLD), -EACCES);
    assert_non_null(strstr(error, "vault_key"));
    sql("UPDATE vault_key k SET wrapped = o.wrapped FROM vault_key o WHERE k.id <> o.id");
    open_with(OLD);
    sql("DELETE FROM vault_key WHERE id = 2");
    assert_int_equal(open_fails(OLD), -EACCES);
}

static void another_encryption_key_or_damaged_rows_are_refused(void **state)
{
    (void)state;
    on_loop(wrong_body);
}

/* ---- processes of their own ---- */

struct child {
    pid_t pid;
    int to;
    int from;
};

static void say(int to)
{
    CHECK(write(to, "x", 1) == 1);
}

static bool hear(int from)
{
    char c;
    return read(from, &c, 1) == 1;
}

/* A child's ends, by number: it is this program once more, with the name of what it is to do. */
enum { CHILD_FROM = 3, CHILD_TO = 4 };

static struct child begin_child(const char *what, const char *encryption_key)
{
    int there[2];
    int back[2];
    char key[128];
    char url[256];
    snprintf(key, sizeof key, "ENCRYPTION_KEY=%s", encryption_key);
    snprintf(url, sizeof url, "DATABASE_URL=%s", services.database_url);
    char *environment[] = {key, url, NULL};
    CHECK(pipe2(there, O_CLOEXEC) == 0 && pipe2(back, O_CLOEXEC) == 0);
    /* Not where the child wants its own. */
    int from = fcntl(there[0], F_DUPFD_CLOEXEC, 10);
    int to = fcntl(back[1], F_DUPFD_CLOEXEC, 10);
    struct child child = {.pid = fork(), .to = there[1], .from = back[0]};
    CHECK(child.pid >= 0);
    if (child.pid == 0) {
        if (dup2(from, CHILD_FROM) == CHILD_FROM && dup2(to, CHILD_TO) == CHILD_TO)
            execle("/proc/self/exe", "vault_test", what, NULL, environment);
        _exit(127);
    }
    close(there[0]);
    close(back[1]);
    close(from);
    close(to);
    return child;
}

static int end_child(struct child *child)
{
    int status = -1;
    close(child->to);
    CHECK(waitpid(child->pid, &status, 0) == child->pid);
    close(child->from);
    return status;
}

enum { REFUSED = 7 };
static int child_status;

static void open_in_child(void)
{
    say(CHILD_TO);
    CHECK(hear(CHILD_FROM));
    int result = vault_open(error, sizeof error);
    CHECK(result == 0 || result == -EACCES);
    child_status = result ? REFUSED : 0;
    vault_close();
}

enum { CHILDREN = 6 };

/* Lets them all open an empty database at the same moment; returns how many could. */
static int open_at_once(const char *encryption_key, const char *other)
{
    struct child children[CHILDREN];
    int opened = 0;
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = begin_child("open", i % 2 ? encryption_key : other);
        assert_true(hear(children[i].from));
    }
    for (int i = 0; i < CHILDREN; i++)
        say(children[i].to);
    for (int i = 0; i < CHILDREN; i++) {
        int status = end_child(&children[i]);
        assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == REFUSED));
        opened += WEXITSTATUS(status) == 0;
    }
    return opened;
}

static void processes_that_begin_at_once_agree(void **state)
{
    (void)state;
    assert_int_equal(open_at_once(OLD, OLD), CHILDREN);
    assert_int_equal(sql("SELECT count(*) FROM vault_key"), 2);
    sql("DELETE FROM vault_key");
    /* With two secrets, one is the database's and the other is refused. */
    assert_int_equal(open_at_once(OLD, NEW), CHILDREN / 2);
    assert_int_equal(sql("SELECT count(*) FROM vault_key"), 2);
    assert_int_equal(sql("SELECT count(DISTINCT wrapped_by) FROM vault_key"), 1);
}

/* An old server: it runs from before the change of ENCRYPTION_KEY to after it. */
static void old_server(void)
{
    CHECK(vault_open(error, sizeof error) == 0);
    CHECK(put("old", "sealed by the old before") == 0);
    say(CHILD_TO);
    CHECK(hear(CHILD_FROM)); /* changed, and a new server has sealed */
    CHECK(put("stale", "sealed by the old after") == 0);
    CHECK(look("old", "sealed by the old before") == 0);
    CHECK(look("new", "sealed by the new") == 0);
    CHECK(put("aware", "sealed by the old under the new") == 0);
    say(CHILD_TO);
    CHECK(hear(CHILD_FROM)); /* its own wraps are gone */
    CHECK(look("new", "sealed by the new") == 0);
    vault_close();
}

static void rotate_here(void)
{
    struct vault_rotation done;
    open_with(OLD);
    assert_int_equal(vault_rotate(STR(NEW), &done), 0);
    assert_int_equal(done.keys, 3);
    assert_int_equal(done.values, 1);
    assert_int_equal(under_key(2), 0);
    open_with(NEW);
    assert_int_equal(put("new", "sealed by the new"), 0);
    assert_int_equal(look("old", "sealed by the old before"), 0);
}

static void forget_here(void)
{
    int64_t removed;
    assert_int_equal(look("stale", "sealed by the old after"), 0);
    assert_int_equal(look("aware", "sealed by the old under the new"), 0);
    assert_int_equal(under_key(2), 1);
    open_with(NEW);
    assert_int_equal(vault_forget(&removed), 0);
    assert_int_equal(removed, 3); /* wraps under the old */
    assert_int_equal(under_key(2), 0);
    assert_int_equal(look("stale", "sealed by the old after"), 0);
    assert_int_equal(open_fails(OLD), -EACCES);
    open_with(NEW);
    /* A key that seals nothing goes when no server can be left that has not heard of the newest. */
    assert_int_equal(vault_forget(&removed), 0);
    assert_int_equal(removed, 0);
    sql("UPDATE vault_key SET created_at = now() - interval '25 hours'");
    assert_int_equal(vault_forget(&removed), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(sql("SELECT count(*) FROM vault_key WHERE id IN (1, 3)"), 2);
    assert_int_equal(look("old", "sealed by the old before"), 0);
}

/* What another process of this program does. */
static int child_main(const char *what)
{
    crypto_init();
    CHECK(config_load(NULL, error, sizeof error) == 0);
    on_loop(strcmp(what, "open") == 0 ? open_in_child : old_server);
    config_clear();
    return child_status;
}

static void old_and_new_servers_read_each_other_until_the_old_secret_is_forgotten(void **state)
{
    (void)state;
    struct child old = begin_child("old server", OLD);
    assert_true(hear(old.from));
    on_loop(rotate_here);
    say(old.to);
    assert_true(hear(old.from));
    on_loop(forget_here);
    say(old.to);
    assert_int_equal(end_child(&old), 0);
}

/* ---- changing ENCRYPTION_KEY ---- */

static void api_key_body(void)
{
    struct arena arena;
    struct vault_rotation done;
    struct pg_rows *rows;
    struct str plain;
    char ref[32];
    arena_init(&arena);
    open_with(OLD);
    for (int i = 0; i < 250; i++) {
        snprintf(ref, sizeof ref, "key_%d", i);
        struct str sealed = vault_seal(&arena, str_from(ref), SIGNING, str_from(ref));
        if (i % 50 == 7)
            sealed = STR_NONE;
        assert_int_equal(pg_write(&sql_put_key, PG_VALUES(PG_TEXT(str_from(ref)), PG_BYTES(sealed)), NULL),
                         0);
    }
    sql("UPDATE api_key SET signing_secret = NULL WHERE length(signing_secret) = 0");
    assert_int_equal(vault_rotate(STR(NEW), &done), 0);
    assert_int_equal(done.values, 245);
    assert_int_equal(under_key(3), 245);
    open_with(NEW);
    for (int i = 0; i < 250; i++) {
        snprintf(ref, sizeof ref, "key_%d", i);
        assert_int_equal(pg_read(&sql_get_key, PG_VALUES(PG_TEXT(str_from(ref))), &rows), 0);
        struct str sealed = pg_bytes(&arena, rows, 0, 0);
        if (sealed.at) {
            assert_int_equal(vault_unseal(&arena, sealed, SIGNING, str_from(ref), &plain), 0);
            assert_true(str_equal(plain, str_from(ref)));
        }
        pg_rows_free(rows);
    }
    arena_clear(&arena);
}

static void every_signing_secret_is_sealed_anew(void **state)
{
    (void)state;
    on_loop(api_key_body);
}

static const struct pg_statement sql_put_provider = {
    "test_put_provider", "INSERT INTO provider (name, kind, base_url, api_key) "
                         "VALUES ($1::text, 'openai', 'http://127.0.0.1:9', $2::bytea)"};
static const struct pg_statement sql_get_provider = {"test_get_provider",
                                                     "SELECT api_key FROM provider WHERE name = $1::text"};

static void provider_body(void)
{
    struct arena arena;
    struct vault_rotation done;
    struct pg_rows *rows;
    struct str plain;
    arena_init(&arena);
    open_with(OLD);
    struct str sealed = vault_seal(&arena, STR("sk-its-key"), "provider.api_key", STR("local"));
    assert_int_equal(pg_write(&sql_put_provider, PG_VALUES(PG_TEXT(STR("local")), PG_BYTES(sealed)), NULL),
                     0);
    assert_int_equal(vault_rotate(STR(NEW), &done), 0);
    assert_int_equal(done.values, 1);
    open_with(NEW);
    assert_int_equal(pg_read(&sql_get_provider, PG_VALUES(PG_TEXT(STR("local"))), &rows), 0);
    struct str again = pg_bytes(&arena, rows, 0, 0);
    pg_rows_free(rows);
    assert_false(str_equal(again, sealed));
    assert_int_equal(vault_unseal(&arena, again, "provider.api_key", STR("local"), &plain), 0);
    assert_true(str_equal(plain, STR("sk-its-key")));
    sql("DELETE FROM provider");
    arena_clear(&arena);
}

static void a_providers_key_is_sealed_anew(void **state)
{
    (void)state;
    on_loop(provider_body);
}

static void refusals_body(void)
{
    struct vault_rotation done;
    open_with(OLD);
    assert_int_equal(vault_rotate(STR("too short: thirty-one letters.."), &done), -EINVAL);
    assert_int_equal(vault_rotate(STR(OLD), &done), -EINVAL);
    assert_int_equal(sql("SELECT count(*) FROM vault_key"), 2);
    assert_int_equal(vault_rotate(STR(NEW), &done), 0);
    assert_int_equal(vault_rotate(STR(THIRD), &done), -EBUSY);
    assert_int_equal(sql("SELECT count(*) FROM vault_key"), 6);
}

static void a_secret_that_is_short_or_old_or_a_third_is_refused(void **state)
{
    (void)state;
    on_loop(refusals_body);
}

/* Puts a value in a transaction that ends when somebody waits for the row. */
static void overtake(void *arg)
{
    bool *done = arg;
    struct arena arena;
    struct pg_tx *tx = NULL;
    arena_init(&arena);
    struct str sealed = vault_seal(&arena, STR("second"), ANSWER, row_of(&arena, "a"));
    int result = pg_begin(&tx);
    if (result == 0)
        result = pg_query(tx, &sql_put, PG_VALUES(PG_TEXT(STR("a")), PG_BYTES(sealed)), NULL);
    *done = true;
    UNTIL(
        sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE%'"));
    assert_int_equal(pg_end(tx, result), 0);
    arena_clear(&arena);
    *done = false;
}

static void overtaken_body(void)
{
    struct vault_rotation done;
    bool is_open = false;
    open_with(OLD);
    assert_int_equal(put("a", "first"), 0);
    assert_int_equal(put("b", "of b"), 0);
    fiber_start(loop_self(), "overtake", overtake, &is_open);
    UNTIL(is_open);
    assert_int_equal(vault_rotate(STR(NEW), &done), 0);
    UNTIL(!is_open);
    assert_int_equal(done.values, 2);
    assert_int_equal(look("a", "second"), 0);
    assert_int_equal(look("b", "of b"), 0);
    assert_int_equal(under_key(3), 2);
}

static void a_value_that_changes_meanwhile_is_not_put_back(void **state)
{
    (void)state;
    on_loop(overtaken_body);
}

static void repeat_body(void)
{
    struct vault_rotation done;
    int64_t removed;
    open_with(OLD);
    assert_int_equal(put("a", "of a"), 0);
    /* Cut off behind its first transaction: the value is still under the key of before. */
    sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'; "
        "CREATE TRIGGER refuse BEFORE UPDATE ON idempotency FOR EACH ROW EXECUTE FUNCTION refuse()");
    assert_int_equal(vault_rotate(STR(NEW), &done), -EIO);
    assert_int_equal(under_key(2), 1);
    sql("DROP TRIGGER refuse ON idempotency; DROP FUNCTION refuse");
    assert_int_equal(look("a", "of a"), 0);
    assert_int_equal(vault_rotate(STR(NEW), &done), 0);
    assert_int_equal(done.keys, 0);
    assert_int_equal(done.values, 1);
    assert_int_equal(under_key(3), 1);
    assert_int_equal(vault_rotate(STR(NEW), &done), 0);
    assert_int_equal(done.keys + done.values, 0);
    /* And from there on to the next. */
    open_with(NEW);
    assert_int_equal(vault_forget(&removed), 0);
    assert_int_equal(vault_rotate(STR(THIRD), &done), 0);
    assert_int_equal(done.keys, 4);
    assert_int_equal(under_key(4), 1);
    open_with(THIRD);
    assert_int_equal(look("a", "of a"), 0);
    assert_int_equal(vault_forget(&removed), 0);
    assert_int_equal(open_fails(NEW), -EACCES);
}

static void a_change_that_was_cut_off_goes_on(void **state)
{
    (void)state;
    on_loop(repeat_body);
}

static void lost_body(void)
{
    struct vault_rotation done;
    int64_t removed;
    open_with(OLD);
    assert_int_equal(put("a", "of a"), 0);
    assert_int_equal(put("b", "of b"), 0);
    sql("UPDATE idempotency SET answer = set_byte(answer, 20, 255 - get_byte(answer, 20)) WHERE key = 'a'");
    assert_int_equal(vault_rotate(STR(NEW), &done), 0);
    assert_int_equal(done.values, 1);
    assert_int_equal(look("a", "of a"), -EBADMSG);
    assert_int_equal(look("b", "of b"), 0);
    /* Its key is kept, should the row be put right. */
    open_with(NEW);
    sql("UPDATE vault_key SET created_at = now() - interval '25 hours'");
    assert_int_equal(vault_forget(&removed), 0);
    assert_int_equal(removed, 3);
    sql("UPDATE idempotency SET answer = set_byte(answer, 20, 255 - get_byte(answer, 20)) WHERE key = 'a'");
    assert_int_equal(look("a", "of a"), 0);
    assert_int_equal(vault_forget(&removed), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(look("a", "of a"), 0);
}

static void a_value_that_does_not_open_stays_and_stops_no_other(void **state)
{
    (void)state;
    on_loop(lost_body);
}

/* ---- under load ---- */

enum { ROWS = 150, WRITERS = 4, PER_WRITER = 40 };

static struct {
    atomic_bool stop;
    atomic_int puts;
    atomic_int failures;
    atomic_int running;
} load;

static void write_and_look(void *arg)
{
    size_t writer = (size_t)(uintptr_t)arg;
    char key[32];
    char text[64];
    for (int round = 0; !atomic_load(&load.stop); round++) {
        /* Rows of its own, that others don't write: what it has put there is what it finds. */
        snprintf(key, sizeof key, "load-%zu-%03d", writer, round % PER_WRITER);
        snprintf(text, sizeof text, "round %d", round);
        if (put(key, text) || look(key, text))
            atomic_fetch_add(&load.failures, 1);
        atomic_fetch_add(&load.puts, 1);
    }
    atomic_fetch_sub(&load.running, 1);
}

static void load_body(void)
{
    for (size_t i = 0; i < WRITERS; i++) {
        atomic_fetch_add(&load.running, 1);
        fiber_start(loop_self(), "writer", write_and_look, (void *)(uintptr_t)i);
    }
    while (atomic_load(&load.running))
        CHECK(fiber_sleep_ms(2) == 0);
}

static void *load_main(void *unused)
{
    (void)unused;
    struct loop loop;
    void (*body)(void) = load_body;
    loop_open(&loop, 1);
    fiber_main(&loop, "load", run_opened, &body);
    loop_close(&loop);
    return NULL;
}

static void load_rotate_body(void)
{
    struct vault_rotation done = {0};
    pthread_t thread;
    char key[32];
    int failed = 0;
    open_with(OLD);
    for (int i = 0; i < ROWS; i++) {
        snprintf(key, sizeof key, "row-%d", i);
        failed += put(key, key) != 0;
    }
    assert_int_equal(pthread_create(&thread, NULL, load_main, NULL), 0);
    uint64_t until_ns = clock_in_ms(30000);
    while (atomic_load(&load.puts) < 2 * WRITERS * PER_WRITER && clock_now_ns() < until_ns)
        assert_int_equal(fiber_sleep_ms(1), 0);
    failed += vault_rotate(STR(NEW), &done) != 0;
    int puts = atomic_load(&load.puts);
    while (atomic_load(&load.puts) < puts + 100 && clock_now_ns() < until_ns)
        assert_int_equal(fiber_sleep_ms(1), 0);
    atomic_store(&load.stop, true);
    pthread_join(thread, NULL);
    for (int i = 0; i < ROWS; i++) {
        snprintf(key, sizeof key, "row-%d", i);
        failed += look(key, key) != 0;
    }
    assert_int_equal(failed, 0);
    assert_true(done.values >= ROWS);
}

static void values_are_sealed_and_opened_while_all_are_sealed_anew(void **state)
{
    (void)state;
    on_loop(load_rotate_body);
    assert_int_equal(atomic_load(&load.failures), 0);
    assert_true(atomic_load(&load.puts) > 2 * WRITERS * PER_WRITER);
    assert_int_equal(under_key(2), 0);
    assert_int_equal(under_key(3), ROWS + WRITERS * PER_WRITER);
}

/* ---- cmocka's ---- */

static int empty(void **state)
{
    (void)state;
    sql("DELETE FROM idempotency; DELETE FROM api_key; DELETE FROM vault_key");
    return 0;
}

static int ended(void **state)
{
    (void)state;
    vault_close();
    return 0;
}

static int start(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    crypto_init();
    services_start(&services, SERVICES_POSTGRES);
    CHECK(config_load(NULL, error, sizeof error) == 0);
    set("DATABASE_URL", services.database_url);
    if (migrate_run(error, sizeof error))
        fail_msg("%s", error);
    sql("INSERT INTO account (name) VALUES ('somebody')");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    services_stop(&services);
    config_clear();
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, empty, ended)

int main(int argc, char **argv)
{
    if (argc > 1)
        return child_main(argv[1]);
    const struct CMUnitTest tests[] = {
        TEST(a_sealed_value_opens_in_its_row_alone),
        TEST(values_whose_rows_are_swapped_do_not_open),
        TEST(keys_are_hashed_as_they_were_before_there_was_a_vault),
        TEST(another_encryption_key_or_damaged_rows_are_refused),
        TEST(processes_that_begin_at_once_agree),
        TEST(old_and_new_servers_read_each_other_until_the_old_secret_is_forgotten),
        TEST(every_signing_secret_is_sealed_anew),
        TEST(a_providers_key_is_sealed_anew),
        TEST(a_secret_that_is_short_or_old_or_a_third_is_refused),
        TEST(a_value_that_changes_meanwhile_is_not_put_back),
        TEST(a_change_that_was_cut_off_goes_on),
        TEST(a_value_that_does_not_open_stays_and_stops_no_other),
        TEST(values_are_sealed_and_opened_while_all_are_sealed_anew),
    };
    return cmocka_run_group_tests(tests, start, stop);
}

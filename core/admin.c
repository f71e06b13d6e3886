/* `wakegate admin`: what an operator needs. A table of verbs; each prints for people, or JSON with --json. */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/domain/job.h"
#include "core/domain/key.h"
#include "core/options.h"
#include "core/program.h"
#include "core/run/fiber.h"
#include "core/store/redis.h"
#include "proto/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { WORDS_MAX = 3, LIST_PAGE = 1000 };

static struct {
    const char *env_file;
    const char *account;
    const char *surface;
    const char *name;
    const char *kind;
    const char *count;
    const char *fibers;
    bool is_volatile;
    bool json;
    bool help;
    const char *words[WORDS_MAX];
    int word_count;
    struct arena arena;
    struct buf text; /* what is printed at the end */
    int result;
} admin;

static int fail(const char *message)
{
    fprintf(stderr, "wakegate admin: %s\n", message);
    return -EINVAL;
}

static int fail_with(int result, const char *what)
{
    fprintf(stderr, "wakegate admin: %s: %s\n", what, log_errno(result));
    return result;
}

static struct json_out begin_json(void)
{
    return json_out_to(&admin.text);
}

/* ---- keys ---- */

static int key_create_verb(void)
{
    if (!admin.account || !admin.surface)
        return fail("key create needs --account NAME and --surface NAME");
    char text[KEY_TEXT_MAX];
    int64_t id;
    int result = key_create(admin.account, admin.surface, admin.name ? admin.name : "", text, &id);
    if (result == -EINVAL)
        return fail("no such surface");
    if (result)
        return fail_with(result, "the key was not made");
    if (admin.json) {
        struct json_out out = begin_json();
        json_open(&out, '{');
        json_put_int(&out, "id", id);
        json_put_text(&out, "account", admin.account);
        json_put_text(&out, "surface", admin.surface);
        json_put_text(&out, "key", text);
        json_close(&out, '}');
    } else {
        buf_printf(&admin.text, "key %lld of account %s, shown this once:\n%s", (long long)id, admin.account,
                   text);
    }
    crypto_wipe(text, sizeof text);
    return 0;
}

static int key_list_verb(void)
{
    struct key_row *rows;
    size_t count;
    int result = key_list(&admin.arena, &rows, &count);
    if (result)
        return fail_with(result, "the keys can't be read");
    struct json_out out = begin_json();
    if (admin.json)
        json_open(&out, '[');
    for (size_t i = 0; i < count; i++) {
        if (!admin.json) {
            buf_printf(&admin.text, "%6lld  %-16.*s %-10.*s %-16.*s %.*s…  %s\n", (long long)rows[i].id,
                       STR_ARG(rows[i].account), STR_ARG(rows[i].surface), STR_ARG(rows[i].name),
                       STR_ARG(rows[i].shown), rows[i].revoked_at.at ? "revoked" : "holds");
            continue;
        }
        json_open(&out, '{');
        json_put_int(&out, "id", rows[i].id);
        json_put_str(&out, "account", rows[i].account);
        json_put_str(&out, "surface", rows[i].surface);
        json_put_str(&out, "name", rows[i].name);
        json_put_str(&out, "shown", rows[i].shown);
        json_put_str(&out, "created_at", rows[i].created_at);
        json_put_str(&out, "revoked_at", rows[i].revoked_at);
        json_close(&out, '}');
    }
    if (admin.json)
        json_close(&out, ']');
    return 0;
}

static int key_revoke_verb(void)
{
    int64_t id;
    if (admin.word_count < 3 || !str_to_i64(str_from(admin.words[2]), &id))
        return fail("key revoke needs the key's number");
    int result = key_revoke(id);
    if (result == -ENOENT)
        return fail("no such key holds");
    return result ? fail_with(result, "the key was not revoked") : 0;
}

/* ---- jobs ---- */

static void put_dead(struct json_out *out, const struct job_row *row)
{
    if (!admin.json) {
        buf_printf(&admin.text, "%8lld  %-10.*s tenant %-8.*s key %-20.*s tries %u crashes %u  %.*s\n",
                   (long long)row->id, STR_ARG(row->kind), STR_ARG(row->tenant), STR_ARG(row->key),
                   row->tries, row->crashes, STR_ARG(row->last_error));
        return;
    }
    char created[CLOCK_ISO_SIZE];
    json_open(out, '{');
    json_put_int(out, "id", row->id);
    json_put_str(out, "kind", row->kind);
    json_put_str(out, "tenant", row->tenant);
    json_put_str(out, "key", row->key);
    json_put_int(out, "tries", row->tries);
    json_put_int(out, "crashes", row->crashes);
    json_put_str(out, "last_error", row->last_error);
    json_put_text(out, "created_at", clock_format_iso(created, row->created_ms));
    json_close(out, '}');
}

static int jobs_dead_verb(void)
{
    struct json_out out = begin_json();
    if (admin.json)
        json_open(&out, '[');
    int64_t after = 0;
    size_t count;
    do {
        struct job_row *rows;
        int result = job_list_dead(&admin.arena, after, LIST_PAGE, &rows, &count);
        if (result)
            return fail_with(result, "the dead jobs can't be read");
        for (size_t i = 0; i < count; i++) {
            put_dead(&out, &rows[i]);
            after = rows[i].id;
        }
    } while (count == LIST_PAGE);
    if (admin.json)
        json_close(&out, ']');
    return 0;
}

static int jobs_redrive_verb(void)
{
    int64_t id;
    size_t count = 1;
    enum job_kind kind;
    int result;
    if (admin.word_count == 3 && str_to_i64(str_from(admin.words[2]), &id))
        result = job_redrive(id);
    else if (admin.kind && job_kind_of(str_from(admin.kind), &kind) == 0)
        result = job_redrive_kind(kind, &count);
    else
        return fail("jobs redrive needs a job's number, or --kind KIND");
    if (result == -ENOENT)
        return fail("no such job is dead");
    if (result)
        return fail_with(result, "nothing was redriven");
    buf_printf(&admin.text, admin.json ? "{\"redriven\":%zu}" : "%zu redriven", count);
    return 0;
}

static int jobs_counts_verb(void)
{
    struct job_count *counts;
    size_t count;
    int result = job_counts(&admin.arena, &counts, &count);
    if (result)
        return fail_with(result, "the jobs can't be counted");
    struct json_out out = begin_json();
    if (admin.json)
        json_open(&out, '[');
    for (size_t i = 0; i < count; i++) {
        if (!admin.json) {
            buf_printf(&admin.text, "%-14.*s %-8.*s %8lld  oldest %lld s\n", STR_ARG(counts[i].kind),
                       STR_ARG(counts[i].state), (long long)counts[i].count, (long long)counts[i].oldest_s);
            continue;
        }
        json_open(&out, '{');
        json_put_str(&out, "kind", counts[i].kind);
        json_put_str(&out, "state", counts[i].state);
        json_put_int(&out, "count", counts[i].count);
        json_put_int(&out, "oldest_seconds", counts[i].oldest_s);
        json_close(&out, '}');
    }
    if (admin.json)
        json_close(&out, ']');
    return 0;
}

static int jobs_ping_verb(void)
{
    uint64_t count = 10000;
    uint64_t fibers = 256;
    if ((admin.count && (!str_to_u64(str_from(admin.count), &count) || count == 0)) ||
        (admin.fibers && (!str_to_u64(str_from(admin.fibers), &fibers) || fibers == 0 || fibers > 10000)))
        return fail("jobs ping: --count and --fibers are whole numbers above 0");
    struct job_ping_times times;
    int result = job_ping(count, !admin.is_volatile, (unsigned)fibers, &times);
    if (result)
        return fail_with(result, "the pings were not all done");
    double seconds = (double)times.done_ns / 1e9;
    double adding = (double)times.added_ns / 1e9;
    buf_printf(&admin.text,
               admin.json ? "{\"jobs\":%llu,\"seconds\":%.4f,\"jobs_per_second\":%.0f,\"added_seconds\":%.4f}"
                          : "%llu jobs done in %.3f s: %.0f jobs/s (added in %.3f s)",
               (unsigned long long)count, seconds, (double)count / seconds, adding);
    return 0;
}

/* ---- the table ---- */

static const struct {
    const char *noun;
    const char *verb;
    int (*run)(void);
    const char *help;
} verbs[] = {
    {"key", "create", key_create_verb,
     "--account NAME --surface session [--name NAME]: make a key, shown once"},
    {"key", "list", key_list_verb, "every key, without its secret"},
    {"key", "revoke", key_revoke_verb, "NUMBER: refused everywhere within a second"},
    {"jobs", "counts", jobs_counts_verb, "jobs by kind and state"},
    {"jobs", "dead", jobs_dead_verb, "jobs that were put aside, and why"},
    {"jobs", "redrive", jobs_redrive_verb, "NUMBER or --kind KIND: give dead jobs all their tries again"},
    {"jobs", "ping", jobs_ping_verb,
     "[--count N] [--fibers N] [--volatile]: measure the queue with jobs that do nothing"},
};

static int (*find_verb(void))(void)
{
    for (size_t i = 0; admin.word_count >= 2 && i < ARRAY_SIZE(verbs); i++)
        if (strcmp(verbs[i].noun, admin.words[0]) == 0 && strcmp(verbs[i].verb, admin.words[1]) == 0)
            return verbs[i].run;
    return NULL;
}

static struct loop loop;

static void run(void *arg)
{
    int (*verb)(void) = *(int (**)(void))arg;
    admin.result = -ENOTCONN;
    if (program_open_stores(&loop)) {
        if (program_check_stores("admin"))
            admin.result = verb();
        program_close_stores(&loop);
    }
}

static int run_verb(int (*verb)(void))
{
    if (!config->database_url[0] || !config->redis_url[0] || !config->encryption_key[0]) {
        fail("DATABASE_URL, REDIS_URL and ENCRYPTION_KEY must be set, or given by --env-file");
        return 2;
    }
    program_begin("admin");
    arena_init(&admin.arena);
    loop_open(&loop, 0);
    fiber_main(&loop, "admin", run, &verb);
    arena_clear(&admin.arena);
    loop_close(&loop);
    if (admin.result == 0 && admin.text.size) {
        bool ends = admin.text.at[admin.text.size - 1] == '\n';
        fwrite(admin.text.at, 1, admin.text.size, stdout);
        if (!ends)
            putchar('\n');
    }
    if (admin.text.at)
        crypto_wipe(admin.text.at, admin.text.capacity);
    buf_clear(&admin.text);
    log_close();
    return admin.result ? 1 : 0;
}

int admin_main(int argc, char **argv)
{
    const struct option_row rows[] = {
        {"--env-file", &admin.env_file, NULL, "file of NAME=value lines; the environment wins"},
        {"--account", &admin.account, NULL, "the account's name"},
        {"--surface", &admin.surface, NULL, "the surface that a key is for"},
        {"--name", &admin.name, NULL, "what people call the key"},
        {"--kind", &admin.kind, NULL, "a kind of job"},
        {"--count", &admin.count, NULL, "how many"},
        {"--fibers", &admin.fibers, NULL, "how many at once"},
        {"--volatile", NULL, &admin.is_volatile, "jobs without a row"},
        {"--json", NULL, &admin.json, "print JSON"},
        {"--help", NULL, &admin.help, "this"},
    };
    admin.word_count = options_read("admin", argc, argv, rows, ARRAY_SIZE(rows), admin.words, WORDS_MAX);
    if (admin.word_count < 0)
        return 2;
    int (*verb)(void) = find_verb();
    if (admin.help || !verb) {
        FILE *out = admin.help ? stdout : stderr;
        fputs("usage: wakegate admin NOUN VERB [OPTION]...\n\n", out);
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
            fprintf(out, "  %-5s %-8s %s\n", verbs[i].noun, verbs[i].verb, verbs[i].help);
        if (admin.help)
            options_help(rows, ARRAY_SIZE(rows));
        return admin.help ? 0 : 2;
    }
    if (!program_settings("admin", admin.env_file))
        return 2;
    int status = run_verb(verb);
    config_clear();
    return status;
}

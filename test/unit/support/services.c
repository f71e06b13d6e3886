/* Private servers for tests: see services.h. */
#include "test/unit/support/services.h"

#include "core/base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { READY_TRIES = 3000, READY_PAUSE_MS = 10 };

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void show_log(const struct services *services, const char *name)
{
    char path[128];
    char line[1024];
    snprintf(path, sizeof path, "%s/%s.log", services->folder, name);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        fputs(line, stderr);
    if (file)
        fclose(file);
}

_Noreturn static void give_up(const struct services *services, const char *name)
{
    show_log(services, name);
    fprintf(stderr, "%s did not start\n", name);
    abort();
}

/* PostgreSQL refuses to run as root. */
static void become_postgres(void)
{
    if (geteuid() != 0)
        return;
    struct passwd *user = getpwnam("postgres");
    if (!user || initgroups("postgres", user->pw_gid) || setgid(user->pw_gid) || setuid(user->pw_uid))
        _exit(126);
}

/* Starts a program with its output in FOLDER/NAME.log. `death_signal` reaches it when the test dies. */
static pid_t spawn(const struct services *services, const char *name, char *const *args, int death_signal)
{
    char log[128];
    snprintf(log, sizeof log, "%s/%s.log", services->folder, name);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid)
        return pid;
    if (strcmp(name, "postgres") == 0)
        become_postgres();
    int null = open("/dev/null", O_RDONLY);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (null < 0 || out < 0 || chdir(services->folder) || dup2(null, 0) < 0 || dup2(out, 1) < 0 ||
        dup2(out, 2) < 0)
        _exit(126);
    setpgid(0, 0); /* a Ctrl-C at the terminal is the test's to handle */
    prctl(PR_SET_PDEATHSIG, death_signal);
    setenv("LC_ALL", "C", 1);
    execvp(args[0], args);
    _exit(127);
}

static bool exited(pid_t pid)
{
    int status;
    return waitpid(pid, &status, WNOHANG) == pid;
}

/* The newest server that is installed. */
static void postgres_program(char path[256], const char *program)
{
    glob_t found = {0};
    if (glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &found) == 0 && found.gl_pathc > 0)
        snprintf(path, 256, "%.*s/%s", (int)(strlen(found.gl_pathv[found.gl_pathc - 1]) - strlen("/initdb")),
                 found.gl_pathv[found.gl_pathc - 1], program);
    else
        snprintf(path, 256, "%s", program);
    globfree(&found);
}

#define WORD(text) ((char *)(uintptr_t)(text))

static void postgres_init(const struct services *services)
{
    char program[256];
    char data[128];
    postgres_program(program, "initdb");
    snprintf(data, sizeof data, "%s/data", services->folder);
    char *const args[] = {
        program,          WORD("-D"),        data,       WORD("-A"),   WORD("trust"),      WORD("-U"),
        WORD("postgres"), WORD("--no-sync"), WORD("-E"), WORD("UTF8"), WORD("--locale=C"), NULL};
    pid_t pid = spawn(services, "postgres", args, SIGKILL);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status != 0)
        give_up(services, "postgres");
}

void services_postgres_start(struct services *services)
{
    char program[256];
    char data[128];
    postgres_program(program, "postgres");
    snprintf(data, sizeof data, "%s/data", services->folder);
    bool fsync = services->which & SERVICES_FSYNC;
    char *const args[] = {program,
                          WORD("-D"),
                          data,
                          WORD("-k"),
                          services->folder,
                          WORD("-c"),
                          WORD("listen_addresses="),
                          WORD("-c"),
                          WORD(fsync ? "fsync=on" : "fsync=off"),
                          WORD("-c"),
                          WORD("shared_buffers=16MB"),
                          WORD("-c"),
                          WORD("max_connections=100"),
                          NULL};
    services->postgres = spawn(services, "postgres", args, SIGQUIT);
    for (int i = 0; i < READY_TRIES; i++) {
        if (PQping(services->database_url) == PQPING_OK)
            return;
        if (exited(services->postgres))
            break;
        pause_ms(READY_PAUSE_MS);
    }
    give_up(services, "postgres");
}

static void end(pid_t *pid, int number)
{
    if (*pid == 0)
        return;
    kill(*pid, number);
    while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    *pid = 0;
}

void services_postgres_stop(struct services *services)
{
    end(&services->postgres, SIGQUIT);
}

static bool redis_answers(const struct services *services)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/redis.sock", services->folder);
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(descriptor >= 0);
    char answer[8] = "";
    bool alive = connect(descriptor, (struct sockaddr *)&address, sizeof address) == 0 &&
                 write(descriptor, "PING\r\n", 6) == 6 && read(descriptor, answer, sizeof answer - 1) >= 5 &&
                 strncmp(answer, "+PONG", 5) == 0;
    close(descriptor);
    return alive;
}

void services_redis_start(struct services *services)
{
    char socket_path[128];
    snprintf(socket_path, sizeof socket_path, "%s/redis.sock", services->folder);
    char *const args[] = {WORD("redis-server"),
                          WORD("--port"),
                          WORD("0"),
                          WORD("--unixsocket"),
                          socket_path,
                          WORD("--dir"),
                          services->folder,
                          WORD("--save"),
                          WORD(""),
                          WORD("--appendonly"),
                          WORD("no"),
                          WORD("--maxmemory-policy"),
                          WORD("noeviction"),
                          NULL};
    services->redis = spawn(services, "redis", args, SIGKILL);
    for (int i = 0; i < READY_TRIES; i++) {
        if (redis_answers(services))
            return;
        if (exited(services->redis))
            break;
        pause_ms(READY_PAUSE_MS);
    }
    give_up(services, "redis");
}

void services_redis_stop(struct services *services)
{
    end(&services->redis, SIGKILL);
}

void services_start(struct services *services, unsigned which)
{
    memset(services, 0, sizeof *services);
    services->which = which;
    /* In memory, where test/run_tests.py has found room; not for those that are to see what a disk makes of it. */
    const char *memory = which & SERVICES_FSYNC ? NULL : getenv("WAKEGATE_TEST_MEMORY");
    snprintf(services->folder, sizeof services->folder, "%s/wakegate-test-XXXXXX", memory ? memory : "/tmp");
    CHECK(mkdtemp(services->folder));
    snprintf(services->database_url, sizeof services->database_url, "postgresql://postgres@/postgres?host=%s",
             services->folder);
    snprintf(services->redis_url, sizeof services->redis_url, "unix://%s/redis.sock", services->folder);
    struct passwd *user = geteuid() == 0 ? getpwnam("postgres") : NULL;
    if (user && (which & SERVICES_POSTGRES))
        CHECK(chown(services->folder, user->pw_uid, user->pw_gid) == 0);
    if (which & SERVICES_POSTGRES) {
        postgres_init(services);
        services_postgres_start(services);
    }
    if (which & SERVICES_REDIS)
        services_redis_start(services);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

void services_stop(struct services *services)
{
    services_postgres_stop(services);
    services_redis_stop(services);
    nftw(services->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static void ignore_notice(void *unused, const PGresult *notice)
{
    (void)unused;
    (void)notice;
}

int64_t services_sql(const struct services *services, const char *sql)
{
    PGconn *connection = PQconnectdb(services->database_url);
    PQsetNoticeReceiver(connection, ignore_notice, NULL);
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        fprintf(stderr, "%s: %s", sql, PQerrorMessage(connection));
        abort();
    }
    const char *text = PQntuples(result) > 0 && PQnfields(result) > 0 ? PQgetvalue(result, 0, 0) : "";
    int64_t value = strcmp(text, "t") == 0 ? 1 : strtoll(text, NULL, 10);
    PQclear(result);
    PQfinish(connection);
    return value;
}

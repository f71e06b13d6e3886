/* wakegate: one executable, a table of subcommands. */
#include "core/base/config.h"
#include "core/domain/event/event.h"
#include "core/program.h"
#include "core/up.h"

#include <stdio.h>
#include <string.h>

static int help_main(int argc, char **argv);
static int settings_main(int argc, char **argv);
static int events_main(int argc, char **argv);
static int version_main(int argc, char **argv);

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"up", up_main, "everything on one machine: PostgreSQL, Redis, serve, work (--data DIR --port N)"},
    {"serve", serve_main, "the reactor"},
    {"work", work_main, "the worker pool"},
    {"pod", pod_main, "the pod that comes along; listens on $PORT"},
    {"migrate", migrate_main, "bring the database's schema up to date"},
    {"admin", admin_main, "accounts, keys, OAuth clients, plans, bans, audit, jobs, another ENCRYPTION_KEY"},
    {"tail", tail_main, "an account's events, as they happen (--events job.* --json)"},
    {"routes", routes_main, "every route that is served"},
    {"events", events_main, "every event, with what its data has, as JSON"},
    {"settings", settings_main, "every setting, as the README's table"},
    {"version", version_main, "the version"},
    {"--version", version_main, NULL},
    {"help", help_main, "this"},
    {"--help", help_main, NULL},
};

static int help_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("usage: wakegate COMMAND [OPTION]...\n\nCommands:");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (commands[i].help)
            printf("  %-9s %s\n", commands[i].name, commands[i].help);
    puts("\nSettings, from the environment or --env-file FILE:");
    config_print_help(stdout);
    return 0;
}

static int settings_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    config_print_markdown(stdout);
    return 0;
}

static int events_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    event_print(stdout);
    return 0;
}

static int version_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("wakegate " WAKEGATE_VERSION);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help_main(argc, argv);
        return 2;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "wakegate: there is no command \"%s\"; see wakegate help\n", argv[1]);
    return 2;
}

/* `wakegate migrate`: brings the database's schema up to date. */
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/options.h"
#include "core/program.h"
#include "core/store/pg.h"

#include <stdio.h>

int migrate_main(int argc, char **argv)
{
    const char *env_file = NULL;
    bool only_check = false;
    bool help = false;
    const struct option_row rows[] = {
        {"--env-file", &env_file, NULL, "file of NAME=value lines; the environment wins"},
        {"--check", NULL, &only_check, "change nothing; exit 1 when something is missing"},
        {"--help", NULL, &help, "this"},
    };
    if (options_read("migrate", argc, argv, rows, ARRAY_SIZE(rows), NULL, 0) < 0)
        return 2;
    if (help) {
        puts("wakegate migrate: bring the schema of DATABASE_URL up to date\n\nOptions:");
        options_help(rows, ARRAY_SIZE(rows));
        return 0;
    }
    if (!program_settings("migrate", env_file))
        return 2;
    if (!config->database_url[0]) {
        fputs("wakegate migrate: DATABASE_URL must be set\n", stderr);
        return 2;
    }
    char error[512];
    program_begin("migrate");
    int result = only_check ? migrate_check(error, sizeof error) : migrate_run(error, sizeof error);
    log_close();
    if (result)
        fprintf(stderr, "wakegate migrate: %s\n", error);
    config_clear();
    return result ? 1 : 0;
}

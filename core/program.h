#ifndef CORE_PROGRAM_H
#define CORE_PROGRAM_H

#include "core/net/http.h"
#include "core/run/loop.h"

#include <stdbool.h>

/* What the programs (serve, work, admin, migrate) have in common. */

enum { PROGRAM_ADDRESS_SIZE = 64 /* of a listener's address as text, with its NUL */ };

/* Loads the settings; false after one line on stderr. */
bool program_settings(const char *program, const char *env_file);

/* Whether the settings without which no store can be opened are there; false after one line on stderr. */
bool program_can_open_stores(const char *program);

/* What a process that holds secrets does first: no core dumps of them, SIGPIPE ignored, the log begun. */
void program_begin(const char *program);

/* Opens the loop's connections to Redis and PostgreSQL; false after a line in the log. */
bool program_open_stores(struct loop *loop);
/* Waits until both are there and fit (Redis evicts nothing, the database is migrated), and opens the vault; false after a
 * line on stderr. On a fiber; once per process. */
bool program_check_stores(const char *program);
/* Waits. Closes all that modules keep in the loop's slots. On a fiber. */
void program_close_stores(struct loop *loop);

/* Reads "address:port", the value of `setting`. -EINVAL after a line on stderr. */
int program_read_listen(const char *setting, const char *value, char address[PROGRAM_ADDRESS_SIZE], int *port)
    MUST_USE;
/* The operator's listener (METRICS_LISTEN). *server is NULL when the setting is empty. False after a line on stderr. */
bool program_open_metrics(struct loop *loop, void (*handle)(struct http_request *request),
                          void (*ended)(struct http_request *request), struct http_server **server);
/* What it answers for /metrics; 404 for anything else. */
void program_answer_metrics(struct http_request *request);
void program_metrics_ended(struct http_request *request);
void program_close_metrics(struct http_server *server);

/* The subcommands; each returns the process's exit status. argv[0] is the subcommand's name. */
int serve_main(int argc, char **argv);
int work_main(int argc, char **argv);
int pod_main(int argc, char **argv);
int admin_main(int argc, char **argv);
int migrate_main(int argc, char **argv);
int routes_main(int argc, char **argv);
int tail_main(int argc, char **argv);

#endif

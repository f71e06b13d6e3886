#ifndef CORE_UP_H
#define CORE_UP_H

/*
 * `wakegate up [--data DIR] [--port N] [--workers N] [--verbose]`: everything on one machine, with a PostgreSQL
 * and a Redis of its own in DIR, until SIGINT or SIGTERM. argv[0] is the subcommand's name. Returns the exit status.
 */
int up_main(int argc, char **argv);

#endif

#ifndef CORE_OPTIONS_H
#define CORE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

/* Command line options as a table: "--name VALUE" (or --name=VALUE) and "--name". */
struct option_row {
    const char *name;   /* "--port" */
    const char **value; /* takes a value; or */
    bool *flag;         /* is a switch */
    const char *help;
};

/*
 * Reads the options of argv[1..] into the table's variables and leaves the other words in `words`, at most `most`.
 * Returns their number, or -1 after one line on stderr that names `program`.
 */
int options_read(const char *program, int argc, char **argv, const struct option_row *rows, size_t count,
                 const char **words, int most);
void options_help(const struct option_row *rows, size_t count);

#endif

/* Command line options. */
#include "core/options.h"

#include <stdio.h>
#include <string.h>

/* The row that the word names; *value points behind an equals sign, or is NULL. */
static const struct option_row *find(const struct option_row *rows, size_t count, const char *word,
                                     const char **value)
{
    size_t length = strcspn(word, "=");
    *value = word[length] ? word + length + 1 : NULL;
    for (size_t i = 0; i < count; i++)
        if (strlen(rows[i].name) == length && strncmp(rows[i].name, word, length) == 0)
            return &rows[i];
    return NULL;
}

int options_read(const char *program, int argc, char **argv, const struct option_row *rows, size_t count,
                 const char **words, int most)
{
    int found = 0;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0) {
            if (found == most) {
                fprintf(stderr, "wakegate %s: unexpected \"%s\"\n", program, argv[i]);
                return -1;
            }
            words[found++] = argv[i];
            continue;
        }
        const char *value;
        const struct option_row *row = find(rows, count, argv[i], &value);
        if (!row) {
            fprintf(stderr, "wakegate %s: there is no option %s; see wakegate %s --help\n", program, argv[i],
                    program);
            return -1;
        }
        if (row->flag) {
            *row->flag = true;
            continue;
        }
        if (!value && i + 1 < argc)
            value = argv[++i];
        if (!value) {
            fprintf(stderr, "wakegate %s: %s needs a value\n", program, row->name);
            return -1;
        }
        *row->value = value;
    }
    return found;
}

void options_help(const struct option_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("  %-14s %s\n", rows[i].name, rows[i].help);
}

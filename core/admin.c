/*
 * `wakegate admin`: the command line over the table of verbs (core/operator/operator.h). It prints for people, or the
 * verb's JSON with --json. Exits with 0, 1 when the verb could not do it, 2 when it was not asked rightly.
 */
#include "core/base/arena.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/domain/audit.h"
#include "core/domain/vault.h"
#include "core/operator/layout.h"
#include "core/operator/operator.h"
#include "core/options.h"
#include "core/program.h"
#include "core/run/fiber.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WORDS_MAX = 2 + OPERATOR_ARGUMENTS_MAX,
    OPTION_SIZE = 40,
    FILE_MAX_SIZE = 1 << 20,
    FILE_PIECE = 65536,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2
};

/* Words that stand for a noun and a verb. */
static const struct {
    const char *word;
    const char *noun;
    const char *verb;
} aliases[] = {
    {"audit", "audit", "list"},
    {"rotate-encryption-key", "vault", "rotate"},
};

static struct {
    const char *env_file;
    bool json;
    bool help;
    const char *words[WORDS_MAX]; /* without noun and verb */
    int word_count;
    const char *values[OPERATOR_ARGUMENTS_MAX]; /* given as options */
    bool switches[OPERATOR_ARGUMENTS_MAX];
    struct arena arena;
    struct operator_call call;
    struct buf text; /* the answer */
    int result;
} admin;

static const struct option_row global_rows[] = {
    {"--env-file", &admin.env_file, NULL, "file of NAME=value lines; the environment wins"},
    {"--json", NULL, &admin.json, "print JSON"},
    {"--help", NULL, &admin.help, "this; behind a verb: what it takes"},
};

static int fail(const char *message)
{
    struct buf line = {0};
    operator_add_clean(&line, str_from(message));
    fprintf(stderr, "wakegate admin: %.*s\n", STR_ARG(buf_str(&line)));
    buf_clear(&line);
    return -EINVAL;
}

/* ---- help ---- */

/* "--allow-from" of "allow_from". */
static const char *option_name(char out[OPTION_SIZE], const char *name)
{
    snprintf(out, OPTION_SIZE, "--%s", name);
    for (char *c = out; *c; c++)
        if (*c == '_')
            *c = '-';
    return out;
}

static void print_value_name(FILE *out, const struct operator_argument *argument)
{
    if (argument->type == OPERATOR_TIME || argument->type == OPERATOR_FILE) {
        fputs(argument->type == OPERATOR_TIME ? "TIME" : "FILE", out);
        return;
    }
    for (const char *c = argument->name; *c; c++)
        fputc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, out);
}

static void print_argument(FILE *out, const struct operator_argument *argument)
{
    char option[OPTION_SIZE];
    bool optional = !(argument->flags & OPERATOR_REQUIRED);
    fprintf(out, " %s", optional ? "[" : "");
    if (argument->variable)
        fprintf(out, "$%s", argument->variable);
    else if (!(argument->flags & OPERATOR_WORD))
        fprintf(out, "%s%s", option_name(option, argument->name),
                argument->type == OPERATOR_SWITCH ? "" : " ");
    if (!argument->variable && argument->type != OPERATOR_SWITCH)
        print_value_name(out, argument);
    if (optional)
        fputc(']', out);
}

static void print_verb(FILE *out, const struct operator_verb *verb)
{
    fprintf(out, "  %s %s", verb->noun, verb->verb);
    for (const struct operator_argument *argument = verb->arguments; argument->name; argument++)
        print_argument(out, argument);
    fprintf(out, "\n      %s\n", verb->help);
}

static void print_all(FILE *out)
{
    fputs("usage: wakegate admin NOUN VERB [OPTION]...\n\n", out);
    for (size_t i = 0; i < operator_verb_count; i++)
        print_verb(out, &operator_verbs[i]);
    fputs(
        "\n  rotate-encryption-key is vault rotate, audit is audit list. $NAME is a secret: it is read from that\n"
        "  variable of the environment, because command lines can be seen by others.\n\nOptions of all:\n",
        out);
    fflush(out);
    options_help(global_rows, ARRAY_SIZE(global_rows));
}

static void print_one(const struct operator_verb *verb)
{
    char option[OPTION_SIZE];
    fputs("usage: wakegate admin\n", stdout);
    print_verb(stdout, verb);
    fputs(verb->arguments[0].name ? "\n" : "", stdout);
    for (const struct operator_argument *argument = verb->arguments; argument->name; argument++)
        printf("  %s%-20s %s\n", argument->variable ? "$" : "",
               argument->variable ? argument->variable : option_name(option, argument->name), argument->help);
}

/* ---- reading the command line ---- */

/* The first two words that are no options of all. Returns how many there are of them. */
static int first_words(int argc, char **argv, int at[2])
{
    int found = 0;
    for (int i = 1; i < argc && found < 2; i++) {
        if (strcmp(argv[i], "--env-file") == 0)
            i++;
        else if (strncmp(argv[i], "--", 2) != 0)
            at[found++] = i;
    }
    return found;
}

/* The verb, and how many of the words name it. NULL: there is none of that name. */
static const struct operator_verb *find_verb(int argc, char **argv, int *named)
{
    int at[2];
    int found = first_words(argc, argv, at);
    const struct operator_verb *verb = NULL;
    *named = found;
    if (found == 2)
        verb = operator_find(str_from(argv[at[0]]), str_from(argv[at[1]]));
    for (size_t i = 0; !verb && found && i < ARRAY_SIZE(aliases); i++) {
        if (strcmp(argv[at[0]], aliases[i].word) != 0)
            continue;
        *named = 1;
        verb = operator_find(str_from(aliases[i].noun), str_from(aliases[i].verb));
    }
    return verb;
}

/* An underscore is as good as a dash in the name of an option. */
static void use_dashes(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        for (char *c = argv[i]; strncmp(argv[i], "--", 2) == 0 && *c && *c != '='; c++)
            if (*c == '_')
                *c = '-';
}

static bool read_options(int argc, char **argv, const struct operator_verb *verb, int named)
{
    char names[OPERATOR_ARGUMENTS_MAX][OPTION_SIZE];
    struct option_row rows[ARRAY_SIZE(global_rows) + OPERATOR_ARGUMENTS_MAX];
    size_t count = ARRAY_SIZE(global_rows);
    memcpy(rows, global_rows, sizeof global_rows);
    for (size_t i = 0; verb->arguments[i].name; i++) {
        const struct operator_argument *argument = &verb->arguments[i];
        if (argument->variable)
            continue;
        bool is_switch = argument->type == OPERATOR_SWITCH;
        rows[count++] = (struct option_row){
            .name = option_name(names[i], argument->name),
            .value = is_switch ? NULL : &admin.values[i],
            .flag = is_switch ? &admin.switches[i] : NULL,
        };
    }
    use_dashes(argc, argv);
    int words = options_read("admin", argc, argv, rows, count, admin.words, WORDS_MAX);
    if (words < 0)
        return false;
    admin.word_count = words - named;
    memmove(admin.words, admin.words + named, (size_t)admin.word_count * sizeof admin.words[0]);
    return true;
}

/* The text of a file; a word that names none stays what it is, for the verb may know it. */
static bool read_file(const char *path, struct str *text)
{
    struct buf read = {0};
    FILE *file = fopen(path, "re");
    size_t got = 1;
    if (!file && errno == ENOENT && !strchr(path, '/') && !strchr(path, '.')) {
        *text = str_from(path);
        return true;
    }
    while (file && got > 0 && read.size <= FILE_MAX_SIZE) {
        got = fread(buf_reserve(&read, FILE_PIECE), 1, FILE_PIECE, file);
        read.size += got;
    }
    bool fine = file && !ferror(file) && read.size <= FILE_MAX_SIZE;
    if (!fine)
        fail(arena_printf(&admin.arena, "%s can't be read: %s", path,
                          file && !ferror(file) ? "too large" : strerror(errno)));
    if (file)
        fclose(file);
    *text = arena_str(&admin.arena, buf_str(&read));
    buf_clear(&read);
    return fine;
}

/* Words stand for the arguments that may be given so, in their order. */
static bool place_values(const struct operator_verb *verb)
{
    int word = 0;
    for (size_t i = 0; verb->arguments[i].name; i++) {
        const struct operator_argument *argument = &verb->arguments[i];
        const char *value = admin.values[i];
        if (argument->variable)
            value = getenv(argument->variable);
        else if (argument->type == OPERATOR_SWITCH)
            value = admin.switches[i] ? "true" : NULL;
        else if (!value && argument->flags & OPERATOR_WORD && word < admin.word_count)
            value = admin.words[word++];
        admin.call.values[i] = str_from(value);
        if (value && argument->type == OPERATOR_FILE && !read_file(value, &admin.call.values[i]))
            return false;
    }
    if (word == admin.word_count)
        return true;
    fail(arena_printf(&admin.arena, "unexpected \"%s\"", admin.words[word]));
    return false;
}

/* What is missing is said as it is given here. */
static bool check(const struct operator_verb *verb)
{
    char option[OPTION_SIZE];
    for (size_t i = 0; verb->arguments[i].name; i++) {
        const struct operator_argument *argument = &verb->arguments[i];
        if (admin.call.values[i].at || !(argument->flags & OPERATOR_REQUIRED))
            continue;
        fail(arena_printf(&admin.arena, "%s %s needs %s%s", verb->noun, verb->verb,
                          argument->variable ? argument->variable : option_name(option, argument->name),
                          argument->variable ? " in the environment" : ""));
        return false;
    }
    if (operator_check(&admin.call) == 0)
        return true;
    fail(admin.call.problem);
    return false;
}

/* ---- running ---- */

static struct loop loop;

static void run(void *arg)
{
    const struct audit_who who = {{STR("operator"), STR(""), STR("")}};
    (void)arg;
    admin.result = -ENOTCONN;
    if (program_open_stores(&loop)) {
        if (program_check_stores("admin")) {
            struct json_out out = json_out_to(&admin.text);
            admin.call.out = &out;
            audit_set(&who);
            admin.result = admin.call.verb->run(&admin.call);
            if (admin.result)
                fail(admin.call.problem ? admin.call.problem
                                        : arena_printf(&admin.arena, "%s %s: %s", admin.call.verb->noun,
                                                       admin.call.verb->verb, log_errno(admin.result)));
        }
        program_close_stores(&loop);
    }
}

static void print_answer(void)
{
    if (admin.json) {
        buf_add_char(&admin.text, '\n');
        fwrite(admin.text.at, 1, admin.text.size, stdout);
        return;
    }
    const char *error;
    struct buf text = {0};
    operator_layout(&text, json_read(&admin.arena, buf_str(&admin.text), &error));
    fwrite(text.at, 1, text.size, stdout);
    crypto_wipe(text.at, text.capacity);
    buf_clear(&text);
    if (admin.call.shows_secret)
        fputs("Keep what is secret in this: it is not shown again.\n", stderr);
}

static int run_verb(void)
{
    program_begin("admin");
    loop_open(&loop, 0);
    fiber_main(&loop, "admin", run, NULL);
    loop_close(&loop);
    vault_close();
    if (admin.result == 0)
        print_answer();
    if (admin.text.at)
        crypto_wipe(admin.text.at, admin.text.capacity);
    buf_clear(&admin.text);
    log_close();
    return admin.result || admin.call.is_bad ? EXIT_FAILED : EXIT_SUCCESS;
}

/* People want to know of what is wrong, not of every connection. */
static bool read_settings(void)
{
    char error[256];
    if (!program_settings("admin", admin.env_file))
        return false;
    if (strcmp(config->log_level, "info") == 0)
        CHECK(config_set("LOG_LEVEL", "warn", error, sizeof error) == 0);
    return true;
}

static int main_of(const struct operator_verb *verb)
{
    admin.call = (struct operator_call){.verb = verb, .arena = &admin.arena};
    if (!place_values(verb) || !check(verb) || !read_settings())
        return EXIT_USAGE;
    int status = program_can_open_stores("admin") ? run_verb() : EXIT_USAGE;
    config_clear();
    return status;
}

int admin_main(int argc, char **argv)
{
    int named;
    const struct operator_verb *verb = find_verb(argc, argv, &named);
    if (!verb && named == 0) {
        if (options_read("admin", argc, argv, global_rows, ARRAY_SIZE(global_rows), NULL, 0) < 0)
            return EXIT_USAGE;
        print_all(stdout);
        return admin.help ? EXIT_SUCCESS : EXIT_USAGE;
    }
    if (!verb) {
        fail("there is no such verb; see wakegate admin --help");
        return EXIT_USAGE;
    }
    if (!read_options(argc, argv, verb, named))
        return EXIT_USAGE;
    if (admin.help) {
        print_one(verb);
        return EXIT_SUCCESS;
    }
    arena_init(&admin.arena);
    int status = main_of(verb);
    arena_clear(&admin.arena);
    return status;
}

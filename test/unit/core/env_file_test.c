/* core/env_file: what is not ours stays, and the file is the old one or the new one. */
#include "core/env_file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    char folder[64];
    char path[96];
};

static int setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    strcpy(place->folder, "/tmp/wakegate-test-XXXXXX");
    if (!mkdtemp(place->folder))
        return -1;
    snprintf(place->path, sizeof place->path, "%s/x.env", place->folder);
    *state = place;
    return 0;
}

static int teardown(void **state)
{
    struct place *place = *state;
    unlink(place->path);
    rmdir(place->folder);
    free(place);
    return 0;
}

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void assert_text(const char *path, const char *expected)
{
    char text[256] = "";
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof text - 1, file);
    text[size] = '\0';
    fclose(file);
    assert_string_equal(text, expected);
}

static void test_set_keeps_every_other_line(void **state)
{
    struct place *place = *state;
    put(place->path, "# mine\nA=1\n\nAB=2\nLAST=no newline");
    struct env_file file;
    assert_int_equal(env_file_open(&file, place->path), 0);
    env_file_set(&file, "A", STR("one=1"));
    env_file_set(&file, "NEW", STR("x"));
    env_file_set(&file, "LAST", STR(""));
    assert_true(str_equal(env_file_get(&file, "AB"), STR("2")));
    assert_int_equal(env_file_get(&file, "B").size, 0);
    assert_int_equal(env_file_save(&file), 0);
    env_file_close(&file);
    assert_text(place->path, "# mine\nA=one=1\n\nAB=2\nLAST=\nNEW=x\n");
}

static void test_the_last_line_of_a_name_counts(void **state)
{
    struct place *place = *state;
    put(place->path, "A=1\nA=2\n");
    struct env_file file;
    assert_int_equal(env_file_open(&file, place->path), 0);
    assert_true(str_equal(env_file_get(&file, "A"), STR("2")));
    env_file_set(&file, "A", STR("3"));
    assert_int_equal(env_file_save(&file), 0);
    env_file_close(&file);
    assert_text(place->path, "A=1\nA=3\n");
}

static void test_a_saved_file_is_its_owners_alone(void **state)
{
    struct place *place = *state;
    struct stat found;
    put(place->path, "");
    assert_int_equal(chmod(place->path, 0644), 0);
    struct env_file file;
    assert_int_equal(env_file_open(&file, place->path), 0);
    env_file_set(&file, "A", STR("1"));
    assert_int_equal(env_file_save(&file), 0);
    env_file_close(&file);
    assert_int_equal(stat(place->path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
}

static void test_a_file_that_can_not_be_written_is_an_error(void **state)
{
    struct place *place = *state;
    struct env_file file;
    assert_int_equal(env_file_open(&file, "/nonexistent/x.env"), 0);
    env_file_set(&file, "A", STR("1"));
    assert_int_equal(env_file_save(&file), -ENOENT);
    env_file_close(&file);
    assert_int_equal(env_file_open(&file, place->folder), -EISDIR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_set_keeps_every_other_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_last_line_of_a_name_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_saved_file_is_its_owners_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_can_not_be_written_is_an_error, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

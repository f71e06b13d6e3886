/* The hash table with links of its items' own. */
#include "core/store/table.h"

#include "core/base/crypto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct item {
    struct link link;
    char text[16];
    bool seen;
};

static struct str text_of(struct link *link)
{
    return str_from(LIST_ENTRY(link, struct item, link)->text);
}

static void items_are_found_through_growth_and_removal(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static struct item items[COUNT];
    struct table table;
    table_init(&table, text_of);
    assert_null(table_find(&table, STR("0")));
    for (int i = 0; i < COUNT; i++) {
        snprintf(items[i].text, sizeof items[i].text, "%d", i);
        table_add(&table, &items[i].link);
    }
    assert_int_equal(table.count, COUNT);
    for (int i = 0; i < COUNT; i += 2)
        table_remove(&table, &items[i].link);
    for (int i = 0; i < COUNT; i++)
        assert_ptr_equal(table_find(&table, str_from(items[i].text)), i % 2 ? &items[i].link : NULL);
    assert_null(table_find(&table, STR("no such text")));
    for (int i = 1; i < COUNT; i += 2)
        table_remove(&table, &items[i].link);
    table_clear(&table);
}

static void items_with_the_same_text_are_all_found(void **state)
{
    (void)state;
    struct item items[] = {{.text = "a"}, {.text = "b"}, {.text = "a"}, {.text = "a"}};
    struct table table;
    table_init(&table, text_of);
    for (size_t i = 0; i < ARRAY_SIZE(items); i++)
        table_add(&table, &items[i].link);
    unsigned found = 0;
    for (struct link *link = table_find(&table, STR("a")); link;
         link = table_find_next(&table, link, STR("a")))
        found++;
    assert_int_equal(found, 3);
    for (size_t i = 0; i < ARRAY_SIZE(items); i++)
        table_remove(&table, &items[i].link);
    table_clear(&table);
}

static void see(struct link *link, void *arg)
{
    LIST_ENTRY(link, struct item, link)->seen = true;
    ++*(unsigned *)arg;
}

static void each_visits_every_item_once(void **state)
{
    (void)state;
    struct item items[] = {{.text = "a"}, {.text = "b"}, {.text = ""}};
    struct table table;
    unsigned visits = 0;
    table_init(&table, text_of);
    table_each(&table, see, &visits);
    assert_int_equal(visits, 0);
    for (size_t i = 0; i < ARRAY_SIZE(items); i++)
        table_add(&table, &items[i].link);
    table_each(&table, see, &visits);
    assert_int_equal(visits, 3);
    for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
        assert_true(items[i].seen);
        table_remove(&table, &items[i].link);
    }
    table_clear(&table);
}

int main(void)
{
    crypto_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_are_found_through_growth_and_removal),
        cmocka_unit_test(items_with_the_same_text_are_all_found),
        cmocka_unit_test(each_visits_every_item_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

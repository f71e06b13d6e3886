/* Server-sent events as bytes. */
#include "proto/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void expect(struct str id, struct str event, struct str data, const char *bytes)
{
    struct buf out = {0};
    sse_put_event(&out, id, event, data);
    buf_add_char(&out, '\0');
    assert_string_equal(out.at, bytes);
    buf_clear(&out);
}

static void an_event_is_its_fields_and_an_empty_line(void **state)
{
    (void)state;
    expect(STR("7"), STR("job.done"), STR("{}"), "id: 7\nevent: job.done\ndata: {}\n\n");
    expect(STR_NONE, STR_NONE, STR("x"), "data: x\n\n");
    expect(STR(""), STR_NONE, STR(""), "id: \ndata: \n\n");
    expect(STR("7"), STR_NONE, STR_NONE, "id: 7\n\n"); /* no event: the id alone */
}

static void each_line_of_data_has_a_field_of_its_own(void **state)
{
    (void)state;
    expect(STR_NONE, STR_NONE, STR("a\nb"), "data: a\ndata: b\n\n");
    expect(STR_NONE, STR_NONE, STR("a\r\nb\rc\n"), "data: a\ndata: b\ndata: c\ndata: \n\n");
    expect(STR_NONE, STR_NONE, STR("\r\n\r\n"), "data: \ndata: \ndata: \n\n");
    expect(STR_NONE, STR_NONE, STR("a\r\n"), "data: a\ndata: \n\n");
}

static void what_would_begin_another_field_is_left_out(void **state)
{
    (void)state;
    expect(STR("1\ndata: forged"), STR("a\rb"), STR("x"), "data: x\n\n");
    expect(STR("1\0"), STR("ok"), STR("x"), "event: ok\ndata: x\n\n");
}

static void a_comment_is_no_event(void **state)
{
    (void)state;
    struct buf out = {0};
    sse_put_comment(&out);
    assert_true(str_equal(buf_str(&out), STR(":\n\n")));
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_its_fields_and_an_empty_line),
        cmocka_unit_test(each_line_of_data_has_a_field_of_its_own),
        cmocka_unit_test(what_would_begin_another_field_is_left_out),
        cmocka_unit_test(a_comment_is_no_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Base64 in both alphabets. */
#include "core/base/base64.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_added(void (*add)(struct buf *out, struct str bytes), struct str bytes, const char *wanted)
{
    struct buf out = {0};
    buf_add_char(&out, '>');
    add(&out, bytes);
    buf_add_char(&out, '\0');
    assert_string_equal(out.at + 1, wanted);
    buf_clear(&out);
}

/* Decodes in blocks of exactly the room that the header promises to be enough. */
static int decoded(int (*decode)(unsigned char *out, struct str text), struct str text, unsigned char *copy)
{
    char *exact = mem_alloc(text.size);
    unsigned char *out = mem_alloc(text.size * 3 / 4);
    if (text.size)
        memcpy(exact, text.at, text.size);
    int size = decode(out, str_of(exact, text.size));
    if (size > 0 && copy)
        memcpy(copy, out, (size_t)size);
    free(out);
    free(exact);
    return size;
}

/* RFC 4648 §10 */
static const struct {
    const char *bytes;
    const char *standard;
    const char *for_urls;
} vectors[] = {
    {"", "", ""},
    {"f", "Zg==", "Zg"},
    {"fo", "Zm8=", "Zm8"},
    {"foo", "Zm9v", "Zm9v"},
    {"foob", "Zm9vYg==", "Zm9vYg"},
    {"fooba", "Zm9vYmE=", "Zm9vYmE"},
    {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
    {"\xfb\xff\xbf", "+/+/", "-_-_"},
    {"\xff\xef\xbe\xff", "/+++/w==", "_---_w"},
};

static void both_alphabets_are_rfc_4648(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
        unsigned char bytes[16] = {0};
        struct str plain = str_from(vectors[i].bytes);
        assert_added(base64_add, plain, vectors[i].standard);
        assert_added(base64url_add, plain, vectors[i].for_urls);
        assert_int_equal(decoded(base64_decode, str_from(vectors[i].standard), bytes), plain.size);
        assert_memory_equal(bytes, plain.at, plain.size);
        assert_int_equal(decoded(base64url_decode, str_from(vectors[i].for_urls), bytes), plain.size);
        assert_memory_equal(bytes, plain.at, plain.size);
    }
}

static void all_bytes_come_back(void **state)
{
    (void)state;
    unsigned char bytes[257];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7);
    for (size_t size = 0; size <= sizeof bytes; size++) {
        unsigned char back[sizeof bytes];
        char room[344];
        /* A buffer with room for no more than the text is not grown. */
        struct buf text = {.at = room, .capacity = (size + 2) / 3 * 4};
        base64_add(&text, str_of((const char *)bytes, size));
        assert_int_equal(text.size, (size + 2) / 3 * 4);
        assert_int_equal(decoded(base64_decode, buf_str(&text), back), size);
        assert_memory_equal(back, bytes, size);
        text = (struct buf){.at = room, .capacity = (size * 4 + 2) / 3};
        base64url_add(&text, str_of((const char *)bytes, size));
        assert_int_equal(text.size, (size * 4 + 2) / 3);
        assert_int_equal(decoded(base64url_decode, buf_str(&text), back), size);
        assert_memory_equal(back, bytes, size);
        assert_ptr_equal(text.at, room);
    }
}

static void only_one_spelling_of_the_same_bytes_is_taken(void **state)
{
    (void)state;
    /* Bits left over, padding that is wrong or missing, one letter alone, the other alphabet, other characters. */
    static const char *const bad[] = {"Zh==",  "Zm9=",     "Zg=",  "Zg",       "Zm8",    "Z",     "Z===",
                                      "====",  "=",        "==",   "Zg==Zg==", "Zg==\n", "Zm 9v", "-_-_",
                                      "Zm9v=", "Zm9v====", "=m9v", "Z=8=",     "Zm9\xc3"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(decoded(base64_decode, str_from(bad[i]), NULL), -EINVAL);
    static const char *const bad_url[] = {"Zh",    "Zm9", "Z",   "Zg==", "Zm8=", "+/+/", "Zm9v=",
                                          "Zm9vZ", "Zg.", " Zg", "Zg\n", "Z g",  "====", "Zm9vYmF\xff"};
    for (size_t i = 0; i < ARRAY_SIZE(bad_url); i++)
        assert_int_equal(decoded(base64url_decode, str_from(bad_url[i]), NULL), -EINVAL);
    assert_int_equal(decoded(base64_decode, STR("Zm\0v"), NULL), -EINVAL);
    assert_int_equal(decoded(base64url_decode, STR("Zm\0v"), NULL), -EINVAL);
}

static void each_character_is_a_letter_of_its_alphabet_or_refused(void **state)
{
    (void)state;
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    for (int c = 0; c < 256; c++) {
        char text[] = {(char)c, 'A', 'A', 'A'};
        const char *letter = c ? strchr(letters, c) : NULL;
        int both = letter ? (int)(letter - letters) : -1;
        int values[] = {c == '+' ? 62 : c == '/' ? 63 : both, c == '-' ? 62 : c == '_' ? 63 : both};
        unsigned char bytes[3];
        assert_int_equal(base64_decode(bytes, str_of(text, 4)), values[0] < 0 ? -EINVAL : 3);
        assert_true(values[0] < 0 || bytes[0] == values[0] << 2);
        assert_int_equal(base64url_decode(bytes, str_of(text, 4)), values[1] < 0 ? -EINVAL : 3);
        assert_true(values[1] < 0 || bytes[0] == values[1] << 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_alphabets_are_rfc_4648),
        cmocka_unit_test(all_bytes_come_back),
        cmocka_unit_test(only_one_spelling_of_the_same_bytes_is_taken),
        cmocka_unit_test(each_character_is_a_letter_of_its_alphabet_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

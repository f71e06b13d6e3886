/* The form of what clients present. How it is hashed is in vault_test.c, whose key it takes. */
#include "core/domain/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* Computed from the description by another program: keys that were given out must stay valid. */
#define GIVEN_OUT "wgs_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgodYgqi"

/* Looks at a block that ends with the text. */
static bool has_form(const char *text, size_t size, const char *prefix)
{
    char *exact = mem_alloc(size);
    memcpy(exact, text, size);
    bool has = secret_has_form(str_of(exact, size), prefix);
    free(exact);
    return has;
}

static void a_secret_has_the_form_of_its_prefix(void **state)
{
    static const char *const prefixes[] = {"wgs_", "fsk-", "dumont_sk_", "sk_user_", "r", ""};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        char text[SECRET_TEXT_MAX];
        char other[SECRET_TEXT_MAX];
        size_t size = secret_make(text, prefixes[i]);
        assert_int_equal(size, strlen(prefixes[i]) + SECRET_RANDOM_SIZE + SECRET_CHECKSUM_SIZE);
        assert_int_equal(size, strlen(text));
        assert_int_equal(secret_make(other, prefixes[i]), size);
        assert_string_not_equal(text, other);
        assert_true(str_starts(str_from(text), str_from(prefixes[i])));
        assert_int_equal(strspn(text + strlen(prefixes[i]),
                                "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
                         SECRET_RANDOM_SIZE + SECRET_CHECKSUM_SIZE);
        for (size_t k = 0; k < ARRAY_SIZE(prefixes); k++)
            assert_true(has_form(text, size, prefixes[k]) == (i == k));
    }
}

static void secrets_that_were_given_out_stay_valid(void **state)
{
    (void)state;
    assert_true(has_form(GIVEN_OUT, strlen(GIVEN_OUT), "wgs_"));
    assert_false(has_form(GIVEN_OUT, strlen(GIVEN_OUT), "fsk-"));
}

static void a_mistyped_secret_is_seen(void **state)
{
    (void)state;
    char text[SECRET_TEXT_MAX];
    size_t size = secret_make(text, "wgs_");
    /* Each character, the checksum's too; each cut, and one character more. */
    for (size_t i = 0; i < size; i++) {
        char right = text[i];
        text[i] = right == 'x' ? 'y' : 'x';
        assert_false(has_form(text, size, "wgs_"));
        text[i] = right;
    }
    for (size_t cut = 0; cut < size; cut++)
        assert_false(has_form(text, cut, "wgs_"));
    assert_true(has_form(text, size, "wgs_"));
    text[size] = 'x';
    assert_false(has_form(text, size + 1, "wgs_"));
    assert_false(secret_has_form(STR_NONE, "wgs_"));
    /* Two neighbours in the wrong order. */
    char swapped[] = GIVEN_OUT;
    swapped[10] = GIVEN_OUT[11];
    swapped[11] = GIVEN_OUT[10];
    assert_false(has_form(swapped, strlen(swapped), "wgs_"));
}

int main(void)
{
    crypto_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_secret_has_the_form_of_its_prefix),
        cmocka_unit_test(secrets_that_were_given_out_stay_valid),
        cmocka_unit_test(a_mistyped_secret_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Random names. */
#include "core/base/id.h"

#include "core/base/crypto.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void session_ids_begin_a_dns_label(void **state)
{
    (void)state;
    for (int i = 0; i < 2000; i++) {
        char id[ID_SESSION_SIZE];
        id_random(id, ID_SESSION_SIZE - 1);
        assert_int_equal(strlen(id), ID_SESSION_SIZE - 1);
        assert_true(id[0] >= 'a' && id[0] <= 'z');
        assert_int_equal(strspn(id, "abcdefghijklmnopqrstuvwxyz234567"), ID_SESSION_SIZE - 1);
    }
    char longest[65];
    id_random(longest, 64);
    assert_int_equal(strlen(longest), 64);
}

static void secrets_use_all_of_base62_evenly(void **state)
{
    (void)state;
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    int counts[62] = {0};
    for (int i = 0; i < 620; i++) {
        char secret[101];
        id_random_base62(secret, 100);
        assert_int_equal(strlen(secret), 100);
        for (int k = 0; k < 100; k++) {
            const char *at = strchr(digits, secret[k]);
            assert_non_null(at);
            counts[at - digits]++;
        }
    }
    for (int i = 0; i < 62; i++) /* 1000 each; 8 standard deviations */
        assert_in_range(counts[i], 750, 1250);
}

static void *one_of_a_thread(void *out)
{
    id_request(out);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void request_ids_are_never_the_same(void **state)
{
    (void)state;
    static char ids[5008][ID_REQUEST_SIZE];
    for (int i = 0; i < 5000; i++)
        id_request(ids[i]);
    for (int i = 5000; i < 5008; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, one_of_a_thread, ids[i]), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    qsort(ids, 5008, sizeof ids[0], compare);
    for (int i = 1; i < 5008; i++) {
        assert_int_equal(strlen(ids[i]), ID_REQUEST_SIZE - 1);
        assert_string_not_equal(ids[i - 1], ids[i]);
    }
}

int main(void)
{
    crypto_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(session_ids_begin_a_dns_label),
        cmocka_unit_test(secrets_use_all_of_base62_evenly),
        cmocka_unit_test(request_ids_are_never_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

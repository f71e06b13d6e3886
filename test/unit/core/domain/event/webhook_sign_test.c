/* Signatures of webhooks, against what others have computed. */
#include "core/domain/event/webhook_sign.h"

#include "core/base/crypto.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define BODY "{\"test\": 2432232314}"
/* The example of the Standard Webhooks libraries' own tests. */
#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define SIGNATURE "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
/* By Python's hmac: of the body under the secret's text, and of the signed content under "your_webhook_secret". */
#define HEX_OF_SECRET "80ec8a89ce3cd22133a1066caecb4d04fea7467657c8514d717ec42c38a5c94c"
#define RAW "your_webhook_secret"
#define HEX_OF_RAW "3075030eed9cbe138b09066f02bc2dc042c3fcebf1edfef22794b8fdfafaa409"
#define RAW_SIGNATURE "v1,NF4/L/hKnDsi8NYcelSEzDvqVa5IDs/IJc+EE3jOWPE="

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    crypto_init();
    arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_clear(&arena);
    arena_thread_clear();
    return 0;
}

static const char *value_of(const char *const *headers, const char *name)
{
    size_t size = strlen(name);
    for (; *headers; headers++)
        if (strncmp(*headers, name, size) == 0 && strncmp(*headers + size, ": ", 2) == 0)
            return *headers + size + 2;
    return NULL;
}

static void sign(const char *surface, const char *text, const char *old_text, const char *headers[])
{
    const struct webhook_message message = {
        .id = STR("msg_p5jXN8AQM9LWM0D4loKWxJek"),
        .surface = str_from(surface),
        .body = STR(BODY),
        .at_s = 1614265330,
    };
    struct webhook_secret secret = webhook_secret_read(&arena, str_from(text));
    struct webhook_secret old = {0};
    if (old_text)
        old = webhook_secret_read(&arena, str_from(old_text));
    webhook_sign(&arena, &message, &secret, old_text ? &old : NULL, headers);
}

static void a_made_secret_signs_as_the_libraries_do(void **state)
{
    const char *headers[WEBHOOK_HEADERS_MAX];
    (void)state;
    sign("inference", SECRET, NULL, headers);
    assert_string_equal(value_of(headers, "webhook-id"), "msg_p5jXN8AQM9LWM0D4loKWxJek");
    assert_string_equal(value_of(headers, "webhook-timestamp"), "1614265330");
    assert_string_equal(value_of(headers, "webhook-signature"), SIGNATURE);
    assert_string_equal(value_of(headers, "Content-Type"), "application/json");
}

static void padding_may_be_left_out(void **state)
{
    struct webhook_secret secret = webhook_secret_read(&arena, STR("whsec_c2VjcmV0cw"));
    (void)state;
    assert_true(str_equal(secret.key, STR("secrets")));
}

static void the_seeds_signature_takes_the_secret_as_it_is_written(void **state)
{
    const char *headers[WEBHOOK_HEADERS_MAX];
    (void)state;
    sign("inference", SECRET, NULL, headers);
    assert_string_equal(value_of(headers, "X-Webhook-Signature"), HEX_OF_SECRET);
    sign("inference", RAW, NULL, headers);
    assert_string_equal(value_of(headers, "X-Webhook-Signature"), HEX_OF_RAW);
}

static void any_other_secret_is_the_key_itself(void **state)
{
    static const char *const plain[] = {RAW, "whsec_", "whsec_...", "whsec_a*b="};
    const char *headers[WEBHOOK_HEADERS_MAX];
    (void)state;
    sign("inference", RAW, NULL, headers);
    assert_string_equal(value_of(headers, "webhook-signature"), RAW_SIGNATURE);
    for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
        assert_true(str_equal(webhook_secret_read(&arena, str_from(plain[i])).key, str_from(plain[i])));
}

static void two_signatures_while_an_old_secret_signs_along(void **state)
{
    const char *headers[WEBHOOK_HEADERS_MAX];
    (void)state;
    sign("inference", SECRET, RAW, headers);
    assert_string_equal(value_of(headers, "webhook-signature"), SIGNATURE " " RAW_SIGNATURE);
    assert_string_equal(value_of(headers, "X-Webhook-Signature"), HEX_OF_SECRET);
}

static void each_surface_has_its_own_name_for_it(void **state)
{
    static const struct {
        const char *surface;
        const char *header;
    } names[] = {{"provision", "X-Self-Signature"}, {"gpu", "X-Dumont-Signature"}};
    static const char *const others[] = {"session", "inference", "provision", "gpu"};
    const char *headers[WEBHOOK_HEADERS_MAX];
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
            sign(others[k], SECRET, NULL, headers);
            const char *value = value_of(headers, names[i].header);
            if (strcmp(others[k], names[i].surface) == 0)
                assert_string_equal(value, HEX_OF_SECRET);
            else
                assert_null(value);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_made_secret_signs_as_the_libraries_do),
        cmocka_unit_test(padding_may_be_left_out),
        cmocka_unit_test(the_seeds_signature_takes_the_secret_as_it_is_written),
        cmocka_unit_test(any_other_secret_is_the_key_itself),
        cmocka_unit_test(two_signatures_while_an_old_secret_signs_along),
        cmocka_unit_test(each_surface_has_its_own_name_for_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

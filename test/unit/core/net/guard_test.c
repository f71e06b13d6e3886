/* The rules of core/net/guard.h: every range that is refused, at both its ends and just outside of them. */
#include "core/net/guard.h"

#include "core/base/config.h"
#include "core/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/un.h>

#include <cmocka.h>

static bool allows(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(443)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(443)};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        return guard_allows((const struct sockaddr *)&v4);
    if (inet_pton(AF_INET6, text, &v6.sin6_addr) != 1)
        fail_msg("%s is no address", text);
    return guard_allows((const struct sockaddr *)&v6);
}

static void allow_networks(const char *networks)
{
    char error[256];
    assert_int_equal(config_set("WEBHOOK_ALLOW_NETWORKS", networks, error, sizeof error), 0);
    assert_int_equal(guard_init(error, sizeof error), 0);
}

/* First and last address, and their neighbours outside where those are public; "-": they are not, or there are none. */
static const struct {
    const char *first;
    const char *last;
    const char *before;
    const char *behind;
} refused[] = {
    {"0.0.0.0", "0.255.255.255", "-", "1.0.0.0"},
    {"10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"},
    {"100.64.0.0", "100.127.255.255", "100.63.255.255", "100.128.0.0"},
    {"127.0.0.0", "127.255.255.255", "126.255.255.255", "128.0.0.0"},
    {"168.63.129.16", "168.63.129.16", "168.63.129.15", "168.63.129.17"},
    {"169.254.0.0", "169.254.255.255", "169.253.255.255", "169.255.0.0"},
    {"172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0"},
    {"192.0.0.0", "192.0.0.255", "191.255.255.255", "192.0.1.0"},
    {"192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0"},
    {"192.88.99.0", "192.88.99.255", "192.88.98.255", "192.88.100.0"},
    {"192.168.0.0", "192.168.255.255", "192.167.255.255", "192.169.0.0"},
    {"198.18.0.0", "198.19.255.255", "198.17.255.255", "198.20.0.0"},
    {"198.51.100.0", "198.51.100.255", "198.51.99.255", "198.51.101.0"},
    {"203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0"},
    {"224.0.0.0", "255.255.255.255", "223.255.255.255", "-"},
    /* all below 2000::/3, and what is known of it by name */
    {"::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-", "-"},
    {"::", "::1", "-", "-"},
    {"::ffff:0.0.0.0", "::ffff:255.255.255.255", "-", "-"},
    {"::ffff:8.8.8.8", "::ffff:127.0.0.1", "-", "-"},
    {"::8.8.8.8", "::127.0.0.1", "-", "-"},
    {"::ffff:0:8.8.8.8", "::ffff:0:127.0.0.1", "-", "-"},
    {"64:ff9b::", "64:ff9b::255.255.255.255", "-", "-"},
    {"64:ff9b::8.8.8.8", "64:ff9b::127.0.0.1", "-", "-"},
    {"64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "-", "-"},
    {"100::", "100::ffff:ffff:ffff:ffff", "-", "-"},
    {"2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
     "2001:200::"},
    {"2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "-", "-"},
    {"2001:10::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff", "-", "-"},
    {"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
     "2001:db9::"},
    {"2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
     "2003::"},
    {"2002:7f00:1::", "2002:808:808::1", "-", "-"},
    {"3ffe::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3ffd:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
     "3fff:1000::"},
    {"4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-"},
    {"5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-", "-"},
    {"fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-", "-"},
    {"fd00:ec2::254", "fd20:ce::254", "-", "-"},
    {"fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-", "-"},
    {"fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "-", "-"},
    {"ff00::", "ff02::1", "-", "-"},
    /* ISATAP, behind any prefix */
    {"2606:4700::5efe:0.0.0.0", "2606:4700::5efe:255.255.255.255", "2606:4700::5efd:255.255.255.255",
     "2606:4700::5eff:0.0.0.0"},
    {"2606:4700::200:5efe:0.0.0.0", "2606:4700::200:5efe:255.255.255.255",
     "2606:4700::200:5efd:255.255.255.255", "2606:4700::200:5eff:0.0.0.0"},
};

static void assert_allows(const char *text, bool expected)
{
    if (allows(text) != expected)
        fail_msg("%s is %s", text, expected ? "refused" : "allowed");
}

static void ranges_are_refused_up_to_their_edges(void **state)
{
    (void)state;
    allow_networks("");
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        assert_allows(refused[i].first, false);
        assert_allows(refused[i].last, false);
        if (*refused[i].before != '-')
            assert_allows(refused[i].before, true);
        if (*refused[i].behind != '-')
            assert_allows(refused[i].behind, true);
    }
}

static void the_internet_is_allowed(void **state)
{
    (void)state;
    static const char *const public[] = {
        "1.1.1.1",           "8.8.8.8",      "99.84.0.1",   "172.217.16.142",
        "192.30.252.1",      "198.41.0.4",   "203.0.114.1", "2606:4700:4700::1111",
        "2a00:1450:4001::1", "2400:cb00::1", "2620:fe::fe", "2001:4860:4860::8888"};
    allow_networks("");
    for (size_t i = 0; i < ARRAY_SIZE(public); i++)
        assert_allows(public[i], true);
}

static void what_is_no_ip_address_is_refused(void **state)
{
    (void)state;
    const struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/run/redis.sock"};
    const struct sockaddr none = {.sa_family = AF_UNSPEC};
    allow_networks("0.0.0.0/0, ::/0");
    assert_false(guard_allows((const struct sockaddr *)&local));
    assert_false(guard_allows(&none));
}

static void allowed_networks_are_opened_and_no_more(void **state)
{
    (void)state;
    allow_networks("127.0.0.1, 10.1.0.0/16,fd00::/64");
    assert_allows("127.0.0.1", true);
    assert_allows("127.0.0.2", false);
    assert_allows("10.0.255.255", false);
    assert_allows("10.1.0.0", true);
    assert_allows("10.1.255.255", true);
    assert_allows("10.2.0.0", false);
    assert_allows("fd00::ffff:ffff:ffff:ffff", true);
    assert_allows("fd00:0:0:1::", false);
    assert_allows("::1", false);
    assert_allows("8.8.8.8", true);
    /* The same host by another name is allowed as it is; what leads to it by a translator is not. */
    assert_allows("::ffff:127.0.0.1", true);
    assert_allows("::ffff:127.0.0.2", false);
    assert_allows("64:ff9b::127.0.0.1", false);
    assert_allows("2002:7f00:1::", false);
    allow_networks("");
    assert_allows("127.0.0.1", false);
}

static void a_bad_list_is_named(void **state)
{
    (void)state;
    static const char *const bad[] = {"localhost", "127.0.0.1/33", "10.0.0.1/8", "127.0.0.1,,x",
                                      "10.0.0.0-10.0.0.9"};
    char error[256];
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(config_set("WEBHOOK_ALLOW_NETWORKS", bad[i], error, sizeof error), 0);
        assert_int_equal(guard_init(error, sizeof error), -EINVAL);
        assert_non_null(strstr(error, "WEBHOOK_ALLOW_NETWORKS"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_are_refused_up_to_their_edges),
        cmocka_unit_test(the_internet_is_allowed),
        cmocka_unit_test(what_is_no_ip_address_is_refused),
        cmocka_unit_test(allowed_networks_are_opened_and_no_more),
        cmocka_unit_test(a_bad_list_is_named),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    config_clear();
    return failed;
}

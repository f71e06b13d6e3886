/* Addresses and networks as text and as bytes. */
#include "proto/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/un.h>

#include <cmocka.h>

/* Reads it from a block that ends with the text. */
static bool parses(const char *text, struct address *address)
{
    size_t size = strlen(text);
    char *exact = mem_alloc(size);
    memcpy(exact, text, size);
    bool is_address = address_parse(str_of(exact, size), address);
    free(exact);
    return is_address;
}

static void addresses_are_read_and_written(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *written; /* NULL: the same */
        bool v4;
    } cases[] = {
        {"192.0.2.1", NULL, true},
        {"0.0.0.0", NULL, true},
        {"255.255.255.255", NULL, true},
        {"::", NULL, false},
        {"::1", NULL, false},
        {"2001:db8::1", NULL, false},
        {"2001:DB8:0:0:0:0:0:1", "2001:db8::1", false},
        {"::ffff:192.0.2.1", "192.0.2.1", true},
        {"::ffff:c000:201", "192.0.2.1", true},
        {"64:ff9b::192.0.2.1", "64:ff9b::c000:201", false},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL, false},
        {"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct address address;
        char text[ADDRESS_TEXT_SIZE];
        assert_true(parses(cases[i].text, &address));
        assert_int_equal(address_is_v4(&address), cases[i].v4);
        address_format(&address, text);
        assert_string_equal(text, cases[i].written ? cases[i].written : cases[i].text);
    }
}

static void what_is_no_address_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      " ",
                                      "1",
                                      "1.2.3",
                                      "1.2.3.4.5",
                                      "1.2.3.256",
                                      "1.2.3.04",
                                      "01.2.3.4",
                                      "0x1.2.3.4",
                                      "1.2.3.4 ",
                                      " 1.2.3.4",
                                      "1.2.3.4:80",
                                      "1.2.3.-4",
                                      "1.2..4",
                                      "3232235777",
                                      "localhost",
                                      "[::1]",
                                      "[::1]:80",
                                      "::1%lo",
                                      "fe80::1%eth0",
                                      ":",
                                      ":::",
                                      "1::2::3",
                                      "1:2:3:4:5:6:7",
                                      "1:2:3:4:5:6:7:8:9",
                                      "12345::",
                                      "::g",
                                      "::1/64",
                                      "::ffff:1.2.3.04",
                                      "::ffff:1.2.3",
                                      "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255.",
                                      "1.2.3.4\n",
                                      "0000000000000000000000000000000000000000000000000000000000000001"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct address address;
        if (parses(bad[i], &address))
            fail_msg("taken: \"%s\"", bad[i]);
    }
    struct address address;
    assert_false(address_parse(STR("1.2.3.4\0"), &address));
    assert_false(address_parse(STR("::1\0::2"), &address));
    assert_false(address_parse(STR_NONE, &address));
}

static void a_socket_has_an_address_or_none(void **state)
{
    (void)state;
    struct address address;
    char text[ADDRESS_TEXT_SIZE];
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = {htonl(0xc0000201)}};
    assert_true(address_from_socket((struct sockaddr *)&v4, &address));
    address_format(&address, text);
    assert_string_equal(text, "192.0.2.1");
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    assert_int_equal(inet_pton(AF_INET6, "2001:db8::7", &v6.sin6_addr), 1);
    assert_true(address_from_socket((struct sockaddr *)&v6, &address));
    address_format(&address, text);
    assert_string_equal(text, "2001:db8::7");
    /* A socket for both families names IPv4 clients so. */
    assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.1", &v6.sin6_addr), 1);
    assert_true(address_from_socket((struct sockaddr *)&v6, &address));
    assert_true(address_is_v4(&address));
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    assert_false(address_from_socket((struct sockaddr *)&local, &address));
}

static void networks_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned bits;
    } good[] = {
        {"10.0.0.0/8", 104},
        {"0.0.0.0/0", 96},
        {"192.0.2.1", 128},
        {"192.0.2.1/32", 128},
        {"192.0.2.128/25", 121},
        {"::/0", 0},
        {"2001:db8::/32", 32},
        {"2001:db8::1", 128},
        {"::1/128", 128},
        {"2001:db8:8000::/33", 33},
        {"::ffff:10.0.0.0/104", 104},
    };
    static const char *const bad[] = {
        "", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0/-1",
        "10.0.0.0/8/8", "10.0.0.0 /8", "10.0.0.0/ 8", "10.0.0.0/8 ", "10/8", "10.0.0.0/255.0.0.0", "::/129",
        "::/00", "2001:db8::/x", "10.0.0.0/18446744073709551624", "example/8",
        /* bits behind the prefix */
        "10.0.0.1/8", "10.128.0.0/8", "192.0.2.1/31", "192.0.2.128/24", "2001:db8::1/32", "2001:db8::/28",
        "::1/127", "0.0.0.1/0", "::ffff:10.0.0.0/8", "8000::/0"};
    struct network network;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        if (!network_parse(str_from(good[i].text), &network))
            fail_msg("refused: \"%s\"", good[i].text);
        assert_int_equal(network.bits, good[i].bits);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (network_parse(str_from(bad[i]), &network))
            fail_msg("taken: \"%s\"", bad[i]);
    assert_false(network_parse(STR_NONE, &network));
}

static void a_network_contains_its_own_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *network;
        const char *address;
        bool in;
    } cases[] = {
        {"10.0.0.0/8", "10.255.255.255", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.0.0.0/8", "9.255.255.255", false},
        {"10.0.0.0/8", "::ffff:10.1.2.3", true},
        {"192.0.2.128/25", "192.0.2.128", true},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.4/31", "192.0.2.5", true},
        {"192.0.2.4/31", "192.0.2.6", false},
        {"192.0.2.4", "192.0.2.4", true},
        {"192.0.2.4", "192.0.2.5", false},
        {"0.0.0.0/0", "255.1.2.3", true},
        {"0.0.0.0/0", "::1", false},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "2001:db8::1", true},
        {"::/0", "::1", true},
        {"::/0", "10.1.2.3", false},
        {"::/64", "10.1.2.3", false},
        {"::ffff:0:0/96", "10.1.2.3", true},
        {"2001:db8::/32", "2001:db8:ffff::1", true},
        {"2001:db8::/32", "2001:db9::1", false},
        {"2001:db8:8000::/33", "2001:db8:8000::1", true},
        {"2001:db8:8000::/33", "2001:db8:7fff::1", false},
        {"2001:db8::1", "2001:db8::1", true},
        {"2001:db8::1", "2001:db8::2", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct network network;
        struct address address;
        assert_true(network_parse(str_from(cases[i].network), &network));
        assert_true(parses(cases[i].address, &address));
        if (network_contains(&network, &address) != cases[i].in)
            fail_msg("%s in %s", cases[i].address, cases[i].network);
    }
}

static void a_list_of_networks_is_read_up_to_its_bound(void **state)
{
    (void)state;
    struct networks networks;
    struct address address;
    struct str bad;
    assert_true(networks_parse(STR(""), &networks, &bad));
    assert_int_equal(networks.count, 0);
    assert_true(networks_parse(STR(" 10.0.0.0/8 ,,2001:db8::/32,\t192.0.2.1,"), &networks, &bad));
    assert_int_equal(networks.count, 3);
    assert_true(parses("2001:db8::1", &address) && networks_contain(&networks, &address));
    assert_true(parses("192.0.2.1", &address) && networks_contain(&networks, &address));
    assert_true(parses("192.0.2.2", &address) && !networks_contain(&networks, &address));
    assert_false(networks_parse(STR("10.0.0.0/8, here ,x"), &networks, &bad));
    assert_true(str_equal(bad, STR("here")));
    struct buf many = {0};
    for (int i = 0; i < NETWORKS_MAX; i++)
        buf_printf(&many, "10.0.0.%d,", i);
    assert_true(networks_parse(buf_str(&many), &networks, &bad));
    assert_int_equal(networks.count, NETWORKS_MAX);
    buf_add_text(&many, "10.0.1.0");
    assert_false(networks_parse(buf_str(&many), &networks, &bad));
    assert_true(str_equal(bad, STR("10.0.1.0")));
    buf_clear(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_and_written),
        cmocka_unit_test(what_is_no_address_is_refused),
        cmocka_unit_test(a_socket_has_an_address_or_none),
        cmocka_unit_test(networks_are_read),
        cmocka_unit_test(a_network_contains_its_own_addresses),
        cmocka_unit_test(a_list_of_networks_is_read_up_to_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Addresses and networks: what is taken is written and read again as the same, and a network ends where its prefix does. */
#include "proto/network.h"
#include "test/fuzz/support.h"

#include <stdlib.h>

static void check_address(struct str input)
{
    struct address address;
    struct address again;
    char text[ADDRESS_TEXT_SIZE];
    if (!address_parse(input, &address))
        return;
    for (size_t i = 0; i < input.size; i++)
        CHECK(input.at[i] && strchr("0123456789abcdefABCDEF.:", input.at[i]));
    memset(text, 'x', sizeof text);
    address_format(&address, text);
    CHECK(memchr(text, '\0', sizeof text));
    CHECK(address_parse(str_from(text), &again));
    CHECK(memcmp(&again, &address, sizeof again) == 0);
    CHECK(address_is_v4(&address) == !strchr(text, ':'));
}

/* The address at the network's other end: all bits behind the prefix are set. */
static struct address last_of(const struct network *network)
{
    struct address last = network->address;
    for (unsigned bit = network->bits; bit < 128; bit++)
        last.bytes[bit / 8] |= (unsigned char)(0x80 >> bit % 8);
    return last;
}

static void check_network(struct str input)
{
    struct network network;
    if (!network_parse(input, &network))
        return;
    CHECK(network.bits <= 128);
    bool is_v4 = address_is_v4(&network.address);
    struct address last = last_of(&network);
    CHECK(!is_v4 || network.bits >= 96);
    CHECK(network_contains(&network, &network.address));
    /* The last of ::/80 happens to be a mapped one. */
    CHECK(network_contains(&network, &last) == (address_is_v4(&last) == is_v4));
    for (unsigned bit = 0; bit < network.bits; bit++) {
        struct address outside = network.address;
        outside.bytes[bit / 8] ^= (unsigned char)(0x80 >> bit % 8);
        CHECK(!network_contains(&network, &outside));
    }
    /* Said once more with the number of its bits, it is the same. */
    char text[ADDRESS_TEXT_SIZE];
    struct buf spelled = {0};
    struct network again;
    address_format(&network.address, text);
    buf_printf(&spelled, "%s/%u", text, network.bits - (is_v4 ? 96 : 0));
    CHECK(network_parse(buf_str(&spelled), &again));
    CHECK(again.bits == network.bits && memcmp(&again.address, &network.address, sizeof again.address) == 0);
    buf_clear(&spelled);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    /* In a block of its own, that ends with the text. */
    char *exact = mem_alloc(size);
    if (size)
        memcpy(exact, bytes, size);
    check_address(str_of(exact, size));
    check_network(str_of(exact, size));
    free(exact);
    return 0;
}

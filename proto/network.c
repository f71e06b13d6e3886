/* IP addresses and networks: see network.h. */
#include "proto/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>

enum { V4_AT = 12, V4_BITS = 32, ALL_BITS = 128 };

static const unsigned char mapped[V4_AT] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool address_is_v4(const struct address *address)
{
    return memcmp(address->bytes, mapped, sizeof mapped) == 0;
}

bool address_parse(struct str text, struct address *address)
{
    char copy[ADDRESS_TEXT_SIZE];
    struct address parsed;
    if (text.size == 0 || text.size >= sizeof copy || memchr(text.at, '\0', text.size))
        return false;
    memcpy(copy, text.at, text.size);
    copy[text.size] = '\0';
    if (inet_pton(AF_INET6, copy, parsed.bytes) != 1) {
        memcpy(parsed.bytes, mapped, sizeof mapped);
        if (inet_pton(AF_INET, copy, parsed.bytes + V4_AT) != 1)
            return false;
    }
    *address = parsed;
    return true;
}

bool address_from_socket(const struct sockaddr *peer, struct address *address)
{
    if (peer->sa_family == AF_INET6) {
        memcpy(address->bytes, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, 16);
        return true;
    }
    if (peer->sa_family != AF_INET)
        return false;
    memcpy(address->bytes, mapped, sizeof mapped);
    memcpy(address->bytes + V4_AT, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
    return true;
}

void address_format(const struct address *address, char out[ADDRESS_TEXT_SIZE])
{
    bool v4 = address_is_v4(address);
    CHECK(inet_ntop(v4 ? AF_INET : AF_INET6, address->bytes + (v4 ? V4_AT : 0), out, ADDRESS_TEXT_SIZE));
}

/* Whether both have the same first bits. */
static bool begin_alike(const struct address *a, const struct address *b, unsigned bits)
{
    unsigned whole = bits / 8;
    if (memcmp(a->bytes, b->bytes, whole) != 0)
        return false;
    unsigned rest = bits % 8;
    return rest == 0 || (a->bytes[whole] ^ b->bytes[whole]) >> (8 - rest) == 0;
}

static bool ends_with_zeros(const struct network *network)
{
    for (unsigned bit = network->bits; bit < ALL_BITS; bit++)
        if (network->address.bytes[bit / 8] & 0x80U >> bit % 8)
            return false;
    return true;
}

/* "8" and "24"; not "08", which some read as octal. */
static bool parse_bits(struct str text, unsigned most, unsigned *bits)
{
    uint64_t number;
    if (!str_to_u64(text, &number) || number > most || (text.size > 1 && text.at[0] == '0'))
        return false;
    *bits = (unsigned)number;
    return true;
}

bool network_parse(struct str text, struct network *network)
{
    struct str rest = text;
    struct str address;
    struct network parsed;
    if (!str_split(&rest, '/', &address) || !address_parse(address, &parsed.address))
        return false;
    /* As it is spelled: "::ffff:192.0.2.0" is an IPv6 address, and its prefix is of 128 bits. */
    bool v4 = !memchr(address.at, ':', address.size);
    parsed.bits = v4 ? V4_BITS : ALL_BITS;
    if (rest.at && !parse_bits(rest, parsed.bits, &parsed.bits))
        return false;
    parsed.bits += v4 ? ALL_BITS - V4_BITS : 0;
    if (!ends_with_zeros(&parsed))
        return false;
    *network = parsed;
    return true;
}

bool network_contains(const struct network *network, const struct address *address)
{
    /* A short prefix of IPv6, as "::/0" is, has the mapped addresses in it and does not mean them. */
    if (network->bits < ALL_BITS - V4_BITS && address_is_v4(address))
        return false;
    return begin_alike(&network->address, address, network->bits);
}

bool networks_parse(struct str text, struct networks *networks, struct str *bad)
{
    struct str rest = text;
    networks->count = 0;
    while (str_split(&rest, ',', bad)) {
        *bad = str_trim(*bad);
        if (bad->size == 0)
            continue;
        if (networks->count == NETWORKS_MAX || !network_parse(*bad, &networks->at[networks->count]))
            return false;
        networks->count++;
    }
    return true;
}

bool networks_contain(const struct networks *networks, const struct address *address)
{
    for (size_t i = 0; i < networks->count; i++)
        if (network_contains(&networks->at[i], address))
            return true;
    return false;
}

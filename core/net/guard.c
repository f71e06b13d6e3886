/* Which addresses a request that a client has named may connect to: see guard.h. */
#include "core/net/guard.h"

#include "core/base/config.h"
#include "proto/network.h"

#include <errno.h>

enum { V4_AT = 12, INTERFACE_AT = 8 };

/* IPv4: all is the internet but these. */
static const struct {
    unsigned char bytes[4];
    unsigned bits;
} v4_refused[] = {
    {{0, 0, 0, 0}, 8},        /* "this network" (RFC 791); Linux takes 0.0.0.0 for itself */
    {{10, 0, 0, 0}, 8},       /* private (RFC 1918) */
    {{100, 64, 0, 0}, 10},    /* shared: carrier-grade NAT (RFC 6598) */
    {{127, 0, 0, 0}, 8},      /* loopback */
    {{168, 63, 129, 16}, 32}, /* a cloud's own services for its guests, though the address is a public one */
    {{169, 254, 0, 0}, 16},   /* link-local (RFC 3927), where clouds keep their credentials */
    {{172, 16, 0, 0}, 12},    /* private */
    {{192, 0, 0, 0}, 24},     /* protocol assignments (RFC 6890) */
    {{192, 0, 2, 0}, 24},     /* documentation (RFC 5737) */
    {{192, 88, 99, 0}, 24},   /* 6to4 relays (RFC 7526) */
    {{192, 168, 0, 0}, 16},   /* private */
    {{198, 18, 0, 0}, 15},    /* benchmarking (RFC 2544) */
    {{198, 51, 100, 0}, 24},  /* documentation */
    {{203, 0, 113, 0}, 24},   /* documentation */
    {{224, 0, 0, 0}, 4},      /* multicast */
    {{240, 0, 0, 0}, 4},      /* reserved, and 255.255.255.255 */
};

/* IPv6: nothing is the internet but what IANA gives out, 2000::/3, and of that not these. Outside of it are ::, ::1,
 * ::ffff:0:0/96 (mapped), ::/96 (compatible), ::ffff:0:0:0/96 (translated), 64:ff9b::/96 and 64:ff9b:1::/48 (NAT64), 100::/64
 * (discard), fc00::/7 (unique local), fe80::/10 (link-local), fec0::/10 (site-local) and ff00::/8 (multicast). */
static const struct network v6_internet = {{{0x20}}, 3};
static const struct network v6_refused[] = {
    {{{0x20, 0x01}}, 23},             /* protocol assignments: Teredo, ORCHID, benchmarking (RFC 2928) */
    {{{0x20, 0x01, 0x0d, 0xb8}}, 32}, /* documentation (RFC 3849) */
    {{{0x20, 0x02}}, 16},             /* 6to4 (RFC 3056) */
    {{{0x3f, 0xfe}}, 16},             /* 6bone, given back (RFC 3701) */
    {{{0x3f, 0xff}}, 20},             /* documentation (RFC 9637) */
};

static struct networks allowed;

int guard_init(char *error, size_t error_size)
{
    struct str bad;
    if (networks_parse(str_from(config->webhook_allow), &allowed, &bad))
        return 0;
    snprintf(error, error_size, "WEBHOOK_ALLOW_NETWORKS: \"%.*s\" is no address or network", STR_ARG(bad));
    return -EINVAL;
}

static bool v4_is_internet(const struct address *address)
{
    for (size_t i = 0; i < ARRAY_SIZE(v4_refused); i++) {
        struct network refused = {*address, V4_AT * 8 + v4_refused[i].bits};
        memcpy(refused.address.bytes + V4_AT, v4_refused[i].bytes, sizeof v4_refused[i].bytes);
        if (network_contains(&refused, address))
            return false;
    }
    return true;
}

/* RFC 5214 §6.1: ::0:5efe:a.b.c.d or ::200:5efe:a.b.c.d behind any prefix. */
static bool is_isatap(const struct address *address)
{
    const unsigned char *id = address->bytes + INTERFACE_AT;
    return (id[0] & 0xfd) == 0 && id[1] == 0 && id[2] == 0x5e && id[3] == 0xfe;
}

static bool v6_is_internet(const struct address *address)
{
    if (!network_contains(&v6_internet, address) || is_isatap(address))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(v6_refused); i++)
        if (network_contains(&v6_refused[i], address))
            return false;
    return true;
}

bool guard_allows(const struct sockaddr *address)
{
    struct address ip;
    if (!address_from_socket(address, &ip))
        return false;
    if (networks_contain(&allowed, &ip))
        return true;
    /* As the socket's family says: a mapped address is an IPv6 one here, that hides another. */
    return address->sa_family == AF_INET ? v4_is_internet(&ip) : v6_is_internet(&ip);
}

#ifndef PROTO_NETWORK_H
#define PROTO_NETWORK_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* IP addresses and networks (RFC 4632, RFC 4291) as text and as bytes. IPv4 is kept mapped (::ffff:a.b.c.d), so that one kind
 * of address serves both. */

struct address {
    unsigned char bytes[16];
};

struct network {
    struct address address;
    unsigned bits; /* of 128 */
};

enum { ADDRESS_TEXT_SIZE = 46 };

bool address_is_v4(const struct address *address);
/* "192.0.2.1", "2001:db8::1". False for anything else: zone ids, ports, brackets, leading zeros. */
bool address_parse(struct str text, struct address *address);
/* False for what is no IP address (a unix socket). */
bool address_from_socket(const struct sockaddr *peer, struct address *address);
/* As inet_ntop; IPv4 without its mapping. NUL-terminated. */
void address_format(const struct address *address, char out[ADDRESS_TEXT_SIZE]);

/* "10.0.0.0/8", "2001:db8::/32", or an address alone. False also where bits are set behind the prefix: a typing error that
 * would allow more, or other, than was meant. */
bool network_parse(struct str text, struct network *network);
/* An IPv4 address is in no network of IPv6 ("::/0"), nor the other way round. */
bool network_contains(const struct network *network, const struct address *address);

/* A setting's list, separated by commas; empty pieces do not count. */
enum { NETWORKS_MAX = 64 };
struct networks {
    size_t count;
    struct network at[NETWORKS_MAX];
};

/* False with the piece that is no network, or is one too many, in *bad. */
bool networks_parse(struct str text, struct networks *networks, struct str *bad);
bool networks_contain(const struct networks *networks, const struct address *address);

#endif

#ifndef CORE_NET_GUARD_H
#define CORE_NET_GUARD_H

#include "core/base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/*
 * Where a request to an address that a client has named may go: to the public internet, and to WEBHOOK_ALLOW_NETWORKS.
 * Asked about the very address that a socket is about to connect to, so that names, redirects and answers of a DNS server
 * that change have no say in it.
 */

/* Reads WEBHOOK_ALLOW_NETWORKS; -EINVAL with a line that names it. Once, before threads. */
int guard_init(char *error, size_t error_size) MUST_USE;

/*
 * False for loopback, unspecified, private, link-local, shared (RFC 6598), multicast, broadcast, documentation, benchmarking
 * and reserved addresses (IANA's special-purpose registries, RFC 6890), for what carries an IPv4 address within it (mapped,
 * compatible, translated, NAT64, 6to4, Teredo, ISATAP), and for anything that is neither IPv4 nor IPv6.
 * True for the rest, and for what is in an allowed network. A network-specific NAT64 prefix (RFC 6052 §2.2) looks as any other
 * address: who has one must see to it that the translator refuses.
 */
bool guard_allows(const struct sockaddr *address);

#endif

#ifndef CORE_UP_LISTEN_H
#define CORE_UP_LISTEN_H

#include "core/base/check.h"
#include "core/base/str.h"

#include <netinet/in.h>
#include <stdbool.h>

/* Where `wakegate serve` listens, as `up` has to know it: to see that it is free, to ask whether it answers,
 * and to tell people. */
struct up_listen {
    struct sockaddr_storage address; /* from this machine: the loopback address in place of the wildcard */
    socklen_t size;
};

/* Of a numeric address. -EINVAL when it is none. */
int up_listen_parse(struct up_listen *listen, const char *address, int port) MUST_USE;

/* 0 when `address` and `port` are free; -EADDRINUSE and the like. A listener of ours shares its port with its
 * own kind only (SO_REUSEPORT), so two gateways would silently take each other's clients. */
int up_listen_check_free(const char *address, int port) MUST_USE;

/* Appends "http://127.0.0.1:8080"; https when it speaks TLS. */
void up_listen_url(const struct up_listen *listen, bool secure, struct buf *url);

#endif

/*
 * Ticket keys. mbedTLS makes a new one a day and keeps the one before it, so a ticket opens for as long as it is valid,
 * and what was sent with a key that is gone can't be read any more by somebody who finds the present ones.
 */
#include "proto/tls_internal.h"

#include <stdlib.h>

enum { TICKET_LIFETIME_SECONDS = 24 * 60 * 60 };

struct tls_tickets {
    size_t references;
    mbedtls_ssl_ticket_context library;
};

struct tls_tickets *tls_tickets_new(void)
{
    struct tls_tickets *tickets = mem_zalloc(sizeof *tickets);
    tickets->references = 1;
    mbedtls_ssl_ticket_init(&tickets->library);
    CHECK(mbedtls_ssl_ticket_setup(&tickets->library, tls_random, NULL, MBEDTLS_CIPHER_AES_256_GCM,
                                   TICKET_LIFETIME_SECONDS) == 0);
    return tickets;
}

struct tls_tickets *tls_tickets_ref(struct tls_tickets *tickets)
{
    __atomic_add_fetch(&tickets->references, 1, __ATOMIC_RELAXED);
    return tickets;
}

void tls_tickets_unref(struct tls_tickets *tickets)
{
    if (!tickets || __atomic_sub_fetch(&tickets->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    mbedtls_ssl_ticket_free(&tickets->library); /* wipes the keys */
    free(tickets);
}

mbedtls_ssl_ticket_context *tls_tickets_library(struct tls_tickets *tickets)
{
    return &tickets->library;
}

/*
 * What a client sends before it has shown that it knows the handshake's secrets: the outcome is the same whole and in
 * pieces, what is answered is bounded, and nothing is taken for a finished handshake.
 */
#include "proto/tls.h"
#include "test/fuzz/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* A server's first flight, and room. */
enum { OUTPUT_MAX = 32768 };

static struct tls_context *context;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    struct buf chain = {0};
    struct buf key = {0};
    char error[256];
    CHECK(tls_make_certificate("example.test", &chain, &key) == 0);
    struct tls_certificate certificate = {buf_str(&chain), buf_str(&key), "chain", "key"};
    CHECK(tls_context_new(&certificate, 1, NULL, &context, error, sizeof error) == 0);
    buf_clear(&chain);
    buf_clear(&key);
    return 0;
}

struct peer {
    struct tls *session;
    size_t fed;
    int result;
};

static bool feed(void *arg, const char *bytes, size_t size)
{
    struct peer *peer = arg;
    tls_feed(peer->session, bytes, size);
    peer->fed += size;
    peer->result = tls_handshake(peer->session);
    CHECK(peer->result == 0 || peer->result == -EPROTO);
    CHECK(tls_pending(peer->session) <= peer->fed);
    CHECK(tls_output(peer->session)->size <= OUTPUT_MAX);
    if (peer->result)
        CHECK(tls_error_text(peer->session));
    return peer->result == 0;
}

static void run(struct str input, enum fuzz_way way, struct buf *transcript)
{
    struct peer peer = {.session = tls_new(context)};
    fuzz_feed(input, way, feed, &peer);
    buf_printf(transcript, "%s", peer.result ? tls_error_text(peer.session) : "goes on");
    tls_free(peer.session);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_compare(str_of((const char *)bytes, size), run);
    return 0;
}

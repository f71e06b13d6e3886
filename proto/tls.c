/*
 * A TLS session over two buffers.
 *
 *     tls_feed ──▶ in ──take_input──▶ mbedTLS ──add_output──▶ out ──▶ tls_output
 *                                      ▲   │
 *                           tls_write ─┘   └─▶ tls_read
 *
 * mbedTLS asks for input and is told WANT_READ when there is none. Output always finds room, so WANT_WRITE does not
 * occur, nor what it would ask for: the same call again with the same bytes.
 *
 * mbedTLS knows no TLS 1.3 KeyUpdate. A client that sends one is told unexpected_message and loses its connection; the
 * libraries in use send none before 2^24 records.
 */
#include "proto/tls_internal.h"

#include <errno.h>
#include <mbedtls/error.h>
#include <stdlib.h>

enum { TLS_MAGIC = 0x746c7373, ERROR_TEXT_SIZE = 128 };

struct tls {
    unsigned magic;
    struct tls_context *context;
    mbedtls_ssl_context library;
    struct buf in;
    size_t in_taken; /* of in, by mbedTLS */
    bool starved;    /* mbedTLS has asked for more than there was */
    struct buf out;
    bool certified; /* the handshake sent our certificate */
    bool secure;    /* the handshake is over */
    bool failed;
    bool peer_left; /* close_notify came */
    bool we_left;   /* close_notify went */
    char error_text[ERROR_TEXT_SIZE];
};

/* Alerts for what mbedTLS gives up on without one. */
static const struct {
    int error;
    unsigned char alert;
} alerts[] = {
    {MBEDTLS_ERR_SSL_INVALID_RECORD, MBEDTLS_SSL_ALERT_MSG_DECODE_ERROR},
    {MBEDTLS_ERR_SSL_DECODE_ERROR, MBEDTLS_SSL_ALERT_MSG_DECODE_ERROR},
    {MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE, MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE},
    {MBEDTLS_ERR_SSL_UNEXPECTED_RECORD, MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE},
    {MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION, MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION},
    {MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER, MBEDTLS_SSL_ALERT_MSG_ILLEGAL_PARAMETER},
    {MBEDTLS_ERR_SSL_INVALID_MAC, MBEDTLS_SSL_ALERT_MSG_BAD_RECORD_MAC},
    {MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE, MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE},
};

static int take_input(void *arg, unsigned char *out, size_t size)
{
    struct tls *session = arg;
    size_t left = tls_pending(session);
    if (left == 0) {
        session->starved = true;
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    size_t taken = size < left ? size : left;
    memcpy(out, session->in.at + session->in_taken, taken);
    session->in_taken += taken;
    if (taken == left) { /* an idle session holds no memory for input */
        buf_clear(&session->in);
        session->in_taken = 0;
    }
    return (int)taken;
}

static int add_output(void *arg, const unsigned char *bytes, size_t size)
{
    struct tls *session = arg;
    buf_add(&session->out, bytes, size);
    return (int)size;
}

struct tls *tls_new(struct tls_context *context)
{
    struct tls *session = mem_zalloc(sizeof *session);
    MAGIC_SET(session, TLS_MAGIC);
    session->context = tls_context_ref(context);
    mbedtls_ssl_init(&session->library);
    CHECK(mbedtls_ssl_setup(&session->library, tls_context_config(context)) == 0);
    mbedtls_ssl_set_bio(&session->library, session, add_output, take_input, NULL);
    return session;
}

void tls_free(struct tls *session)
{
    if (!session)
        return;
    MAGIC_CHECK(session, TLS_MAGIC);
    mbedtls_ssl_free(&session->library);
    buf_clear(&session->in);
    buf_clear(&session->out);
    tls_context_unref(session->context);
    MAGIC_CLEAR(session);
    free(session);
}

void tls_feed(struct tls *session, const char *bytes, size_t size)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    if (session->in_taken) {
        buf_consume(&session->in, session->in_taken);
        session->in_taken = 0;
    }
    buf_add(&session->in, bytes, size);
}

size_t tls_pending(const struct tls *session)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    return session->in.size - session->in_taken;
}

struct buf *tls_output(struct tls *session)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    return &session->out;
}

static unsigned char alert_for(int error)
{
    for (size_t i = 0; i < ARRAY_SIZE(alerts); i++)
        if (alerts[i].error == error)
            return alerts[i].alert;
    return MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR;
}

/* After an error mbedTLS must not be called again but for an alert. It sends one for most errors; when the call that
 * failed has added nothing to the `out_before` bytes, it was none of those. */
static int fail(struct tls *session, int error, size_t out_before)
{
    session->failed = true;
    mbedtls_strerror(error, session->error_text, sizeof session->error_text);
    bool from_peer =
        error == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE || error == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY;
    if (!from_peer && session->out.size == out_before) {
        /* Our best effort: the session is lost with or without it. */
        (void)mbedtls_ssl_send_alert_message(&session->library, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                             alert_for(error));
    }
    return -EPROTO;
}

/*
 * One message read or written. The state is mbedTLS's private field: nothing public tells whether a ticket was used, but
 * a handshake that comes by the state of sending our certificate did not. TLS 1.3's tickets are written after the
 * handshake counts as over; mbedtls_ssl_handshake does that.
 */
static int step(struct tls *session)
{
    mbedtls_ssl_context *library = &session->library;
    if (library->MBEDTLS_PRIVATE(state) == MBEDTLS_SSL_SERVER_CERTIFICATE)
        session->certified = true;
    if (!mbedtls_ssl_is_handshake_over(library))
        return mbedtls_ssl_handshake_step(library);
    int result = mbedtls_ssl_handshake(library);
    session->secure = result == 0;
    return result;
}

int tls_handshake(struct tls *session)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    while (!session->secure && !session->failed) {
        size_t out_before = session->out.size;
        session->starved = false;
        int result = step(session);
        if (result == MBEDTLS_ERR_SSL_WANT_READ && session->starved)
            return 0;
        if (result != 0 && result != MBEDTLS_ERR_SSL_WANT_READ)
            return fail(session, result, out_before);
    }
    return session->failed ? -EPROTO : 1;
}

ssize_t tls_read(struct tls *session, char *out, size_t size)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    CHECK(session->secure && size > 0);
    while (!session->failed && !session->peer_left) {
        size_t out_before = session->out.size;
        session->starved = false;
        int result = mbedtls_ssl_read(&session->library, (unsigned char *)out, size);
        if (result > 0)
            return result;
        if (result == MBEDTLS_ERR_SSL_WANT_READ && session->starved)
            return 0;
        if (result == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
            session->peer_left = true;
        /* It gives WANT_READ after a warning too, and 0, which is not the end, for empty records: there may be more. */
        else if (result != 0 && result != MBEDTLS_ERR_SSL_WANT_READ)
            return fail(session, result, out_before);
    }
    return session->failed ? -EPROTO : -ECONNRESET;
}

int tls_write(struct tls *session, const char *bytes, size_t size)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    CHECK(session->secure);
    if (session->failed || session->we_left)
        return -EPROTO;
    while (size > 0) { /* a record at a time */
        size_t out_before = session->out.size;
        int result = mbedtls_ssl_write(&session->library, (const unsigned char *)bytes, size);
        if (result < 0)
            return fail(session, result, out_before);
        bytes += result;
        size -= (size_t)result;
    }
    return 0;
}

void tls_say_goodbye(struct tls *session)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    if (!session->secure || session->failed || session->we_left)
        return;
    session->we_left = true;
    size_t out_before = session->out.size;
    int result = mbedtls_ssl_close_notify(&session->library);
    if (result != 0)
        fail(session, result, out_before);
}

const char *tls_error_text(const struct tls *session)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    return session->error_text;
}

const char *tls_version(const struct tls *session)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    return mbedtls_ssl_get_version(&session->library);
}

bool tls_resumed(const struct tls *session)
{
    MAGIC_CHECK(session, TLS_MAGIC);
    return session->secure && !session->certified;
}

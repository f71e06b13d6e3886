/*
 * Reading WebSocket messages from a client (RFC 6455 §5 to §7).
 *
 *     bytes ──▶ header ──wslay: lengths, unmasking──▶ payload ──▶ control frame
 *                 │                                      └──[inflate]──UTF-8──▶ message
 *                 └──▶ opcodes, reserved bits, order of frames, limit
 *
 * wslay copies what it reads into a buffer of its own, up to 4 KiB ahead. It is given a header alone and then that
 * frame's payload, never more, so that it holds nothing when a frame ends, and what follows stays the caller's.
 */
#include "proto/websocket_internal.h"

#include <stdlib.h>
#include <wslay/wslay.h>

enum {
    SPARES_MAX = 16,           /* readers that a thread keeps for its next frames, */
    SPARE_CAPACITY = 16 * 1024 /* each with no more memory for a message than this */
};

struct websocket_reader {
    struct websocket_reader *next_spare;
    wslay_frame_context_ptr frames;
    struct str input;                  /* what wslay may still take */
    uint64_t left;                     /* bytes of the present frame's payload still to come */
    struct websocket_inflate *inflate; /* NULL until a compressed message comes */
    struct buf message;
    struct websocket_utf8 utf8; /* at the message's end so far */
    enum websocket_opcode opcode;
    bool in_frame; /* its header is whole, its payload is not */
    bool in_message;
    bool compressed; /* the message is */
    unsigned char head_size;
    unsigned char head[WEBSOCKET_HEAD_MAX]; /* of the present frame */
    unsigned char control_size;
    char control[WEBSOCKET_CONTROL_MAX];
};

/* ---- readers ---- */

static _Thread_local struct {
    struct websocket_reader *first;
    size_t count;
} spares;

static ssize_t give_input(uint8_t *to, size_t size, int flags, void *arg)
{
    (void)flags;
    struct websocket_reader *reader = arg;
    if (size > reader->input.size)
        size = reader->input.size;
    memcpy(to, reader->input.at, size);
    reader->input.at += size;
    reader->input.size -= size;
    return (ssize_t)size;
}

static struct websocket_reader *reader_take(void)
{
    struct websocket_reader *reader = spares.first;
    if (reader) {
        spares.first = reader->next_spare;
        spares.count--;
        return reader;
    }
    reader = mem_zalloc(sizeof *reader);
    static const struct wslay_frame_callbacks callbacks = {.recv_callback = give_input};
    CHECK(wslay_frame_context_init(&reader->frames, &callbacks, reader) == 0);
    return reader;
}

static void reader_free(struct websocket_reader *reader)
{
    wslay_frame_context_free(reader->frames);
    websocket_inflate_free(reader->inflate);
    buf_clear(&reader->message);
    free(reader);
}

/* Between two messages: one reader is then as good as another. */
static bool is_idle(const struct websocket_reader *reader)
{
    return !reader->in_frame && !reader->in_message && reader->head_size == 0;
}

static void reader_give_back(struct websocket *socket)
{
    struct websocket_reader *reader = socket->reader;
    socket->reader = NULL;
    if (!reader)
        return;
    if (!is_idle(reader) || spares.count == SPARES_MAX) {
        reader_free(reader);
        return;
    }
    if (reader->message.capacity > SPARE_CAPACITY)
        buf_clear(&reader->message);
    reader->next_spare = spares.first;
    spares.first = reader;
    spares.count++;
}

void websocket_close_thread(void)
{
    while (spares.first)
        reader_free(reader_take());
    websocket_deflate_close_thread();
}

void websocket_init(struct websocket *socket, size_t message_max, struct websocket_deflate deflate)
{
    *socket = (struct websocket){.message_max = message_max, .deflate = deflate};
}

void websocket_clear(struct websocket *socket)
{
    reader_give_back(socket);
}

/* ---- the message ---- */

char *websocket_reserve(struct buf *buffer, size_t more, size_t max)
{
    enum { FIRST_CAPACITY = 512 };
    size_t needed = buffer->size + more;
    CHECK(needed <= max);
    if (needed > buffer->capacity) {
        size_t capacity = buffer->capacity < FIRST_CAPACITY ? FIRST_CAPACITY : buffer->capacity;
        while (capacity < needed)
            capacity *= 2;
        buffer->capacity = capacity < max ? capacity : max;
        buffer->at = mem_realloc(buffer->at, buffer->capacity);
    }
    return buffer->at + buffer->size;
}

/* What follows returns 0 or the code to close with. */

static void message_begin(struct websocket_reader *reader)
{
    reader->in_message = true;
    reader->opcode = reader->head[0] & WEBSOCKET_OPCODE;
    reader->compressed = reader->head[0] & WEBSOCKET_RSV1;
    reader->message.size = 0;
    reader->utf8 = (struct websocket_utf8){0};
    if (!reader->compressed)
        return;
    if (!reader->inflate)
        reader->inflate = websocket_inflate_new();
    websocket_inflate_begin(reader->inflate);
}

/* Checks what was added to the message since it had `from` bytes, and with what result. Bad text comes before an error that
 * was found behind it, so that the code does not depend on how the bytes were cut. */
static int message_check(struct websocket_reader *reader, size_t from, int code)
{
    struct buf *message = &reader->message;
    if (reader->opcode != WEBSOCKET_TEXT || message->size == from)
        return code;
    bool good = websocket_utf8_add(&reader->utf8, message->at + from, message->size - from);
    return good ? code : WEBSOCKET_BAD_DATA;
}

static int message_add(struct websocket_reader *reader, struct str bytes, size_t max)
{
    struct buf *message = &reader->message;
    size_t from = message->size;
    int code = 0;
    if (reader->compressed) {
        code = websocket_inflate_add(reader->inflate, bytes, message, max);
    } else {
        memcpy(websocket_reserve(message, bytes.size, max), bytes.at, bytes.size);
        message->size += bytes.size;
    }
    return message_check(reader, from, code);
}

static int message_end(struct websocket_reader *reader, size_t max)
{
    size_t from = reader->message.size;
    int code = reader->compressed ? websocket_inflate_end(reader->inflate, &reader->message, max) : 0;
    code = message_check(reader, from, code);
    reader->in_message = false;
    return code || reader->utf8.left == 0 ? code : WEBSOCKET_BAD_DATA;
}

/* ---- frames ---- */

/* RFC 6455 §5.2 and §5.4. What only the lengths tell is wslay's to find. */
static bool head_is_allowed(const struct websocket_reader *reader, bool deflate)
{
    unsigned first = reader->head[0];
    unsigned opcode = first & WEBSOCKET_OPCODE;
    bool begins_message = opcode == WEBSOCKET_TEXT || opcode == WEBSOCKET_BINARY;
    if (first & WEBSOCKET_RSV2_AND_3 || !(reader->head[1] & WEBSOCKET_MASKED))
        return false;
    if (first & WEBSOCKET_RSV1 && !(deflate && begins_message))
        return false;
    if (opcode & WEBSOCKET_IS_CONTROL)
        return opcode <= WEBSOCKET_PONG;
    return reader->in_message ? opcode == WEBSOCKET_CONTINUATION : begins_message;
}

static bool is_control(const struct websocket_reader *reader)
{
    return reader->head[0] & WEBSOCKET_IS_CONTROL;
}

/* The header is whole. */
static int frame_begin(struct websocket_reader *reader, const struct websocket *socket)
{
    if (!head_is_allowed(reader, socket->deflate.on))
        return WEBSOCKET_PROTOCOL_ERROR;
    reader->input = str_of((const char *)reader->head, reader->head_size);
    struct wslay_frame_iocb frame;
    ssize_t result = wslay_frame_recv(reader->frames, &frame);
    if (result != 0 && result != WSLAY_ERR_WANT_READ) /* 0: the payload is empty */
        return WEBSOCKET_PROTOCOL_ERROR;
    reader->left = websocket_head_length(reader->head);
    reader->in_frame = true;
    if (is_control(reader)) {
        reader->control_size = 0;
        return 0;
    }
    if (!reader->in_message)
        message_begin(reader);
    bool too_big = !reader->compressed && reader->left > socket->message_max - reader->message.size;
    return too_big ? WEBSOCKET_TOO_BIG : 0;
}

/* Takes some of the payload. */
static int frame_add(struct websocket_reader *reader, struct str bytes, size_t max, size_t *taken)
{
    if (bytes.size > reader->left)
        bytes.size = (size_t)reader->left;
    reader->input = bytes;
    struct wslay_frame_iocb frame;
    ssize_t result = wslay_frame_recv(reader->frames, &frame);
    CHECK(result > 0 && (size_t)result == bytes.size - reader->input.size);
    *taken = (size_t)result;
    reader->left -= *taken;
    struct str payload = str_of((const char *)frame.data, *taken);
    if (!is_control(reader))
        return message_add(reader, payload, max);
    CHECK(payload.size <= sizeof reader->control - reader->control_size);
    memcpy(reader->control + reader->control_size, payload.at, payload.size);
    reader->control_size = (unsigned char)(reader->control_size + payload.size);
    return 0;
}

/* RFC 6455 §5.5.1, §7.4. */
static int read_close(struct str payload, struct websocket_input *input)
{
    input->code = WEBSOCKET_NO_CODE;
    if (payload.size == 0)
        return 0;
    if (payload.size == 1)
        return WEBSOCKET_PROTOCOL_ERROR;
    unsigned code = (unsigned)(unsigned char)payload.at[0] << 8 | (unsigned char)payload.at[1];
    if (!websocket_code_is_valid(code))
        return WEBSOCKET_PROTOCOL_ERROR;
    input->code = (int)code;
    input->payload = str_of(payload.at + 2, payload.size - 2);
    return str_is_utf8(input->payload) ? 0 : WEBSOCKET_BAD_DATA;
}

static int control_end(struct websocket_reader *reader, struct websocket *socket,
                       struct websocket_input *input)
{
    enum websocket_opcode opcode = reader->head[0] & WEBSOCKET_OPCODE;
    *input = (struct websocket_input){opcode, str_of(reader->control, reader->control_size), 0};
    if (opcode != WEBSOCKET_CLOSE)
        return 0;
    socket->closed = true;
    return read_close(input->payload, input);
}

/* The payload is whole. */
static int frame_end(struct websocket_reader *reader, struct websocket *socket, enum websocket_event *event,
                     struct websocket_input *input)
{
    reader->in_frame = false;
    reader->head_size = 0;
    if (is_control(reader)) {
        *event = WEBSOCKET_CONTROL;
        return control_end(reader, socket, input);
    }
    if (!(reader->head[0] & WEBSOCKET_FIN))
        return 0;
    *event = WEBSOCKET_MESSAGE;
    int code = message_end(reader, socket->message_max);
    struct str payload = reader->message.size ? buf_str(&reader->message) : STR("");
    *input = (struct websocket_input){reader->opcode, payload, 0};
    return code;
}

/* Takes bytes up to the end of a header, or of a payload, or of what fits in wslay's buffer. */
static int step(struct websocket *socket, struct str bytes, size_t *taken, enum websocket_event *event,
                struct websocket_input *input)
{
    struct websocket_reader *reader = socket->reader;
    int code;
    if (reader->in_frame) {
        code = frame_add(reader, bytes, socket->message_max, taken);
    } else {
        *taken = websocket_head_add(reader->head, &reader->head_size, bytes.at, bytes.size);
        if (reader->head_size < websocket_head_size(reader->head, reader->head_size))
            return 0;
        code = frame_begin(reader, socket);
    }
    if (code || reader->left > 0)
        return code;
    return frame_end(reader, socket, event, input);
}

size_t websocket_feed(struct websocket *socket, const char *bytes, size_t size, enum websocket_event *event,
                      struct websocket_input *input)
{
    *event = WEBSOCKET_MORE;
    size_t done = socket->closed ? size : 0;
    if (done < size && !socket->reader)
        socket->reader = reader_take();
    while (done < size && *event == WEBSOCKET_MORE) {
        size_t taken;
        int code = step(socket, str_of(bytes + done, size - done), &taken, event, input);
        done += taken;
        if (code) {
            *event = WEBSOCKET_ERROR;
            *input = (struct websocket_input){.opcode = WEBSOCKET_CLOSE, .payload = STR_NONE, .code = code};
            socket->closed = true;
            reader_free(socket->reader);
            socket->reader = NULL;
        }
    }
    if (*event == WEBSOCKET_MORE && socket->reader && (socket->closed || is_idle(socket->reader)))
        reader_give_back(socket);
    return done;
}

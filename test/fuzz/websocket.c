/*
 * What a WebSocket client sends: the same messages, control frames and errors whole and in pieces, within the bounds of
 * websocket.h. The input's first byte chooses compression and the largest message. The same bytes also pass by
 * websocket_scan.
 */
#include "proto/websocket.h"
#include "test/fuzz/support.h"

enum { SMALL_MESSAGE = 100, LARGE_MESSAGE = 65536, CONTROL_MAX = 125 };

struct client {
    struct websocket socket;
    struct websocket_scan scan;
    struct buf *transcript;
    bool closed; /* a close frame came */
    bool saw_data;
};

static void check_control(const struct websocket_input *input)
{
    CHECK(input->payload.size <= CONTROL_MAX);
    if (input->opcode != WEBSOCKET_CLOSE) {
        CHECK(input->opcode == WEBSOCKET_PING || input->opcode == WEBSOCKET_PONG);
        return;
    }
    int code = input->code;
    CHECK((code >= 1000 && code <= 1014 && code != 1004 && code != 1006) || (code >= 3000 && code <= 4999));
    CHECK(code != 1005 || input->payload.size == 0);
    CHECK(input->payload.size <= CONTROL_MAX - 2 && str_is_utf8(input->payload));
}

static void check_message(const struct client *client, const struct websocket_input *input)
{
    CHECK(input->opcode == WEBSOCKET_TEXT || input->opcode == WEBSOCKET_BINARY);
    CHECK(input->payload.size <= client->socket.message_max);
    CHECK(input->opcode != WEBSOCKET_TEXT || str_is_utf8(input->payload));
}

static void put_input(struct client *client, const char *event, const struct websocket_input *input)
{
    buf_printf(client->transcript, "%s %d %d:", event, input->opcode,
               input->opcode == WEBSOCKET_CLOSE ? input->code : 0);
    buf_add_str(client->transcript, input->payload);
    buf_add_char(client->transcript, '\n');
}

static bool feed(void *arg, const char *bytes, size_t size)
{
    struct client *client = arg;
    client->saw_data = websocket_scan(&client->scan, bytes, size) || client->saw_data;
    for (size_t at = 0; at < size;) {
        enum websocket_event event = WEBSOCKET_ERROR;
        struct websocket_input input = {.code = 0};
        size_t taken = websocket_feed(&client->socket, bytes + at, size - at, &event, &input);
        CHECK(taken <= size - at);
        at += taken;
        CHECK(event == WEBSOCKET_MORE || !client->closed);
        switch (event) {
        case WEBSOCKET_MORE: CHECK(at == size); break;
        case WEBSOCKET_MESSAGE:
            check_message(client, &input);
            put_input(client, "MESSAGE", &input);
            break;
        case WEBSOCKET_CONTROL:
            check_control(&input);
            put_input(client, "CONTROL", &input);
            client->closed = input.opcode == WEBSOCKET_CLOSE;
            CHECK(client->closed == client->socket.closed);
            break;
        case WEBSOCKET_ERROR:
            CHECK(input.code == 1002 || input.code == 1007 || input.code == 1009);
            buf_printf(client->transcript, "ERROR %d", input.code);
            return false;
        }
    }
    return true;
}

static void run(struct str input, enum fuzz_way way, struct buf *transcript)
{
    unsigned choice = fuzz_take_byte(&input);
    struct websocket_deflate deflate = {.on = choice & 1, .server_bits = 15};
    struct client client = {.transcript = transcript};
    websocket_init(&client.socket, choice & 2 ? LARGE_MESSAGE : SMALL_MESSAGE, deflate);
    fuzz_feed(input, way, feed, &client);
    websocket_clear(&client.socket);
}

/* A scan neither stops where the reader does nor needs it. */
static bool scan_feed(void *arg, const char *bytes, size_t size)
{
    struct client *client = arg;
    client->saw_data = websocket_scan(&client->scan, bytes, size) || client->saw_data;
    return true;
}

static void scan(struct str input, enum fuzz_way way, struct buf *transcript)
{
    struct client client = {.transcript = transcript};
    fuzz_take_byte(&input);
    fuzz_feed(input, way, scan_feed, &client);
    buf_printf(transcript, "%d %d %llu", client.saw_data, client.scan.broken,
               (unsigned long long)client.scan.left);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_compare(str_of((const char *)bytes, size), run);
    fuzz_compare(str_of((const char *)bytes, size), scan);
    return 0;
}

/* The opening handshake: offers of extensions, of which none or one is taken, and keys. */
#include "proto/websocket.h"
#include "test/fuzz/support.h"

#include <stdio.h>
#include <stdlib.h>

static void check_offers(struct str offers)
{
    struct websocket_deflate deflate = {.on = true};
    struct buf answer = {0};
    bool agreed = websocket_negotiate(offers, &deflate, &answer);
    CHECK(deflate.on == agreed);
    CHECK(agreed || answer.size == 0);
    if (agreed) {
        CHECK(deflate.server_bits >= 9 && deflate.server_bits <= 15);
        CHECK(str_starts(buf_str(&answer), STR("permessage-deflate")));
        for (size_t i = 0; i < answer.size; i++)
            CHECK(answer.at[i] >= ' ' && answer.at[i] < 0x7f && answer.at[i] != ',');
        CHECK(memmem(answer.at, answer.size, "server_no_context_takeover", 26));
        /* What we agree to is an offer that we would agree to. */
        struct websocket_deflate again;
        struct buf second = {0};
        CHECK(websocket_negotiate(buf_str(&answer), &again, &second));
        CHECK(again.server_bits == deflate.server_bits);
        buf_clear(&second);
    }
    buf_clear(&answer);
}

static void check_key(struct str key)
{
    if (!websocket_key_is_valid(key))
        return;
    CHECK(key.size == 24);
    char accept[WEBSOCKET_ACCEPT_SIZE];
    websocket_accept(key, accept);
    CHECK(strlen(accept) == WEBSOCKET_ACCEPT_SIZE - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct str input = str_of((const char *)bytes, size);
    check_offers(input);
    check_key(input);
    return 0;
}

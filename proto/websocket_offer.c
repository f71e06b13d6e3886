/*
 * Agreeing on permessage-deflate (RFC 7692 §5 and §7.1): which of a client's offers is taken, and with what answer.
 *
 * The answer never limits the client's window: reading one costs 32 KiB at most, and only while a message comes in.
 */
#include "proto/websocket.h"

struct parameter {
    const char *name;
    bool may_have_value;
    bool may_lack_value;
    int bits_min; /* of the value, which is never over 15 */
};

enum { SERVER_NO_CONTEXT, CLIENT_NO_CONTEXT, SERVER_BITS, CLIENT_BITS, PARAMETERS };

static const struct parameter parameters[PARAMETERS] = {
    [SERVER_NO_CONTEXT] = {"server_no_context_takeover", false, true, 0},
    [CLIENT_NO_CONTEXT] = {"client_no_context_takeover", false, true, 0},
    [SERVER_BITS] = {"server_max_window_bits", true, false, 9},
    [CLIENT_BITS] = {"client_max_window_bits", true, true, 8},
};

enum { BITS_MAX = 15 };

/* Takes the text before the next comma that stands in no quoted string (RFC 9110 §5.6.4). */
static bool next_offer(struct str *rest, struct str *offer)
{
    if (!rest->at)
        return false;
    bool quoted = false;
    for (size_t i = 0; i < rest->size; i++) {
        char c = rest->at[i];
        if (c == '"')
            quoted = !quoted;
        else if (c == '\\' && quoted)
            i++;
        else if (c == ',' && !quoted) {
            *offer = str_of(rest->at, i);
            *rest = str_of(rest->at + i + 1, rest->size - i - 1);
            return true;
        }
    }
    *offer = *rest;
    *rest = STR_NONE;
    return true;
}

/* A window's size as a token or in quotes; 0 when it is none. */
static int read_bits(struct str value, int min)
{
    if (value.size >= 2 && value.at[0] == '"' && value.at[value.size - 1] == '"')
        value = str_of(value.at + 1, value.size - 2);
    uint64_t bits;
    if (!str_to_u64(value, &bits) || value.at[0] == '0')
        return 0;
    return bits >= (uint64_t)min && bits <= BITS_MAX ? (int)bits : 0;
}

/* Reads one parameter into values[], where 0 is for one that was not there. False declines the offer. */
static bool read_parameter(struct str text, int values[PARAMETERS])
{
    struct str name = STR_NONE;
    struct str value = text; /* without an equals sign it is absent once the name is taken off */
    str_split(&value, '=', &name);
    name = str_trim(name);
    for (size_t i = 0; i < PARAMETERS; i++) {
        const struct parameter *parameter = &parameters[i];
        if (!str_equal(name, str_from(parameter->name)))
            continue;
        if (values[i] != 0 || !(value.at ? parameter->may_have_value : parameter->may_lack_value))
            return false;
        values[i] = value.at ? read_bits(str_trim(value), parameter->bits_min) : BITS_MAX;
        return values[i] != 0;
    }
    return false;
}

static bool read_offer(struct str offer, int values[PARAMETERS])
{
    struct str piece;
    if (!str_split(&offer, ';', &piece) || !str_equal(str_trim(piece), STR("permessage-deflate")))
        return false;
    while (str_split(&offer, ';', &piece))
        if (!read_parameter(piece, values))
            return false;
    return true;
}

bool websocket_negotiate(struct str offers, struct websocket_deflate *deflate, struct buf *answer)
{
    *deflate = (struct websocket_deflate){0};
    struct str offer;
    while (next_offer(&offers, &offer)) {
        int values[PARAMETERS] = {0};
        if (!read_offer(offer, values))
            continue;
        *deflate = (struct websocket_deflate){.on = true, .server_bits = BITS_MAX};
        buf_add_literal(answer, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        if (values[SERVER_BITS]) {
            deflate->server_bits = values[SERVER_BITS];
            buf_add_literal(answer, "; server_max_window_bits=");
            buf_add_i64(answer, deflate->server_bits);
        }
        return true;
    }
    return false;
}

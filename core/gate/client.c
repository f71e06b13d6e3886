/*
 * Who the client is, for limits: the peer's address, or, when the peer is one of TRUSTED_PROXIES, the rightmost
 * address in X-Forwarded-For that is not. An IPv6 client is its /64: it has 2^64 addresses to choose from.
 */
#include "core/gate/gate.h"

#include "core/base/config.h"
#include "core/base/escape.h"

#include <arpa/inet.h>
#include <errno.h>

enum { NETWORKS_MAX = 64 };

/* Both families as 16 bytes; IPv4 is mapped (::ffff:a.b.c.d). */
struct address {
    unsigned char bytes[16];
};

struct network {
    struct address address;
    unsigned bits;
};

static struct network trusted[NETWORKS_MAX];
static size_t trusted_count;

static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_v4(const struct address *address)
{
    return memcmp(address->bytes, mapped, sizeof mapped) == 0;
}

static bool parse(struct str text, struct address *address)
{
    char copy[64];
    if (text.size == 0 || text.size >= sizeof copy)
        return false;
    memcpy(copy, text.at, text.size);
    copy[text.size] = '\0';
    if (inet_pton(AF_INET6, copy, address->bytes) == 1)
        return true;
    memcpy(address->bytes, mapped, sizeof mapped);
    return inet_pton(AF_INET, copy, address->bytes + 12) == 1;
}

static bool contains(const struct network *network, const struct address *address)
{
    unsigned whole = network->bits / 8;
    if (memcmp(network->address.bytes, address->bytes, whole) != 0)
        return false;
    unsigned rest = network->bits % 8;
    if (rest == 0)
        return true;
    unsigned char mask = (unsigned char)(0xff << (8 - rest));
    return (network->address.bytes[whole] & mask) == (address->bytes[whole] & mask);
}

static bool is_trusted(const struct address *address)
{
    for (size_t i = 0; i < trusted_count; i++)
        if (contains(&trusted[i], address))
            return true;
    return false;
}

static bool parse_network(struct str text, struct network *network)
{
    struct str rest = text;
    struct str address;
    str_split(&rest, '/', &address);
    if (!parse(address, &network->address))
        return false;
    bool v4 = is_v4(&network->address);
    uint64_t bits = v4 ? 32 : 128;
    if (rest.at && (!str_to_u64(rest, &bits) || bits > (v4 ? 32 : 128)))
        return false;
    network->bits = (unsigned)bits + (v4 ? 96 : 0);
    return true;
}

int gate_client_init(char *error, size_t error_size)
{
    struct str list = str_from(config->trusted_proxies);
    struct str piece;
    trusted_count = 0;
    while (str_split(&list, ',', &piece)) {
        piece = str_trim(piece);
        if (piece.size == 0)
            continue;
        if (trusted_count == NETWORKS_MAX || !parse_network(piece, &trusted[trusted_count])) {
            snprintf(error, error_size, "TRUSTED_PROXIES: \"%.*s\" is no address or network", STR_ARG(piece));
            return -EINVAL;
        }
        trusted_count++;
    }
    return 0;
}

static bool address_of(const struct sockaddr *peer, struct address *address)
{
    if (peer->sa_family == AF_INET6) {
        memcpy(address->bytes, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, 16);
        return true;
    }
    if (peer->sa_family != AF_INET)
        return false;
    memcpy(address->bytes, mapped, sizeof mapped);
    memcpy(address->bytes + 12, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
    return true;
}

/* The list from its right end on, over all its fields, up to the first that no proxy of ours has added. */
static void follow_proxies(const struct request *request, struct address *client)
{
    const struct http1_head *head = request->http->head;
    for (size_t i = head->count; i-- > 0;) {
        if (!str_equal_nocase(head->fields[i].name, STR("x-forwarded-for")))
            continue;
        struct str list = head->fields[i].value;
        while (list.at) {
            size_t start = list.size;
            while (start > 0 && list.at[start - 1] != ',')
                start--;
            struct address next;
            if (!parse(str_trim(str_of(list.at + start, list.size - start)), &next))
                return;
            *client = next;
            if (!is_trusted(client))
                return;
            list = start ? str_of(list.at, start - 1) : STR_NONE;
        }
    }
}

bool gate_trusts(const struct sockaddr *peer)
{
    struct address address;
    return trusted_count > 0 && address_of(peer, &address) && is_trusted(&address);
}

bool gate_peer_is_trusted(const struct request *request)
{
    return gate_trusts(http_peer(request->http));
}

struct str gate_scheme(const struct request *request)
{
    const struct http1_head *head = request->http->head;
    if (http_is_secure(request->http))
        return STR("https");
    if (!gate_peer_is_trusted(request))
        return STR("http");
    /* The last word is the trusted proxy's own; what stands before it, a client may have sent. */
    struct str said = STR_NONE;
    for (size_t i = 0; i < head->count; i++)
        if (str_equal_nocase(head->fields[i].name, STR("x-forwarded-proto")))
            said = head->fields[i].value;
    struct str rest = said;
    while (str_split(&rest, ',', &said))
        continue;
    return str_equal_nocase(str_trim(said), STR("https")) ? STR("https") : STR("http");
}

struct str gate_client(struct request *request)
{
    struct address client;
    if (!address_of(http_peer(request->http), &client))
        return STR("unknown");
    if (trusted_count && is_trusted(&client))
        follow_proxies(request, &client);
    size_t from = is_v4(&client) ? 12 : 0;
    size_t size = is_v4(&client) ? 4 : 8;
    escape_hex(request->client_text, client.bytes + from, size);
    return str_of(request->client_text, size * 2);
}

/*
 * Who the client is, for limits: the peer's address, or, when the peer is one of TRUSTED_PROXIES, the rightmost
 * address in X-Forwarded-For that is not. An IPv6 client is its /64: it has 2^64 addresses to choose from.
 */
#include "core/gate/gate.h"

#include "core/base/config.h"
#include "core/base/escape.h"
#include "proto/network.h"

#include <errno.h>

static struct networks trusted;

int gate_client_init(char *error, size_t error_size)
{
    struct str bad;
    if (networks_parse(str_from(config->trusted_proxies), &trusted, &bad))
        return 0;
    snprintf(error, error_size, "TRUSTED_PROXIES: \"%.*s\" is no address or network", STR_ARG(bad));
    return -EINVAL;
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
            if (!address_parse(str_trim(str_of(list.at + start, list.size - start)), &next))
                return;
            *client = next;
            if (!networks_contain(&trusted, client))
                return;
            list = start ? str_of(list.at, start - 1) : STR_NONE;
        }
    }
}

bool gate_trusts(const struct sockaddr *peer)
{
    struct address address;
    return trusted.count > 0 && address_from_socket(peer, &address) && networks_contain(&trusted, &address);
}

bool gate_peer_is_trusted(const struct request *request)
{
    return gate_trusts(http_peer(request->http));
}

struct str gate_origin_of(struct request *request)
{
    if (config->public_url[0])
        return str_from(config->public_url);
    struct str scheme = gate_scheme(request);
    return str_from(
        arena_printf(request->arena, "%.*s://%.*s", STR_ARG(scheme), STR_ARG(request->http->head->host)));
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

bool gate_client_address(const struct request *request, struct address *client)
{
    if (!address_from_socket(http_peer(request->http), client))
        return false;
    if (trusted.count && networks_contain(&trusted, client))
        follow_proxies(request, client);
    return true;
}

struct str gate_client(struct request *request)
{
    struct address client;
    if (request->client_text[0])
        return str_from(request->client_text);
    if (!gate_client_address(request, &client))
        return STR("unknown");
    bool v4 = address_is_v4(&client);
    size_t from = v4 ? 12 : 0;
    size_t size = v4 ? 4 : 8;
    escape_hex(request->client_text, client.bytes + from, size);
    return str_of(request->client_text, size * 2);
}

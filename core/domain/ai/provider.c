/* Kinds of providers, and where they may be: see provider.h. */
#include "core/domain/ai/provider.h"

#include "core/base/check.h"
#include "core/base/config.h"
#include "proto/network.h"
#include "proto/url.h"

#include <errno.h>
#include <stdio.h>

enum { URL_MAX_SIZE = 2048 };

static const char *const kinds[PROVIDER_KINDS] = {
    [PROVIDER_SANDBOX] = "sandbox",
    [PROVIDER_OPENAI] = "openai",
    [PROVIDER_ANTHROPIC] = "anthropic",
};

const char *provider_kind_name(enum provider_kind kind)
{
    return kinds[kind];
}

bool provider_kind_find(struct str name, enum provider_kind *kind)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (str_equal(name, str_from(kinds[i]))) {
            *kind = (enum provider_kind)i;
            return true;
        }
    return false;
}

/* ---- where they may be ---- */

static bool is_private_address(const struct address *address)
{
    struct networks networks;
    struct str bad;
    CHECK(
        networks_parse(STR("127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,100.64.0.0/10,"
                           "::1,fc00::/7,fe80::/10"),
                       &networks, &bad));
    return networks_contain(&networks, address);
}

static bool has_suffix(struct str name, struct str suffix)
{
    return name.size > suffix.size &&
           str_equal_nocase(str_of(name.at + name.size - suffix.size, suffix.size), suffix);
}

/* Names that no public DNS server answers for (RFC 6761, 6762, 8375, and ICANN's "internal"), or that are no full ones. */
static bool is_private_host(struct str name)
{
    static const struct str suffixes[] = {
        {".localhost", 10}, {".local", 6}, {".internal", 9}, {".home.arpa", 10},
        {".test", 5},       {".lan", 4},   {".svc", 4},
    };
    struct address address;
    if (address_parse(name, &address))
        return is_private_address(&address);
    if (!memchr(name.at, '.', name.size))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
        if (has_suffix(name, suffixes[i]))
            return true;
    return false;
}

const char *provider_url_problem(struct str url)
{
    static const struct str secure = {"https://", 8};
    static const struct str plain = {"http://", 7};
    static const char *const shape = "must be https:// or http://, a host, and perhaps a path";
    struct str name;
    struct str host;
    int port;
    if (!str_starts(url, secure) && !str_starts(url, plain))
        return shape;
    size_t scheme = str_starts(url, secure) ? secure.size : plain.size;
    for (size_t i = 0; i < url.size; i++)
        if (url.at[i] <= ' ' || url.at[i] > '~' || strchr("?#\\\"<>", url.at[i]))
            return shape;
    struct str rest = str_of(url.at + scheme, url.size - scheme);
    if (url.size > URL_MAX_SIZE || !str_split(&rest, '/', &host) || !url_parse_host(host, &name, &port))
        return shape;
    if (scheme == plain.size && !is_private_host(name))
        return "must be https:// where its host is neither local nor private";
    return NULL;
}

int provider_check_settings(char *error, size_t error_size)
{
    const struct {
        const char *name;
        const char *url;
    } given[] = {{"OPENAI_BASE_URL", config->openai_url}, {"ANTHROPIC_BASE_URL", config->anthropic_url}};
    for (size_t i = 0; i < ARRAY_SIZE(given); i++) {
        const char *problem = provider_url_problem(str_from(given[i].url));
        if (problem) {
            snprintf(error, error_size, "%s %s", given[i].name, problem);
            return -EINVAL;
        }
    }
    return 0;
}

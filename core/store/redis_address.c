/*
 * REDIS_URL:
 *
 *   redis://[user:password@]host[:port][/database]
 *   unix://[user:password@]/path[?db=database]
 *
 * Each part is percent-decoded (RFC 3986). A line about a bad URL never shows it: it may hold a password.
 */
#include "core/store/redis_internal.h"

#include "core/base/crypto.h"
#include "core/base/escape.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static char *decode(struct str text)
{
    char *out = mem_alloc(text.size + 1);
    int size = escape_percent_decode(out, text, false);
    if (size < 0) {
        free(out);
        return NULL;
    }
    out[size] = '\0';
    return out;
}

/* Takes the text up to the first `end` off the front; all of it when there is none. */
static struct str take_until(struct str *rest, const char *ends)
{
    size_t size = 0;
    while (size < rest->size && !strchr(ends, rest->at[size]))
        size++;
    struct str taken = str_of(rest->at, size);
    rest->at += size;
    rest->size -= size;
    return taken;
}

/* "user:password" or ":password". */
static const char *parse_user(struct redis_address *address, struct str text)
{
    const char *colon = memchr(text.at, ':', text.size);
    if (!colon)
        return "has a user but no password: write user:password@ or :password@";
    struct str user = str_of(text.at, (size_t)(colon - text.at));
    struct str password = str_of(colon + 1, text.size - user.size - 1);
    if (user.size && !(address->user = decode(user)))
        return "has a bad percent escape in its user";
    if (!(address->password = decode(password)))
        return "has a bad percent escape in its password";
    return NULL;
}

static const char *parse_host(struct redis_address *address, struct str text)
{
    struct str port = STR("6379");
    struct str host;
    if (text.size && text.at[0] == '[') {
        text.at++;
        text.size--;
        host = take_until(&text, "]");
        if (text.size == 0)
            return "has a '[' without a ']' in its host";
        text.at++;
        text.size--;
    } else {
        host = take_until(&text, ":");
    }
    if (text.size && text.at[0] == ':')
        port = str_of(text.at + 1, text.size - 1);
    else if (text.size)
        return "has something between its host and its port";
    uint64_t number;
    if (!str_to_u64(port, &number) || number == 0 || number > 65535)
        return "has a port that is no number from 1 to 65535";
    if (host.size == 0)
        return "has no host";
    if (!(address->host = decode(host)))
        return "has a bad percent escape in its host";
    address->port = decode(port);
    return NULL;
}

static const char *parse_database(struct redis_address *address, struct str text)
{
    return str_to_u64(text, &address->database) ? NULL : "has a database that is no number";
}

static const char *parse_tcp(struct redis_address *address, struct str authority, struct str rest)
{
    const char *wrong = parse_host(address, authority);
    if (wrong)
        return wrong;
    if (rest.size && rest.at[0] == '/') {
        rest.at++;
        rest.size--;
    }
    if (memchr(rest.at, '?', rest.size) || memchr(rest.at, '#', rest.size))
        return "has options behind '?' or '#', which redis:// does not know";
    return rest.size ? parse_database(address, rest) : NULL;
}

static const char *parse_unix(struct redis_address *address, struct str authority, struct str rest)
{
    address->is_unix = true;
    if (authority.size)
        return "has a host: a unix socket is unix:///path";
    struct str path = take_until(&rest, "?");
    if (path.size < 2)
        return "has no path: a unix socket is unix:///path";
    if (!(address->host = decode(path)))
        return "has a bad percent escape in its path";
    /* libuv would silently cut it off */
    if (strlen(address->host) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
        return "has a path too long for a unix socket (107 bytes at most)";
    if (rest.size == 0)
        return NULL;
    if (!str_starts(rest, STR("?db=")))
        return "has an option other than ?db=";
    return parse_database(address, str_of(rest.at + 4, rest.size - 4));
}

static const char *parse(struct redis_address *address, struct str url)
{
    bool is_unix = str_starts(url, STR("unix://"));
    if (str_starts(url, STR("rediss://")))
        return "is rediss://, and TLS to Redis is not supported: use redis:// through a private network or a "
               "tunnel (stunnel, a sidecar)";
    if (!is_unix && !str_starts(url, STR("redis://")))
        return "must begin with redis:// or unix://";
    size_t scheme_size = is_unix ? STR("unix://").size : STR("redis://").size;
    struct str rest = str_of(url.at + scheme_size, url.size - scheme_size);
    struct str authority = take_until(&rest, "/?#");
    const char *at = authority.size ? memrchr(authority.at, '@', authority.size) : NULL;
    if (at) {
        struct str user = str_of(authority.at, (size_t)(at - authority.at));
        const char *wrong = parse_user(address, user);
        if (wrong)
            return wrong;
        authority = str_of(at + 1, authority.size - user.size - 1);
    }
    return is_unix ? parse_unix(address, authority, rest) : parse_tcp(address, authority, rest);
}

int redis_address_parse(struct redis_address *address, const char *url, char *error, size_t error_size)
{
    *address = (struct redis_address){0};
    const char *wrong = url && *url ? parse(address, str_from(url)) : "is not set";
    if (!wrong)
        return 0;
    redis_address_clear(address);
    snprintf(error, error_size, "REDIS_URL %s", wrong);
    return -EINVAL;
}

void redis_address_clear(struct redis_address *address)
{
    if (address->password)
        crypto_wipe(address->password, strlen(address->password));
    free(address->host);
    free(address->port);
    free(address->user);
    free(address->password);
    *address = (struct redis_address){0};
}

/* The address that serve listens on, seen from `wakegate up`. */
#include "core/up_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int parse(struct up_listen *listen, const char *address, int port)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    *listen = (struct up_listen){.size = 0};
    if (inet_pton(AF_INET, address, &four.sin_addr) == 1) {
        listen->size = sizeof four;
        memcpy(&listen->address, &four, sizeof four);
    } else if (inet_pton(AF_INET6, address, &six.sin6_addr) == 1) {
        listen->size = sizeof six;
        memcpy(&listen->address, &six, sizeof six);
    }
    return listen->size ? 0 : -EINVAL;
}

int up_listen_parse(struct up_listen *listen, const char *address, int port)
{
    int result = parse(listen, address, port);
    struct sockaddr_in *four = (struct sockaddr_in *)&listen->address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&listen->address;
    if (result == 0 && four->sin_family == AF_INET && four->sin_addr.s_addr == htonl(INADDR_ANY))
        four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (result == 0 && six->sin6_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr))
        six->sin6_addr = in6addr_loopback;
    return result;
}

int up_listen_check_free(const char *address, int port)
{
    struct up_listen listen;
    int result = parse(&listen, address, port);
    if (result)
        return result;
    int descriptor = socket(listen.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0)
        return -errno;
    /* Connections that were closed a moment ago do not matter. */
    int on = 1;
    (void)setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    result = bind(descriptor, (const struct sockaddr *)&listen.address, listen.size) ? -errno : 0;
    close(descriptor);
    return result;
}

void up_listen_url(const struct up_listen *listen, bool secure, struct buf *url)
{
    const char *scheme = secure ? "https" : "http";
    char text[INET6_ADDRSTRLEN] = "";
    const struct sockaddr_in *four = (const struct sockaddr_in *)&listen->address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&listen->address;
    if (four->sin_family == AF_INET)
        buf_printf(url, "%s://%s:%d", scheme, inet_ntop(AF_INET, &four->sin_addr, text, sizeof text),
                   ntohs(four->sin_port));
    else
        buf_printf(url, "%s://[%s]:%d", scheme, inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text),
                   ntohs(six->sin6_port));
}

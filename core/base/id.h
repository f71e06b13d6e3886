#ifndef CORE_BASE_ID_H
#define CORE_BASE_ID_H

#include <stddef.h>

enum {
    ID_SESSION_SIZE = 17, /* 16 characters and the NUL: 80 random bits */
    ID_REQUEST_SIZE = 21,
};

/* `length` random characters of [a-z2-7] (5 bits each), then a NUL. The first is a letter, so that the id can
 * begin a DNS label. */
void id_random(char *out, size_t length);

/* `length` random characters of [0-9A-Za-z], without bias, then a NUL. For secrets. */
void id_random_base62(char *out, size_t length);

/* An id that tells one request from another, but is no secret: a random prefix per thread and a counter. */
void id_request(char out[ID_REQUEST_SIZE]);

#endif

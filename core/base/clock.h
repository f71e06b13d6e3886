#ifndef CORE_BASE_CLOCK_H
#define CORE_BASE_CLOCK_H

#include "core/base/str.h"

#include <stdint.h>

/* Timers, leases and deadlines use the monotonic clock; what a client is told uses the wall clock. */

#define CLOCK_MS UINT64_C(1000000)
#define CLOCK_SECOND (UINT64_C(1000) * CLOCK_MS)
/* A deadline that never comes. */
#define CLOCK_NEVER UINT64_MAX

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t clock_now_ns(void);
/* The moment `ms` milliseconds from now, in clock_now_ns() terms; CLOCK_NEVER when it is past counting. */
uint64_t clock_in_ms(uint64_t ms);
/* Milliseconds and seconds since 1970, UTC. */
int64_t clock_wall_ms(void);
int64_t clock_wall_s(void);
/* The same to some milliseconds, at a fraction of the cost: the kernel's last tick. */
int64_t clock_coarse_wall_ms(void);

enum { CLOCK_ISO_SIZE = 25, CLOCK_HTTP_SIZE = 30 };

/* "2025-11-10T12:00:00Z"; milliseconds are cut off. Returns `out`. */
char *clock_format_iso(char out[CLOCK_ISO_SIZE], int64_t unix_ms);
/* RFC 3339 §5.6: "2026-11-10T12:00:00Z", with or without a fraction, which is cut off, or with an offset. */
bool clock_parse_iso(struct str text, int64_t *unix_ms);
/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 §5.6.7). Returns `out`. */
char *clock_format_http(char out[CLOCK_HTTP_SIZE], int64_t unix_s);

/* The present in these spellings, remade at most once a second and thread: the text is valid until the
 * thread's next call. */
const char *clock_iso_now(void);
const char *clock_http_now(void);

#endif

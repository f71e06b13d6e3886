/* Clocks and the spellings of time. */
#include "core/base/clock.h"

#include "core/base/check.h"

#include <stdio.h>
#include <time.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec now;
    CHECK(clock_gettime(id, &now) == 0);
    return (uint64_t)now.tv_sec * CLOCK_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t clock_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_in_ms(uint64_t ms)
{
    uint64_t at_ns;
    if (__builtin_mul_overflow(ms, CLOCK_MS, &at_ns) || __builtin_add_overflow(at_ns, clock_now_ns(), &at_ns))
        return CLOCK_NEVER;
    return at_ns;
}

int64_t clock_wall_ms(void)
{
    return (int64_t)(read_clock(CLOCK_REALTIME) / CLOCK_MS);
}

int64_t clock_wall_s(void)
{
    return clock_wall_ms() / 1000;
}

char *clock_format_iso(char out[CLOCK_ISO_SIZE], int64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm parts;
    CHECK(gmtime_r(&seconds, &parts) != NULL);
    if (strftime(out, CLOCK_ISO_SIZE, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        out[0] = '\0';
    return out;
}

char *clock_format_http(char out[CLOCK_HTTP_SIZE], int64_t unix_s)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)unix_s;
    struct tm parts;
    CHECK(gmtime_r(&seconds, &parts) != NULL);
    snprintf(out, CLOCK_HTTP_SIZE, "%s, %02u %s %04u %02u:%02u:%02u GMT", days[parts.tm_wday % 7],
             (unsigned)parts.tm_mday % 100, months[parts.tm_mon % 12],
             (unsigned)(parts.tm_year + 1900) % 10000, (unsigned)parts.tm_hour % 100,
             (unsigned)parts.tm_min % 100, (unsigned)parts.tm_sec % 100);
    return out;
}

struct spelled {
    int64_t second;
    char iso[CLOCK_ISO_SIZE];
    char http[CLOCK_HTTP_SIZE];
};

static const struct spelled *spelled_now(void)
{
    static _Thread_local struct spelled now = {.second = -1};
    struct timespec coarse;
    CHECK(clock_gettime(CLOCK_REALTIME_COARSE, &coarse) == 0);
    if (UNLIKELY(now.second != coarse.tv_sec)) {
        now.second = coarse.tv_sec;
        clock_format_iso(now.iso, now.second * 1000);
        clock_format_http(now.http, now.second);
    }
    return &now;
}

const char *clock_iso_now(void)
{
    return spelled_now()->iso;
}

const char *clock_http_now(void)
{
    return spelled_now()->http;
}

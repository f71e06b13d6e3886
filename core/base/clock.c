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

int64_t clock_coarse_wall_ms(void)
{
    return (int64_t)(read_clock(CLOCK_REALTIME_COARSE) / CLOCK_MS);
}

int64_t clock_wall_s(void)
{
    return clock_wall_ms() / 1000;
}

struct date {
    unsigned year;
    unsigned month; /* 1 to 12 */
    unsigned day;   /* 1 to 31 */
};

/* Every answer has several times in it, and strftime costs twenty times as much. The year is counted from March, so
 * that a leap day is its last: month m of it then begins (153 m + 2) / 5 days in. */
static struct date date_of(int64_t days)
{
    uint64_t since = (uint64_t)(days + 719468); /* since 0000-03-01 */
    unsigned era = (unsigned)(since / 146097);  /* 400 years */
    unsigned of_era = (unsigned)(since % 146097);
    unsigned year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * year + year / 4 - year / 100);
    unsigned month = (5 * of_year + 2) / 153;
    return (struct date){
        .year = era * 400 + year + (month >= 10),
        .month = month < 10 ? month + 3 : month - 9,
        .day = of_year - (153 * month + 2) / 5 + 1,
    };
}

static void put_digits(char *out, unsigned value, int count)
{
    while (count > 0) {
        out[--count] = (char)('0' + value % 10);
        value /= 10;
    }
}

char *clock_format_iso(char out[CLOCK_ISO_SIZE], int64_t unix_ms)
{
    int64_t seconds = unix_ms / 1000;
    int64_t day = seconds / 86400;
    int64_t second = seconds % 86400;
    if (second < 0) {
        second += 86400;
        day--;
    }
    struct date date = date_of(day);
    put_digits(out, date.year, 4);
    out[4] = '-';
    put_digits(out + 5, date.month, 2);
    out[7] = '-';
    put_digits(out + 8, date.day, 2);
    out[10] = 'T';
    put_digits(out + 11, (unsigned)(second / 3600), 2);
    out[13] = ':';
    put_digits(out + 14, (unsigned)(second / 60 % 60), 2);
    out[16] = ':';
    put_digits(out + 17, (unsigned)(second % 60), 2);
    out[19] = 'Z';
    out[20] = '\0';
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

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

/* ---- reading ---- */

/* Exactly `count` digits at *at, which moves behind them. */
static bool take_number(const char **at, const char *end, int count, int *number)
{
    *number = 0;
    if (end - *at < count)
        return false;
    for (int i = 0; i < count; i++, (*at)++) {
        if (**at < '0' || **at > '9')
            return false;
        *number = *number * 10 + (**at - '0');
    }
    return true;
}

static bool take_char(const char **at, const char *end, const char *any_of)
{
    bool fits = *at < end && **at && strchr(any_of, **at) != NULL;
    *at += fits;
    return fits;
}

static bool take_fraction(const char **at, const char *end)
{
    int digit;
    if (!take_char(at, end, "."))
        return true;
    if (!take_number(at, end, 1, &digit))
        return false;
    while (take_number(at, end, 1, &digit))
        continue;
    return true;
}

static bool take_offset(const char **at, const char *end, int *offset_s)
{
    int hours;
    int minutes;
    *offset_s = 0;
    if (take_char(at, end, "Zz"))
        return true;
    bool west = *at < end && **at == '-';
    if (!take_char(at, end, "+-") || !take_number(at, end, 2, &hours) || !take_char(at, end, ":") ||
        !take_number(at, end, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *offset_s = (west ? -1 : 1) * (hours * 3600 + minutes * 60);
    return true;
}

bool clock_parse_iso(struct str text, int64_t *unix_ms)
{
    const char *at = text.at;
    const char *end = text.at + text.size;
    struct tm tm = {0};
    int offset_s;
    bool fine = take_number(&at, end, 4, &tm.tm_year) && take_char(&at, end, "-") &&
                take_number(&at, end, 2, &tm.tm_mon) && take_char(&at, end, "-") &&
                take_number(&at, end, 2, &tm.tm_mday) && take_char(&at, end, "Tt ") &&
                take_number(&at, end, 2, &tm.tm_hour) && take_char(&at, end, ":") &&
                take_number(&at, end, 2, &tm.tm_min) && take_char(&at, end, ":") &&
                take_number(&at, end, 2, &tm.tm_sec) && take_fraction(&at, end) &&
                take_offset(&at, end, &offset_s) && at == end;
    if (!fine)
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    struct tm given = tm;
    *unix_ms = ((int64_t)timegm(&tm) - offset_s) * 1000;
    /* timegm makes a day in March of the 30th of February: what it has changed was no time. */
    return tm.tm_mon == given.tm_mon && tm.tm_mday == given.tm_mday && tm.tm_hour == given.tm_hour &&
           tm.tm_min == given.tm_min && tm.tm_sec == given.tm_sec;
}

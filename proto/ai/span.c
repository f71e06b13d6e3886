/*
 * Times that providers tell their callers to wait, in all the spellings that are in use: see failure.h. Whole
 * milliseconds, rounded up: whoever comes a moment too early is refused again.
 */
#include "proto/ai/failure.h"

#include <time.h>

enum { SPAN_MAX = 64 /* bytes of one; and that many of the longest sum up to what fits */ };

static int64_t limited(int64_t ms)
{
    return ms < 0 ? 0 : ms > AI_RETRY_AFTER_MAX_MS ? AI_RETRY_AFTER_MAX_MS : ms;
}

/* Takes digits, perhaps with a fraction, off the front of *rest as thousandths, rounded up and at most 10^15. */
static bool take_number(struct str *rest, int64_t *thousandths)
{
    static const int64_t most = INT64_C(1000000000000);
    int64_t whole = 0;
    int64_t part = 0;
    int64_t unit = 100;
    bool more = false;
    size_t i = 0;
    for (; i < rest->size && rest->at[i] >= '0' && rest->at[i] <= '9'; i++)
        whole = whole > most / 10 ? most : whole * 10 + (rest->at[i] - '0');
    if (i == 0)
        return false;
    if (i + 1 < rest->size && rest->at[i] == '.' && rest->at[i + 1] >= '0' && rest->at[i + 1] <= '9') {
        for (i++; i < rest->size && rest->at[i] >= '0' && rest->at[i] <= '9'; i++) {
            part += (rest->at[i] - '0') * unit;
            more = more || (unit == 0 && rest->at[i] != '0');
            unit /= 10;
        }
    }
    *rest = str_of(rest->at + i, rest->size - i);
    *thousandths = (whole > most ? most : whole) * 1000 + part + more;
    return true;
}

/* In microseconds. */
static bool take_unit(struct str *rest, int64_t *unit_us)
{
    static const struct {
        struct str name;
        int64_t us;
    } units[] = {
        {{"ms", 2}, 1000},
        {{"us", 2}, 1},
        {{"\xc2\xb5s", 3}, 1},
        {{"ns", 2}, 1},
        {{"s", 1}, 1000 * 1000},
        {{"m", 1}, 60000000},
        {{"h", 1}, INT64_C(3600000000)},
        {{"d", 1}, INT64_C(86400000000)},
    };
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (!str_starts(*rest, units[i].name))
            continue;
        *unit_us = units[i].us;
        *rest = str_of(rest->at + units[i].name.size, rest->size - units[i].name.size);
        return true;
    }
    return false;
}

/* At most the limit. */
static int64_t span_us(int64_t thousandths, int64_t unit_us)
{
    static const int64_t most_us = (int64_t)AI_RETRY_AFTER_MAX_MS * 1000;
    int64_t product;
    if (__builtin_mul_overflow(thousandths, unit_us, &product))
        return most_us;
    int64_t us = product / 1000 + (product % 1000 != 0);
    return us > most_us ? most_us : us;
}

int64_t ai_read_span(struct str value)
{
    struct str rest = str_trim(value);
    int64_t sum_us = 0;
    int64_t number;
    int64_t unit_us;
    if (rest.size == 0 || rest.size > SPAN_MAX)
        return -1;
    for (bool first = true; rest.size > 0; first = false) {
        if (!take_number(&rest, &number))
            return -1;
        if (rest.size == 0 && first)
            unit_us = 1000 * 1000;
        else if (!take_unit(&rest, &unit_us))
            return -1;
        sum_us += span_us(number, unit_us);
    }
    return limited(sum_us / 1000 + (sum_us % 1000 != 0));
}

/* ---- dates ---- */

/* Seconds since 1970 of a date that may be none ("Feb 30"); false then. */
static bool seconds_of(const struct tm *parts, int64_t *seconds)
{
    struct tm tm = *parts;
    *seconds = timegm(&tm);
    return tm.tm_mday == parts->tm_mday && tm.tm_mon == parts->tm_mon && parts->tm_hour < 24 &&
           parts->tm_min < 60 && parts->tm_sec <= 60;
}

static bool digits(struct str text, size_t at, size_t count, int *value)
{
    uint64_t number;
    if (at + count > text.size || !str_to_u64(str_of(text.at + at, count), &number))
        return false;
    *value = (int)number;
    return true;
}

static bool month(struct str name, int *value)
{
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (int i = 0; i < 12; i++) {
        if (memcmp(name.at, names + (size_t)(3 * i), 3) == 0) {
            *value = i;
            return true;
        }
    }
    return false;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT", the one form that RFC 9110 §5.6.7 lets servers send. */
static bool read_http_date(struct str text, int64_t *seconds)
{
    struct tm tm = {0};
    if (text.size != 29 || memcmp(text.at + 3, ", ", 2) != 0 || memcmp(text.at + 25, " GMT", 4) != 0)
        return false;
    bool fine = digits(text, 5, 2, &tm.tm_mday) && text.at[7] == ' ' &&
                month(str_of(text.at + 8, 3), &tm.tm_mon) && text.at[11] == ' ' &&
                digits(text, 12, 4, &tm.tm_year) && text.at[16] == ' ' && digits(text, 17, 2, &tm.tm_hour) &&
                text.at[19] == ':' && digits(text, 20, 2, &tm.tm_min) && text.at[22] == ':' &&
                digits(text, 23, 2, &tm.tm_sec);
    tm.tm_year -= 1900;
    return fine && seconds_of(&tm, seconds);
}

int64_t ai_read_retry_after(struct str value, int64_t now_ms)
{
    struct str text = str_trim(value);
    int64_t seconds;
    if (read_http_date(text, &seconds))
        return limited(seconds * 1000 - now_ms);
    for (size_t i = 0; i < text.size; i++)
        if (text.at[i] != '.' && (text.at[i] < '0' || text.at[i] > '9'))
            return -1;
    return ai_read_span(text);
}

/* "Z" or "+02:00" behind the time; in seconds. */
static bool read_zone(struct str text, int64_t *offset_s)
{
    int hours;
    int minutes;
    *offset_s = 0;
    if (text.size == 1)
        return text.at[0] == 'Z' || text.at[0] == 'z';
    if (text.size != 6 || (text.at[0] != '+' && text.at[0] != '-') || text.at[3] != ':' ||
        !digits(text, 1, 2, &hours) || !digits(text, 4, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *offset_s = (text.at[0] == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
    return true;
}

/* 2024-01-15T10:30:00[.123]Z: RFC 3339. */
int64_t ai_read_time(struct str value, int64_t now_ms)
{
    struct str text = str_trim(value);
    struct tm tm = {0};
    int64_t seconds;
    int64_t offset_s;
    int64_t fraction = 0;
    bool fine = text.size >= 20 && digits(text, 0, 4, &tm.tm_year) && text.at[4] == '-' &&
                digits(text, 5, 2, &tm.tm_mon) && text.at[7] == '-' && digits(text, 8, 2, &tm.tm_mday) &&
                (text.at[10] == 'T' || text.at[10] == 't') && digits(text, 11, 2, &tm.tm_hour) &&
                text.at[13] == ':' && digits(text, 14, 2, &tm.tm_min) && text.at[16] == ':' &&
                digits(text, 17, 2, &tm.tm_sec);
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    if (!fine || !seconds_of(&tm, &seconds))
        return -1;
    /* The last digit of the seconds with their fraction, in thousandths. */
    struct str rest = str_of(text.at + 18, text.size - 18);
    if (!take_number(&rest, &fraction) || !read_zone(rest, &offset_s))
        return -1;
    return limited((seconds - offset_s - tm.tm_sec % 10) * 1000 + fraction - now_ms);
}

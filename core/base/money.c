/* Picodollars and their text: see money.h. */
#include "core/base/money.h"

/* Digits before the point of the largest amount: 9223372 dollars and some. */
enum { WHOLE_DIGITS = 7, LEADING_ZEROS = 32 };

/* The number of digits at the front. */
static size_t digits_of(struct str text)
{
    size_t count = 0;
    while (count < text.size && text.at[count] >= '0' && text.at[count] <= '9')
        count++;
    return count;
}

bool money_is_decimal(struct str text, size_t whole, size_t decimals)
{
    size_t before = digits_of(text);
    if (before == 0 || before > whole)
        return false;
    if (before == text.size)
        return true;
    struct str rest = str_of(text.at + before + 1, text.size - before - 1);
    size_t behind = digits_of(rest);
    return text.at[before] == '.' && behind == rest.size && behind > 0 && behind <= decimals;
}

bool money_is_zero(struct str text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.at[i] != '0' && text.at[i] != '.')
            return false;
    return true;
}

bool money_parse(struct str text, money *amount)
{
    if (!money_is_decimal(text, WHOLE_DIGITS + LEADING_ZEROS, MONEY_DECIMALS))
        return false;
    money value = 0;
    size_t decimals = 0;
    bool behind = false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.at[i] == '.') {
            behind = true;
            continue;
        }
        decimals += behind;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, text.at[i] - '0', &value))
            return false;
    }
    for (; decimals < MONEY_DECIMALS; decimals++)
        if (__builtin_mul_overflow(value, 10, &value))
            return false;
    *amount = value;
    return true;
}

struct str money_format(char out[MONEY_TEXT_SIZE], money amount)
{
    /* The smallest amount has no positive one of its size. */
    uint64_t size = amount < 0 ? 0 - (uint64_t)amount : (uint64_t)amount;
    uint64_t fraction = size % MONEY_DOLLAR;
    char *at = out;
    if (amount < 0)
        *at++ = '-';
    at += format_u64(at, size / MONEY_DOLLAR);
    *at++ = '.';
    uint64_t unit = MONEY_DOLLAR / 10;
    do {
        *at++ = (char)('0' + fraction / unit);
        fraction %= unit;
        unit /= 10;
    } while (fraction);
    *at = '\0';
    return str_of(out, (size_t)(at - out));
}

/* Money as its owners handle it: deposits, and what was used. */
#include "handlers/inference/inference.h"

#include "core/base/base64.h"
#include "core/base/clock.h"
#include "core/domain/money/ledger.h"
#include "core/domain/money/payment.h"

#include <errno.h>
#include <time.h>

enum { USAGE_PAGE_MAX = 1000, USAGE_DAYS_MAX = 366, DAY_SIZE = 10, CURSOR_MAX = 600 };

/* ---- deposits ---- */

/* A string, or a number that is spelled as one would be; never through a double. */
static bool read_amount(struct request *request, const struct json *body, struct str *amount)
{
    const struct json *member = json_member(body, "amount");
    *amount = json_type_of(member) == JSON_NUMBER ? json_number_text(member) : json_string(member);
    if (money_is_decimal(*amount, PAYMENT_WHOLE_DIGITS, PAYMENT_DECIMALS) && !money_is_zero(*amount))
        return true;
    reply_invalid(
        request,
        arena_printf(request->arena,
                     "amount must be a decimal number above 0, like \"12.5\": digits with at most %d "
                     "decimals, no exponent, at most %d digits before the point",
                     PAYMENT_DECIMALS, PAYMENT_WHOLE_DIGITS));
    return false;
}

static bool read_currency(struct request *request, const struct json *body, struct str *currency)
{
    struct str rate;
    if (!request_string(request, body, "currency", 1, PAYMENT_CURRENCY_MAX, currency))
        return false;
    if (payment_rate(*currency, &rate))
        return true;
    reply_invalid(request, arena_printf(request->arena, "currency must be one of: %.*s",
                                        STR_ARG(payment_currencies(request->arena))));
    return false;
}

static void deposit_failure(struct request *request, int result)
{
    switch (result) {
    case -EACCES: reply_error(request, ERROR_PAYMENT_REFUSED, NULL); return;
    case -ERANGE:
        reply_invalid(request, "amount is worth nothing, or more than a thousand million dollars");
        return;
    default: reply_failure(request, result);
    }
}

/* POST /api/v1/account/deposit */
void money_deposit(struct request *request)
{
    struct str amount, currency;
    struct ledger_deposit deposit;
    const struct json *body = request_json(request);
    if (!body || !read_amount(request, body, &amount) || !read_currency(request, body, &currency))
        return;
    int result = ledger_deposit(request->arena, request->principal.account_id, amount, currency, &deposit);
    if (result) {
        deposit_failure(request, result);
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "id", deposit.id);
    json_put_text(&reply.json, "object", "deposit");
    json_put_str(&reply.json, "amount", deposit.amount);
    json_put_str(&reply.json, "currency", deposit.currency);
    json_put_str(&reply.json, "credited", deposit.credited);
    json_put_str(&reply.json, "balance", deposit.balance);
    json_put_str(&reply.json, "driver", deposit.driver);
    reply_end(&reply, 201);
}

/* ---- use ---- */

/* "2026-01-31", a day that there is; its number since 1970. */
static bool read_day(struct str text, int64_t *number)
{
    struct tm parts = {0};
    char terminated[DAY_SIZE + 1];
    if (text.size != DAY_SIZE)
        return false;
    memcpy(terminated, text.at, DAY_SIZE);
    terminated[DAY_SIZE] = '\0';
    const char *end = strptime(terminated, "%Y-%m-%d", &parts);
    if (!end || *end || terminated[4] != '-' || terminated[7] != '-')
        return false;
    int day = parts.tm_mday;
    time_t seconds = timegm(&parts);
    *number = (int64_t)seconds / 86400;
    return parts.tm_mday == day && seconds >= 0;
}

static struct str day_text(struct request *request, int64_t number)
{
    char iso[CLOCK_ISO_SIZE];
    return str_of(arena_strdup(request->arena, clock_format_iso(iso, number * 86400000)), DAY_SIZE);
}

struct usage_query {
    struct str from;
    struct str to;
    int64_t limit;
    struct ledger_use after;
    bool has_after;
};

/* Left out: from the first of the month to today. */
static bool read_days(struct request *request, struct usage_query *query)
{
    struct str text;
    struct tm parts;
    time_t now = (time_t)clock_wall_s();
    CHECK(gmtime_r(&now, &parts));
    int64_t to = (int64_t)now / 86400;
    int64_t from = to - parts.tm_mday + 1;
    bool has_from = url_query_count(request->query, "from") > 0;
    bool fine =
        !has_from || (url_query(request->arena, request->query, "from", &text) && read_day(text, &from));
    if (fine && url_query_count(request->query, "to") > 0) {
        fine = url_query(request->arena, request->query, "to", &text) && read_day(text, &to);
        if (!has_from && from > to)
            from = to;
    }
    if (!fine || from > to || to - from >= USAGE_DAYS_MAX) {
        reply_invalid(request,
                      arena_printf(request->arena,
                                   "from and to must be days like 2026-01-31, in that order, and at most "
                                   "%d of them",
                                   USAGE_DAYS_MAX));
        return false;
    }
    query->from = day_text(request, from);
    query->to = day_text(request, to);
    return true;
}

/* The last row of a page: its day, key and model, which may have any characters. */
static struct str make_cursor(struct request *request, const struct ledger_use *row)
{
    struct buf text = {0};
    char *plain = arena_printf(request->arena, "%.*s %lld %.*s", STR_ARG(row->day), (long long)row->key_id,
                               STR_ARG(row->model));
    base64url_add(&text, str_from(plain));
    struct str cursor = arena_str(request->arena, buf_str(&text));
    buf_clear(&text);
    return cursor;
}

static bool read_cursor(struct request *request, struct usage_query *query)
{
    struct str text;
    if (url_query_count(request->query, "cursor") == 0)
        return true;
    bool fine =
        url_query(request->arena, request->query, "cursor", &text) && text.size && text.size <= CURSOR_MAX;
    unsigned char *plain = fine ? arena_alloc(request->arena, text.size) : NULL;
    int size = fine ? base64url_decode(plain, text) : -EINVAL;
    struct str key;
    struct str rest = str_of((const char *)plain, size > 0 ? (size_t)size : 0);
    int64_t day;
    fine = size > 0 && str_is_utf8(rest) && !memchr(rest.at, '\0', rest.size) &&
           str_split(&rest, ' ', &query->after.day) && str_split(&rest, ' ', &key) && rest.at &&
           read_day(query->after.day, &day) && str_to_i64(key, &query->after.key_id);
    query->after.model = rest;
    query->has_after = fine;
    if (!fine)
        reply_invalid(request, "cursor must be the next_cursor of an earlier answer");
    return fine;
}

static bool read_limit(struct request *request, struct usage_query *query)
{
    struct str text;
    query->limit = USAGE_PAGE_MAX;
    if (url_query_count(request->query, "limit") == 0)
        return true;
    if (url_query(request->arena, request->query, "limit", &text) && str_to_i64(text, &query->limit) &&
        query->limit >= 1 && query->limit <= USAGE_PAGE_MAX)
        return true;
    reply_invalid(request,
                  arena_printf(request->arena, "limit must be a whole number from 1 to %d", USAGE_PAGE_MAX));
    return false;
}

static void put_use(struct json_out *out, const struct ledger_use *use)
{
    json_put_int(out, "requests", use->calls);
    json_put_int(out, "prompt_tokens", use->prompt_tokens);
    json_put_int(out, "completion_tokens", use->completion_tokens);
    json_put_str(out, "cost", use->cost);
}

static void put_row(struct json_out *out, const struct ledger_use *row)
{
    json_open(out, '{');
    json_put_str(out, "date", row->day);
    json_put_str(out, "model", row->model);
    json_put_str(out, "key_id", row->key);
    put_use(out, row);
    json_close(out, '}');
}

static void reply_usage(struct request *request, const struct usage_query *query,
                        const struct ledger_use *total, const struct ledger_use *rows, size_t count)
{
    bool more = page_has_next(query->limit, &count);
    struct reply reply;
    reply_begin(&reply, request);
    json_put_text(&reply.json, "object", "list");
    json_put_str(&reply.json, "from", query->from);
    json_put_str(&reply.json, "to", query->to);
    json_key(&reply.json, "total");
    json_open(&reply.json, '{');
    put_use(&reply.json, total);
    json_close(&reply.json, '}');
    json_key(&reply.json, "data");
    json_open(&reply.json, '[');
    for (size_t i = 0; i < count; i++)
        put_row(&reply.json, &rows[i]);
    json_close(&reply.json, ']');
    json_put_str(&reply.json, "next_cursor", more ? make_cursor(request, &rows[count - 1]) : STR_NONE);
    reply_end(&reply, 200);
}

/* GET /api/v1/usage */
void money_usage(struct request *request)
{
    struct usage_query query = {0};
    struct ledger_use *rows;
    struct ledger_use total;
    size_t count;
    int64_t account_id = request->principal.account_id;
    if (!read_days(request, &query) || !read_limit(request, &query) || !read_cursor(request, &query))
        return;
    int result = ledger_usage(request->arena, account_id, query.from, query.to,
                              query.has_after ? &query.after : NULL, query.limit + 1, &rows, &count);
    if (result == 0)
        result = ledger_usage_total(request->arena, account_id, query.from, query.to, &total);
    if (result)
        reply_failure(request, result);
    else
        reply_usage(request, &query, &total, rows, count);
}

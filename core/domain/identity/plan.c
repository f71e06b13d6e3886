/* Rate plans: see plan.h. */
#include "core/domain/identity/plan.h"

#include "core/base/config.h"
#include "core/domain/audit.h"
#include "core/store/pg.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

enum { MOST = 1000000000 };

static const struct pg_statement sql_get = {
    "plan_get", "SELECT " PLAN_COLUMNS("a.id", "$2::text") " FROM account a WHERE a.id = $1::bigint"};
static const struct pg_statement sql_set = {
    "plan_set", "WITH i AS (INSERT INTO account_plan (account_id, surface, plan) "
                "SELECT id, $2::text, $3::text FROM account WHERE id = $1::bigint "
                "ON CONFLICT (account_id, surface) DO UPDATE SET plan = excluded.plan RETURNING *), "
                "s AS (DELETE FROM subscription USING i WHERE i.surface = 'inference' "
                "AND subscription.account_id = i.account_id)" AUDIT(
                    "$4", "plan.set", "i", "i.account_id", "(i.surface || '=' || i.plan)") "SELECT 1 FROM i"};
/* Whether the account is there, and whether there was room. */
static const struct pg_statement sql_set_limit = {
    "plan_set_limit",
    "WITH owner AS (SELECT id FROM account WHERE id = $1::bigint), "
    "i AS (INSERT INTO account_limit (account_id, name, most, burst) "
    "SELECT id, $2::text, $3::bigint, $4::bigint FROM owner "
    "WHERE $2::text = '" PLAN_SPEND_NAME "' OR (SELECT count(*) FROM account_limit l "
    "WHERE l.account_id = $1::bigint AND l.name NOT IN ($2::text, '" PLAN_SPEND_NAME "')) < $6::bigint "
    "ON CONFLICT (account_id, name) DO UPDATE SET most = excluded.most, burst = excluded.burst RETURNING *)" AUDIT(
        "$5", "plan.limit", "i", "i.account_id",
        "(i.name || '=' || i.most || '/' || i.burst)") "SELECT (SELECT count(*) FROM i) FROM owner"};
static const struct pg_statement sql_drop_limit = {
    "plan_drop_limit",
    "WITH owner AS (SELECT id FROM account WHERE id = $1::bigint), "
    "i AS (DELETE FROM account_limit l USING owner WHERE l.account_id = owner.id AND l.name = $2::text "
    "RETURNING l.*)" AUDIT("$3", "plan.limit", "i", "i.account_id",
                           "(i.name || '=0')") "SELECT 1 FROM owner"};

/* ---- the table ---- */

struct plan_limit plan_limit(enum plan_limit_id id)
{
    switch (id) {
#define PLAN_LIMIT_ROW(id_, surface_, plan_, name_, class_, who_, most_, window_s_, burst_)                  \
    case PLAN_LIMIT_##id_:                                                                                   \
        return (struct plan_limit){                                                                          \
            .surface = surface_,                                                                             \
            .plan = plan_,                                                                                   \
            .name = name_,                                                                                   \
            .route_class = class_,                                                                           \
            .who = PER_##who_,                                                                               \
            .most = most_,                                                                                   \
            .window_s = window_s_,                                                                           \
            .burst = burst_,                                                                                 \
        };
        PLAN_LIMITS(PLAN_LIMIT_ROW)
#undef PLAN_LIMIT_ROW
    case PLAN_LIMIT_COUNT: break;
    }
    UNREACHABLE();
}

/* What of a row is no setting. */
static const struct {
    const char *surface;
    const char *plan;
    const char *name;
} rows[PLAN_LIMIT_COUNT] = {
#define PLAN_LIMIT_NAMES(id, surface, plan, name, class, who, most, window_s, burst) {surface, plan, name},
    PLAN_LIMITS(PLAN_LIMIT_NAMES)
#undef PLAN_LIMIT_NAMES
};

/* ---- prices ---- */

static const struct plan_price prices[] = {
#define PLAN_PRICE_ROW(plan_, month_, daily_spend_, is_for_sale_)                                            \
    {.plan = (plan_), .month = (month_), .daily_spend = (daily_spend_), .is_for_sale = (is_for_sale_)},
    PLAN_PRICES(PLAN_PRICE_ROW)
#undef PLAN_PRICE_ROW
};

const struct plan_price *plan_price(struct str plan)
{
    for (size_t i = 0; i < ARRAY_SIZE(prices); i++)
        if (str_equal(plan, str_from(prices[i].plan)))
            return &prices[i];
    return NULL;
}

/* ---- plans' names ---- */

/* A surface with plans: they stand in the order of their first rows, so that the first is the default. */
struct named {
    const char *surface;
    const char *plans[PLAN_LIMIT_COUNT + 1];
    size_t count;
};

static struct named named[PLAN_LIMIT_COUNT];
static size_t named_count;
static pthread_once_t named_once = PTHREAD_ONCE_INIT;

static struct named *named_of(const char *surface)
{
    for (size_t i = 0; i < named_count; i++)
        if (strcmp(named[i].surface, surface) == 0)
            return &named[i];
    return NULL;
}

static const char *find_in(const struct named *of, struct str name)
{
    for (size_t i = 0; i < of->count; i++)
        if (str_equal(name, str_from(of->plans[i])))
            return of->plans[i];
    return NULL;
}

static void gather_names(void)
{
    for (size_t i = 0; i < PLAN_LIMIT_COUNT; i++) {
        if (!rows[i].plan)
            continue;
        struct named *of = named_of(rows[i].surface);
        if (!of) {
            of = &named[named_count++];
            of->surface = rows[i].surface;
        }
        if (!find_in(of, str_from(rows[i].plan)))
            of->plans[of->count++] = rows[i].plan;
    }
}

static const struct named *names_of(const char *surface)
{
    CHECK(pthread_once(&named_once, gather_names) == 0);
    return named_of(surface);
}

const char *const *plan_names(const char *surface)
{
    const struct named *of = names_of(surface);
    return of ? of->plans : NULL;
}

const char *plan_find(const char *surface, struct str name)
{
    const struct named *of = names_of(surface);
    return of ? find_in(of, name) : NULL;
}

bool plan_limit_exists(struct str name)
{
    for (size_t i = 0; i < PLAN_LIMIT_COUNT; i++)
        if (str_equal(name, str_from(rows[i].name)))
            return true;
    return false;
}

/* ---- an account's ---- */

static const char *limit_name(const char *surface, struct str name)
{
    for (size_t i = 0; i < PLAN_LIMIT_COUNT; i++)
        if (strcmp(rows[i].surface, surface) == 0 && str_equal(name, str_from(rows[i].name)))
            return rows[i].name;
    return NULL;
}

/* "name=most/burst" */
static bool read_override(struct plan *plan, struct plan_override *own, const char *surface, struct str text)
{
    struct str name;
    struct str most;
    if (!str_split(&text, '=', &name) || !text.at || !str_split(&text, '/', &most) || !text.at)
        return false;
    if (str_equal(name, STR(PLAN_SPEND_NAME))) {
        str_to_i64(most, &plan->daily_spend);
        return false;
    }
    own->name = limit_name(surface, name);
    return own->name && str_to_i64(most, &own->most) && str_to_i64(text, &own->burst) && own->most > 0 &&
           own->burst >= 0;
}

void plan_read(struct plan *plan, const char *surface, struct str name, struct str overrides)
{
    const struct named *of = names_of(surface);
    struct str text;
    plan->name = of ? find_in(of, name) : NULL;
    if (of && !plan->name)
        plan->name = of->plans[0];
    const struct plan_price *price =
        strcmp(surface, "inference") == 0 && plan->name ? plan_price(str_from(plan->name)) : NULL;
    plan->daily_spend = price ? price->daily_spend : PLAN_SPEND_UNLIMITED;
    plan->override_count = 0;
    while (str_split(&overrides, ' ', &text)) {
        struct plan_override own;
        if (read_override(plan, &own, surface, text) && plan->override_count < PLAN_OVERRIDES_MAX)
            plan->overrides[plan->override_count++] = own;
    }
}

int plan_get(struct arena *arena, int64_t account_id, const char *surface, struct plan *plan)
{
    (void)arena;
    struct pg_rows *found;
    int result = pg_read(&sql_get, PG_VALUES(PG_INT(account_id), PG_TEXT(str_from(surface))), &found);
    if (result)
        return result;
    result = pg_count(found) ? 0 : -ENOENT;
    if (result == 0)
        plan_read(plan, surface, pg_str(found, 0, 0), pg_str(found, 0, 1));
    pg_rows_free(found);
    return result;
}

int plan_set(int64_t account_id, const char *surface, struct str plan)
{
    const char *known = plan_find(surface, plan);
    if (!known)
        return -EINVAL;
    struct pg_rows *set;
    int result = pg_write(
        &sql_set,
        PG_VALUES(PG_INT(account_id), PG_TEXT(str_from(surface)), PG_TEXT(str_from(known)), AUDIT_WHO), &set);
    if (result)
        return result;
    result = pg_count(set) ? 0 : -ENOENT;
    pg_rows_free(set);
    return result;
}

static int drop_limit(int64_t account_id, struct str name)
{
    struct pg_rows *owner;
    int result = pg_write(&sql_drop_limit, PG_VALUES(PG_INT(account_id), PG_TEXT(name), AUDIT_WHO), &owner);
    if (result)
        return result;
    result = pg_count(owner) ? 0 : -ENOENT;
    pg_rows_free(owner);
    return result;
}

static int set_limit(int64_t account_id, struct str name, int64_t most, int64_t burst)
{
    struct pg_rows *set;
    int result = pg_write(&sql_set_limit,
                          PG_VALUES(PG_INT(account_id), PG_TEXT(name), PG_INT(most), PG_INT(burst), AUDIT_WHO,
                                    PG_INT(PLAN_OVERRIDES_MAX)),
                          &set);
    if (result)
        return result;
    if (pg_count(set) == 0)
        result = -ENOENT;
    else if (pg_i64(set, 0, 0) == 0)
        result = -EINVAL;
    pg_rows_free(set);
    return result;
}

int plan_set_limit(int64_t account_id, struct str name, int64_t most, int64_t burst)
{
    if (!plan_limit_exists(name) || most < 0 || most > MOST || burst < 0 || burst > MOST)
        return -EINVAL;
    return most ? set_limit(account_id, name, most, burst) : drop_limit(account_id, name);
}

int plan_set_daily_spend(int64_t account_id, money most)
{
    struct str name = STR(PLAN_SPEND_NAME);
    return most > 0 ? set_limit(account_id, name, most, 0) : drop_limit(account_id, name);
}

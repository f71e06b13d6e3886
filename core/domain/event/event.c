/* Events as a catalogue, and as they are read: see event.h. The relay is relay.c. */
#include "core/domain/event/event.h"

#include "core/base/config.h"
#include "core/store/pg.h"
#include "proto/json.h"

#include <errno.h>

enum { FORGET_AT_ONCE = 5000, ID_PREFIX = 4, ID_TIME = 14 };

#define TOLD_COLUMNS "seq, id, name, event_text(id, name, at, data)"

static const struct pg_statement sql_heads = {
    "event_heads",
    "SELECT coalesce(h.seq, 0), h.id FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (id, place) "
    "LEFT JOIN event_head h ON h.account_id = asked.id ORDER BY asked.place"};
static const struct pg_statement sql_after = {
    "event_read_after", "SELECT " TOLD_COLUMNS " FROM event WHERE account_id = $1::bigint "
                        "AND seq > $2::bigint ORDER BY seq LIMIT $3::bigint"};
/* Its number, the oldest that is kept, the last one's, and whether it is older than what is kept. */
static const struct pg_statement sql_place = {
    "event_place",
    "WITH oldest AS (SELECT seq, at FROM event WHERE account_id = $1::bigint ORDER BY seq LIMIT 1), "
    "head AS (SELECT seq, id FROM event_head WHERE account_id = $1::bigint) "
    "SELECT coalesce((SELECT seq FROM event WHERE at = event_id_time($2::text) AND account_id = $1::bigint "
    "AND id = $2::text), (SELECT seq FROM head WHERE id = $2::text)), (SELECT seq FROM oldest), "
    "(SELECT seq FROM head), coalesce(event_id_time($2::text) < (SELECT at FROM oldest), "
    "event_id_time($2::text) < now() - $3::bigint * interval '1 day')"};
static const struct pg_statement sql_forget = {
    "event_forget", "DELETE FROM event WHERE ctid = ANY (ARRAY(SELECT ctid FROM event "
                    "WHERE at < now() - $1::bigint * interval '1 day' ORDER BY at LIMIT $2::bigint))"};

const struct event_row event_rows[EVENT_COUNT] = {
#define EVENT_ROW(id, name_, surfaces_, data_, help_)                                                        \
    {.name = (name_), .surfaces = (surfaces_), .data = (data_), .help = (help_)},
    EVENTS(EVENT_ROW)
#undef EVENT_ROW
};

_Static_assert(EVENT_COUNT < 63, "an event_set has a bit for each, and one for others");

/* ---- names and patterns ---- */

enum event event_find(struct str name)
{
    for (size_t i = 0; i < EVENT_COUNT; i++)
        if (str_equal(name, str_from(event_rows[i].name)))
            return (enum event)i;
    return EVENT_COUNT;
}

bool event_name_matches(struct str pattern, struct str name)
{
    if (str_equal(pattern, STR("*")) || str_equal(pattern, name))
        return true;
    return pattern.size > 2 && memcmp(pattern.at + pattern.size - 2, ".*", 2) == 0 &&
           name.size > pattern.size - 1 && str_starts(name, str_of(pattern.at, pattern.size - 1));
}

event_set event_set_of(struct str name)
{
    enum event event = event_find(name);
    return event == EVENT_COUNT ? EVENT_OTHERS : (event_set)1 << event;
}

event_set event_set_of_pattern(struct str pattern)
{
    event_set set = 0;
    if (str_equal(pattern, STR("*")))
        return EVENT_ALL;
    for (size_t i = 0; i < EVENT_COUNT; i++)
        if (event_name_matches(pattern, str_from(event_rows[i].name)))
            set |= (event_set)1 << i;
    return set;
}

bool event_validate_patterns(const struct str *patterns, size_t count, struct str *wrong)
{
    for (size_t i = 0; i < count; i++)
        if (!event_set_of_pattern(patterns[i])) {
            *wrong = patterns[i];
            return false;
        }
    return true;
}

const char *event_unknown(struct arena *arena, struct str name)
{
    enum { SHOWN_MAX = EVENT_NAME_MAX };
    struct buf text = {0};
    bool is_shown = name.size && name.size <= SHOWN_MAX;
    for (size_t i = 0; is_shown && i < name.size; i++)
        is_shown = name.at[i] > ' ' && name.at[i] < 0x7f;
    buf_add_literal(&text, "There is no event ");
    if (is_shown)
        buf_add_str(&text, name);
    else
        buf_add_literal(&text, "of that name");
    buf_add_literal(&text, ". There are: ");
    for (size_t i = 0; i < EVENT_COUNT; i++) {
        buf_add_str(&text, str_from(event_rows[i].name));
        buf_add_literal(&text, ", ");
    }
    buf_add_literal(&text, "kinds like job.*, and * for all");
    const char *out = arena_dup(arena, text.at, text.size);
    buf_clear(&text);
    return out;
}

/* ---- the catalogue as text ---- */

static const struct {
    const char *name;
    const char *schema;
} types[] = {
    {"text", "{\"type\":\"string\"}"},
    {"time", "{\"type\":\"string\",\"format\":\"date-time\"}"},
    {"integer", "{\"type\":\"integer\"}"},
    {"money", "{\"type\":\"string\",\"description\":\"exact decimal\"}"},
    {"error", "{\"type\":[\"object\",\"null\"],\"properties\":{\"code\":{\"type\":\"string\"},"
              "\"message\":{\"type\":\"string\"}}}"},
};

static struct str schema_of(struct str type)
{
    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (str_equal(type, str_from(types[i].name)))
            return str_from(types[i].schema);
    UNREACHABLE();
}

static void put_schema(struct json_out *out, const char *data)
{
    struct str rest = str_from(data);
    struct str member;
    char name[EVENT_NAME_MAX];
    json_open(out, '{');
    json_put_text(out, "type", "object");
    json_key(out, "properties");
    json_open(out, '{');
    while (str_split(&rest, ' ', &member)) {
        struct str key;
        CHECK(str_split(&member, ':', &key) && member.at && key.size < sizeof name);
        memcpy(name, key.at, key.size);
        name[key.size] = '\0';
        json_put_raw(out, name, schema_of(member));
    }
    json_close(out, '}');
    json_close(out, '}');
}

void event_print(FILE *out)
{
    for (size_t i = 0; i < EVENT_COUNT; i++) {
        struct buf line = {0};
        struct json_out json = json_out_to(&line);
        struct str surfaces = str_from(event_rows[i].surfaces);
        struct str surface;
        json_open(&json, '{');
        json_put_text(&json, "name", event_rows[i].name);
        json_put_text(&json, "help", event_rows[i].help);
        json_key(&json, "surfaces");
        json_open(&json, '[');
        while (str_split(&surfaces, ' ', &surface))
            json_put_str(&json, NULL, surface);
        json_close(&json, ']');
        json_key(&json, "data");
        put_schema(&json, event_rows[i].data);
        json_close(&json, '}');
        fprintf(out, "%.*s\n", STR_ARG(buf_str(&line)));
        buf_clear(&line);
    }
}

/* ---- messages ---- */

struct str event_channel(char out[EVENT_CHANNEL_SIZE], int64_t account_id)
{
    memcpy(out, "events:", 7);
    return str_of(out, 7 + format_u64(out + 7, (uint64_t)account_id));
}

bool event_next(struct str *message, struct event_told *event)
{
    struct str line;
    struct str seq;
    if (!message->at || !str_split(message, '\n', &line) || !str_split(&line, ' ', &seq) ||
        !str_to_i64(seq, &event->seq) || !line.at || !str_split(&line, ' ', &event->id) || !line.at ||
        !str_split(&line, ' ', &event->name) || !line.at)
        return false;
    event->body = line;
    return event->id.size == EVENT_ID_SIZE;
}

/* ---- reading ---- */

int event_heads(const int64_t *accounts, size_t count, struct event_head *heads)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_heads, PG_VALUES(PG_INTS(accounts, count)), &rows);
    if (result)
        return result;
    CHECK(pg_count(rows) == count);
    for (size_t i = 0; i < count; i++) {
        struct str id = pg_is_null(rows, i, 1) ? STR(EVENT_START) : pg_str(rows, i, 1);
        CHECK(id.size == EVENT_ID_SIZE);
        heads[i].seq = pg_i64(rows, i, 0);
        memcpy(heads[i].id, id.at, EVENT_ID_SIZE);
    }
    pg_rows_free(rows);
    return 0;
}

int event_read_after(struct arena *arena, int64_t account_id, int64_t seq, size_t most,
                     struct event_told **events, size_t *count)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_after, PG_VALUES(PG_INT(account_id), PG_INT(seq), PG_INT(most)), &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *events = arena_alloc(arena, (*count + 1) * sizeof **events);
    for (size_t i = 0; i < *count; i++)
        (*events)[i] = (struct event_told){
            .seq = pg_i64(rows, i, 0),
            .id = arena_str(arena, pg_str(rows, i, 1)),
            .name = arena_str(arena, pg_str(rows, i, 2)),
            .body = arena_str(arena, pg_str(rows, i, 3)),
        };
    pg_rows_free(rows);
    return 0;
}

int64_t event_id_us(struct str id)
{
    int64_t us = 0;
    if (id.size != EVENT_ID_SIZE || !str_starts(id, STR("evt_")))
        return -1;
    for (size_t i = ID_PREFIX; i < id.size; i++) {
        char c = id.at[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return -1;
        if (i < ID_PREFIX + ID_TIME)
            us = 16 * us + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return us;
}

/* Its time is one that PostgreSQL has, too. */
static bool has_form(struct str id)
{
    return event_id_us(id) >= 0 && id.at[ID_PREFIX] == '0';
}

int event_place(int64_t account_id, struct str id, int64_t *seq)
{
    struct pg_rows *rows;
    *seq = 0;
    if (!has_form(id))
        return -ENOENT;
    int result =
        pg_read(&sql_place, PG_VALUES(PG_INT(account_id), PG_TEXT(id), PG_INT(config->event_days)), &rows);
    if (result)
        return result;
    bool start = str_equal(id, STR(EVENT_START));
    bool found = start || !pg_is_null(rows, 0, 0);
    int64_t last = pg_i64(rows, 0, 2);
    int64_t oldest = pg_is_null(rows, 0, 1) ? last + 1 : pg_i64(rows, 0, 1);
    bool is_older = pg_bool(rows, 0, 3);
    *seq = found ? pg_i64(rows, 0, 0) : oldest - 1;
    pg_rows_free(rows);
    if (!found && !is_older)
        return -ENOENT;
    if (found && *seq >= oldest - 1)
        return 0;
    *seq = oldest - 1;
    return -ESTALE;
}

int event_forget(void)
{
    return pg_remove(&sql_forget, PG_VALUES(PG_INT(config->event_days), PG_INT(FORGET_AT_ONCE)),
                     FORGET_AT_ONCE);
}

/* What a verb answers, as text: see layout.h. */
#include "core/operator/layout.h"

enum { COLUMNS_MAX = 32, GAP = 2 };

/* C0, DEL, C1 (C2 80 to C2 9F in UTF-8) and the controls of a text's direction (E2 80 AA to AE, E2 81 A6 to A9). */
static size_t control_size(struct str rest)
{
    unsigned char c[3] = {0};
    memcpy(c, rest.at, rest.size < 3 ? rest.size : 3);
    if (c[0] < 0x20 || c[0] == 0x7f)
        return 1;
    if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f)
        return 2;
    bool turns =
        (c[1] == 0x80 && c[2] >= 0xaa && c[2] <= 0xae) || (c[1] == 0x81 && c[2] >= 0xa6 && c[2] <= 0xa9);
    return c[0] == 0xe2 && turns ? 3 : 0;
}

void operator_add_clean(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.size;) {
        size_t size = control_size(str_of(text.at + i, text.size - i));
        buf_add_char(out, size ? '?' : text.at[i]);
        i += size ? size : 1;
    }
}

static void add_cell(struct buf *out, const struct json *value);

static bool add_member(struct str name, const struct json *value, void *arg)
{
    struct buf *out = arg;
    if (out->size && out->at[out->size - 1] != ' ')
        buf_add_char(out, ' ');
    operator_add_clean(out, name);
    buf_add_char(out, '=');
    add_cell(out, value);
    return true;
}

/* A value in one line. */
static void add_cell(struct buf *out, const struct json *value)
{
    struct buf parts = {0};
    bool truth = false;
    switch (json_type_of(value)) {
    case JSON_NULL: break;
    case JSON_BOOL: buf_add_text(&parts, json_to_bool(value, &truth) && truth ? "yes" : "no"); break;
    case JSON_NUMBER: buf_add_str(&parts, json_number_text(value)); break;
    case JSON_STRING: operator_add_clean(&parts, json_string(value)); break;
    case JSON_ARRAY:
        for (size_t i = 0; i < json_count(value); i++) {
            if (i)
                buf_add_char(&parts, ' ');
            add_cell(&parts, json_item(value, i));
        }
        break;
    case JSON_OBJECT: json_each(value, add_member, &parts); break;
    }
    if (parts.size == 0)
        buf_add_char(&parts, '-');
    buf_add_str(out, buf_str(&parts));
    buf_clear(&parts);
}

static void add_spaces(struct buf *out, size_t count)
{
    while (count-- > 0)
        buf_add_char(out, ' ');
}

/* ---- tables ---- */

struct table {
    struct buf *out;
    size_t widths[COLUMNS_MAX];
    size_t columns;
    size_t at;    /* the column that comes next */
    bool measure; /* only: nothing is written */
    bool names;   /* the members' names are the cells */
};

static bool put_column(struct str name, const struct json *value, void *arg)
{
    struct table *table = arg;
    size_t column = table->at++;
    struct buf cell = {0};
    if (column >= COLUMNS_MAX)
        return false;
    if (table->names)
        operator_add_clean(&cell, name);
    else
        add_cell(&cell, value);
    size_t width = str_utf8_length(buf_str(&cell));
    if (table->measure) {
        if (table->columns <= column)
            table->columns = column + 1;
        if (table->widths[column] < width)
            table->widths[column] = width;
    } else {
        buf_add_str(table->out, buf_str(&cell));
        if (column + 1 < table->columns && width < table->widths[column] + GAP)
            add_spaces(table->out, table->widths[column] + GAP - width);
    }
    buf_clear(&cell);
    return true;
}

static void put_row(struct table *table, const struct json *row, bool names)
{
    table->at = 0;
    table->names = names;
    json_each(row, put_column, table);
    if (!table->measure)
        buf_add_char(table->out, '\n');
}

static void put_table(struct buf *out, const struct json *array)
{
    struct table table = {.out = out};
    size_t count = json_count(array);
    for (int round = 0; round < 2; round++) {
        table.measure = round == 0;
        put_row(&table, json_item(array, 0), true);
        for (size_t i = 0; i < count; i++)
            put_row(&table, json_item(array, i), false);
    }
}

/* ---- objects ---- */

struct lines {
    struct buf *out;
    size_t width; /* of the longest name */
    bool measure;
    bool tables; /* the second part: what is no line */
};

static bool is_table(const struct json *value)
{
    return json_type_of(value) == JSON_ARRAY && json_type_of(json_item(value, 0)) == JSON_OBJECT;
}

static bool put_member(struct str name, const struct json *value, void *arg)
{
    struct lines *lines = arg;
    if (is_table(value) != lines->tables)
        return true;
    if (lines->measure) {
        lines->width = name.size > lines->width ? name.size : lines->width;
        return true;
    }
    if (lines->tables) {
        buf_add_char(lines->out, '\n');
        put_table(lines->out, value);
        return true;
    }
    operator_add_clean(lines->out, name);
    buf_add_char(lines->out, ':');
    add_spaces(lines->out, lines->width + 1 - name.size);
    add_cell(lines->out, value);
    buf_add_char(lines->out, '\n');
    return true;
}

static void put_object(struct buf *out, const struct json *object)
{
    struct lines lines = {.out = out, .measure = true};
    json_each(object, put_member, &lines);
    lines.measure = false;
    json_each(object, put_member, &lines);
    lines.tables = true;
    json_each(object, put_member, &lines);
}

void operator_layout(struct buf *out, const struct json *answer)
{
    if (is_table(answer)) {
        put_table(out, answer);
    } else if (json_type_of(answer) == JSON_OBJECT) {
        put_object(out, answer);
    } else if (json_type_of(answer) == JSON_ARRAY && json_count(answer) == 0) {
        buf_add_literal(out, "none\n");
    } else {
        add_cell(out, answer);
        buf_add_char(out, '\n');
    }
}

/* Server-sent events: see sse.h. */
#include "proto/sse.h"

static bool fits_a_line(struct str text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.at[i] == '\n' || text.at[i] == '\r' || text.at[i] == '\0')
            return false;
    return text.at != NULL;
}

static void put_field(struct buf *out, const char *name, struct str value)
{
    buf_add_text(out, name);
    buf_add_literal(out, ": ");
    buf_add_str(out, value);
    buf_add_char(out, '\n');
}

void sse_put_event(struct buf *out, struct str id, struct str event, struct str data)
{
    if (fits_a_line(id))
        put_field(out, "id", id);
    if (fits_a_line(event))
        put_field(out, "event", event);
    size_t from = 0;
    for (size_t i = 0; data.at && i <= data.size; i++) {
        bool ends = i == data.size || data.at[i] == '\n' || data.at[i] == '\r';
        if (!ends)
            continue;
        put_field(out, "data", str_of(data.at + from, i - from));
        if (i + 1 < data.size && data.at[i] == '\r' && data.at[i + 1] == '\n')
            i++;
        from = i + 1;
    }
    buf_add_char(out, '\n');
}

void sse_put_comment(struct buf *out)
{
    buf_add_literal(out, ":\n\n");
}

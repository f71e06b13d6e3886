/* The table of metrics as Prometheus reads it: see prometheus.h. */
#include "proto/prometheus.h"

#include "core/base/metrics.h"

static void write_escaped(struct buf *out, const char *text, bool quotes)
{
    for (; *text; text++) {
        if (*text == '\n') {
            buf_add_literal(out, "\\n");
            continue;
        }
        if (*text == '\\' || (*text == '"' && quotes))
            buf_add_char(out, '\\');
        buf_add_char(out, *text);
    }
}

/* Microseconds as seconds, exactly, without zeros at the end. */
static void write_seconds(struct buf *out, uint64_t us)
{
    buf_add_u64(out, us / 1000000);
    char digits[6];
    uint64_t rest = us % 1000000;
    for (int i = 5; i >= 0; i--) {
        digits[i] = (char)('0' + rest % 10);
        rest /= 10;
    }
    size_t count = sizeof digits;
    while (count > 0 && digits[count - 1] == '0')
        count--;
    if (count > 0)
        buf_add_char(out, '.');
    buf_add(out, digits, count);
}

/* name_suffix{label="value" — left open, for a histogram's le; returns what comes before a further label. */
static char open_sample(struct buf *out, enum metric metric, unsigned slot, const char *suffix)
{
    const struct metric_row *row = &metric_rows[metric];
    buf_add_text(out, row->name);
    buf_add_text(out, suffix);
    if (!row->label)
        return '{';
    buf_add_char(out, '{');
    buf_add_text(out, row->label);
    buf_add_literal(out, "=\"");
    write_escaped(out, metric_slot_name(metric, slot), true);
    buf_add_char(out, '"');
    return ',';
}

static void begin_sample(struct buf *out, enum metric metric, unsigned slot, const char *suffix)
{
    if (open_sample(out, metric, slot, suffix) == ',')
        buf_add_char(out, '}');
    buf_add_char(out, ' ');
}

static void begin_bucket(struct buf *out, enum metric metric, unsigned slot, unsigned bucket)
{
    buf_add_char(out, open_sample(out, metric, slot, "_bucket"));
    buf_add_literal(out, "le=\"");
    if (bucket < METRIC_BUCKETS - 1)
        write_seconds(out, metric_bucket_us[bucket]);
    else
        buf_add_literal(out, "+Inf");
    buf_add_literal(out, "\"} ");
}

static void write_histogram(struct buf *out, enum metric metric, unsigned slot)
{
    uint64_t buckets[METRIC_BUCKETS];
    uint64_t sum_us;
    uint64_t count = 0;
    metric_read_histogram(metric, slot, buckets, &sum_us);
    for (unsigned i = 0; i < METRIC_BUCKETS; i++) {
        count += buckets[i];
        begin_bucket(out, metric, slot, i);
        buf_add_u64(out, count);
        buf_add_char(out, '\n');
    }
    begin_sample(out, metric, slot, "_sum");
    write_seconds(out, sum_us);
    buf_add_char(out, '\n');
    begin_sample(out, metric, slot, "_count");
    buf_add_u64(out, count);
    buf_add_char(out, '\n');
}

static void write_slot(struct buf *out, enum metric metric, unsigned slot)
{
    if (metric_rows[metric].type == METRIC_HISTOGRAM) {
        write_histogram(out, metric, slot);
        return;
    }
    begin_sample(out, metric, slot, "");
    buf_add_i64(out, metric_read(metric, slot));
    buf_add_char(out, '\n');
}

static const char *type_name(enum metric_type type)
{
    switch (type) {
    case METRIC_COUNTER: return "counter";
    case METRIC_GAUGE: return "gauge";
    case METRIC_HISTOGRAM: return "histogram";
    }
    UNREACHABLE();
}

static void write_row(struct buf *out, enum metric metric)
{
    const struct metric_row *row = &metric_rows[metric];
    buf_add_literal(out, "# HELP ");
    buf_add_text(out, row->name);
    buf_add_char(out, ' ');
    write_escaped(out, row->help, false);
    buf_add_literal(out, "\n# TYPE ");
    buf_add_text(out, row->name);
    buf_add_char(out, ' ');
    buf_add_text(out, type_name(row->type));
    buf_add_char(out, '\n');
    for (unsigned slot = 0; slot < (row->label ? METRIC_SLOTS : 1); slot++)
        if (!row->label || metric_slot_name(metric, slot))
            write_slot(out, metric, slot);
}

void prometheus_write(struct buf *out)
{
    for (unsigned metric = 0; metric < METRIC_COUNT; metric++)
        write_row(out, (enum metric)metric);
}

/* A seeded hash table with chains: see table.h. */
#include "core/store/table.h"

#include "core/base/check.h"
#include "core/base/crypto.h"

#include <stdlib.h>

enum { BUCKETS_LEAST = 64 };

void table_init(struct table *table, struct str (*text_of)(struct link *item))
{
    *table = (struct table){.text_of = text_of};
    crypto_random(&table->seed, sizeof table->seed);
}

void table_clear(struct table *table)
{
    CHECK(table->count == 0);
    free(table->buckets);
    table->buckets = NULL;
    table->bucket_count = 0;
}

/* FNV-1a from a seed, its high bits folded into the low ones that choose the bucket. */
static struct link *bucket_of(const struct table *table, struct str text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ table->seed;
    for (size_t i = 0; i < text.size; i++)
        hash = (hash ^ (unsigned char)text.at[i]) * UINT64_C(0x100000001b3);
    return &table->buckets[(hash ^ (hash >> 32)) & (table->bucket_count - 1)];
}

static void grow(struct table *table)
{
    struct link *old = table->buckets;
    size_t old_count = table->bucket_count;
    table->bucket_count = old_count ? old_count * 2 : BUCKETS_LEAST;
    table->buckets = mem_alloc(table->bucket_count * sizeof *table->buckets);
    for (size_t i = 0; i < table->bucket_count; i++)
        list_init(&table->buckets[i]);
    for (size_t i = 0; i < old_count; i++) {
        struct link *item;
        while ((item = list_pop_front(&old[i])) != NULL)
            list_push_back(bucket_of(table, table->text_of(item)), item);
    }
    free(old);
}

void table_add(struct table *table, struct link *item)
{
    if (table->count >= table->bucket_count)
        grow(table);
    list_push_back(bucket_of(table, table->text_of(item)), item);
    table->count++;
}

void table_remove(struct table *table, struct link *item)
{
    CHECK(table->count > 0);
    list_remove(item);
    table->count--;
}

static struct link *find_from(const struct table *table, const struct link *bucket, struct link *item,
                              struct str text)
{
    for (; item != bucket; item = item->next)
        if (str_equal(table->text_of(item), text))
            return item;
    return NULL;
}

struct link *table_find(const struct table *table, struct str text)
{
    if (table->count == 0)
        return NULL;
    struct link *bucket = bucket_of(table, text);
    return find_from(table, bucket, bucket->next, text);
}

struct link *table_find_next(const struct table *table, const struct link *item, struct str text)
{
    return find_from(table, bucket_of(table, text), item->next, text);
}

void table_each(const struct table *table, void (*visit)(struct link *item, void *arg), void *arg)
{
    for (size_t i = 0; i < table->bucket_count; i++)
        LIST_EACH (&table->buckets[i], item, after)
            visit(item, arg);
}

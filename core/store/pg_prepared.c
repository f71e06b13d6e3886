/* Which statements a connection has prepared: open addressing over the statements' addresses. */
#include "core/store/pg_internal.h"

#include <stdlib.h>

enum { CAPACITY_FIRST = 64 };

void pg_prepared_clear(struct pg_prepared *prepared)
{
    free(prepared->slots);
    *prepared = (struct pg_prepared){0};
}

static struct pg_prepared_slot *find(const struct pg_prepared *prepared, const struct pg_statement *statement)
{
    /* Statements are static structs of two pointers: the low bits are all alike. */
    size_t at = (size_t)(((uintptr_t)statement >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
    for (;; at++) {
        struct pg_prepared_slot *slot = &prepared->slots[at & (prepared->capacity - 1)];
        if (!slot->statement || slot->statement == statement)
            return slot;
    }
}

static void grow(struct pg_prepared *prepared)
{
    struct pg_prepared old = *prepared;
    prepared->capacity = old.capacity ? 2 * old.capacity : CAPACITY_FIRST;
    prepared->slots = mem_zalloc(prepared->capacity * sizeof *prepared->slots);
    for (size_t i = 0; i < old.capacity; i++)
        if (old.slots[i].statement)
            *find(prepared, old.slots[i].statement) = old.slots[i];
    free(old.slots);
}

struct pg_prepared_slot *pg_prepared_slot(struct pg_prepared *prepared, const struct pg_statement *statement)
{
    if (2 * prepared->used >= prepared->capacity)
        grow(prepared);
    struct pg_prepared_slot *slot = find(prepared, statement);
    if (!slot->statement) {
        slot->statement = statement;
        prepared->used++;
    }
    return slot;
}

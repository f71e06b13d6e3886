/* Scopes: see scope.h. */
#include "core/domain/identity/scope.h"

#include "core/base/check.h"

const struct scope_row scopes[SCOPE_COUNT] = {
#define SCOPE_ROW(id, surface_, name_, help_) {.surface = (surface_), .name = (name_), .help = (help_)},
    SCOPES(SCOPE_ROW)
#undef SCOPE_ROW
};

_Static_assert(SCOPE_COUNT <= 64, "a scope_set has 64 bits");

scope_set scope_all(const char *surface)
{
    scope_set set = 0;
    for (size_t i = 0; i < SCOPE_COUNT; i++)
        if (strcmp(scopes[i].surface, surface) == 0)
            set |= SCOPE_BIT(i);
    return set;
}

enum scope scope_find(struct str name)
{
    for (size_t i = 0; i < SCOPE_COUNT; i++)
        if (str_equal(name, str_from(scopes[i].name)))
            return (enum scope)i;
    return SCOPE_COUNT;
}

bool scope_parse(struct str list, const char *surface, scope_set *set)
{
    struct str name;
    *set = 0;
    while (str_split(&list, ' ', &name)) {
        enum scope scope = scope_find(name);
        if (scope == SCOPE_COUNT || strcmp(scopes[scope].surface, surface) != 0)
            return false;
        *set |= SCOPE_BIT(scope);
    }
    return *set != 0;
}

void scope_print(struct buf *out, scope_set set)
{
    bool first = true;
    for (size_t i = 0; i < SCOPE_COUNT; i++) {
        if (!(set & SCOPE_BIT(i)))
            continue;
        if (!first)
            buf_add_char(out, ' ');
        buf_add_text(out, scopes[i].name);
        first = false;
    }
}

size_t scope_names(scope_set set, struct str names[SCOPE_COUNT])
{
    size_t count = 0;
    for (size_t i = 0; i < SCOPE_COUNT; i++)
        if (set & SCOPE_BIT(i))
            names[count++] = str_from(scopes[i].name);
    return count;
}

scope_set scope_from_column(struct str column, const char *surface)
{
    if (!column.at)
        return scope_all(surface);
    scope_set set = 0;
    struct str name;
    while (str_split(&column, ' ', &name)) {
        enum scope scope = scope_find(name);
        if (scope != SCOPE_COUNT)
            set |= SCOPE_BIT(scope);
    }
    return set & scope_all(surface);
}

/* Kinds of providers: see provider.h. */
#include "core/domain/provider.h"

#include "core/base/check.h"

static const char *const kinds[PROVIDER_KINDS] = {
    [PROVIDER_SANDBOX] = "sandbox",
    [PROVIDER_OPENAI] = "openai",
    [PROVIDER_ANTHROPIC] = "anthropic",
};

const char *provider_kind_name(enum provider_kind kind)
{
    return kinds[kind];
}

bool provider_kind_find(struct str name, enum provider_kind *kind)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (str_equal(name, str_from(kinds[i]))) {
            *kind = (enum provider_kind)i;
            return true;
        }
    return false;
}

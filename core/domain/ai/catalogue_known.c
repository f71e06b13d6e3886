/* The models that the program knows by itself: names that clients ask for, with the public prices of their makers. */
#include "core/domain/ai/catalogue_internal.h"

#include "core/base/check.h"

/* clang-format off */
const struct catalogue_known catalogue_known[] = {
    /* id                      kind                owned_by     in       out      cached   context  output   created */
    {"gpt-4",                  PROVIDER_OPENAI,    "openai",    "30",    "60",    "30",    8192,    8192,   1687882411},
    {"gpt-4-turbo",            PROVIDER_OPENAI,    "openai",    "10",    "30",    "10",    128000,  4096,   1712361441},
    {"gpt-4o",                 PROVIDER_OPENAI,    "openai",    "2.5",   "10",    "1.25",  128000,  16384,  1715367049},
    {"gpt-4o-mini",            PROVIDER_OPENAI,    "openai",    "0.15",  "0.6",   "0.075", 128000,  16384,  1721172741},
    {"gpt-4.1",                PROVIDER_OPENAI,    "openai",    "2",     "8",     "0.5",   1047576, 32768,  1744316542},
    {"gpt-4.1-mini",           PROVIDER_OPENAI,    "openai",    "0.4",   "1.6",   "0.1",   1047576, 32768,  1744318173},
    {"gpt-4.1-nano",           PROVIDER_OPENAI,    "openai",    "0.1",   "0.4",   "0.025", 1047576, 32768,  1744321707},
    {"gpt-3.5-turbo",          PROVIDER_OPENAI,    "openai",    "0.5",   "1.5",   "0.5",   16385,   4096,   1677610602},
    {"o3-mini",                PROVIDER_OPENAI,    "openai",    "1.1",   "4.4",   "0.55",  200000,  100000, 1737146383},
    {"claude-3-5-haiku-latest", PROVIDER_ANTHROPIC, "anthropic", "0.8",  "4",     "0.08",  200000,  8192,   1729555200},
    {"claude-3-7-sonnet-latest", PROVIDER_ANTHROPIC, "anthropic", "3",   "15",    "0.3",   200000,  64000,  1739836800},
    {"claude-sonnet-4-0",      PROVIDER_ANTHROPIC, "anthropic", "3",     "15",    "0.3",   200000,  64000,  1747180800},
    {"claude-opus-4-0",        PROVIDER_ANTHROPIC, "anthropic", "15",    "75",    "1.5",   200000,  32000,  1747180800},
    {"sandbox",                PROVIDER_SANDBOX,   "wakegate",  "0",     "0",     "0",     131072,  16384,  1735689600},
    {"sandbox-slow",           PROVIDER_SANDBOX,   "wakegate",  "0",     "0",     "0",     131072,  16384,  1735689600},
    {"sandbox-fail",           PROVIDER_SANDBOX,   "wakegate",  "0",     "0",     "0",     131072,  16384,  1735689600},
    {"sandbox-stall",          PROVIDER_SANDBOX,   "wakegate",  "0",     "0",     "0",     131072,  16384,  1735689600},
};
/* clang-format on */
const size_t catalogue_known_count = ARRAY_SIZE(catalogue_known);

const struct catalogue_known *catalogue_known_find(struct str id)
{
    for (size_t i = 0; i < catalogue_known_count; i++)
        if (str_equal(id, str_from(catalogue_known[i].id)))
            return &catalogue_known[i];
    return NULL;
}

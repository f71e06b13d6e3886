#ifndef CORE_DOMAIN_AI_PROVIDER_H
#define CORE_DOMAIN_AI_PROVIDER_H

#include "core/base/str.h"
#include "proto/ai/sandbox.h"

#include <stdbool.h>
#include <stdint.h>

/* A provider of AI: where calls go. Part of a catalogue (core/domain/ai/catalogue.h), and immutable with it. */

enum provider_kind { PROVIDER_SANDBOX, PROVIDER_OPENAI, PROVIDER_ANTHROPIC, PROVIDER_KINDS };
/* "sandbox", "openai", "anthropic". */
const char *provider_kind_name(enum provider_kind kind);
bool provider_kind_find(struct str name, enum provider_kind *kind);

/* What is wrong with such a base URL, in words that go on behind its name; NULL: nothing. It has no user, query or fragment, and
 * is https:// unless its host is local or private: a private address, a name without a dot, or one under a domain that is none
 * of the public DNS. */
const char *provider_url_problem(struct str url);
/* Looks at OPENAI_BASE_URL and ANTHROPIC_BASE_URL. -EINVAL with a line that names it. */
int provider_check_settings(char *error, size_t error_size) MUST_USE;

/* Prices of kept answers are booked under this name, so that no provider has it. */
#define PROVIDER_NONE "cache"

struct provider {
    const char *name; /* [a-z][a-z0-9_-]* */
    enum provider_kind kind;
    bool enabled;
    const char *base_url; /* without a slash at its end; NULL for the sandbox */
    const char *api_key;  /* NULL: there is none */
    const char *ca;       /* PEM of who alone may sign its certificate; NULL: whom the system trusts */
    int64_t max_in_flight;
    int64_t queue_calls; /* that may wait for it, half of them of one account */
    int64_t queue_bytes; /* of these calls */
    int64_t queue_wait_ms;
    int64_t connect_ms;
    int64_t header_ms; /* until the answer's header */
    int64_t idle_ms;   /* between two pieces of it */
    int64_t total_ms;
    bool native_completions; /* takes prompts as such; otherwise they become messages */
    struct sandbox_options sandbox;
};

#endif

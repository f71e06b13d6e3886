#ifndef CORE_DOMAIN_PROVIDER_H
#define CORE_DOMAIN_PROVIDER_H

#include "core/base/str.h"
#include "proto/sandbox.h"

#include <stdbool.h>
#include <stdint.h>

/* A provider of AI: where calls go. Part of a catalogue (core/domain/catalogue.h), and immutable with it. */

enum provider_kind { PROVIDER_SANDBOX, PROVIDER_OPENAI, PROVIDER_ANTHROPIC, PROVIDER_KINDS };
/* "sandbox", "openai", "anthropic". */
const char *provider_kind_name(enum provider_kind kind);
bool provider_kind_find(struct str name, enum provider_kind *kind);

struct provider {
    const char *name; /* [a-z][a-z0-9_-]* */
    enum provider_kind kind;
    const char *base_url; /* without a slash at its end; NULL for the sandbox */
    const char *api_key;  /* NULL: there is none */
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

#ifndef HANDLERS_WEBHOOK_INPUT_H
#define HANDLERS_WEBHOOK_INPUT_H

#include "core/domain/event/webhook.h"
#include "core/gate/gate.h"

/* What the files of webhook handlers share; nobody else includes it. Those that return bool reply by themselves when it is
 * false. */

enum { WEBHOOK_PAGE_MAX = 200 };

/* The {id} of the path, if it can be an endpoint's. */
bool webhook_ref(struct request *request, struct str *ref);
/* An error of the domain, in the surface's words. */
void webhook_failure(struct request *request, int result);

/* What the body asks for; of a new endpoint `url` and `events` are required. */
struct webhook_input {
    struct webhook_change change;
    struct str secret; /* absent: not given */
    bool ordered;
    bool enabled;
};
bool webhook_read(struct request *request, bool is_new, struct webhook_input *input);
/* The member "secret", absent when it is not given. */
bool webhook_read_secret(struct request *request, const struct json *body, struct str *secret);
/* One of webhook_surfaces; absent when the member is not given. */
bool webhook_read_surface(struct request *request, const struct json *body, const char *name,
                          struct str *surface);

#endif

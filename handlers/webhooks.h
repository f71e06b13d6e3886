#ifndef HANDLERS_WEBHOOKS_H
#define HANDLERS_WEBHOOKS_H

#include "core/gate/gate.h"

/*
 * Webhooks, as each surface that has them serves them: the resource is the account's, whichever surface it is reached by, and
 * errors are told in that surface's own words. Rows for a surface's table, each by ROUTE(method, path, handler, help,
 * flags, scope, limit); paths begin with "/webhooks".
 */
#define WEBHOOK_ROUTES(ROUTE, scope)                                                                         \
    ROUTE("GET", "/webhooks", webhooks_list, "Webhook endpoints, newest first (limit, cursor)", 0, scope,    \
          NULL),                                                                                             \
        ROUTE("POST", "/webhooks", webhooks_create,                                                          \
              "Make a webhook endpoint; its secret is shown this once", 0, scope, NULL),                     \
        ROUTE("GET", "/webhooks/deliveries/{delivery}", webhooks_delivery, "One delivery with its attempts", \
              0, scope, NULL),                                                                               \
        ROUTE("POST", "/webhooks/deliveries/{delivery}/replay", webhooks_replay_one,                         \
              "Deliver it once more, with the same webhook-id", 0, scope, NULL),                             \
        ROUTE("GET", "/webhooks/{id}", webhooks_get, "One webhook endpoint", 0, scope, NULL),                \
        ROUTE("PATCH", "/webhooks/{id}", webhooks_update, "Change, enable or disable a webhook endpoint", 0, \
              scope, NULL),                                                                                  \
        ROUTE("DELETE", "/webhooks/{id}", webhooks_delete, "Delete a webhook endpoint", 0, scope, NULL),     \
        ROUTE("GET", "/webhooks/{id}/deliveries", webhooks_deliveries,                                       \
              "Its deliveries, newest first (status, limit, cursor)", 0, scope, NULL),                       \
        ROUTE("POST", "/webhooks/{id}/test", webhooks_test, "Deliver an event that did not happen", 0,       \
              scope, NULL),                                                                                  \
        ROUTE("POST", "/webhooks/{id}/replay", webhooks_replay,                                              \
              "Deliver all since a time once more, and what it never got (since, status)", 0, scope, NULL),  \
        ROUTE("POST", "/webhooks/{id}/rotate-secret", webhooks_rotate,                                       \
              "Another secret; the old one signs along for overlap_seconds", 0, scope, NULL)

void webhooks_list(struct request *request);
void webhooks_create(struct request *request);
void webhooks_get(struct request *request);
void webhooks_update(struct request *request);
void webhooks_delete(struct request *request);
void webhooks_rotate(struct request *request);
void webhooks_deliveries(struct request *request);
void webhooks_delivery(struct request *request);
void webhooks_test(struct request *request);
void webhooks_replay_one(struct request *request);
void webhooks_replay(struct request *request);

#endif

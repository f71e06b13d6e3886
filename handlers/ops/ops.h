#ifndef HANDLERS_OPS_OPS_H
#define HANDLERS_OPS_OPS_H

#include "core/gate/gate.h"

/* What operators and orchestrators ask: health, metrics; and what clients read: the API's description. It also answers
 * for every path that no surface has. */
extern const struct surface surface_ops;

/* Watches the loop's stores: a fiber that asks them something each second, so that a hung one is noticed too. */
void ops_watch_open(struct loop *loop);
/* Waits until the fiber has ended. */
void ops_watch_close(struct loop *loop);

/* From now on /readyz answers 503: no new traffic, please. From any thread. */
void ops_set_draining(void);

void ops_health(struct request *request);
void ops_live(struct request *request);
void ops_ready(struct request *request);
void ops_metrics(struct request *request);
void ops_openapi(struct request *request);
void ops_docs(struct request *request);

#endif

#ifndef HANDLERS_OPERATOR_OPERATOR_H
#define HANDLERS_OPERATOR_OPERATOR_H

#include "core/gate/gate.h"

/* The operator API: the verbs of core/operator/operator.h as /admin/v1/NOUN/VERB, for who has ADMIN_TOKEN. */
extern const struct surface surface_operator;

/* The verb that the route is made of: with query parameters (GET) or a JSON body (POST) as its arguments. */
void operator_handle(struct request *request);

#endif

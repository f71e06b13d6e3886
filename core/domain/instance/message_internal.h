#ifndef CORE_DOMAIN_INSTANCE_MESSAGE_INTERNAL_H
#define CORE_DOMAIN_INSTANCE_MESSAGE_INTERNAL_H

#include "core/domain/instance/message.h"

void message_from_row(struct arena *arena, const struct pg_rows *rows, size_t row, struct message *message);
/* How long a holder of the lease has for one message. */
int64_t delivery_lease_ms(void);

#endif

#ifndef HANDLERS_SESSION_SESSION_H
#define HANDLERS_SESSION_SESSION_H

#include "core/domain/instance/instance.h"
#include "core/gate/gate.h"

/* The session surface (contract.md, 2): per-user pods that sleep and wake. */
extern const struct surface surface_session;

enum { SESSION_PAGE_MAX = 200, SESSION_WAIT_MAX_S = 60 };

void session_create(struct request *request);
void session_list(struct request *request);
void session_status(struct request *request);
void session_delete(struct request *request);
void session_wake(struct request *request);
void session_sleep(struct request *request);
void session_chat(struct request *request);
void session_messages(struct request *request);

/* The {uuid} of the path when it can be one; else replies 404 and returns false. */
bool session_uuid(struct request *request, struct str *uuid);
/* Replies to an error of core/domain/instance/instance.h. */
void session_failure(struct request *request, int result);
/* The word for an instance's state in this API. */
const char *session_status_name(const struct instance *instance);

#endif

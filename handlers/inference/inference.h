#ifndef HANDLERS_INFERENCE_INFERENCE_H
#define HANDLERS_INFERENCE_INFERENCE_H

#include "core/domain/identity/account.h"
#include "core/domain/identity/key.h"
#include "core/gate/gate.h"

/* The inference surface (contract.md, 3): accounts with their keys and log-ins, and the models that they call. */
extern const struct surface surface_inference;

enum { INFERENCE_PAGE_MAX = 200 };

void auth_register(struct request *request);
void auth_login(struct request *request);
void auth_refresh(struct request *request);
void auth_logout(struct request *request);
void auth_password(struct request *request);

void keys_list(struct request *request);
void keys_create(struct request *request);
void keys_get(struct request *request);
void keys_rotate(struct request *request);
void keys_revoke(struct request *request);

/* What the body asks for, and the caller may give (key_options.c). Replies and returns false when it is not so. */
bool keys_read_options(struct request *request, struct key_options *options);
/* Whether the caller may have a key like this one in his hands. */
bool keys_may_hold(struct request *request, const struct key_row *key);
/* 403: it is more than the caller has. */
void keys_refuse(struct request *request);

void money_deposit(struct request *request);
void money_usage(struct request *request);

void account_show(struct request *request);
void models_list(struct request *request);
void models_get(struct request *request);
void account_whoami(struct request *request);

void calls_complete(struct request *request);
void calls_chat(struct request *request);

void jobs_list(struct request *request);
void jobs_get(struct request *request);
void jobs_cancel(struct request *request);

/* A name of the client's, which stands in listings and logs: as request_string, and without control characters. Replies and
 * returns false when it is not. An absent one is `least` 0's empty text. */
bool inference_name(struct request *request, const struct json *body, const char *name, size_t least,
                    size_t most, struct str *value);
/* The answer shows a secret: nobody on the way may keep it. */
void inference_no_store(struct request *request);
/* id, email, organization and created_at, as members of the object at hand. */
void inference_put_account(struct json_out *out, const struct account *account);

#endif

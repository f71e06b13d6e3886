/*
 * Log-ins by password, whichever door they knock at. Tries are counted for each address that is tried, so that many guessers are
 * no faster than one; what was no wrong guess takes its own try back. Nothing in the answer or its time tells a wrong
 * address from a wrong password.
 */
#include "core/gate/gate.h"

#include "core/base/escape.h"
#include "core/domain/identity/account.h"
#include "core/domain/identity/password.h"

#include <errno.h>

enum { SUBJECT_SIZE = 32 /* hexadecimal digits of an address's digest */ };

/* The address as limits count it: what is tried need be nobody's address, nor one at all. */
static struct str subject_of(struct request *request, struct str email)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    char *text = arena_alloc(request->arena, SUBJECT_SIZE + 1);
    crypto_digest(digest, email, NULL);
    escape_hex(text, digest, SUBJECT_SIZE / 2);
    return str_of(text, SUBJECT_SIZE);
}

int gate_password(struct request *request, struct str email, struct str password, int64_t *account_id,
                  struct str *hash)
{
    struct str subject = subject_of(request, email);
    bool fits = false;
    *hash = STR_NONE;
    if (!gate_charge(request, PLAN_LIMIT_LOGIN_ACCOUNT, subject, 1))
        return -EALREADY;
    int result = account_password(request->arena, email, account_id, hash);
    if (result == 0 || result == -ENOENT)
        result = password_check(*hash, password, &fits);
    if (result || fits)
        gate_give_back(request, PLAN_LIMIT_LOGIN_ACCOUNT, subject, 1);
    return result ? result : fits ? 0 : -EACCES;
}

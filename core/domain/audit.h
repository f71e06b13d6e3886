#ifndef CORE_DOMAIN_AUDIT_H
#define CORE_DOMAIN_AUDIT_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/store/pg.h"

#include <stdint.h>

/*
 * The record of who changed what, when and from where. It is written by the statement that makes the change, so that there is
 * neither without the other:
 *
 *     "WITH i AS (INSERT INTO thing … RETURNING *)" AUDIT("$4", "thing.create", "i", "i.account_id", "i.ref") "SELECT … FROM i"
 *     pg_write(&statement, PG_VALUES(…, AUDIT_WHO), …)
 *
 * Who that is, the fiber knows: the gate sets it for each request, a job is "worker", the command line "operator".
 */

/* A further part of a WITH: one record for each row of `from`. `who` is the placeholder of AUDIT_WHO, `account` and `object`
 * are SQL over `from`. Followed by the statement proper. */
#define AUDIT(who, action, from, account, object)                                                            \
    ", audited AS (INSERT INTO audit (actor, address, request_id, account_id, action, object) "              \
    "SELECT (" who "::text[])[1], nullif((" who "::text[])[2], ''), nullif((" who                            \
    "::text[])[3], ''), " account ", '" action "', " object "::text FROM " from ") "

#define AUDIT_WHO PG_TEXTS(audit_self()->fields, AUDIT_FIELDS)

enum { AUDIT_FIELDS = 3 };
struct audit_who {
    struct str fields[AUDIT_FIELDS]; /* actor, address, request id; empty where there is none */
};

/* The running fiber's. */
const struct audit_who *audit_self(void);
/* Says who it is from now on; `who` must outlive the fiber or the next call. NULL: "worker". */
void audit_set(const struct audit_who *who);

/* A record by itself, for what is no change of rows of ours. `account_id` 0: nobody's affair; `object` may be absent. Waits. */
int audit_add(const char *action, int64_t account_id, struct str object) MUST_USE;

struct audit_row {
    int64_t id;
    int64_t at_ms;
    struct str actor;
    int64_t account_id; /* 0: nobody's */
    struct str account; /* its name, where there still is one */
    struct str action;
    struct str object;
    struct str address;
    struct str request_id;
};

/* What an operator asks for; absent or 0: any. `action` may end in ".*". */
struct audit_filter {
    int64_t account_id;
    struct str action;
    struct str object;
    struct str actor;
    int64_t since_ms;
    int64_t cursor; /* records below this id */
    int64_t limit;
};
/* Newest first. Waits. */
int audit_list(struct arena *arena, const struct audit_filter *filter, struct audit_row **rows, size_t *count)
    MUST_USE;
/* Removes what is older than AUDIT_DAYS, some thousands at a time. Waits. */
int audit_forget(void) MUST_USE;

#endif

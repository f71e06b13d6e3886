#ifndef CORE_OPERATOR_OPERATOR_H
#define CORE_OPERATOR_OPERATOR_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "proto/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What an operator can do: one table of verbs behind `wakegate admin NOUN VERB --name value` and the operator API
 * (GET or POST /admin/v1/NOUN/VERB with the same names as parameters or members). A verb reads its arguments by
 * name and writes one JSON object, or an array of them; the command line lays that out for people unless --json
 * is given.
 *
 * READS: GET. CHANGES: POST, and audited. LOCAL: on the command line alone.
 */
/* clang-format off */
/*  noun     verb         how      what it does */
#define OPERATOR_VERBS(X) \
    X(account, create,      CHANGES, "Make an account; with an e-mail address it can log in") \
    X(account, list,        READS,   "Accounts, newest first") \
    X(account, show,        READS,   "One account") \
    X(account, password,    CHANGES, "Give an account another password") \
    X(key,     create,      CHANGES, "Make an API key, shown once; its account too when there is none of that name") \
    X(key,     list,        READS,   "API keys, newest first, without their secrets") \
    X(key,     revoke,      CHANGES, "End a key: refused everywhere within a second") \
    X(key,     rotate,      CHANGES, "Make a key with the rights of another, which then ends") \
    X(client,  create,      CHANGES, "Make an OAuth client; its secret is shown once") \
    X(client,  list,        READS,   "OAuth clients") \
    X(client,  revoke,      CHANGES, "End a client and all that users have granted it") \
    X(client,  rotate,      CHANGES, "Give a client another secret at once") \
    X(plan,    list,        READS,   "Every plan's limits") \
    X(plan,    show,        READS,   "The plans of an account and the limits that hold for it") \
    X(plan,    set,         CHANGES, "Set an account's plan on a surface") \
    X(plan,    limit,       CHANGES, "Set a limit of an account's own in place of its plan's") \
    X(plan,    spend,       CHANGES, "Set what an account's calls may cost a day in place of its plan's") \
    X(plan,    subscribe,   CHANGES, "Put an account on a plan that it pays for by the month") \
    X(ledger,  show,        READS,   "What an account has and has used") \
    X(ledger,  list,        READS,   "An account's movements of money, newest first") \
    X(ledger,  credit,      CHANGES, "Give an account money") \
    X(ledger,  debit,       CHANGES, "Take money from an account") \
    X(ledger,  refund,      CHANGES, "Give a deposit back, or some of it") \
    X(ledger,  check,       READS,   "Whether all movements, wallets and leases add up") \
    X(provider, set,        CHANGES, "Make or change a provider of AI; what is not given stays as it is") \
    X(provider, list,       READS,   "Providers of AI, those of the settings too, and what waits, runs and may run at each") \
    X(provider, show,       READS,   "One provider: all its settings but the key, and what waits, runs and may run there") \
    X(provider, delete,     CHANGES, "Take a provider away") \
    X(model,   set,         CHANGES, "Make or change a model: prices, bounds, the providers that serve it") \
    X(model,   list,        READS,   "Models with what they cost, those that are not served last") \
    X(model,   show,        READS,   "One model: prices, bounds, and the providers that serve it") \
    X(model,   delete,      CHANGES, "Take a model's row away") \
    X(ban,     add,         CHANGES, "Refuse all that an account has, within a second") \
    X(ban,     list,        READS,   "Accounts that are banned, newest first") \
    X(ban,     remove,      CHANGES, "End an account's ban") \
    X(webhook, list,        READS,   "Webhook endpoints, newest first; of one account, or those that are disabled") \
    X(webhook, show,        READS,   "One endpoint: what waits for it, and how the last attempts went") \
    X(webhook, disable,     CHANGES, "Send nothing more to an endpoint; its owner can't enable it again") \
    X(webhook, enable,      CHANGES, "Enable an endpoint, whoever has disabled it: what waits goes on") \
    X(audit,   list,        READS,   "Who changed what, when and from where, newest first") \
    X(jobs,    counts,      READS,   "Jobs by kind and state") \
    X(jobs,    dead,        READS,   "Jobs that were put aside, and why") \
    X(jobs,    redrive,     CHANGES, "Give dead jobs all their tries again") \
    X(jobs,    ping,        LOCAL,   "Measure the queue with jobs that do nothing") \
    X(vault,   rotate,      LOCAL,   "Seal all secrets anew, and under a new ENCRYPTION_KEY too, while servers run") \
    X(vault,   forget,      LOCAL,   "Once all run with the new ENCRYPTION_KEY: the old one opens nothing any more") \
    X(demo,    credentials, LOCAL,   "Make what `wakegate up` writes into credentials.env")
/* clang-format on */

enum operator_how { OPERATOR_READS, OPERATOR_CHANGES, OPERATOR_LOCAL };

enum operator_type {
    OPERATOR_TEXT,
    OPERATOR_NUMBER, /* a whole number, not negative */
    OPERATOR_SWITCH,
    OPERATOR_FILE, /* a text; on the command line the name of the file that it is in */
    OPERATOR_TIME, /* "2026-01-31" or "2026-01-31T12:00:00Z" */
};

enum operator_flags {
    OPERATOR_REQUIRED = 1,
    OPERATOR_WORD = 2, /* may stand without its name on the command line: `key revoke 12` */
};

struct operator_argument {
    const char
        *name; /* "allow_from": --allow-from on the command line, "allow_from" in JSON; NULL ends a list */
    enum operator_type type;
    unsigned flags;
    const char *help;
    /* Of a secret: the environment variable that it is read from, for a command line can be seen by others. */
    const char *variable;
};

enum { OPERATOR_ARGUMENTS_MAX = 20 };

struct operator_call;

struct operator_verb {
    const char *noun;
    const char *verb;
    enum operator_how how;
    const char *help;
    /* 0, or a negative error, about which call->problem may tell more. Waits. -EINVAL, -ENOENT and -EEXIST are the
     * caller's fault, others a store's. */
    int (*run)(struct operator_call *call);
    const struct operator_argument *arguments;
};

extern const struct operator_verb operator_verbs[];
extern const size_t operator_verb_count;

/* NULL: there is none. */
const struct operator_verb *operator_find(struct str noun, struct str verb);

struct operator_call {
    const struct operator_verb *verb;
    struct arena *arena;
    struct str
        values[OPERATOR_ARGUMENTS_MAX]; /* as text; absent when not given. A switch is "true" or "false" */
    struct json_out *out;               /* the verb writes one value */
    const char *problem;                /* for people; NULL: the error's own words */
    bool is_bad; /* the answer tells of something wrong: the command line's status is that of a failure */
    bool shows_secret; /* the answer is not to be kept or logged */
};

/* The place of an argument in `values`; OPERATOR_ARGUMENTS_MAX: the verb has none of that name. A dash in `name` is
 * as good as an underscore. */
size_t operator_argument(const struct operator_verb *verb, struct str name);

/* Checks what was given against the table. -EINVAL with call->problem. */
int operator_check(struct operator_call *call) MUST_USE;

/* ---- for verbs; each aborts for a name that the verb has not ---- */

struct str operator_text(const struct operator_call *call, const char *name); /* absent when not given */
int64_t operator_number(const struct operator_call *call, const char *name, int64_t otherwise);
bool operator_switch(const struct operator_call *call, const char *name);
int64_t operator_time_ms(const struct operator_call *call, const char *name); /* 0 when not given */
/* Words that spaces or commas part, at most `most`. -EINVAL, about which it has said why: there are more. */
int operator_words(struct operator_call *call, const char *name, struct str *words, size_t most,
                   size_t *count) MUST_USE;
/* Sets call->problem and returns `result`. */
int operator_fail(struct operator_call *call, int result, const char *format, ...) PRINTF_LIKE(3, 4);

/* As the API writes time; 0 gives null. */
void operator_put_time(struct json_out *out, const char *name, int64_t unix_ms);
/* Texts that single spaces part, as an array; absent gives null. */
void operator_put_words(struct json_out *out, const char *name, struct str words);

#endif

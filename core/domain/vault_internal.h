#ifndef CORE_DOMAIN_VAULT_INTERNAL_H
#define CORE_DOMAIN_VAULT_INTERNAL_H

#include "core/domain/vault.h"
#include "core/store/pg.h"

/* What the vault's files share: vault.c holds the keys and seals, vault_rotate.c changes them. */

enum {
    VAULT_HEAD_SIZE = 1 + 4, /* version and key id */
    VAULT_WRAPPED_SIZE = CRYPTO_KEY_SIZE + CRYPTO_SEAL_EXTRA,
    VAULT_BOUND_SIZE = 48
};

struct vault_key {
    uint32_t id;
    unsigned char key[CRYPTO_KEY_SIZE];
};

/* What data keys are wrapped under: made from an ENCRYPTION_KEY, and named (vault_key.wrapped_by) without telling it. */
struct vault_wrapping {
    unsigned char key[CRYPTO_KEY_SIZE];
    char name[17];
};
void vault_wrapping_make(struct vault_wrapping *wrapping, struct str encryption_key);
/* That of this process's ENCRYPTION_KEY. */
const struct vault_wrapping *vault_wrapping(void);

void vault_wrap(unsigned char wrapped[VAULT_WRAPPED_SIZE], const struct vault_wrapping *wrapping, uint32_t id,
                const char *purpose, const unsigned char key[CRYPTO_KEY_SIZE]);
/* -EBADMSG: not wrapped so. */
int vault_unwrap(unsigned char key[CRYPTO_KEY_SIZE], const struct vault_wrapping *wrapping, uint32_t id,
                 const char *purpose, struct str wrapped) MUST_USE;

/* Reads the process's keys anew. Waits. -ENOENT: there are none any more that this ENCRYPTION_KEY opens. */
int vault_read_again(void) MUST_USE;
/* The id of the key that seals. */
uint32_t vault_newest(void);
/* What a value that is sealed under this key begins with. */
void vault_head(unsigned char head[VAULT_HEAD_SIZE], uint32_t key_id);

/* Begins a transaction that alone changes vault_key. Waits; pg_end ends it, whatever this returned. */
int vault_begin(struct pg_tx **tx) MUST_USE;

#endif

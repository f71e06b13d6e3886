#ifndef CORE_UP_SETTINGS_H
#define CORE_UP_SETTINGS_H

#include "core/base/str.h"
#include "core/up_place.h"

/*
 * The two files of `wakegate up`: settings.env, which serve, work, migrate and admin read, and credentials.env, for
 * clients. What a person has added to either stays.
 */

/*
 * Takes out of our environment, and so out of our children's, what would win over the private servers that `up`
 * itself makes: their URLs and libpq's own variables, and the secret that belongs to the database.
 */
void up_settings_own_environment(void);

/* Makes settings.env at the first start and brings the URLs in it up to date. Sets *is_new when the
 * ENCRYPTION_KEY, and with it every key hashed under it, is a new one. 0, or an error with a line in `error`. */
int up_settings_make(const struct up_place *place, bool *is_new, char error[UP_ERROR_SIZE]) MUST_USE;

/* 0 and whether credentials.env has a session key, or an error with a line in `error`. */
int up_credentials_have_key(const struct up_place *place, bool *have, char error[UP_ERROR_SIZE]) MUST_USE;

/* Writes credentials.env: the URL, and the key unless it is absent: then the one in the file stays. */
int up_credentials_save(const struct up_place *place, struct str url, struct str key,
                        char error[UP_ERROR_SIZE]) MUST_USE;

#endif

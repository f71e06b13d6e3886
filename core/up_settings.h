#ifndef CORE_UP_SETTINGS_H
#define CORE_UP_SETTINGS_H

#include "core/base/str.h"
#include "core/up_place.h"
#include "proto/json.h"

/*
 * The two files of `wakegate up`: settings.env, which serve, work, migrate and admin read, and credentials.env, for
 * clients. What a person has added to either stays.
 */

/*
 * Takes out of our environment, and so out of our children's, what would win over the private servers that `up`
 * itself makes: their URLs and libpq's own variables, and the secret that belongs to the database.
 */
void up_settings_own_environment(void);

/* Makes settings.env at the first start and brings the URLs in it up to date. 0, or an error with a line in `error`: also
 * when there is a database and the ENCRYPTION_KEY that its secrets are sealed under is gone. */
int up_settings_make(const struct up_place *place, char error[UP_ERROR_SIZE]) MUST_USE;

/* Appends the names of what `wakegate admin demo credentials` is to make, separated by spaces: what credentials.env
 * lacks, or all of it for a new database. 0, or an error with a line in `error`. */
int up_credentials_missing(const struct up_place *place, bool new_database, struct buf *names,
                           char error[UP_ERROR_SIZE]) MUST_USE;

/* Writes credentials.env: URL, ADMIN_TOKEN, and what was made (NULL: nothing); the rest of the file stays. */
int up_credentials_save(const struct up_place *place, struct str url, const struct json *made,
                        char error[UP_ERROR_SIZE]) MUST_USE;

#endif

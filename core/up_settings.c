/* settings.env and credentials.env of `wakegate up`. */
#include "core/up_settings.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/id.h"
#include "core/env_file.h"
#include "core/up_postgres.h"
#include "core/up_redis.h"
#include "core/up_say.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECRET_LENGTH = 43 /* base 62: 256 bits */ };

static const char *const own_names[] = {"DATABASE_URL", "REDIS_URL", "WAKEGATE_DATA_DIR", "ENCRYPTION_KEY"};

/* What the demo account has. */
static const char *const credential_names[] = {
    "SESSION_API_KEY",  "FABSTIR_API_KEY", "DUMONT_API_KEY",     "FABSTIR_EMAIL",
    "FABSTIR_PASSWORD", "SELF_CLIENT_ID",  "SELF_CLIENT_SECRET",
};

/* The end of a name that starts with "PG" in the environment, or 0. */
static size_t libpq_name(const char *variable)
{
    return strncmp(variable, "PG", 2) == 0 ? strcspn(variable, "=") : 0;
}

void up_settings_own_environment(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(own_names); i++)
        unsetenv(own_names[i]);
    for (size_t i = 0; environ[i];) {
        char name[64];
        size_t size = libpq_name(environ[i]);
        if (size == 0 || size >= sizeof name) {
            i++;
            continue;
        }
        memcpy(name, environ[i], size);
        name[size] = '\0';
        unsetenv(name); /* moves the others up */
    }
}

static int fail(char error[UP_ERROR_SIZE], int code, const char *doing, const char *path)
{
    snprintf(error, UP_ERROR_SIZE, "can't %s %s: %s", doing, path, strerror(-code));
    return code;
}

/* Sets a secret unless the file has one. */
static void make_secret(struct env_file *file, const char *name)
{
    if (env_file_get(file, name).size)
        return;
    char secret[SECRET_LENGTH + 1];
    id_random_base62(secret, SECRET_LENGTH);
    env_file_set(file, name, str_from(secret));
    crypto_wipe(secret, sizeof secret);
}

/* The folder may have been moved since the last start. */
static void set_places(struct env_file *file, const struct up_place *place)
{
    struct buf url = {0};
    up_postgres_url(place, &url);
    env_file_set(file, "DATABASE_URL", buf_str(&url));
    url.size = 0;
    up_redis_url(place, &url);
    env_file_set(file, "REDIS_URL", buf_str(&url));
    buf_clear(&url);
    env_file_set(file, "WAKEGATE_DATA_DIR", str_from(place->data));
}

int up_settings_make(const struct up_place *place, char error[UP_ERROR_SIZE])
{
    struct env_file file;
    int result = env_file_open(&file, place->settings);
    if (result)
        return fail(error, result, "read", place->settings);
    if (env_file_get(&file, "ENCRYPTION_KEY").size == 0 && !up_postgres_is_new(place)) {
        env_file_close(&file);
        snprintf(
            error, UP_ERROR_SIZE,
            "%s has lost the ENCRYPTION_KEY that the database's secrets are sealed under: put it back, or "
            "remove %s to begin anew",
            place->settings, place->data);
        return -EINVAL;
    }
    if (file.text.size == 0)
        buf_add_literal(
            &file.text,
            "# What `wakegate up` gives to serve and work; `wakegate --help` lists all settings.\n"
            "# DATABASE_URL, REDIS_URL and WAKEGATE_DATA_DIR are set anew at every start.\n");
    set_places(&file, place);
    make_secret(&file, "ENCRYPTION_KEY");
    make_secret(&file, "METRICS_TOKEN");
    make_secret(&file, "ADMIN_TOKEN");
    if (env_file_get(&file, "PORT").size == 0)
        env_file_set(&file, "PORT", STR("8080"));
    result = env_file_save(&file);
    env_file_close(&file);
    return result ? fail(error, result, "write", place->settings) : 0;
}

int up_credentials_missing(const struct up_place *place, bool new_database, struct buf *names,
                           char error[UP_ERROR_SIZE])
{
    struct env_file file;
    int result = env_file_open(&file, place->credentials);
    if (result)
        return fail(error, result, "read", place->credentials);
    for (size_t i = 0; i < ARRAY_SIZE(credential_names); i++)
        if (new_database || env_file_get(&file, credential_names[i]).size == 0)
            buf_printf(names, "%s%s", names->size ? " " : "", credential_names[i]);
    env_file_close(&file);
    return 0;
}

int up_credentials_save(const struct up_place *place, struct str url, const struct json *made,
                        char error[UP_ERROR_SIZE])
{
    struct env_file file;
    int result = env_file_open(&file, place->credentials);
    if (result)
        return fail(error, result, "read", place->credentials);
    env_file_set(&file, "WAKEGATE_URL", url);
    env_file_set(&file, "ADMIN_TOKEN", str_from(config->admin_token));
    for (size_t i = 0; i < ARRAY_SIZE(credential_names); i++) {
        struct str value = json_string(json_member(made, credential_names[i]));
        if (value.size)
            env_file_set(&file, credential_names[i], value);
    }
    result = env_file_save(&file);
    env_file_close(&file);
    return result ? fail(error, result, "write", place->credentials) : 0;
}

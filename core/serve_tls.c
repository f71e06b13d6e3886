/* The reactor's certificates: files named by the settings, or one that is made for development. */
#include "core/serve_tls.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "proto/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CERTIFICATES_MAX = 64,
    PEM_MAX = 1 << 20,
    EXPIRY_WARN_S = 14 * 24 * 3600,
};

struct pems {
    struct tls_certificate rows[CERTIFICATES_MAX];
    struct buf texts[2 * CERTIFICATES_MAX];
    char names[2 * CERTIFICATES_MAX][256];
    size_t count;
};

static void pems_clear(struct pems *pems)
{
    for (size_t i = 0; i < ARRAY_SIZE(pems->texts); i++) {
        if (pems->texts[i].at)
            crypto_wipe(pems->texts[i].at, pems->texts[i].capacity);
        buf_clear(&pems->texts[i]);
    }
}

static int read_file(const char *path, struct buf *text)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return -errno;
    struct stat about;
    int result = fstat(descriptor, &about) == 0 ? 0 : -errno;
    if (result == 0 && (!S_ISREG(about.st_mode) || about.st_size > PEM_MAX))
        result = -EINVAL;
    size_t size = result == 0 ? (size_t)about.st_size : 0;
    char *at = buf_reserve(text, size + 1);
    ssize_t got;
    while (result == 0 && text->size < size &&
           (got = read(descriptor, at + text->size, size - text->size)) != 0) {
        if (got < 0)
            result = -errno;
        else
            text->size += (size_t)got;
    }
    close(descriptor);
    return result;
}

/* The next file of a list. */
static int take_file(struct pems *pems, size_t index, struct str *list, char *error, size_t error_size)
{
    struct str name = STR_NONE;
    if (str_split(list, ',', &name))
        name = str_trim(name);
    char *path = pems->names[index];
    if (name.size == 0 || name.size >= sizeof pems->names[index]) {
        snprintf(error, error_size,
                 "TLS_CERT and TLS_KEY must name as many files as each other, separated by commas");
        return -EINVAL;
    }
    snprintf(path, sizeof pems->names[index], "%.*s", STR_ARG(name));
    int result = read_file(path, &pems->texts[index]);
    if (result)
        snprintf(error, error_size, "%s can't be read: %s", path, log_errno(result));
    return result ? -EINVAL : 0;
}

static int read_files(struct pems *pems, char *error, size_t error_size)
{
    struct str chains = str_from(config->tls_cert);
    struct str keys = str_from(config->tls_key);
    while (chains.at || keys.at) {
        size_t at = pems->count * 2;
        if (pems->count == CERTIFICATES_MAX) {
            snprintf(error, error_size, "TLS_CERT: more than %d files", CERTIFICATES_MAX);
            return -EINVAL;
        }
        if (take_file(pems, at, &chains, error, error_size) ||
            take_file(pems, at + 1, &keys, error, error_size))
            return -EINVAL;
        pems->rows[pems->count++] = (struct tls_certificate){
            .chain = buf_str(&pems->texts[at]),
            .key = buf_str(&pems->texts[at + 1]),
            .chain_name = pems->names[at],
            .key_name = pems->names[at + 1],
        };
    }
    return 0;
}

/* The certificate, so that clients can be told to trust it; its key never leaves the memory. */
static void write_certificate(const struct buf *chain)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tls-dev.pem", config->data_dir);
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool written = descriptor >= 0 && write(descriptor, chain->at, chain->size) == (ssize_t)chain->size;
    if (descriptor >= 0)
        close(descriptor);
    if (written)
        LOG(INFO, "TLS_DEV: a certificate was made", LOG_TEXT("file", path));
    else
        LOG(WARN, "TLS_DEV: the certificate could not be written", LOG_TEXT("file", path), LOG_ERRNO(-errno));
}

static int make_one(struct pems *pems, char *error, size_t error_size)
{
    if (tls_make_certificate(config->base_domain, &pems->texts[0], &pems->texts[1])) {
        snprintf(error, error_size, "TLS_DEV: no certificate could be made for %s", config->base_domain);
        return -EINVAL;
    }
    write_certificate(&pems->texts[0]);
    pems->rows[0] = (struct tls_certificate){
        .chain = buf_str(&pems->texts[0]),
        .key = buf_str(&pems->texts[1]),
        .chain_name = "TLS_DEV",
        .key_name = "TLS_DEV",
    };
    pems->count = 1;
    return 0;
}

static void warn_of_expiry(const struct tls_context *context)
{
    int64_t left_s = tls_context_expires(context) - clock_wall_ms() / 1000;
    if (left_s < EXPIRY_WARN_S)
        LOG(WARN, left_s < 0 ? "a TLS certificate has expired" : "a TLS certificate expires soon",
            LOG_INT("hours_left", left_s / 3600));
}

int serve_tls_load(struct tls_context *old, struct tls_context **context, char *error, size_t error_size)
{
    *context = NULL;
    if (!config->tls_cert[0] && !config->tls_key[0] && !config->tls_dev)
        return 0;
    struct pems *pems = mem_zalloc(sizeof *pems);
    int result = config->tls_cert[0] || config->tls_key[0] ? read_files(pems, error, error_size)
                                                           : make_one(pems, error, error_size);
    if (result == 0)
        result = tls_context_new(pems->rows, pems->count, old, context, error, error_size);
    if (result == 0)
        warn_of_expiry(*context);
    pems_clear(pems);
    free(pems);
    return result;
}

/* Workspaces' host names, links and cookies: see workspace.h. */
#include "core/domain/instance/workspace.h"

#include "core/base/base64.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/domain/instance/instance.h"

#define HOST_PREFIX "vs-code-"
enum { UNTIL_MAX = 16 /* digits */ };

static unsigned char key[CRYPTO_KEY_SIZE];

void workspace_init(void)
{
    crypto_derive(key, str_from(config->encryption_key), "workspace");
}

/* ---- tokens ---- */

/* "68f00000.rIq…": the moment in hexadecimal, and the MAC over purpose, instance and moment as it is spelled. */
static void put_token(struct buf *out, enum workspace_token kind, struct str instance_id, struct str until)
{
    static const struct str purposes[] = {
        [WORKSPACE_LINK] = {"link", sizeof "link"}, [WORKSPACE_VISIT] = {"visit", sizeof "visit"}};
    char message[sizeof "visit" + INSTANCE_ID_MAX + 1 + UNTIL_MAX];
    struct buf text = {.at = message, .capacity = sizeof message};
    unsigned char mac[CRYPTO_DIGEST_SIZE];
    CHECK(instance_id.size <= INSTANCE_ID_MAX && until.size <= UNTIL_MAX);
    buf_add_str(&text, purposes[kind]); /* with its NUL */
    buf_add_str(&text, instance_id);
    buf_add_char(&text, '\0');
    buf_add_str(&text, until);
    crypto_digest(mac, buf_str(&text), key);
    buf_add_str(out, until);
    buf_add_char(out, '.');
    base64url_add(out, str_of((const char *)mac, sizeof mac));
}

static const char hex_digits[] = "0123456789abcdef";

static size_t put_hex(char out[UNTIL_MAX], uint64_t number)
{
    size_t size = 1;
    while (size < UNTIL_MAX && number >> (4 * size))
        size++;
    for (size_t i = 0; i < size; i++)
        out[i] = hex_digits[number >> (4 * (size - 1 - i)) & 15];
    return size;
}

static bool read_hex(struct str text, int64_t *number)
{
    uint64_t value = 0;
    if (text.size == 0 || text.size >= UNTIL_MAX)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        const char *digit = memchr(hex_digits, text.at[i], 16);
        if (!digit)
            return false;
        value = value << 4 | (uint64_t)(digit - hex_digits);
    }
    *number = (int64_t)value;
    return true;
}

void workspace_sign(char out[WORKSPACE_TOKEN_SIZE], enum workspace_token kind, struct str instance_id,
                    int64_t until_unix_s)
{
    char until[UNTIL_MAX];
    struct buf token = {.at = out, .capacity = WORKSPACE_TOKEN_SIZE};
    put_token(&token, kind, instance_id, str_of(until, put_hex(until, (uint64_t)until_unix_s)));
    buf_add_char(&token, '\0');
}

bool workspace_verify(enum workspace_token kind, struct str instance_id, struct str token, int64_t now_unix_s)
{
    char right[WORKSPACE_TOKEN_SIZE];
    struct buf expected = {.at = right, .capacity = sizeof right};
    struct str rest = token;
    struct str until;
    int64_t until_unix_s;
    if (!str_split(&rest, '.', &until) || !read_hex(until, &until_unix_s) ||
        instance_id.size > INSTANCE_ID_MAX)
        return false;
    put_token(&expected, kind, instance_id, until);
    return crypto_equal(token, buf_str(&expected)) && now_unix_s < until_unix_s;
}

/* ---- host names ---- */

struct str workspace_of_host(struct arena *arena, struct str host)
{
    struct str prefix = STR(HOST_PREFIX);
    struct str domain = str_from(config->base_domain);
    size_t around = prefix.size + 1 + domain.size;
    if (host.size <= around || !str_equal_nocase(str_of(host.at, prefix.size), prefix) ||
        !str_equal_nocase(str_of(host.at + host.size - domain.size, domain.size), domain) ||
        host.at[host.size - domain.size - 1] != '.')
        return STR_NONE;
    struct str id = str_of(host.at + prefix.size, host.size - around);
    char *lower = arena_dup(arena, id.at, id.size);
    for (size_t i = 0; i < id.size; i++)
        if (lower[i] >= 'A' && lower[i] <= 'Z')
            lower[i] = (char)(lower[i] - 'A' + 'a');
    id.at = lower;
    return instance_id_is_valid(id) ? id : STR_NONE;
}

void workspace_put_host(struct buf *out, struct str instance_id)
{
    buf_add_literal(out, HOST_PREFIX);
    buf_add_str(out, instance_id);
    buf_add_char(out, '.');
    buf_add_str(out, str_from(config->base_domain));
}

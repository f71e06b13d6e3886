/* What goes wrong with a call of a provider: see failure.h. */
#include "proto/ai/failure.h"

#include "proto/json.h"

static const struct {
    int status;
    const char *type;
    const char *code;
    bool elsewhere;
    bool health;
    const char *message;
} faults[] = {
#define FAULT_ROW(name, status, type, code, elsewhere, health, message)                                      \
    [name] = {status, type, code, elsewhere, health, message},
    AI_FAULTS(FAULT_ROW)
#undef FAULT_ROW
};

void ai_failure_make(struct ai_failure *failure, enum ai_fault fault, struct str detail)
{
    const char *message = faults[fault].message;
    *failure = (struct ai_failure){
        .fault = fault,
        .status = faults[fault].status,
        .type = faults[fault].type,
        .code = faults[fault].code,
        .message = message     ? str_from(message)
                   : detail.at ? detail
                               : STR("The provider refused the request"),
        .elsewhere = faults[fault].elsewhere,
        .health = faults[fault].health,
        .retry_after_ms = -1,
        .detail = detail,
    };
}

static struct str kept(struct arena *arena, struct str text)
{
    return text.at ? arena_str(arena, text) : STR_NONE;
}

void ai_failure_keep(struct arena *arena, struct ai_failure *failure)
{
    failure->code = arena_strdup(arena, failure->code);
    failure->message = kept(arena, failure->message);
    failure->param = kept(arena, failure->param);
    failure->detail = kept(arena, failure->detail);
}

void ai_put_error(struct buf *out, const struct ai_failure *failure)
{
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_key(&json, "error");
    json_open(&json, '{');
    json_put_str(&json, "message", failure->message);
    json_put_text(&json, "type", failure->type);
    json_put_text(&json, "code", failure->code);
    json_put_str(&json, "param", failure->param);
    json_close(&json, '}');
    json_close(&json, '}');
}

/* ---- words of others ---- */

enum {
    SECRET_LEAST = 8, /* bytes; a shorter "secret" would strike out half of the text */
    WORD_MAX = 40     /* a longer one of letters and digits is a key or an id, and helps nobody */
};

static bool is_word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '*';
}

static bool looks_like_a_key(struct str word)
{
    static const char *const prefixes[] = {"sk-",  "sk_",  "pk-", "pk_", "rk_",  "fsk-", "org-",  "proj_",
                                           "gsk_", "xai-", "hf_", "eyJ", "AIza", "r8_",  "nvapi-"};
    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
        if (str_starts(word, str_from(prefixes[i])))
            return true;
    return word.size > WORD_MAX;
}

static void put_word(struct buf *out, struct str word)
{
    buf_add_str(out, looks_like_a_key(word) ? STR("[removed]") : word);
}

static void put_without_keys(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.size;) {
        size_t end = i;
        while (end < text.size && is_word_byte(text.at[end]))
            end++;
        if (end > i) {
            put_word(out, str_of(text.at + i, end - i));
            i = end;
            continue;
        }
        unsigned char c = (unsigned char)text.at[i++];
        buf_add_char(out, c < ' ' || c == 0x7f ? ' ' : (char)c);
    }
}

static void put_without_secret(struct buf *out, struct str text, struct str secret)
{
    const char *found;
    while (secret.size >= SECRET_LEAST && text.size > 0 &&
           (found = memmem(text.at, text.size, secret.at, secret.size))) {
        size_t before = (size_t)(found - text.at);
        put_without_keys(out, str_of(text.at, before));
        buf_add_literal(out, "[removed]");
        text = str_of(found + secret.size, text.size - before - secret.size);
    }
    put_without_keys(out, text);
}

struct str ai_sanitise(struct arena *arena, struct str text, struct str secret)
{
    struct buf clean = {0};
    /* More is cut off in any case; by so much, a secret at the cut is still seen whole. */
    size_t seen = 2 * AI_FAILURE_TEXT_MAX + secret.size;
    if (seen > text.size)
        seen = text.size;
    while (seen > 0 && seen < text.size && ((unsigned char)text.at[seen] & 0xc0) == 0x80)
        seen--;
    put_without_secret(&clean, str_of(text.at, seen), secret);
    size_t size = clean.size > AI_FAILURE_TEXT_MAX ? AI_FAILURE_TEXT_MAX : clean.size;
    while (size > 0 && size < clean.size && ((unsigned char)clean.at[size] & 0xc0) == 0x80)
        size--;
    struct str copy = arena_str(arena, str_of(clean.at, size));
    buf_clear(&clean);
    return copy;
}

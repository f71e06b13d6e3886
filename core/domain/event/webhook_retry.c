/* Retries and pauses of webhooks: see webhook_retry.h. */
#include "core/domain/event/webhook_retry.h"

#include <string.h>
#include <time.h>

enum { PAUSE_LEAST_MS = 10000, PAUSE_MOST_MS = 600000, ASKED_MOST_S = 86400, PAUSE_ASKED_MOST_S = 3600 };

static const int64_t waits_ms[WEBHOOK_TRIES - 1] = {5000,     300000,   1800000, 7200000,
                                                    18000000, 36000000, 36000000};

/* A tenth more or less. */
static int64_t jitter(int64_t ms, uint64_t random)
{
    return ms - ms / 10 + (int64_t)(random % (uint64_t)(ms / 5 + 1));
}

int64_t webhook_retry_ms(unsigned tries, int64_t asked_s, uint64_t random)
{
    if (tries == 0 || tries >= WEBHOOK_TRIES)
        return -1;
    int64_t wait_ms = jitter(waits_ms[tries - 1], random);
    int64_t asked_ms = (asked_s < ASKED_MOST_S ? asked_s : ASKED_MOST_S) * 1000;
    return asked_ms > wait_ms ? asked_ms : wait_ms;
}

int64_t webhook_retry_after_s(struct str field, int64_t now_s)
{
    char text[32];
    struct tm tm = {0};
    uint64_t seconds;
    field = str_trim(field);
    if (str_to_u64(field, &seconds))
        return seconds < ASKED_MOST_S ? (int64_t)seconds : ASKED_MOST_S;
    if (field.size == 0 || field.size >= sizeof text)
        return 0;
    memcpy(text, field.at, field.size);
    text[field.size] = '\0';
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (!end || *end)
        return 0;
    int64_t at_s = (int64_t)timegm(&tm);
    return at_s > now_s ? at_s - now_s : 0;
}

int64_t webhook_health_note(struct webhook_health *health, bool ok, int64_t asked_s, uint64_t random)
{
    if (ok) {
        *health = (struct webhook_health){0};
        return 0;
    }
    int64_t pause_ms = (asked_s < PAUSE_ASKED_MOST_S ? asked_s : PAUSE_ASKED_MOST_S) * 1000;
    health->failures++;
    if (health->failures < WEBHOOK_FAILURES && health->pauses == 0)
        return pause_ms;
    int64_t own_ms = PAUSE_LEAST_MS;
    for (int64_t i = 0; i < health->pauses && own_ms < PAUSE_MOST_MS; i++)
        own_ms *= 2;
    own_ms = jitter(own_ms < PAUSE_MOST_MS ? own_ms : PAUSE_MOST_MS, random);
    health->pauses++;
    return own_ms > pause_ms ? own_ms : pause_ms;
}

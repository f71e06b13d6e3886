/* The settings table and its parser. */
#include "core/base/config.h"

#include "core/base/check.h"
#include "core/base/crypto.h"
#include "core/base/money.h"

#include <errno.h>
#include <stdlib.h>

const struct setting settings[] = {
#define SETTING_ROW(type_, field_, name_, fallback_, least_, most_, help_)                                   \
    {.name = name_,                                                                                          \
     .fallback = fallback_,                                                                                  \
     .help = help_,                                                                                          \
     .least = least_,                                                                                        \
     .most = most_,                                                                                          \
     .offset = offsetof(struct config, field_),                                                              \
     .type = SETTING_##type_},
    SETTINGS(SETTING_ROW)
#undef SETTING_ROW
};
const size_t setting_count = ARRAY_SIZE(settings);

static struct config loaded;
static char *owned[ARRAY_SIZE(settings)];

const struct config *config = &loaded;

static bool parse_switch(const char *value, bool *on)
{
    static const char *const words[][2] = {{"0", "1"}, {"false", "true"}, {"off", "on"}, {"no", "yes"}};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        for (int state = 0; state < 2; state++)
            if (str_equal_nocase(str_from(value), str_from(words[i][state]))) {
                *on = state == 1;
                return true;
            }
    return false;
}

static int set(size_t index, const char *value, char *error, size_t error_size)
{
    const struct setting *setting = &settings[index];
    char *field = (char *)&loaded + setting->offset;
    switch (setting->type) {
    case SETTING_TEXT:
    case SETTING_SECRET: {
        char *copy = mem_strdup(value); /* first: `value` may be the text that it replaces */
        if (owned[index]) {
            crypto_wipe(owned[index], strlen(owned[index]));
            free(owned[index]);
        }
        owned[index] = copy;
        memcpy(field, &owned[index], sizeof owned[index]);
        return 0;
    }
    case SETTING_NUMBER: {
        int64_t number;
        if (!str_to_i64(str_from(value), &number) || number < setting->least || number > setting->most) {
            snprintf(error, error_size, "%s must be a whole number from %lld to %lld, not \"%.40s\"",
                     setting->name, (long long)setting->least, (long long)setting->most, value);
            return -EINVAL;
        }
        memcpy(field, &number, sizeof number);
        return 0;
    }
    case SETTING_SWITCH: {
        bool on;
        if (!parse_switch(value, &on)) {
            snprintf(error, error_size, "%s must be 1 or 0, not \"%.40s\"", setting->name, value);
            return -EINVAL;
        }
        memcpy(field, &on, sizeof on);
        return 0;
    }
    }
    UNREACHABLE();
}

static bool find(struct str name, size_t *index)
{
    for (size_t i = 0; i < setting_count; i++)
        if (str_equal(name, str_from(settings[i].name))) {
            *index = i;
            return true;
        }
    return false;
}

int config_set(const char *name, const char *value, char *error, size_t error_size)
{
    size_t index;
    if (!find(str_from(name), &index)) {
        snprintf(error, error_size, "there is no setting %.60s", name);
        return -EINVAL;
    }
    return set(index, value, error, error_size);
}

static int load_line(char *line, char *error, size_t error_size)
{
    struct str text = str_trim(str_of(line, strcspn(line, "\r\n")));
    if (text.size == 0 || text.at[0] == '#')
        return 0;
    const char *equals = memchr(text.at, '=', text.size);
    size_t name_size = equals ? (size_t)(equals - text.at) : text.size;
    if (!equals || name_size == 0) {
        snprintf(error, error_size, "expected NAME=value");
        return -EINVAL;
    }
    size_t index;
    if (!find(str_of(text.at, name_size), &index)) {
        snprintf(error, error_size, "there is no setting %.*s", (int)name_size, text.at);
        return -EINVAL;
    }
    char *value = line + (equals - line) + 1;
    value[text.size - name_size - 1] = '\0';
    return set(index, value, error, error_size);
}

static int load_file(const char *path, char *error, size_t error_size)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(error, error_size, "can't read %s: %s", path, strerror(errno));
        return -EINVAL;
    }
    char *line = NULL;
    size_t capacity = 0;
    char reason[256];
    int result = 0;
    for (int number = 1; result == 0 && getline(&line, &capacity, file) >= 0; number++) {
        result = load_line(line, reason, sizeof reason);
        if (result)
            snprintf(error, error_size, "%s:%d: %s", path, number, reason);
    }
    if (result == 0 && ferror(file)) {
        snprintf(error, error_size, "can't read %s: %s", path, strerror(errno));
        result = -EINVAL;
    }
    if (line)
        crypto_wipe(line, capacity);
    free(line);
    fclose(file);
    return result;
}

/* Texts that are one of some words. */
static const struct {
    const char *const *value;
    const char *name;
    const char *words[5];
    const char *said;
} choices[] = {
    {&loaded.log_level, "LOG_LEVEL", {"debug", "info", "warn", "error"}, "debug, info, warn or error"},
    {&loaded.pod_sandbox, "POD_SANDBOX", {"auto", "on", "off"}, "auto, on or off"},
    {&loaded.jwt_algorithm, "JWT_ALGORITHM", {"HS256", "EdDSA"}, "HS256 or EdDSA"},
};

static bool is_one_of(const char *value, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(value, *words) == 0)
            return true;
    return false;
}

/* "USD=1,ETH=2500.5": currencies of capital letters, and what each is worth. */
static bool are_rates(struct str list)
{
    enum { LETTERS_MOST = 10, WHOLE_MOST = 9, DECIMALS_MOST = 12 };
    struct str row, currency;
    if (list.size == 0)
        return false;
    while (str_split(&list, ',', &row)) {
        str_split(&row, '=', &currency);
        struct str rate = str_trim(row);
        currency = str_trim(currency);
        if (currency.size == 0 || currency.size > LETTERS_MOST ||
            !money_is_decimal(rate, WHOLE_MOST, DECIMALS_MOST) || money_is_zero(rate))
            return false;
        for (size_t i = 0; i < currency.size; i++)
            if (currency.at[i] < 'A' || currency.at[i] > 'Z')
                return false;
    }
    return true;
}

static int check(char *error, size_t error_size)
{
    for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
        if (is_one_of(*choices[i].value, choices[i].words))
            continue;
        snprintf(error, error_size, "%s must be %s, not \"%.40s\"", choices[i].name, choices[i].said,
                 *choices[i].value);
        return -EINVAL;
    }
    money price;
    if (!money_parse(str_from(loaded.call_price), &price)) {
        snprintf(error, error_size,
                 "CALL_PRICE_USD must be US dollars as 0.001, with at most %d decimals, not \"%.40s\"",
                 MONEY_DECIMALS, loaded.call_price);
        return -EINVAL;
    }
    if (!are_rates(str_from(loaded.payment_rates))) {
        snprintf(error, error_size, "PAYMENT_RATES must be as USD=1,ETH=2500.5, not \"%.80s\"",
                 loaded.payment_rates);
        return -EINVAL;
    }
    for (size_t i = 0; i < setting_count; i++) {
        size_t size = owned[i] ? strlen(owned[i]) : 0;
        if (settings[i].type != SETTING_SECRET || size == 0 || size >= (size_t)settings[i].least)
            continue;
        snprintf(error, error_size, "%s must have at least %lld characters", settings[i].name,
                 (long long)settings[i].least);
        return -EINVAL;
    }
    return 0;
}

int config_load(const char *env_file, char *error, size_t error_size)
{
    config_clear();
    for (size_t i = 0; i < setting_count; i++)
        CHECK(set(i, settings[i].fallback, error, error_size) == 0);
    int result = env_file ? load_file(env_file, error, error_size) : 0;
    for (size_t i = 0; result == 0 && i < setting_count; i++) {
        const char *value = getenv(settings[i].name);
        if (value)
            result = set(i, value, error, error_size);
    }
    return result ? result : check(error, error_size);
}

static void print_range(FILE *out, const struct setting *setting)
{
    if (setting->type == SETTING_NUMBER)
        fprintf(out, "%lld to %lld", (long long)setting->least, (long long)setting->most);
    else
        fputs(setting->type == SETTING_SWITCH   ? "0 or 1"
              : setting->type == SETTING_SECRET ? "secret"
                                                : "text",
              out);
}

void config_print_help(FILE *out)
{
    for (size_t i = 0; i < setting_count; i++) {
        fprintf(out, "  %-27s %s (", settings[i].name, settings[i].help);
        print_range(out, &settings[i]);
        fprintf(out, "; default %s)\n", settings[i].fallback[0] ? settings[i].fallback : "empty");
    }
}

void config_print_markdown(FILE *out)
{
    fputs("| name | default | range | what it does |\n|---|---|---|---|\n", out);
    for (size_t i = 0; i < setting_count; i++) {
        fprintf(out, "| `%s` | %s%s%s | ", settings[i].name, settings[i].fallback[0] ? "`" : "",
                settings[i].fallback, settings[i].fallback[0] ? "`" : "");
        print_range(out, &settings[i]);
        fprintf(out, " | %s |\n", settings[i].help);
    }
}

void config_clear(void)
{
    for (size_t i = 0; i < setting_count; i++) {
        if (!owned[i])
            continue;
        crypto_wipe(owned[i], strlen(owned[i]));
        free(owned[i]);
        owned[i] = NULL;
    }
    memset(&loaded, 0, sizeof loaded);
}

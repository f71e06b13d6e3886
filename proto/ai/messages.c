/* Messages and tools of a client's request: what may stand in them, and how many tokens they are. See check.h. */
#include "proto/ai/check.h"

enum { TOOLS_MAX = 128, NAME_MAX_BYTES = 256, ID_MAX = 256 };

/* ---- members that several have ---- */

static bool check_any_text(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_type(check, path, value, JSON_STRING);
}

static bool check_object(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_type(check, path, value, JSON_OBJECT);
}

static bool check_array(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_type(check, path, value, JSON_ARRAY);
}

static bool check_bool(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_type(check, path, value, JSON_BOOL);
}

static bool check_id(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_string(check, path, value, 1, ID_MAX);
}

static bool check_speaker(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_string(check, path, value, 1, NAME_MAX_BYTES);
}

static bool check_audio(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    (void)value;
    return ai_refuse(check, path, "unsupported_parameter", "audio is not supported here");
}

static struct str text_member(const struct json *value, const char *name)
{
    return json_string(json_member(value, name));
}

/* The objects that an array may consist of, told apart by their "type". */
struct variant {
    const char *type;
    const struct ai_member *members;
};

/* `variants` end with a NULL type; `types` are their names. */
static bool check_variant(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                          const struct variant *variants, const char *types)
{
    if (!ai_check_type(check, path, value, JSON_OBJECT))
        return false;
    if (json_type_of(json_member(value, "type")) == JSON_NULL)
        return ai_refuse(check, AI_PATH(path, "type"), "missing_required_parameter", "is required");
    if (!ai_check_word(check, AI_PATH(path, "type"), json_member(value, "type"), types))
        return false;
    while (!str_equal(text_member(value, "type"), str_from(variants->type)))
        variants++;
    return ai_check_members(check, path, value, variants->members);
}

static bool check_list(const struct ai_check *check, const struct ai_path *path, const struct json *value,
                       size_t most,
                       bool (*item)(const struct ai_check *, const struct ai_path *, const struct json *))
{
    if (!ai_check_type(check, path, value, JSON_ARRAY))
        return false;
    if (json_count(value) == 0)
        return ai_refuse(check, path, "empty_array", "expected at least one item");
    if (json_count(value) > most)
        return ai_refuse(check, path, "array_above_max_length", "expected at most %zu items", most);
    for (size_t i = 0; i < json_count(value); i++)
        if (!item(check, AI_PATH_ITEM(path, i), json_item(value, i)))
            return false;
    return true;
}

/* ---- content ---- */

static const struct ai_member text_part[] = {
    {"type", true, NULL}, {"text", true, check_any_text}, {NULL, false, NULL}};

static const struct ai_member refusal_part[] = {
    {"type", true, NULL}, {"refusal", true, check_any_text}, {NULL, false, NULL}};

static bool is_image_data(struct str url)
{
    static const struct str prefixes[] = {
        {"data:image/png;base64,", 22},
        {"data:image/jpeg;base64,", 23},
        {"data:image/gif;base64,", 22},
        {"data:image/webp;base64,", 23},
    };
    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
        if (str_starts(url, prefixes[i]) && url.size > prefixes[i].size)
            return true;
    return false;
}

static bool check_image_url(const struct ai_check *check, const struct ai_path *path,
                            const struct json *value)
{
    if (!ai_check_type(check, path, value, JSON_STRING))
        return false;
    struct str url = json_string(value);
    bool is_link = str_starts(url, STR("https://")) || str_starts(url, STR("http://"));
    return is_link || is_image_data(url) ||
           ai_refuse(check, path, "invalid_image_url",
                     "expected a URL with https, or data of a PNG, JPEG, GIF or WebP image in base64");
}

static bool check_detail(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_word(check, path, value, "auto low high");
}

static bool check_image(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    static const struct ai_member members[] = {
        {"url", true, check_image_url}, {"detail", false, check_detail}, {NULL, false, NULL}};
    return ai_check_members(check, path, value, members);
}

static const struct ai_member image_part[] = {
    {"type", true, NULL}, {"image_url", true, check_image}, {NULL, false, NULL}};

static bool check_text_part(const struct ai_check *check, const struct ai_path *path,
                            const struct json *value)
{
    static const struct variant variants[] = {{"text", text_part}};
    return check_variant(check, path, value, variants, "text");
}

static bool check_user_part(const struct ai_check *check, const struct ai_path *path,
                            const struct json *value)
{
    static const struct variant variants[] = {{"text", text_part}, {"image_url", image_part}};
    return check_variant(check, path, value, variants, "text image_url");
}

static bool check_assistant_part(const struct ai_check *check, const struct ai_path *path,
                                 const struct json *value)
{
    static const struct variant variants[] = {{"text", text_part}, {"refusal", refusal_part}};
    return check_variant(check, path, value, variants, "text refusal");
}

static bool check_text_content(const struct ai_check *check, const struct ai_path *path,
                               const struct json *value)
{
    return json_type_of(value) == JSON_STRING || check_list(check, path, value, SIZE_MAX, check_text_part);
}

static bool check_user_content(const struct ai_check *check, const struct ai_path *path,
                               const struct json *value)
{
    return json_type_of(value) == JSON_STRING || check_list(check, path, value, SIZE_MAX, check_user_part);
}

static bool check_assistant_content(const struct ai_check *check, const struct ai_path *path,
                                    const struct json *value)
{
    return json_type_of(value) == JSON_STRING ||
           check_list(check, path, value, SIZE_MAX, check_assistant_part);
}

/* ---- tool calls ---- */

static bool check_called_function(const struct ai_check *check, const struct ai_path *path,
                                  const struct json *value)
{
    static const struct ai_member members[] = {{"name", true, ai_check_name},
                                               {"arguments", true, check_any_text},
                                               {"parsed_arguments", false, NULL},
                                               {NULL, false, NULL}};
    return ai_check_members(check, path, value, members);
}

static bool check_called_custom(const struct ai_check *check, const struct ai_path *path,
                                const struct json *value)
{
    static const struct ai_member members[] = {
        {"name", true, ai_check_name}, {"input", true, check_any_text}, {NULL, false, NULL}};
    return ai_check_members(check, path, value, members);
}

/* `index`, and what is `parsed` here and above, are of the SDKs' making: they leave them in what their users send back. */
static bool check_tool_call(const struct ai_check *check, const struct ai_path *path,
                            const struct json *value)
{
    static const struct ai_member function_call[] = {{"id", true, check_id},
                                                     {"type", true, NULL},
                                                     {"function", true, check_called_function},
                                                     {"index", false, NULL},
                                                     {NULL, false, NULL}};
    static const struct ai_member custom_call[] = {{"id", true, check_id},
                                                   {"type", true, NULL},
                                                   {"custom", true, check_called_custom},
                                                   {"index", false, NULL},
                                                   {NULL, false, NULL}};
    static const struct variant variants[] = {{"function", function_call}, {"custom", custom_call}};
    return check_variant(check, path, value, variants, "function custom");
}

static bool check_tool_calls(const struct ai_check *check, const struct ai_path *path,
                             const struct json *value)
{
    return check_list(check, path, value, AI_TOOL_CALLS_MAX, check_tool_call);
}

/* ---- messages ---- */

static const struct ai_member instruction[] = {{"role", true, NULL},
                                               {"content", true, check_text_content},
                                               {"name", false, check_speaker},
                                               {NULL, false, NULL}};

static const struct ai_member user_message[] = {{"role", true, NULL},
                                                {"content", true, check_user_content},
                                                {"name", false, check_speaker},
                                                {NULL, false, NULL}};

/* Clients send back what they were given, so an answer's members are taken too. */
static const struct ai_member assistant_message[] = {{"role", true, NULL},
                                                     {"content", false, check_assistant_content},
                                                     {"name", false, check_speaker},
                                                     {"refusal", false, check_any_text},
                                                     {"tool_calls", false, check_tool_calls},
                                                     {"function_call", false, check_called_function},
                                                     {"annotations", false, check_array},
                                                     {"parsed", false, NULL},
                                                     {"reasoning_content", false, check_any_text},
                                                     {"audio", false, check_audio},
                                                     {NULL, false, NULL}};

static const struct ai_member tool_message[] = {{"role", true, NULL},
                                                {"content", true, check_text_content},
                                                {"tool_call_id", true, check_id},
                                                {"name", false, check_speaker},
                                                {NULL, false, NULL}};

static const struct ai_member function_message[] = {{"role", true, NULL},
                                                    {"content", true, check_any_text},
                                                    {"name", true, ai_check_name},
                                                    {NULL, false, NULL}};

static const struct variant roles[] = {
    {"user", user_message},     {"assistant", assistant_message}, {"system", instruction},
    {"developer", instruction}, {"tool", tool_message},           {"function", function_message},
};

static bool says_nothing(const struct json *message)
{
    static const char *const members[] = {"content", "refusal", "tool_calls", "function_call"};
    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        if (json_type_of(json_member(message, members[i])) != JSON_NULL)
            return false;
    return true;
}

static bool check_message(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    const struct variant *role = roles;
    if (!ai_check_type(check, path, value, JSON_OBJECT))
        return false;
    const struct json *said = json_member(value, "role");
    if (json_type_of(said) == JSON_NULL)
        return ai_refuse(check, AI_PATH(path, "role"), "missing_required_parameter", "is required");
    if (!ai_check_word(check, AI_PATH(path, "role"), said, "user assistant system developer tool function"))
        return false;
    while (!str_equal(json_string(said), str_from(role->type)))
        role++;
    if (!ai_check_members(check, path, value, role->members))
        return false;
    return role->members != assistant_message || !says_nothing(value) ||
           ai_refuse(check, AI_PATH(path, "content"), "missing_required_parameter",
                     "is required where there are no tool calls");
}

bool ai_check_messages(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return check_list(check, path, value, SIZE_MAX, check_message);
}

/* ---- tools ---- */

static bool check_function(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    static const struct ai_member members[] = {{"name", true, ai_check_name},
                                               {"description", false, check_any_text},
                                               {"parameters", false, check_object},
                                               {"strict", false, check_bool},
                                               {NULL, false, NULL}};
    return ai_check_members(check, path, value, members);
}

static bool check_custom(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    static const struct ai_member members[] = {{"name", true, ai_check_name},
                                               {"description", false, check_any_text},
                                               {"format", false, check_object},
                                               {NULL, false, NULL}};
    return ai_check_members(check, path, value, members);
}

static bool check_tool(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    static const struct ai_member function_tool[] = {
        {"type", true, NULL}, {"function", true, check_function}, {NULL, false, NULL}};
    static const struct ai_member custom_tool[] = {
        {"type", true, NULL}, {"custom", true, check_custom}, {NULL, false, NULL}};
    static const struct variant variants[] = {{"function", function_tool}, {"custom", custom_tool}};
    return check_variant(check, path, value, variants, "function custom");
}

bool ai_check_tools(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return check_list(check, path, value, TOOLS_MAX, check_tool);
}

bool ai_check_functions(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return check_list(check, path, value, TOOLS_MAX, check_function);
}

static bool check_named(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    static const struct ai_member members[] = {{"name", true, ai_check_name}, {NULL, false, NULL}};
    return ai_check_members(check, path, value, members);
}

static bool check_mode(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_word(check, path, value, "auto required");
}

static bool check_choice_of_tool(const struct ai_check *check, const struct ai_path *path,
                                 const struct json *value)
{
    static const struct ai_member function_choice[] = {
        {"type", true, NULL}, {"function", true, check_named}, {NULL, false, NULL}};
    static const struct ai_member custom_choice[] = {
        {"type", true, NULL}, {"custom", true, check_named}, {NULL, false, NULL}};
    static const struct variant variants[] = {{"function", function_choice}, {"custom", custom_choice}};
    return check_variant(check, path, value, variants, "function custom");
}

static bool check_allowed_list(const struct ai_check *check, const struct ai_path *path,
                               const struct json *value)
{
    return check_list(check, path, value, TOOLS_MAX, check_choice_of_tool);
}

static bool check_allowed(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    static const struct ai_member members[] = {
        {"mode", true, check_mode}, {"tools", true, check_allowed_list}, {NULL, false, NULL}};
    return ai_check_members(check, path, value, members);
}

bool ai_check_tool_choice(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    static const struct ai_member allowed_choice[] = {
        {"type", true, NULL}, {"allowed_tools", true, check_allowed}, {NULL, false, NULL}};
    if (json_type_of(value) == JSON_STRING)
        return ai_check_word(check, path, value, "none auto required");
    if (str_equal(text_member(value, "type"), STR("allowed_tools")))
        return ai_check_members(check, path, value, allowed_choice);
    return check_choice_of_tool(check, path, value);
}

bool ai_check_function_call(const struct ai_check *check, const struct ai_path *path,
                            const struct json *value)
{
    if (json_type_of(value) == JSON_STRING)
        return ai_check_word(check, path, value, "none auto");
    return check_named(check, path, value);
}

/* ---- response_format ---- */

static bool check_json_schema(const struct ai_check *check, const struct ai_path *path,
                              const struct json *value)
{
    static const struct ai_member members[] = {{"name", true, ai_check_name},
                                               {"description", false, check_any_text},
                                               {"schema", false, check_object},
                                               {"strict", false, check_bool},
                                               {NULL, false, NULL}};
    return ai_check_members(check, path, value, members);
}

bool ai_check_response_format(const struct ai_check *check, const struct ai_path *path,
                              const struct json *value)
{
    static const struct ai_member plain[] = {{"type", true, NULL}, {NULL, false, NULL}};
    static const struct ai_member schema[] = {
        {"type", true, NULL}, {"json_schema", true, check_json_schema}, {NULL, false, NULL}};
    static const struct variant variants[] = {
        {"text", plain}, {"json_object", plain}, {"json_schema", schema}};
    return check_variant(check, path, value, variants, "text json_object json_schema");
}

/* ---- tokens ---- */

struct tally {
    uint64_t text_bytes;
    uint64_t images;
    uint64_t images_low;
};

static void count_parts(struct tally *tally, const struct json *content)
{
    tally->text_bytes += json_string(content).size;
    for (size_t i = 0; i < json_count(content); i++) {
        const struct json *part = json_item(content, i);
        const struct json *image = json_member(part, "image_url");
        tally->text_bytes += text_member(part, "text").size + text_member(part, "refusal").size;
        if (!image)
            continue;
        if (str_equal(text_member(image, "detail"), STR("low")))
            tally->images_low++;
        else
            tally->images++;
    }
}

/* As the text of the value, which is never less than what a provider makes of it. */
static uint64_t json_bytes(const struct json *value)
{
    if (json_type_of(value) == JSON_NULL)
        return 0;
    struct buf text = {0};
    json_write_value(&text, value);
    uint64_t size = text.size;
    buf_clear(&text);
    return size;
}

static void count_message(struct tally *tally, const struct json *message)
{
    count_parts(tally, json_member(message, "content"));
    tally->text_bytes +=
        text_member(message, "name").size + text_member(message, "refusal").size +
        text_member(message, "reasoning_content").size + text_member(message, "tool_call_id").size +
        json_bytes(json_member(message, "tool_calls")) + json_bytes(json_member(message, "function_call"));
}

static int64_t limited(uint64_t tokens)
{
    return tokens > AI_TOKENS_MAX ? AI_TOKENS_MAX : (int64_t)tokens;
}

void ai_count_tokens(struct ai_request *request)
{
    static const char *const shown[] = {"tools", "functions", "response_format"};
    struct tally tally = {.text_bytes = request->prompt.size};
    size_t messages = request->kind == AI_CHAT ? json_count(request->messages) : 1;
    uint64_t overhead = AI_REQUEST_OVERHEAD_TOKENS + messages * AI_MESSAGE_OVERHEAD_TOKENS;
    for (size_t i = 0; i < json_count(request->messages); i++)
        count_message(&tally, json_item(request->messages, i));
    for (size_t i = 0; i < ARRAY_SIZE(shown); i++) {
        uint64_t bytes = json_bytes(json_member(request->body, shown[i]));
        tally.text_bytes += bytes;
        overhead += bytes > 0 ? AI_TOOLS_OVERHEAD_TOKENS : 0;
    }
    request->prompt_tokens_most = limited(tally.text_bytes + overhead + tally.images * AI_IMAGE_TOKENS_MOST +
                                          tally.images_low * AI_IMAGE_LOW_TOKENS_MOST);
    request->prompt_tokens = limited((uint64_t)ai_estimate_tokens(tally.text_bytes) + 4 * messages +
                                     (tally.images + tally.images_low) * AI_IMAGE_TOKENS);
}

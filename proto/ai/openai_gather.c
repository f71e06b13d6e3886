/*
 * A streamed answer put together again: see openai_gather.h. Texts and arguments are joined, lists follow each other, tool calls are
 * told apart by their index.
 */
#include "proto/ai/openai_gather.h"

#include "proto/ai/openai_internal.h"

#include <stdlib.h>

enum { LISTS_MAX = 4, LIST_NAME_MAX = 16 };

struct call {
    struct buf id;
    struct buf name;
    struct buf arguments;
    bool custom;
};

/* A member of logprobs: items, written one behind the other. */
struct list {
    char name[LIST_NAME_MAX];
    struct buf items;
};

struct choice {
    struct buf content;
    struct buf refusal;
    struct buf reasoning;
    struct call *calls; /* AI_TOOL_CALLS_MAX of them, once there is one */
    size_t call_count;
    bool has_function;
    struct buf function_name;
    struct buf function_arguments;
    struct buf annotations;
    struct list logprobs[LISTS_MAX];
    size_t list_count;
    const char *finish_reason;
};

struct openai_gathering {
    struct ai_identity identity;
    struct choice choices[AI_CHOICES_MAX];
    struct arena scratch; /* of a chunk */
    struct arena kept;
    struct ai_extras extras;
    struct ai_usage usage;
    bool has_usage;
    bool broken;
    size_t bytes; /* that are kept, about */
    size_t bytes_most;
};

struct openai_gathering *openai_gather_new(const struct ai_identity *identity, size_t bytes_most)
{
    struct openai_gathering *gathering = mem_zalloc(sizeof *gathering);
    gathering->identity = *identity;
    gathering->bytes_most = bytes_most;
    arena_init(&gathering->scratch);
    arena_init(&gathering->kept);
    return gathering;
}

static void clear_choice(struct choice *choice)
{
    struct buf *const texts[] = {&choice->content,     &choice->refusal,       &choice->reasoning,
                                 &choice->annotations, &choice->function_name, &choice->function_arguments};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        buf_clear(texts[i]);
    for (size_t i = 0; i < choice->call_count; i++) {
        buf_clear(&choice->calls[i].id);
        buf_clear(&choice->calls[i].name);
        buf_clear(&choice->calls[i].arguments);
    }
    for (size_t i = 0; i < choice->list_count; i++)
        buf_clear(&choice->logprobs[i].items);
    free(choice->calls);
    *choice = (struct choice){.finish_reason = NULL};
}

static void clear(struct openai_gathering *gathering)
{
    for (size_t i = 0; i < AI_CHOICES_MAX; i++)
        clear_choice(&gathering->choices[i]);
    arena_clear(&gathering->scratch);
}

void openai_gather_free(struct openai_gathering *gathering)
{
    if (!gathering)
        return;
    clear(gathering);
    arena_clear(&gathering->kept);
    free(gathering);
}

/* ---- adding ---- */

static void add_items(struct buf *items, const struct json *list)
{
    for (size_t i = 0; i < json_count(list); i++) {
        if (items->size > 0)
            buf_add_char(items, ',');
        json_write_value(items, json_item(list, i));
    }
}

/* A piece of a call that has begun, or the beginning of the next. */
static bool add_call(struct choice *choice, const struct ai_tool_call *piece)
{
    bool begins = piece->index == choice->call_count;
    if (piece->index > choice->call_count || piece->index >= AI_TOOL_CALLS_MAX ||
        (begins && (!piece->id.at || !piece->name.at)))
        return false;
    if (!choice->calls)
        choice->calls = mem_zalloc(AI_TOOL_CALLS_MAX * sizeof *choice->calls);
    struct call *call = &choice->calls[piece->index];
    if (begins) {
        choice->call_count++;
        call->custom = piece->custom;
        buf_add_str(&call->id, piece->id);
        buf_add_str(&call->name, piece->name);
    }
    buf_add_str(&call->arguments, piece->arguments);
    return true;
}

static void add_function(struct choice *choice, const struct json *piece)
{
    choice->has_function = true;
    buf_add_str(&choice->function_name, json_string(json_member(piece, "name")));
    buf_add_str(&choice->function_arguments, json_string(json_member(piece, "arguments")));
}

struct logprobs {
    struct choice *choice;
    bool fine;
};

static struct list *list_of(struct choice *choice, struct str name)
{
    for (size_t i = 0; i < choice->list_count; i++)
        if (str_equal(name, str_from(choice->logprobs[i].name)))
            return &choice->logprobs[i];
    if (choice->list_count == LISTS_MAX || name.size >= LIST_NAME_MAX)
        return NULL;
    struct list *list = &choice->logprobs[choice->list_count++];
    memcpy(list->name, name.at, name.size);
    return list;
}

static bool add_logprobs(struct str name, const struct json *value, void *arg)
{
    struct logprobs *logprobs = arg;
    struct list *list = list_of(logprobs->choice, name);
    logprobs->fine = list && (json_type_of(value) == JSON_ARRAY || json_type_of(value) == JSON_NULL);
    if (logprobs->fine)
        add_items(&list->items, value);
    return logprobs->fine;
}

/* What lists add is no more than the chunk. */
static size_t size_of(const struct ai_choice *piece, size_t chunk_size)
{
    bool has_lists = piece->logprobs || piece->annotations;
    return (size_t)ai_choice_bytes(piece) + piece->call_count * sizeof(struct call) +
           (has_lists ? chunk_size : 0);
}

static bool add_choice(struct choice *choice, const struct ai_choice *piece)
{
    struct logprobs logprobs = {.choice = choice, .fine = true};
    if (choice->finish_reason)
        return false;
    buf_add_str(&choice->content, piece->content);
    buf_add_str(&choice->refusal, piece->refusal);
    buf_add_str(&choice->reasoning, piece->reasoning);
    for (size_t i = 0; i < piece->call_count; i++)
        if (!add_call(choice, &piece->calls[i]))
            return false;
    if (piece->function_call)
        add_function(choice, piece->function_call);
    add_items(&choice->annotations, piece->annotations);
    json_each(piece->logprobs, add_logprobs, &logprobs);
    choice->finish_reason = piece->finish_reason;
    return logprobs.fine;
}

static void keep(struct openai_gathering *gathering, struct str *extra, struct str told)
{
    if (!extra->at && told.at)
        *extra = arena_str(&gathering->kept, told);
}

static bool add_chunk(struct openai_gathering *gathering, const struct json *chunk, size_t chunk_size)
{
    const struct json *list = json_member(chunk, "choices");
    struct ai_extras extras;
    openai_read_extras(chunk, &extras);
    keep(gathering, &gathering->extras.system_fingerprint, extras.system_fingerprint);
    keep(gathering, &gathering->extras.service_tier, extras.service_tier);
    for (size_t i = 0; i < json_count(list); i++) {
        struct ai_choice piece;
        if (!openai_read_choice(&gathering->scratch, &gathering->identity, json_item(list, i), i, true,
                                &piece) ||
            !add_choice(&gathering->choices[piece.index], &piece))
            return false;
        gathering->bytes += size_of(&piece, chunk_size);
    }
    return gathering->bytes <= gathering->bytes_most;
}

static bool take_usage(struct openai_gathering *gathering, const struct json *chunk)
{
    bool has_prompt = false;
    bool has_completion = false;
    openai_read_usage(json_member(chunk, "usage"), &gathering->usage, &has_prompt, &has_completion);
    bool only = has_prompt && has_completion && json_count(json_member(chunk, "choices")) == 0;
    gathering->has_usage = gathering->has_usage || only;
    return only;
}

bool openai_gather_add(struct openai_gathering *gathering, struct str chunk)
{
    const char *error;
    const struct json *read = json_read(&gathering->scratch, chunk, &error);
    bool is_usage = read && take_usage(gathering, read);
    if (!gathering->broken && !is_usage)
        gathering->broken = !read || !add_chunk(gathering, read, chunk.size);
    if (gathering->broken)
        clear(gathering);
    else
        arena_clear(&gathering->scratch);
    return is_usage;
}

/* ---- the answer ---- */

/* Text as JSON of the arena's. */
static const struct json *parsed(struct arena *arena, struct buf *text)
{
    const char *error;
    const struct json *value = json_read(arena, buf_str(text), &error);
    buf_clear(text);
    return value;
}

static void put_items(struct json_out *json, const char *name, const struct buf *items)
{
    json_key(json, name);
    json_open(json, '[');
    buf_add_str(json->to, buf_str(items));
    json_close(json, ']');
}

static const struct json *annotations_of(struct arena *arena, const struct choice *choice)
{
    struct buf text = {0};
    if (choice->annotations.size == 0)
        return NULL;
    buf_add_char(&text, '[');
    buf_add_str(&text, buf_str(&choice->annotations));
    buf_add_char(&text, ']');
    return parsed(arena, &text);
}

static const struct json *function_of(struct arena *arena, const struct choice *choice)
{
    struct buf text = {0};
    struct json_out json = json_out_to(&text);
    if (!choice->has_function)
        return NULL;
    json_open(&json, '{');
    json_put_str(&json, "name", buf_str(&choice->function_name));
    json_put_str(&json, "arguments", buf_str(&choice->function_arguments));
    json_close(&json, '}');
    return parsed(arena, &text);
}

static const struct json *logprobs_of(struct arena *arena, const struct choice *choice)
{
    struct buf text = {0};
    struct json_out json = json_out_to(&text);
    if (choice->list_count == 0)
        return NULL;
    json_open(&json, '{');
    for (size_t i = 0; i < choice->list_count; i++)
        if (choice->logprobs[i].items.size > 0)
            put_items(&json, choice->logprobs[i].name, &choice->logprobs[i].items);
        else
            json_put_null(&json, choice->logprobs[i].name);
    json_close(&json, '}');
    return parsed(arena, &text);
}

/* Absent where it is empty. */
static struct str text_or_none(const struct buf *text)
{
    return text->size > 0 ? buf_str(text) : STR_NONE;
}

static void put_choice(struct json_out *json, struct arena *arena, const struct ai_identity *identity,
                       unsigned index, const struct choice *choice)
{
    struct ai_tool_call *calls = arena_alloc(arena, (choice->call_count + 1) * sizeof *calls);
    for (size_t i = 0; i < choice->call_count; i++)
        calls[i] = (struct ai_tool_call){
            .index = (unsigned)i,
            .id = buf_str(&choice->calls[i].id),
            .name = buf_str(&choice->calls[i].name),
            .arguments = choice->calls[i].arguments.at ? buf_str(&choice->calls[i].arguments) : STR(""),
            .custom = choice->calls[i].custom,
        };
    struct ai_choice whole = {
        .index = index,
        .content = text_or_none(&choice->content),
        .refusal = text_or_none(&choice->refusal),
        .reasoning = text_or_none(&choice->reasoning),
        .calls = calls,
        .call_count = choice->call_count,
        .function_call = function_of(arena, choice),
        .annotations = annotations_of(arena, choice),
        .logprobs = logprobs_of(arena, choice),
        .finish_reason = choice->finish_reason,
    };
    /* A message that says nothing else says "". */
    if (!whole.content.at && !whole.refusal.at && !whole.call_count && !whole.function_call)
        whole.content = STR("");
    ai_put_choice(json, identity, &whole);
}

bool openai_gather_answer(const struct openai_gathering *gathering, struct buf *out)
{
    struct arena arena;
    struct json_out json = json_out_to(out);
    unsigned count = ai_choices_of(&gathering->identity);
    bool whole = !gathering->broken && gathering->has_usage;
    for (unsigned i = 0; i < count; i++)
        whole = whole && gathering->choices[i].finish_reason;
    if (!whole)
        return false;
    arena_init(&arena);
    ai_open_answer(&json, &gathering->identity);
    for (unsigned i = 0; i < count; i++)
        put_choice(&json, &arena, &gathering->identity, i, &gathering->choices[i]);
    ai_close_answer(&json, &gathering->usage, &gathering->extras);
    arena_clear(&arena);
    return true;
}

/*
 * The pod's journal: a file of JSON lines {"message_id","number","message","answer"} in the workspace. Messages come one after
 * the other, so one that comes again is among the last; only those are kept in memory, and in the file once it is
 * long. A line that was cut short by a crash is not there for us: its message was not answered.
 */
#include "handlers/pod/pod.h"

#include "core/base/log.h"
#include "core/run/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { KEEP = 32, FILE_MAX = 8 << 20 };

struct entry {
    char *id;
    char *message; /* NULL: a pod of earlier wrote none */
    char *answer;
};

static struct {
    char path[4096];
    int descriptor;
    int64_t count;
    off_t size;
    struct entry last[KEEP]; /* a ring by number */
} journal = {.descriptor = -1};

static void put_line(struct buf *line, const struct entry *entry, int64_t number)
{
    struct json_out out = json_out_to(line);
    json_open(&out, '{');
    json_put_text(&out, "message_id", entry->id);
    json_put_int(&out, "number", number);
    json_put_text(&out, "message", entry->message);
    json_put_text(&out, "answer", entry->answer);
    json_close(&out, '}');
    buf_add_char(line, '\n');
}

static char *copy(struct str text)
{
    if (!text.at)
        return NULL;
    char *made = mem_zalloc(text.size + 1);
    memcpy(made, text.at, text.size);
    return made;
}

static void forget(struct entry *entry)
{
    free(entry->id);
    free(entry->message);
    free(entry->answer);
    *entry = (struct entry){0};
}

static void remember(struct str id, struct str message, struct str answer)
{
    struct entry *entry = &journal.last[journal.count % KEEP];
    forget(entry);
    *entry = (struct entry){.id = copy(id), .message = copy(message), .answer = copy(answer)};
}

/* Returns how many bytes of the file are whole lines. */
static size_t load(struct str text)
{
    size_t whole = 0;
    const char *end;
    while ((end = memchr(text.at + whole, '\n', text.size - whole)) != NULL) {
        struct str line = str_of(text.at + whole, (size_t)(end - text.at) - whole);
        struct arena arena;
        const char *error;
        int64_t number;
        arena_init(&arena);
        const struct json *value = json_read(&arena, line, &error);
        struct str id = json_string(json_member(value, "message_id"));
        struct str message = json_string(json_member(value, "message"));
        struct str answer = json_string(json_member(value, "answer"));
        if (id.at && answer.at && json_to_i64(json_member(value, "number"), &number) && number > 0) {
            journal.count = number - 1;
            remember(id, message, answer);
            journal.count = number;
        }
        arena_clear(&arena);
        whole += line.size + 1;
    }
    return whole;
}

static int read_all(int descriptor, struct buf *text)
{
    for (;;) {
        ssize_t got = read(descriptor, buf_reserve(text, 65536), 65536);
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0;
        text->size += (size_t)got;
    }
}

int journal_open(const char *folder)
{
    int length = snprintf(journal.path, sizeof journal.path, "%s/messages.jsonl", folder);
    if (length < 0 || (size_t)length >= sizeof journal.path)
        return -ENAMETOOLONG;
    journal.descriptor = open(journal.path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (journal.descriptor < 0)
        return -errno;
    struct buf text = {0};
    int result = read_all(journal.descriptor, &text);
    if (result == 0) {
        journal.size = (off_t)(text.size ? load(buf_str(&text)) : 0);
        if (ftruncate(journal.descriptor, journal.size) != 0 || lseek(journal.descriptor, 0, SEEK_END) < 0)
            result = -errno;
    }
    buf_clear(&text);
    return result;
}

void journal_close(void)
{
    if (journal.descriptor >= 0)
        close(journal.descriptor);
    journal.descriptor = -1;
    for (size_t i = 0; i < KEEP; i++)
        forget(&journal.last[i]);
}

int64_t journal_count(void)
{
    return journal.count;
}

struct str journal_find(struct str message_id)
{
    for (size_t i = 0; i < KEEP; i++)
        if (journal.last[i].id && str_equal(str_from(journal.last[i].id), message_id))
            return str_from(journal.last[i].answer);
    return STR_NONE;
}

void journal_each(size_t most, void (*each)(struct str message, struct str answer, void *arg), void *arg)
{
    int64_t count = (int64_t)(most < KEEP ? most : KEEP);
    for (int64_t number = journal.count > count ? journal.count - count : 0; number < journal.count;
         number++) {
        const struct entry *entry = &journal.last[number % KEEP];
        if (entry->id && entry->message)
            each(str_from(entry->message), str_from(entry->answer), arg);
    }
}

/* ---- writing, in the thread pool ---- */

struct writing {
    struct buf text;
    int result;
};

/* What is kept, as a new file in the old one's place. */
static int start_over(void)
{
    char path[sizeof journal.path + 8];
    snprintf(path, sizeof path, "%s.new", journal.path);
    int descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (descriptor < 0)
        return -errno;
    struct buf text = {0};
    int64_t first = journal.count > KEEP ? journal.count - KEEP : 0;
    for (int64_t number = first; number < journal.count; number++)
        if (journal.last[number % KEEP].id)
            put_line(&text, &journal.last[number % KEEP], number + 1);
    bool written = write(descriptor, text.at, text.size) == (ssize_t)text.size && fsync(descriptor) == 0 &&
                   rename(path, journal.path) == 0;
    int result = written ? 0 : errno ? -errno : -ENOSPC;
    if (written) {
        close(journal.descriptor);
        journal.descriptor = descriptor;
        journal.size = (off_t)text.size;
    } else {
        close(descriptor);
    }
    buf_clear(&text);
    return result;
}

static void write_line(void *arg)
{
    struct writing *writing = arg;
    writing->result = journal.size > FILE_MAX ? start_over() : 0;
    if (writing->result)
        return;
    ssize_t written = write(journal.descriptor, writing->text.at, writing->text.size);
    if (written == (ssize_t)writing->text.size && fdatasync(journal.descriptor) == 0) {
        journal.size += written;
        return;
    }
    writing->result = written < 0 ? -errno : -ENOSPC;
    /* No half line stays behind: the next one would be lost with it. */
    if (ftruncate(journal.descriptor, journal.size) != 0 ||
        lseek(journal.descriptor, journal.size, SEEK_SET) < 0)
        LOG(ERROR, "the journal can't be mended", LOG_ERRNO(errno));
}

/* One write at a time: two messages that come at once keep their order and their numbers. */
static struct semaphore turn;

int journal_add(struct str message_id, struct str message, struct str answer)
{
    static bool ready;
    if (!ready) {
        semaphore_init(&turn, 1);
        ready = true;
    }
    fiber_hold();
    int result = semaphore_acquire(&turn, "journal", UINT64_MAX);
    CHECK(result == 0);
    struct writing writing = {.result = 0};
    remember(message_id, message, answer);
    put_line(&writing.text, &journal.last[journal.count % KEEP], journal.count + 1);
    thread_run("journal", write_line, &writing);
    if (writing.result == 0) {
        journal.count++;
    } else {
        forget(&journal.last[journal.count % KEEP]);
    }
    buf_clear(&writing.text);
    semaphore_release(&turn);
    fiber_release();
    return writing.result;
}

/* Files of NAME=value lines: what `wakegate up` makes, keeps and gives to its children. */
#include "core/env_file.h"

#include "core/base/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int env_file_open(struct env_file *file, const char *path)
{
    *file = (struct env_file){.path = path};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return errno == ENOENT ? 0 : -errno;
    ssize_t got;
    while ((got = read(descriptor, buf_reserve(&file->text, 4096), 4096)) > 0)
        file->text.size += (size_t)got;
    int result = got < 0 ? -errno : 0;
    close(descriptor);
    if (result)
        env_file_close(file);
    return result;
}

/* Finds the value of the last line that sets `name`. */
static bool find(const struct env_file *file, const char *name, struct str *value)
{
    struct str rest = buf_str(&file->text);
    struct str line;
    size_t name_size = strlen(name);
    bool found = false;
    while (str_split(&rest, '\n', &line)) {
        struct str text = str_trim(line);
        if (!str_starts(text, str_of(name, name_size)) || text.size == name_size || text.at[name_size] != '=')
            continue;
        *value = str_of(text.at + name_size + 1, text.size - name_size - 1);
        found = true;
    }
    return found;
}

struct str env_file_get(const struct env_file *file, const char *name)
{
    struct str value = STR_NONE;
    (void)find(file, name, &value);
    return value;
}

void env_file_set(struct env_file *file, const char *name, struct str value)
{
    struct str old;
    struct buf text = {0};
    if (find(file, name, &old)) {
        if (str_equal(old, value))
            return;
        size_t before = (size_t)(old.at - file->text.at);
        buf_add(&text, file->text.at, before);
        buf_add_str(&text, value);
        buf_add(&text, old.at + old.size, file->text.size - before - old.size);
    } else {
        buf_add_str(&text, buf_str(&file->text));
        if (text.size && text.at[text.size - 1] != '\n')
            buf_add_char(&text, '\n');
        buf_printf(&text, "%s=%.*s\n", name, STR_ARG(value));
    }
    const char *path = file->path;
    env_file_close(file);
    *file = (struct env_file){.path = path, .text = text, .changed = true};
}

static int write_synced(int descriptor, struct str text)
{
    while (text.size) {
        ssize_t written = write(descriptor, text.at, text.size);
        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0)
            text = str_of(text.at + written, text.size - (size_t)written);
    }
    return fsync(descriptor) ? -errno : 0;
}

int env_file_save(struct env_file *file)
{
    if (!file->changed)
        return 0;
    struct buf path = {0};
    buf_printf(&path, "%s.new", file->path);
    int result = 0;
    int descriptor = open(path.at, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (descriptor < 0) {
        result = -errno;
    } else {
        /* One that a crash has left may have other rights. */
        result = fchmod(descriptor, 0600) ? -errno : write_synced(descriptor, buf_str(&file->text));
        close(descriptor);
        if (result == 0 && rename(path.at, file->path))
            result = -errno;
        if (result)
            unlink(path.at);
    }
    buf_clear(&path);
    if (result == 0)
        file->changed = false;
    return result;
}

void env_file_close(struct env_file *file)
{
    if (file->text.at)
        crypto_wipe(file->text.at, file->text.capacity);
    buf_clear(&file->text);
}

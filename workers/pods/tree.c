/*
 * Folder trees, walked with one descriptor at a time: down by openat, up by "..", which must be the folder that
 * the walk came from (device and inode are kept). So the depth is bounded by memory alone, not by descriptors or the
 * length of a path.
 */
#include "workers/pods/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct place {
    dev_t device;
    ino_t inode;
    long offset; /* in the folder's listing, for a walk that removes nothing */
};

struct walk {
    DIR *folder; /* where it stands */
    struct place *above;
    size_t depth;
    size_t capacity;
};

static bool is_dots(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Opens a folder for reading, even one whose mode forbids its owner to. */
static int folder_open(int parent_fd, const char *name)
{
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && faccessat(fd, ".", R_OK | W_OK | X_OK, AT_EACCESS) == 0)
        return fd;
    if (fd < 0 && errno != EACCES)
        return -errno;
    if (fd >= 0)
        close(fd);
    int handle = openat(parent_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (handle < 0)
        return -errno;
    /* Changes the mode of what was opened, whatever the name means by now; fchmod refuses O_PATH. */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", handle);
    fd = chmod(path, 0700) < 0 ? -1 : openat(handle, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 ? -errno : fd;
    close(handle);
    return result;
}

static int walk_enter(struct walk *walk, int fd)
{
    DIR *folder = fdopendir(fd);
    if (!folder) {
        int error = -errno;
        close(fd);
        return error;
    }
    if (walk->folder)
        closedir(walk->folder);
    walk->folder = folder;
    return 0;
}

static int walk_down(struct walk *walk, const char *name)
{
    struct stat here;
    if (fstat(dirfd(walk->folder), &here) < 0)
        return -errno;
    int fd = folder_open(dirfd(walk->folder), name);
    if (fd < 0)
        return fd;
    if (walk->depth == walk->capacity) {
        walk->capacity = walk->capacity ? walk->capacity * 2 : 16;
        walk->above = mem_realloc(walk->above, walk->capacity * sizeof *walk->above);
    }
    walk->above[walk->depth++] = (struct place){here.st_dev, here.st_ino, telldir(walk->folder)};
    return walk_enter(walk, fd);
}

static int walk_up(struct walk *walk)
{
    struct place from = walk->above[--walk->depth];
    int fd = openat(dirfd(walk->folder), "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct stat here;
    if (fstat(fd, &here) < 0 || here.st_dev != from.device || here.st_ino != from.inode) {
        close(fd);
        return -ESTALE;
    }
    return walk_enter(walk, fd);
}

static void walk_clear(struct walk *walk)
{
    if (walk->folder)
        closedir(walk->folder);
    free(walk->above);
}

/* Removes what can be removed at once: 0, or -ENOTEMPTY for a folder with something in it. */
static int remove_one(int folder_fd, const char *name)
{
    if (unlinkat(folder_fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    if (unlinkat(folder_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    return errno == EEXIST ? -ENOTEMPTY : -errno;
}

/* Empties the folder up to the first subfolder that is not empty, and goes down into it: 1. 0 when all is gone. */
static int empty_folder(struct walk *walk)
{
    const struct dirent *entry;
    while (errno = 0, (entry = readdir(walk->folder)) != NULL) {
        if (is_dots(entry->d_name))
            continue;
        int result = remove_one(dirfd(walk->folder), entry->d_name);
        if (result == -ENOTEMPTY)
            result = walk_down(walk, entry->d_name);
        else if (result == 0)
            continue;
        return result < 0 && result != -ENOENT ? result : 1;
    }
    return -errno;
}

int tree_remove(int parent_fd, const char *name)
{
    int result = remove_one(parent_fd, name);
    if (result != -ENOTEMPTY)
        return result;
    int fd = folder_open(parent_fd, name);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    struct walk walk = {0};
    result = walk_enter(&walk, fd);
    /* Up means: again from the first entry of the folder above. What was below is empty now and goes next. */
    while (result == 0) {
        int more = empty_folder(&walk);
        if (more < 0)
            result = more;
        else if (more == 0 && walk.depth == 0)
            break;
        else if (more == 0)
            result = walk_up(&walk);
    }
    walk_clear(&walk);
    return result < 0 ? result : remove_one(parent_fd, name);
}

static int give_one(int fd, const char *name, uid_t uid, gid_t gid)
{
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    return fchownat(fd, name, uid, gid, flags) < 0 && errno != ENOENT ? -errno : 0;
}

static bool is_folder(int folder_fd, const struct dirent *entry)
{
    struct stat found;
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    return fstatat(folder_fd, entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(found.st_mode);
}

/* As empty_folder; a subfolder is given away on the way up. */
static int give_folder(struct walk *walk, uid_t uid, gid_t gid)
{
    const struct dirent *entry;
    while (errno = 0, (entry = readdir(walk->folder)) != NULL) {
        if (is_dots(entry->d_name))
            continue;
        int result;
        if (is_folder(dirfd(walk->folder), entry))
            result = walk_down(walk, entry->d_name);
        else if ((result = give_one(dirfd(walk->folder), entry->d_name, uid, gid)) == 0)
            continue;
        return result < 0 && result != -ENOENT ? result : 1;
    }
    return -errno;
}

int tree_give(int folder_fd, uid_t uid, gid_t gid)
{
    int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct walk walk = {0};
    int result = walk_enter(&walk, fd);
    while (result == 0) {
        int more = give_folder(&walk, uid, gid);
        if (more < 0)
            result = more;
        else if (more == 0 && (result = give_one(dirfd(walk.folder), "", uid, gid)) == 0) {
            if (walk.depth == 0)
                break;
            result = walk_up(&walk);
            if (result == 0)
                seekdir(walk.folder, walk.above[walk.depth].offset);
        }
    }
    walk_clear(&walk);
    return result;
}

/* Makes and checks the folders that `wakegate up` works in. */
#include "core/up_place.h"

#include "core/base/crypto.h"
#include "core/base/escape.h"
#include "core/base/id.h"
#include "core/base/str.h"
#include "core/up_say.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define POSTGRES_USER "postgres"
#define ELSEWHERE "/var/lib/wakegate"
/* The longest name of a socket below the run folder. */
#define SOCKET_LONGEST "/postgres/.s.PGSQL.5432"

enum { TAG_BYTES = 8 };

static int fail(char error[UP_ERROR_SIZE], int code, const char *format, ...) PRINTF_LIKE(3, 4);

static int fail(char error[UP_ERROR_SIZE], int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, UP_ERROR_SIZE, format, args);
    va_end(args);
    return code;
}

char *up_path(const char *folder, const char *name)
{
    struct buf path = {0};
    buf_printf(&path, "%s/%s", folder, name);
    return path.at;
}

/* ---- DIR itself ---- */

static int make_parents(const char *folder)
{
    char *path = mem_strdup(folder);
    int result = 0;
    for (char *slash = strchr(path + 1, '/'); slash && result == 0; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0777) && errno != EEXIST)
            result = -errno;
        *slash = '/';
    }
    free(path);
    return result;
}

static bool has_control_characters(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return true;
    return false;
}

static bool is_empty_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder)
        return false;
    int count = 0;
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count <= 2;
}

/* Somebody's folder with other things in it is not closed to others without their asking. */
static int check_ours(struct up_place *place, char error[UP_ERROR_SIZE])
{
    struct stat found;
    if (stat(place->data, &found) || !S_ISDIR(found.st_mode))
        return fail(error, -ENOTDIR, "%s is not a folder", place->data);
    if (found.st_uid != geteuid())
        return fail(error, -EPERM, "%s belongs to another user (uid %u)", place->data,
                    (unsigned)found.st_uid);
    char *lock = up_path(place->data, "up.lock");
    bool known = access(lock, F_OK) == 0;
    free(lock);
    if (!known && (found.st_mode & 077) && !is_empty_folder(place->data))
        return fail(error, -EEXIST,
                    "%s is open to other users and has files of its own: choose another folder", place->data);
    /* PostgreSQL's user and the pods' may go through, if they are not ours: see let_pass. */
    if ((found.st_mode & (place->other_user ? 066 : 077)) && chmod(place->data, 0700))
        return fail(error, -errno, "can't close %s to other users: %s", place->data, strerror(errno));
    return 0;
}

static int open_folder(struct up_place *place, const char *folder, char error[UP_ERROR_SIZE])
{
    if (!folder[0] || has_control_characters(folder))
        return fail(error, -EINVAL, "--data needs the name of a folder, without control characters");
    int result = make_parents(folder);
    if (result == 0 && mkdir(folder, 0700) && errno != EEXIST)
        result = -errno;
    if (result == 0 && !(place->data = realpath(folder, NULL)))
        result = -errno;
    if (result)
        return fail(error, result, "can't make the folder %s: %s", folder, strerror(-result));
    if (has_control_characters(place->data))
        return fail(error, -EINVAL, "the folder's path has control characters: choose another");
    return check_ours(place, error);
}

static int take_lock(struct up_place *place, char error[UP_ERROR_SIZE])
{
    char *path = up_path(place->data, "up.lock");
    int result = 0;
    char pid[32];
    place->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (place->lock < 0) {
        result = fail(error, -errno, "can't write %s: %s", path, strerror(errno));
    } else if (flock(place->lock, LOCK_EX | LOCK_NB)) {
        ssize_t got = pread(place->lock, pid, sizeof pid, 0);
        struct str holder = str_of(pid, got > 0 ? (size_t)got : 0);
        result = fail(error, -EBUSY, "it runs already in %s (pid %.*s)", place->data,
                      (int)strcspn(holder.size ? pid : "?\n", "\n"), holder.size ? pid : "?");
    } else {
        int length = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
        if (ftruncate(place->lock, 0) || pwrite(place->lock, pid, (size_t)length, 0) != length)
            result = fail(error, -errno, "can't write %s: %s", path, strerror(errno));
    }
    free(path);
    return result;
}

/* ---- what is in it ---- */

/* A folder that is ours alone: nobody else's, and no symbolic link that somebody has put there before. */
static int own_folder(const char *path)
{
    struct stat found;
    if (mkdir(path, 0700) && errno != EEXIST)
        return -errno;
    if (lstat(path, &found))
        return -errno;
    if (!S_ISDIR(found.st_mode) || found.st_uid != geteuid())
        return -EPERM;
    return (found.st_mode & 077) && chmod(path, 0700) ? -errno : 0;
}

static int make_own(char **path, const char *folder, const char *name, char error[UP_ERROR_SIZE])
{
    *path = up_path(folder, name);
    int result = own_folder(*path);
    return result ? fail(error, result, "can't make the folder %s: %s", *path, strerror(-result)) : 0;
}

/* Tells DIR from every other one in the name of a folder that can't be in it. */
static void name_elsewhere(const struct up_place *place, char tag[2 * TAG_BYTES + 1])
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    crypto_digest(digest, str_from(place->data), NULL);
    escape_hex(tag, digest, TAG_BYTES);
}

/* Lets PostgreSQL's user go through a folder of ours, but not list it. */
static int let_through(const struct up_place *place, const char *path)
{
    if (!place->other_user)
        return 0;
    return chown(path, (uid_t)-1, place->postgres_user.gid) || chmod(path, 0710) ? -errno : 0;
}

/* The same for DIR itself, which the pods' user has to pass too on its way to a workspace. */
static int let_pass(const char *path)
{
    return chmod(path, 0711) ? -errno : 0;
}

/* By mode bits: with an access list that says less, PostgreSQL's data are put elsewhere without need. */
static bool can_pass(const struct child_user *user, const char *path)
{
    struct stat found;
    if (stat(path, &found))
        return false;
    if (found.st_uid == user->uid)
        return found.st_mode & S_IXUSR;
    return found.st_mode & (found.st_gid == user->gid ? S_IXGRP : S_IXOTH);
}

static bool can_reach(const struct child_user *user, const char *folder)
{
    char *path = mem_strdup(folder);
    bool passable = can_pass(user, "/");
    char *slash;
    while (passable && (slash = strrchr(path, '/')) != path) {
        *slash = '\0';
        passable = can_pass(user, path);
    }
    free(path);
    return passable;
}

static int find_user(struct up_place *place, char error[UP_ERROR_SIZE])
{
    if (geteuid() != 0)
        return 0;
    const struct passwd *user = getpwnam(POSTGRES_USER);
    if (!user)
        return fail(error, -ENOENT,
                    "PostgreSQL refuses to run as root, and there is no user " POSTGRES_USER
                    " to run it as: install PostgreSQL, or be another user");
    place->other_user = true;
    place->postgres_user = (struct child_user){user->pw_uid, user->pw_gid};
    return 0;
}

/* ---- PostgreSQL's folders ---- */

static int give_to_postgres(const struct up_place *place, const char *path)
{
    struct stat found;
    if (lstat(path, &found))
        return -errno;
    if (!S_ISDIR(found.st_mode))
        return -ENOTDIR;
    if (!place->other_user)
        return found.st_uid == geteuid() ? 0 : -EPERM;
    if (found.st_uid == place->postgres_user.uid)
        return 0;
    return chown(path, place->postgres_user.uid, place->postgres_user.gid) ? -errno : 0;
}

/* A new folder below ELSEWHERE. One with our name that is there already had been made for a folder that was
 * removed or moved since: it is left alone. */
static int make_elsewhere(const struct up_place *place, char **path)
{
    char tag[2 * TAG_BYTES + 1];
    name_elsewhere(place, tag);
    if (mkdir(ELSEWHERE, 0755) && errno != EEXIST)
        return -errno;
    *path = up_path(ELSEWHERE, tag);
    (void)rmdir(*path); /* an empty one was made by a start that was killed */
    if (mkdir(*path, 0700) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    up_say("%s holds the database of an earlier %s: remove it if nobody needs it", *path, place->data);
    char random[7];
    id_random(random, sizeof random - 1);
    struct buf name = {0};
    buf_printf(&name, "%s-%s", *path, random);
    free(*path);
    *path = name.at;
    return mkdir(*path, 0700) ? -errno : 0;
}

static int link_elsewhere(struct up_place *place, const char *link, char error[UP_ERROR_SIZE])
{
    char *path = NULL;
    int result = make_elsewhere(place, &path);
    if (result == 0 && symlink(path, link))
        result = -errno;
    if (result)
        fail(error, result, "can't make the folder %s: %s", path ? path : ELSEWHERE, strerror(-result));
    else
        up_say("user " POSTGRES_USER " can't get to %s, so the database is in %s", place->data, path);
    free(path);
    return result;
}

static int make_postgres(struct up_place *place, bool reachable, char error[UP_ERROR_SIZE])
{
    char *link = up_path(place->data, "postgres");
    struct stat found;
    int result = 0;
    bool there = lstat(link, &found) == 0;
    if (!there && reachable && mkdir(link, 0700))
        result = fail(error, -errno, "can't make the folder %s: %s", link, strerror(errno));
    else if (!there && !reachable)
        result = link_elsewhere(place, link, error);
    else if (there && !reachable && S_ISDIR(found.st_mode))
        result =
            fail(error, -EACCES,
                 "user " POSTGRES_USER " can't get to the database in %s: a folder above it is closed", link);
    if (result == 0) {
        place->postgres = realpath(link, NULL);
        result = place->postgres ? give_to_postgres(place, place->postgres) : -errno;
        if (result)
            fail(error, result, "can't use the folder %s: %s", link, strerror(-result));
    }
    free(link);
    return result;
}

/* ---- the folder of sockets ---- */

/* For PostgreSQL and its clients a comma ends a folder's name. */
static bool fits(const char *run)
{
    return !strchr(run, ',') &&
           strlen(run) + strlen(SOCKET_LONGEST) < sizeof((struct sockaddr_un *)0)->sun_path;
}

/* Tries the short places in turn. Only root can write to /run; /tmp is everybody's, which own_folder minds. */
static int make_short_run(struct up_place *place)
{
    char tag[2 * TAG_BYTES + 1];
    name_elsewhere(place, tag);
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    const char *places[] = {geteuid() == 0 ? "/run" : runtime, "/tmp"};
    int result = -ENOENT;
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (!places[i] || places[i][0] != '/')
            continue;
        struct buf path = {0};
        buf_printf(&path, "%s/wakegate-%u-%s", places[i], (unsigned)geteuid(), tag);
        result = fits(path.at) ? own_folder(path.at) : -ENAMETOOLONG;
        if (result == 0) {
            place->run = path.at;
            return 0;
        }
        buf_clear(&path);
    }
    return result;
}

static int make_run(struct up_place *place, bool reachable, char error[UP_ERROR_SIZE])
{
    place->run = up_path(place->data, "run");
    bool here = reachable && fits(place->run);
    int result;
    if (here) {
        result = own_folder(place->run);
    } else {
        free(place->run);
        place->run = NULL;
        result = make_short_run(place);
    }
    if (result == 0)
        result = let_through(place, place->run);
    if (result)
        return fail(error, result, "can't make a folder for sockets: %s", strerror(-result));
    if (!here)
        up_say("sockets are in %s, as %s", place->run,
               reachable ? "the folder's name is too long for them, or has a comma"
                         : "user " POSTGRES_USER " can't get to the folder");
    place->postgres_run = up_path(place->run, "postgres");
    if (mkdir(place->postgres_run, 0700) && errno != EEXIST)
        return fail(error, -errno, "can't make the folder %s: %s", place->postgres_run, strerror(errno));
    result = give_to_postgres(place, place->postgres_run);
    return result ? fail(error, result, "can't use the folder %s: %s", place->postgres_run, strerror(-result))
                  : 0;
}

int up_place_open(struct up_place *place, const char *folder, char error[UP_ERROR_SIZE])
{
    *place = (struct up_place){.lock = -1};
    int result = find_user(place, error);
    if (result == 0)
        result = open_folder(place, folder, error);
    if (result == 0)
        result = take_lock(place, error);
    if (result)
        return result;
    /* Not to be let through is no failure: the database is elsewhere then. */
    bool reachable =
        !place->other_user || (can_reach(&place->postgres_user, place->data) && let_pass(place->data) == 0);
    place->settings = up_path(place->data, "settings.env");
    place->credentials = up_path(place->data, "credentials.env");
    result = make_own(&place->log, place->data, "log", error);
    if (result == 0)
        result = make_own(&place->redis, place->data, "redis", error);
    if (result == 0)
        result = make_postgres(place, reachable, error);
    return result ? result : make_run(place, reachable, error);
}

void up_place_close(struct up_place *place)
{
    char *owned[] = {place->data, place->settings, place->credentials, place->log,
                     place->run,  place->redis,    place->postgres,    place->postgres_run};
    for (size_t i = 0; i < ARRAY_SIZE(owned); i++)
        free(owned[i]);
    if (place->lock >= 0)
        close(place->lock);
}

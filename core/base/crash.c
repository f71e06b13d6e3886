/* Crash points for fault tests. Which one is asked for is read once; passing any other costs a comparison. */
#include "core/base/crash.h"

#ifdef WAKEGATE_TEST_BUILD

#include "core/base/str.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct crash_row crash_points[] = {
#define CRASH_ROW(name, help) {name, help},
    CRASH_POINTS(CRASH_ROW)
#undef CRASH_ROW
};
const size_t crash_point_count = ARRAY_SIZE(crash_points);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct str wanted; /* absent: no crash is asked for */
static uint64_t wanted_pass = 1;
static const char *once_path;
static atomic_uint_fast64_t passes;

static bool is_known(struct str name)
{
    for (size_t i = 0; i < crash_point_count; i++)
        if (str_equal(name, str_from(crash_points[i].name)))
            return true;
    return false;
}

static void read_environment(void)
{
    struct str rest = str_from(getenv("WAKEGATE_CRASH_AT"));
    if (!rest.size || !str_split(&rest, ':', &wanted))
        return;
    CHECK(is_known(wanted));
    if (rest.at)
        CHECK(str_to_u64(rest, &wanted_pass));
    once_path = getenv("WAKEGATE_CRASH_ONCE");
}

/* True for the one process, of all that share the path, that makes the file. */
static bool is_first(void)
{
    if (!once_path || !*once_path)
        return true;
    int file = open(once_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return false;
    close(file);
    return true;
}

void crash_point(const char *name)
{
    pthread_once(&once, read_environment);
    if (LIKELY(!wanted.at)) {
        CHECK(is_known(str_from(name)));
        return;
    }
    if (!str_equal(wanted, str_from(name)))
        return;
    if (atomic_fetch_add(&passes, 1) + 1 != wanted_pass || !is_first())
        return;
    raise(SIGKILL);
}

#else
/* A translation unit may not be empty. */
typedef int crash_points_are_for_test_builds;
#endif

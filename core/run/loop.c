/* One libuv loop per thread: turns, flush hooks, calls from other threads. */
#include "core/run/loop.h"

#include "core/base/arena.h"
#include "core/base/check.h"
#include "core/base/log.h"
#include "core/run/fiber.h"

#include <stdio.h>
#include <stdlib.h>

struct post {
    struct link link;
    void (*run)(void *arg);
    void *arg;
};

static _Thread_local struct loop *self;

struct loop *loop_self(void)
{
    return self;
}

static void on_prepare(uv_prepare_t *handle)
{
    fiber_run_ready(handle->data);
}

static void on_check(uv_check_t *handle)
{
    fiber_run_ready(handle->data);
}

/* Only its being active matters: it makes the loop poll without blocking. */
static void on_again(uv_idle_t *handle)
{
    (void)handle;
}

void loop_turn_again(struct loop *loop)
{
    if (!uv_is_active((uv_handle_t *)&loop->again))
        uv_idle_start(&loop->again, on_again);
}

static void on_posted(uv_async_t *handle)
{
    struct loop *loop = handle->data;
    struct link posts;
    list_init(&posts);
    uv_mutex_lock(&loop->post_mutex);
    struct link *item;
    while ((item = list_pop_front(&loop->posts)) != NULL)
        list_push_back(&posts, item);
    uv_mutex_unlock(&loop->post_mutex);
    while ((item = list_pop_front(&posts)) != NULL) {
        struct post *post = LIST_ENTRY(item, struct post, link);
        post->run(post->arg);
        free(post);
    }
}

void loop_open(struct loop *loop, unsigned index)
{
    CHECK(self == NULL);
    memset(loop, 0, sizeof *loop);
    loop->index = index;
    list_init(&loop->ready);
    list_init(&loop->fibers);
    list_init(&loop->flushes);
    list_init(&loop->posts);
    list_init(&loop->pooled);
    CHECK(uv_mutex_init(&loop->post_mutex) == 0);
    CHECK(uv_loop_init(&loop->uv) == 0);
    CHECK(uv_prepare_init(&loop->uv, &loop->prepare) == 0);
    CHECK(uv_check_init(&loop->uv, &loop->check) == 0);
    CHECK(uv_idle_init(&loop->uv, &loop->again) == 0);
    CHECK(uv_async_init(&loop->uv, &loop->posted, on_posted) == 0);
    loop->uv.data = loop;
    loop->prepare.data = loop;
    loop->check.data = loop;
    loop->again.data = loop;
    loop->posted.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_check_start(&loop->check, on_check);
    uv_unref((uv_handle_t *)&loop->prepare);
    uv_unref((uv_handle_t *)&loop->check);
    uv_unref((uv_handle_t *)&loop->posted);
    self = loop;
}

void loop_run(struct loop *loop)
{
    CHECK(self == loop);
    while (!loop->stopping && uv_run(&loop->uv, UV_RUN_DEFAULT) != 0)
        continue;
    loop->stopping = false;
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
    uv_stop(&loop->uv);
}

static void name_open_handle(uv_handle_t *handle, void *unused)
{
    (void)unused;
    fprintf(
        stderr,
        "{\"level\":\"fatal\",\"msg\":\"loop closed with an open handle\",\"type\":\"%s\",\"closing\":%d}\n",
        uv_handle_type_name(handle->type), uv_is_closing(handle));
}

static void name_living_fibers(struct loop *loop)
{
    loop_log_fibers(loop);
    log_flush();
}

void loop_close(struct loop *loop)
{
    CHECK(self == loop);
    on_posted(&loop->posted);
    if (!list_empty(&loop->fibers)) {
        name_living_fibers(loop);
        CHECK(list_empty(&loop->fibers));
    }
    fiber_pool_clear(loop);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->again, NULL);
    uv_close((uv_handle_t *)&loop->posted, NULL);
    uv_run(&loop->uv, UV_RUN_NOWAIT);
    uv_run(&loop->uv, UV_RUN_NOWAIT);
    if (uv_loop_close(&loop->uv) != 0) {
        uv_walk(&loop->uv, name_open_handle, NULL);
        CHECK(!"every handle is closed before loop_close");
    }
    uv_mutex_destroy(&loop->post_mutex);
    arena_thread_clear();
    self = NULL;
}

void loop_post(struct loop *loop, void (*run)(void *arg), void *arg)
{
    struct post *post = mem_alloc(sizeof *post);
    post->run = run;
    post->arg = arg;
    list_init(&post->link);
    uv_mutex_lock(&loop->post_mutex);
    list_push_back(&loop->posts, &post->link);
    uv_mutex_unlock(&loop->post_mutex);
    uv_async_send(&loop->posted);
}

void loop_flush_later(struct loop *loop, struct flush *flush)
{
    if (flush->asked)
        return;
    flush->asked = true;
    list_push_back(&loop->flushes, &flush->link);
    if (!loop->running)
        loop_turn_again(loop);
}

void loop_flush_forget(struct flush *flush)
{
    if (!flush->asked)
        return;
    flush->asked = false;
    list_remove(&flush->link);
}

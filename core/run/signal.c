/* Signals as callbacks on a loop. */
#include "core/run/signal.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static void on_signal(uv_signal_t *handle, int number)
{
    struct signal_watch *watch = handle->data;
    (void)number;
    watch->run(watch->arg);
}

void signal_open(struct loop *loop, struct signal_watch *watch, int number, void (*run)(void *arg), void *arg)
{
    watch->run = run;
    watch->arg = arg;
    CHECK(uv_signal_init(&loop->uv, &watch->handle) == 0);
    watch->handle.data = watch;
    CHECK(uv_signal_start(&watch->handle, on_signal, number) == 0);
    uv_unref((uv_handle_t *)&watch->handle);
}

void signal_close(struct signal_watch *watch)
{
    uv_close((uv_handle_t *)&watch->handle, NULL);
}

/* By the system call: glibc's function leaves out 32 and 33, which it has for itself and some programs ignore. */
void signal_reset_all(void)
{
    static const unsigned long
        defaults[8]; /* more than a kernel's struct sigaction: SIG_DFL, no flags, no mask */
    for (int number = 1; number < NSIG; number++)
        if (number != SIGKILL && number != SIGSTOP)
            syscall(SYS_rt_sigaction, number, defaults, NULL, (NSIG - 1) / 8);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

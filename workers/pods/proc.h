#ifndef WORKERS_PODS_PROC_H
#define WORKERS_PODS_PROC_H

#include "core/base/check.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Processes that need not be our children: told apart by their start time, watched and signalled by pidfd, so
 * that a pid that was used again never gets what was meant for another. Linux ≥ 5.3. Nothing here waits, but for
 * proc_end.
 */

struct proc_stat {
    char state; /* proc_pid_stat(5) */
    pid_t parent;
    pid_t session;
    int64_t started_at; /* clock ticks since boot */
};

/* pid 0 is the calling process. -ESRCH. Async-signal-safe. */
int proc_stat(pid_t pid, struct proc_stat *stat) MUST_USE;

/* False also for one that has ended and was not reaped. */
bool proc_lives(pid_t pid, int64_t started_at);

/* A descriptor (O_CLOEXEC) that becomes readable as the process ends, or -ESRCH, or what pidfd_open says. A
 * `started_at` of 0 accepts any. */
int proc_open(pid_t pid, int64_t started_at) MUST_USE;

/* 0 or a negative code. */
int proc_signal(int pidfd, int signal) MUST_USE;

/* Signals the process group that the process leads. `pid` is its pid; the caller has seen that it lives. */
int proc_signal_group(int pidfd, pid_t pid, int signal) MUST_USE;

/* The same for a leader that has ended and may be reaped; -ENOTSUP when only the pid would name the group. */
int proc_signal_left(int pidfd, int signal) MUST_USE;

/* SIGKILL, then blocks until the process has ended, at most `timeout_ms`: -ETIMEDOUT. */
int proc_end(int pidfd, int timeout_ms) MUST_USE;

/* True when the process has a child, or when the kernel does not tell. */
bool proc_has_child(pid_t pid);

#endif

#ifndef CORE_UP_LEFTOVER_H
#define CORE_UP_LEFTOVER_H

#include "core/base/check.h"

/*
 * Servers that an earlier `wakegate up` has left behind because it was killed. A process is one of them when it
 * has our folder as its working directory, which both PostgreSQL and Redis make their data folder, and the
 * server's name: a pid in a file would prove nothing.
 */
struct leftover {
    const char *name;   /* as in /proc/PID/comm */
    const char *folder; /* its data folder */
    int stop_signal;    /* asks it to end in order */
    int kill_signal;    /* ends it without waiting for anybody */
};

/* Stops what is left. The caller holds the lock of the data folder. Waits until nothing is left: 0, -ETIMEDOUT
 * or -ECANCELED. */
int leftover_stop(const struct leftover *leftover) MUST_USE;

#endif

#ifndef CORE_UP_PLACE_H
#define CORE_UP_PLACE_H

#include "core/base/check.h"
#include "core/run/child.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * The folder of `wakegate up`, and where things are in it:
 *
 *     DIR/up.lock          held while one runs here
 *     DIR/settings.env     what serve and work are given
 *     DIR/credentials.env  what a client needs
 *     DIR/log/             a log for each part
 *     DIR/run/             sockets, the port
 *     DIR/redis/           Redis's data
 *     DIR/postgres/data/   PostgreSQL's
 *
 * Two things may have to be elsewhere. Sockets, where DIR's name is too long for the address of one or has a comma, or where
 * the user that PostgreSQL runs as can't get to. And, when we are root, so that PostgreSQL has another user: its
 * data, if that user can't pass the folders above DIR; DIR/postgres is a symbolic link then.
 */
struct up_place {
    char *data; /* DIR, absolute and without symbolic links */
    char *settings;
    char *credentials;
    char *log;
    char *run;
    char *redis;
    char *postgres; /* absolute and without symbolic links */
    char *postgres_run;
    bool other_user; /* PostgreSQL runs as postgres_user */
    struct child_user postgres_user;
    int lock;
};

enum { UP_ERROR_SIZE = 512 };

/* Makes what is missing and takes the lock. 0, or a negative error with one line in `error`. Says where things
 * are when that is not below DIR. up_place_close in either case. */
int up_place_open(struct up_place *place, const char *folder, char error[UP_ERROR_SIZE]) MUST_USE;

/* Gives the lock back. */
void up_place_close(struct up_place *place);

/* A malloced "folder/name". */
char *up_path(const char *folder, const char *name);

#endif

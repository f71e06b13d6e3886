/*
 * A PostgreSQL and a Redis of the test's own: real servers in a new folder, reachable by unix sockets only,
 * gone when the test ends (and when it crashes: the kernel then kills them; only the folder is left).
 *
 *     static struct services services;
 *     services_start(&services, SERVICES_POSTGRES | SERVICES_REDIS);   // group setup; about a second
 *     config_set("DATABASE_URL", services.database_url, ...);
 *     ...
 *     services_stop(&services);                                         // group teardown
 *
 * Everything here blocks and aborts when it can't do what it is for. Start them on the main thread.
 */
#ifndef WAKEGATE_TEST_UNIT_SUPPORT_SERVICES_H
#define WAKEGATE_TEST_UNIT_SUPPORT_SERVICES_H

#include <stdint.h>
#include <sys/types.h>

enum {
    SERVICES_POSTGRES = 1,
    SERVICES_REDIS = 2,
    SERVICES_FSYNC = 4, /* PostgreSQL writes through to the disk, as in production; for measuring */
};

struct services {
    unsigned which;
    char folder[64];
    char database_url[192]; /* superuser "postgres", database "postgres", no password */
    char redis_url[128];    /* unix:///…/redis.sock */
    pid_t postgres;         /* 0 while it does not run */
    pid_t redis;
};

/* Makes the folder, starts what `which` asks for and waits until it answers. */
void services_start(struct services *services, unsigned which);
/* Stops what runs and removes the folder. */
void services_stop(struct services *services);

/* Crash and return: the stop is immediate (PostgreSQL: SIGQUIT, no shutdown; Redis: SIGKILL), the start waits until
 * the server answers. PostgreSQL's committed data is kept; Redis starts empty. */
void services_postgres_stop(struct services *services);
void services_postgres_start(struct services *services);
void services_redis_stop(struct services *services);
void services_redis_start(struct services *services);

/* Runs SQL on a connection of its own and returns the first value of the first row as a number: true is 1,
 * false, and no value at all, 0. */
int64_t services_sql(const struct services *services, const char *sql);

#endif

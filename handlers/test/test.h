#ifndef HANDLERS_TEST_TEST_H
#define HANDLERS_TEST_TEST_H

#include "core/gate/gate.h"

/* What only tests and measurements want: served with WAKEGATE_TEST_ENDPOINTS=1, otherwise not part of the tables. */
extern const struct surface surface_test;

/* Each loop's subscribers of /test/broadcast. */
void test_open_loop(struct loop *loop);
/* After the server was drained. */
void test_close_loop(struct loop *loop);

void test_echo(struct request *request);
void test_websocket(struct request *request);
void test_subscribe(struct request *request);
void test_broadcast(struct request *request);
void test_events(struct request *request);

#endif

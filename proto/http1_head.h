#ifndef PROTO_HTTP1_HEAD_H
#define PROTO_HTTP1_HEAD_H

#include "proto/http1.h"

/*
 * The rules for a request's head as a whole, once its line and fields have been read: one valid Host, a target of a form
 * that fits the method, a body framed in one way only (RFC 9112 §3.2, §6).
 */

/* Fills in what follows from method, target, version and fields. 0, or the status to refuse it with and a reason for
 * people. */
int http1_head_check(struct http1_head *head, const char **reason) MUST_USE;

#endif

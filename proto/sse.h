#ifndef PROTO_SSE_H
#define PROTO_SSE_H

#include "core/base/str.h"

/* Server-sent events to bytes (the event stream format of the HTML standard, §9.2). */

/* Appends one event; with absent `data` it is none, and the client only takes note of the id. `id` and `event` may be absent, and are left out when they hold a line break or NUL, which the format
 * can't carry. `data` may have any number of lines, ended by CR LF, LF or CR. */
void sse_put_event(struct buf *out, struct str id, struct str event, struct str data);
/* Appends a comment, which clients ignore: it shows that the connection lives. */
void sse_put_comment(struct buf *out);

#endif

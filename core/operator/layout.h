#ifndef CORE_OPERATOR_LAYOUT_H
#define CORE_OPERATOR_LAYOUT_H

#include "core/base/str.h"
#include "proto/json.h"

/* A verb's answer for people, whatever it is: an array of objects (each with the first one's members) as a table, an
 * object as lines of "name: value", arrays of objects in it as tables below. */
void operator_layout(struct buf *out, const struct json *answer);

/* The text with what a terminal would act upon (control characters) as '?': names are chosen by users. */
void operator_add_clean(struct buf *out, struct str text);

#endif

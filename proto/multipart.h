#ifndef PROTO_MULTIPART_H
#define PROTO_MULTIPART_H

#include "core/base/check.h"
#include "core/base/str.h"

#include <stddef.h>

/*
 * multipart/form-data (RFC 7578 on RFC 2046 §5.1) from bytes: uploads of any size in memory of a fixed size. Bytes go
 * in as they come and events come out; nothing of a part's content is kept. No I/O.
 *
 *     multipart_feed:    ( PART DATA* PART_END )*       and MORE whenever all bytes were taken
 *     multipart_finish:  END
 *
 * or ERROR in the place of any of them. Only END says that nothing is missing: until then a part that has ended may
 * still turn out to belong to a broken body, so what was read stays provisional.
 */

enum {
    MULTIPART_BOUNDARY_MAX = 70,   /* RFC 2046 §5.1.1 */
    MULTIPART_PREAMBLE_MAX = 1024, /* bytes before the first boundary, which mean nothing */
    MULTIPART_PARTS_MAX = 64,
    MULTIPART_HEAD_MAX = 8192,  /* bytes of a part's head, with its line ends and the empty line */
    MULTIPART_FIELDS_MAX = 16,  /* of a part's head */
    MULTIPART_PADDING_MAX = 64, /* spaces and tabs behind a boundary */
};

/* The boundary of a Content-Type value, pointing into it. -EINVAL when the type is not multipart/form-data, is
 * malformed, names no boundary or two, or one that is not 1 to 70 of the characters of RFC 2046 §5.1.1. */
int multipart_boundary(struct str content_type, struct str *boundary) MUST_USE;

/*
 * What a part says of itself, as UTF-8 without control characters. In quoted names \" and \\ stand for '"' and '\', as
 * some clients write them, and %22 for '"', as browsers do. Any other backslash or percent sign stands for itself, for
 * browsers escape neither; the %0D and %0A that they write for line ends stay too, as a name holds none. A `filename` is
 * the client's word: it may be "../x", and is never a path here. "filename*", which RFC 7578 §4.2 forbids and some send
 * beside `filename`, is ignored.
 */
struct multipart_part {
    struct str name;
    struct str filename;     /* absent when the part names none; may be empty */
    struct str content_type; /* absent when the part names none */
};

enum multipart_event {
    MULTIPART_MORE,     /* all bytes were taken; more are needed */
    MULTIPART_PART,     /* a part begins: multipart_part */
    MULTIPART_DATA,     /* bytes of it: multipart_data */
    MULTIPART_PART_END, /* its last byte was given */
    MULTIPART_END,      /* from multipart_finish alone: the body was whole */
    MULTIPART_ERROR,    /* the client's fault: multipart_error; the parser is of no further use */
};

/* Some 9 KiB, and never more. */
struct multipart;

/* `boundary` as multipart_boundary gives it; copied. */
struct multipart *multipart_new(struct str boundary);
void multipart_free(struct multipart *parser);

/*
 * Takes bytes up to the next event and returns how many; 0 with DATA when what was held back as the possible beginning
 * of a boundary was none. Lines end in CR LF. Refused: more than the bounds above, fields that are folded or malformed,
 * a part without exactly one Content-Disposition of type form-data with exactly one name, a Content-Transfer-Encoding
 * that is not 7bit, 8bit or binary, and a line that begins with the boundary and goes on (RFC 2046 forbids such a line
 * in a part; others may read it differently). A body without parts is none the worse for it: a browser sends that for
 * an empty form. What stands behind the last boundary's line is taken and ignored.
 */
size_t multipart_feed(struct multipart *parser, const char *bytes, size_t size, enum multipart_event *event);

/* The body has ended: MULTIPART_END, or MULTIPART_ERROR when its last boundary was not there. */
enum multipart_event multipart_finish(struct multipart *parser);

/* From PART to the multipart_feed after PART_END. */
const struct multipart_part *multipart_part(const struct multipart *parser);
/* After DATA, until the next call; points into the bytes fed or into the parser. Never empty. */
struct str multipart_data(const struct multipart *parser);
/* After ERROR: a reason for people that quotes no input. */
const char *multipart_error(const struct multipart *parser);

#endif

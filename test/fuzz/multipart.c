/*
 * Uploads: the same parts whole and in pieces, names that are fit to be shown, and no content that a boundary runs
 * through. The input's first line is the Content-Type, the rest the body.
 */
#include "proto/multipart.h"
#include "test/fuzz/support.h"

#include <stdlib.h>

struct upload {
    struct multipart *parser;
    struct str delimiter;
    struct buf *transcript;
    struct buf content; /* of the part at hand */
    size_t content_bytes;
    unsigned parts;
    bool in_part;
    bool broken;
};

static struct str body_delimiter(struct buf *out, struct str boundary)
{
    buf_add_literal(out, "\r\n--");
    buf_add_str(out, boundary);
    return buf_str(out);
}

static void check_text(struct str text)
{
    CHECK(str_is_utf8(text) && text.size <= MULTIPART_HEAD_MAX);
    for (size_t i = 0; i < text.size; i++)
        CHECK((unsigned char)text.at[i] >= ' ' && text.at[i] != 0x7f);
}

static void put_text(struct buf *out, struct str text)
{
    check_text(text);
    buf_add_str(out, text.at ? text : STR("(none)"));
    buf_add_char(out, '\n');
}

static void put_part(struct upload *upload)
{
    const struct multipart_part *part = multipart_part(upload->parser);
    CHECK(part->name.at);
    buf_add_literal(upload->transcript, "PART ");
    put_text(upload->transcript, part->name);
    put_text(upload->transcript, part->filename);
    put_text(upload->transcript, part->content_type);
}

static void on_part(struct upload *upload)
{
    CHECK(!upload->in_part && ++upload->parts <= MULTIPART_PARTS_MAX);
    upload->in_part = true;
    put_part(upload);
}

static void on_data(struct upload *upload)
{
    struct str data = multipart_data(upload->parser);
    CHECK(upload->in_part && data.size > 0);
    upload->content_bytes += data.size;
    buf_add_str(&upload->content, data);
    buf_add_str(upload->transcript, data);
}

static void on_part_end(struct upload *upload)
{
    CHECK(upload->in_part);
    upload->in_part = false;
    const struct str found = upload->delimiter;
    CHECK(upload->content.size == 0 ||
          !memmem(upload->content.at, upload->content.size, found.at, found.size));
    upload->content.size = 0;
    buf_add_literal(upload->transcript, "\nEND OF ");
    put_part(upload);
}

static bool feed(void *arg, const char *bytes, size_t size)
{
    struct upload *upload = arg;
    for (size_t at = 0; at < size;) {
        enum multipart_event event = MULTIPART_END;
        size_t taken = multipart_feed(upload->parser, bytes + at, size - at, &event);
        CHECK(taken <= size - at);
        at += taken;
        switch (event) {
        case MULTIPART_MORE: CHECK(at == size); break;
        case MULTIPART_PART: on_part(upload); break;
        case MULTIPART_DATA: on_data(upload); break;
        case MULTIPART_PART_END: on_part_end(upload); break;
        case MULTIPART_END: UNREACHABLE();
        case MULTIPART_ERROR:
            buf_printf(upload->transcript, "ERROR %s", multipart_error(upload->parser));
            upload->broken = true;
            return false;
        }
    }
    return true;
}

static void run(struct str input, enum fuzz_way way, struct buf *transcript)
{
    const char *end = input.size ? memchr(input.at, '\n', input.size) : NULL;
    struct str type = end ? str_of(input.at, (size_t)(end - input.at)) : input;
    struct str body = str_of(type.at + type.size, input.size - type.size);
    struct str boundary;
    if (multipart_boundary(type, &boundary))
        return;
    struct buf delimiter = {0};
    struct upload upload = {
        .parser = multipart_new(boundary),
        .delimiter = body_delimiter(&delimiter, boundary),
        .transcript = transcript,
    };
    if (body.size)
        fuzz_feed(str_of(body.at + 1, body.size - 1), way, feed, &upload);
    enum multipart_event event = multipart_finish(upload.parser);
    CHECK(event == MULTIPART_ERROR || (event == MULTIPART_END && !upload.broken && !upload.in_part));
    CHECK(upload.content_bytes <= body.size);
    buf_add_text(transcript, event == MULTIPART_END ? "END" : multipart_error(upload.parser));
    multipart_free(upload.parser);
    buf_clear(&upload.content);
    buf_clear(&delimiter);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_compare(str_of((const char *)bytes, size), run);
    return 0;
}

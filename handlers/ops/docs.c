/*
 * The API's description, for programs (GET /openapi.json) and for people (GET /docs): embedded files, made by the build
 * out of schema/openapi.yaml. The page needs nothing from elsewhere, and its policy lets in nothing but its style.
 */
#include "handlers/ops/ops.h"

#include "core/store/embed.h"

#include <string.h>

enum { PIECE_SIZE = 65536 };

static struct str document(const char *name)
{
    for (size_t i = 0; i < embedded_document_count; i++)
        if (strcmp(embedded_documents[i].name, name) == 0)
            return str_of(embedded_documents[i].text, embedded_documents[i].size);
    UNREACHABLE();
}

/* In pieces: a client that reads slowly holds one of them and not all of it. */
static void send_document(struct request *request, const char *type, struct str text)
{
    reply_header(request, "Content-Type", type);
    reply_header(request, "X-Content-Type-Options", "nosniff");
    reply_header(request, "Cache-Control", "no-cache");
    http_stream_begin_sized(request->http, 200, text.size);
    while (text.size) {
        size_t size = text.size < PIECE_SIZE ? text.size : PIECE_SIZE;
        if (http_stream_write(request->http, str_of(text.at, size)))
            return;
        text = str_of(text.at + size, text.size - size);
    }
    http_stream_end(request->http);
}

/* GET /openapi.json */
void ops_openapi(struct request *request)
{
    send_document(request, "application/json", document("openapi.json"));
}

/* GET /docs */
void ops_docs(struct request *request)
{
    struct str policy = document("docs.csp");
    http_add_header(request->http, STR("Content-Security-Policy"), policy);
    reply_header(request, "Referrer-Policy", "no-referrer");
    send_document(request, "text/html; charset=utf-8", document("docs.html"));
}

/* The models that there are, as OpenAI's API lists them. */
#include "handlers/inference/inference.h"

#include "core/domain/ai/catalogue.h"
#include "proto/ai/failure.h"

static void put_model(struct json_out *out, const struct model *model)
{
    json_put_str(out, "id", model->id);
    json_put_text(out, "object", "model");
    json_put_int(out, "created", model->created_s);
    json_put_text(out, "owned_by", model->owned_by);
    json_key(out, "permission");
    json_open(out, '[');
    json_put_text(out, NULL, "query");
    json_close(out, ']');
    json_put_str(out, "root", model->id);
    json_put_null(out, "parent");
}

/* GET /api/v1/models */
void models_list(struct request *request)
{
    struct catalogue *catalogue = catalogue_ref();
    struct reply reply;
    reply_begin(&reply, request);
    json_put_text(&reply.json, "object", "list");
    json_key(&reply.json, "data");
    json_open(&reply.json, '[');
    for (size_t i = 0; i < catalogue_model_count(catalogue); i++) {
        json_open(&reply.json, '{');
        put_model(&reply.json, catalogue_model_at(catalogue, i));
        json_close(&reply.json, '}');
    }
    json_close(&reply.json, ']');
    reply_end(&reply, 200);
    catalogue_unref(catalogue);
}

static void reply_no_model(struct request *request)
{
    const struct api_error_row *row = &api_errors[ERROR_MODEL_NOT_AVAILABLE];
    const struct ai_failure failure = {
        .message = str_from(row->message),
        .type = "invalid_request_error",
        .code = row->code,
        .param = STR("model"),
    };
    struct buf body = {0};
    ai_put_error(&body, &failure);
    reply_error_body(request, row->status, row->code, "application/json", buf_str(&body));
    buf_clear(&body);
}

/* GET /api/v1/models/{id} */
void models_get(struct request *request)
{
    struct catalogue *catalogue = catalogue_ref();
    const struct model *model = catalogue_model(catalogue, request->params[0]);
    if (model) {
        struct reply reply;
        reply_begin(&reply, request);
        put_model(&reply.json, model);
        reply_end(&reply, 200);
    } else {
        reply_no_model(request);
    }
    catalogue_unref(catalogue);
}

#ifndef PROTO_AI_OPENAI_H
#define PROTO_AI_OPENAI_H

#include "proto/ai/provider.h"

/*
 * The OpenAI API, and all that speak as it does: POST /v1/chat/completions and /v1/completions. Our own answers and chunks are in
 * its shape, so one that was kept is given another identity by reading it again.
 */
extern const struct ai_provider_ops ai_openai;

#endif

#ifndef PROTO_AI_ANTHROPIC_H
#define PROTO_AI_ANTHROPIC_H

#include "proto/ai/provider.h"

/*
 * The Anthropic Messages API, version 2023-06-01: POST /v1/messages. What it has no counterpart for is refused (`accepts`), but for
 * hints and notes without which an answer is no worse: names of speakers, an image's "detail", metadata, prompt_cache_key and
 * prompt_cache_retention are not passed on. A temperature over 1 counts as 1, as in Anthropic's own layer for OpenAI's clients.
 */
extern const struct ai_provider_ops ai_anthropic;

#endif

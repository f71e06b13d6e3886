#ifndef PROTO_ANTHROPIC_H
#define PROTO_ANTHROPIC_H

#include "proto/ai_provider.h"

/* The Anthropic Messages API, version 2023-06-01: POST /v1/messages. */
extern const struct ai_provider_ops ai_anthropic;

#endif

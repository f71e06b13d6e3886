#ifndef HANDLERS_GPU_GPU_H
#define HANDLERS_GPU_GPU_H

#include "core/gate/gate.h"

/* The gpu surface (contract.md, 5). */
extern const struct surface surface_gpu;

#endif

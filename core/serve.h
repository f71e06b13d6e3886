#ifndef CORE_SERVE_H
#define CORE_SERVE_H

#include "core/gate/gate.h"

#include <stddef.h>

/* The surfaces that the reactor serves; the last answers for paths that no other has. */
extern const struct surface *const serve_surfaces[];
extern const size_t serve_surface_count;

#endif

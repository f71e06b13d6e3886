#ifndef WORKERS_PODS_TREE_H
#define WORKERS_PODS_TREE_H

#include "core/base/check.h"

#include <sys/types.h>

/*
 * Folder trees that a pod has filled: any depth, any names, symbolic links (never followed), folders without
 * permissions. No process may be moving folders in the tree meanwhile. Both block: for the thread pool.
 */

/* Removes `name` in the folder `parent_fd` and all that is below it. 0 also when it is not there. */
int tree_remove(int parent_fd, const char *name) MUST_USE;

/* Gives all that is below the folder `folder_fd`, then itself, to the user: last, so that its owner says whether
 * the rest is done. */
int tree_give(int folder_fd, uid_t uid, gid_t gid) MUST_USE;

#endif

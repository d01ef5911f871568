/* SPDX-License-Identifier: MIT */
/* The verbs of ctl that are about nodes and the cluster's secret. Each is done,
 * or refused, at once. Thread: the loop. */
#ifndef FS_DIR_CTL_NODES_H
#define FS_DIR_CTL_NODES_H

#include <stddef.h>

struct call;

/* Carry out verb, for c, with the len bytes of argument behind it, that are
 * followed by a NUL. 0; -EPERM, the caller does not administer the node; -EINVAL,
 * -ENOENT, -EBUSY, -EEXIST, ... */
int dir_ctl_admin(const struct call *c, const char *verb, const char *argument,
		  size_t len);

#endif

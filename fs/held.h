/* SPDX-License-Identifier: MIT */
/* The files of owned/, recover/ and parked/: one class, so that a key keeps its
 * inode when it is moved from one to another. */
#ifndef FS_HELD_H
#define FS_HELD_H

#include "fs/tree_impl.h"

extern const struct files held_files;

#endif

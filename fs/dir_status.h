/* SPDX-License-Identifier: MIT */
/* What status/ and peers/ ask of each other and of the tree. Thread: the loop. */
#ifndef FS_DIR_STATUS_H
#define FS_DIR_STATUS_H

#include <stdbool.h>

struct facts;
struct tree;

/* All that is known now. facts_finish() releases it. owners: the table of vnodes
 * too. */
void dir_status_facts(struct tree *t, bool owners, struct facts *out);

#endif

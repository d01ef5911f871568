/* SPDX-License-Identifier: MIT */
/* What status/, peers/ and ctl ask of each other. Thread: the loop. */
#ifndef FS_DIR_STATUS_H
#define FS_DIR_STATUS_H

#include <stdbool.h>
#include <stddef.h>

struct facts;
struct peer;
struct tree;

/* All that is known now. facts_finish() releases it. needs: FACTS_... */
void dir_status_facts(struct tree *t, unsigned needs, struct facts *out);

/* All members, as peers/ shows them, as a new array of *n; free() releases it,
 * and what it points to is borrowed until the loop's next turn. */
struct peer *dir_peers_all(struct tree *t, size_t *n);

/* Forget the member that is shown as name; is_unlink: the kernel announces it.
 * 0; -ENOENT; -EBUSY, it lives. */
int dir_peers_forget(struct tree *t, const char *name, bool is_unlink);

#endif

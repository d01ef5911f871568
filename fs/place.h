/* SPDX-License-Identifier: MIT */
/* Where a state is, so that a copy of it is told from it (holes.md 21).
 *
 * A copy has other files: other inodes, made at another time, which no user can
 * set; so has a backup that was put back, of which the log's folder or the lock
 * is never the one that was there. A state that is renamed, or mounted
 * elsewhere, is the same. The clone of a whole disk shows only by the machine,
 * if that has a name of its own; device numbers say nothing, as they change with
 * each start of a machine. Thread: any. Blocks. */
#ifndef FS_PLACE_H
#define FS_PLACE_H

#include <stdbool.h>
#include <stdint.h>

struct place {
	uint64_t files;	  /* a hash of DIR/lock and DIR/wal, the folder */
	uint64_t machine; /* a hash of machine-id(5); 0: there is none */
};

void place_look(int dir_fd, struct place *out);

/* A machine without a name is any. */
bool place_is_same(const struct place *a, const struct place *b);

#endif

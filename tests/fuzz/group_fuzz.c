/* SPDX-License-Identifier: MIT */
/* libFuzzer on what servers say to each other: what is read is written as the
 * same bytes, but for padding, and a message can be cut between any entries. */
#include "ring/group_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void cut(struct wire_message *m)
{
	struct raft_append_entries *a = &m->raft.append_entries;
	struct wire_message tail = *m;

	if (m->kind != RAFT_APPEND_ENTRIES || a->n_entries < 2)
		return;
	group_wire_cut(a, 1 + a->n_entries / 2 % (a->n_entries - 1),
		       &tail.raft.append_entries);
	group_wire_finish(&tail);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_message m, again;
	struct buf b = {0};

	if (group_wire_decode(&m, data, size) != 0)
		return 0;
	group_wire_encode(&m, &b);
	if (b.len != size || group_wire_decode(&again, b.base, b.len) != 0)
		abort();
	group_wire_finish(&again);
	cut(&m);
	group_wire_finish(&m);
	free(b.base);
	return 0;
}

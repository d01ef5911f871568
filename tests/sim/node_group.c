/* SPDX-License-Identifier: MIT */
#include "tests/sim/node_group.h"

#include "ring/group_impl.h"
#include "ring/wal_impl.h"

bool group_set_waiting(struct group *g, bool waits)
{
	return atomic_exchange(&g->log_full, waits) != waits;
}

void group_given(const struct group *g, uint64_t *bytes, uint64_t *entries)
{
	*bytes = g->bytes_appended;
	*entries = g->n_entries;
}

bool group_fits(const struct group *g, uint64_t bytes)
{
	struct wal *w = g->wal;
	uint64_t spare = atomic_load(&w->spare_bytes);

	return bytes <= atomic_load(&w->left) ||
	       bytes + WAL_BLOCK + WAL_CLOSE <= spare;
}

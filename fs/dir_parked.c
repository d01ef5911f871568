/* SPDX-License-Identifier: MIT */
/* parked/: failed too often, offered to nobody. To move one to recover/ tries
 * it again. */
#include <errno.h>

#include "fs/held.h"
#include "fs/keyfile.h"

static int lookup(struct tree *t, const char *name, uint64_t *id)
{
	return keyfile_lookup(t, RING_VIEW_PARKED, name, id);
}

static uint64_t *list(struct tree *t, size_t *n)
{
	return ring_list(t->ring, RING_VIEW_PARKED, n);
}

static const char *name_of(struct tree *t, uint64_t id)
{
	return keyfile_name_of(t, RING_VIEW_PARKED, id);
}

static void finish_key(struct call *c)
{
	c->deletes = 1u << RING_VIEW_PARKED;
	keyfile_act(c, RING_VIEW_PARKED, RING_FINISH);
}

static void rename_key(struct call *c)
{
	c->deletes = 1u << RING_VIEW_PARKED;
	if (c->to == &dir_recover) {
		c->creates = 1u << RING_VIEW_RECOVER;
		keyfile_act(c, RING_VIEW_PARKED, RING_RETRY);
	} else {
		call_reply(c, -EPERM);
	}
}

const struct dir dir_parked = {
	.name = "parked",
	.flags = DIR_WRITABLE | DIR_HERALDED,
	.files = &held_files,
	.lookup = lookup,
	.list = list,
	.name_of = name_of,
	.unlink = finish_key,
	.rename = rename_key,
};

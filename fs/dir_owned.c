/* SPDX-License-Identifier: MIT */
/* owned/: the keys this node works on. To remove one is to finish it, to move
 * it to recover/ gives it back, to parked/ parks it. */
#include <errno.h>

#include "fs/held.h"
#include "fs/keyfile.h"

static int lookup(struct tree *t, const char *name, uint64_t *id)
{
	return keyfile_lookup(t, RING_VIEW_OWNED, name, id);
}

static uint64_t *list(struct tree *t, size_t *n)
{
	return ring_list(t->ring, RING_VIEW_OWNED, n);
}

static const char *name_of(struct tree *t, uint64_t id)
{
	return keyfile_name_of(t, RING_VIEW_OWNED, id);
}

static void finish_key(struct call *c)
{
	c->deletes = 1u << RING_VIEW_OWNED;
	keyfile_act(c, RING_VIEW_OWNED, RING_FINISH);
}

static void rename_key(struct call *c)
{
	c->deletes = 1u << RING_VIEW_OWNED;
	if (c->to == &dir_recover) {
		c->creates = 1u << RING_VIEW_RECOVER;
		keyfile_act(c, RING_VIEW_OWNED, RING_GIVE);
	} else if (c->to == &dir_parked) {
		c->creates = 1u << RING_VIEW_PARKED;
		keyfile_act(c, RING_VIEW_OWNED, RING_PARK);
	} else {
		call_reply(c, -EPERM);
	}
}

const struct dir dir_owned = {
	.name = "owned",
	.flags = DIR_WRITABLE | DIR_HERALDED,
	.files = &held_files,
	.lookup = lookup,
	.list = list,
	.name_of = name_of,
	.unlink = finish_key,
	.rename = rename_key,
};

/* SPDX-License-Identifier: MIT */
/* recover/: held here, offered, not yet taken by a worker. To move one to
 * owned/ takes it: of many who try, one wins. */
#include <errno.h>

#include "fs/held.h"
#include "fs/keyfile.h"

static int lookup(struct tree *t, const char *name, uint64_t *id)
{
	return keyfile_lookup(t, RING_VIEW_RECOVER, name, id);
}

static uint64_t *list(struct tree *t, size_t *n)
{
	return ring_list(t->ring, RING_VIEW_RECOVER, n);
}

static const char *name_of(struct tree *t, uint64_t id)
{
	return keyfile_name_of(t, RING_VIEW_RECOVER, id);
}

static void finish_key(struct call *c)
{
	c->deletes = 1u << RING_VIEW_RECOVER;
	keyfile_act(c, RING_VIEW_RECOVER, RING_FINISH);
}

static void rename_key(struct call *c)
{
	c->deletes = 1u << RING_VIEW_RECOVER;
	if (c->to == &dir_owned) {
		c->creates = 1u << RING_VIEW_OWNED;
		keyfile_act(c, RING_VIEW_RECOVER, RING_TAKE);
	} else if (c->to == &dir_parked) {
		c->creates = 1u << RING_VIEW_PARKED;
		keyfile_act(c, RING_VIEW_RECOVER, RING_PARK);
	} else {
		call_reply(c, -EPERM);
	}
}

const struct dir dir_recover = {
	.name = "recover",
	.flags = DIR_WRITABLE | DIR_HERALDED,
	.files = &held_files,
	.lookup = lookup,
	.list = list,
	.name_of = name_of,
	.unlink = finish_key,
	.rename = rename_key,
};

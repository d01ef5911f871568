/* SPDX-License-Identifier: MIT */
/* owned/: the keys this node works on. To remove one is to finish it, to move
 * it to recover/ gives it back, to parked/ parks it. */
#include <errno.h>

#include "fs/held.h"
#include "fs/keyfile.h"

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
	.view = RING_VIEW_OWNED,
	.lookup = keyfile_lookup,
	.list = keyfile_list,
	.name_of = keyfile_name_of,
	.unlink = finish_key,
	.rename = rename_key,
};

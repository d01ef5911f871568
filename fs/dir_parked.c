/* SPDX-License-Identifier: MIT */
/* parked/: failed too often, offered to nobody. To move one to recover/ tries
 * it again. */
#include <errno.h>

#include "fs/held.h"
#include "fs/keyfile.h"

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
	.view = RING_VIEW_PARKED,
	.lookup = keyfile_lookup,
	.list = keyfile_list,
	.name_of = keyfile_name_of,
	.unlink = finish_key,
	.rename = rename_key,
};

/* SPDX-License-Identifier: MIT */
/* recover/: held here, offered, not yet taken by a worker. To move one to
 * owned/ takes it: of many who try, one wins. */
#include <errno.h>

#include "fs/held.h"
#include "fs/keyfile.h"

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
	.view = RING_VIEW_RECOVER,
	.lookup = keyfile_lookup,
	.list = keyfile_list,
	.name_of = keyfile_name_of,
	.unlink = finish_key,
	.rename = rename_key,
};

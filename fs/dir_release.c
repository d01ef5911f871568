/* SPDX-License-Identifier: MIT */
/* release/: held here, but this node is asked to let go. A file says who the
 * heir is; to remove it lets go. */
#include <errno.h>

#include "fs/keyfile.h"

static int attr(struct tree *t, uint64_t id, struct stat *st)
{
	int rc = keyfile_attr(t, id, st);

	st->st_size = -1; /* of what render gives */
	return rc;
}

static int render(struct tree *t, uint64_t id, struct text *out)
{
	const struct ring_key *key = ring_find_id(t->ring, id);

	if (key == NULL)
		return -ENOENT;
	uint32_t heir = ring_vnode_owner(t->ring, key->vnode);

	text_printf(out, "%s\n", tree_node_name(t, heir));
	return 0;
}

static void let_go(struct call *c)
{
	c->deletes = 1u << RING_VIEW_RELEASE;
	keyfile_act(c, RING_VIEW_RELEASE, RING_LET);
}

static const struct files release_files = {
	.attr = attr,
	.render = render,
	.xattr_names = keyfile_xattr_names,
	.xattr = keyfile_xattr,
};

const struct dir dir_release = {
	.name = "release",
	.flags = DIR_WRITABLE | DIR_HERALDED,
	.files = &release_files,
	.view = RING_VIEW_RELEASE,
	.lookup = keyfile_lookup,
	.list = keyfile_list,
	.name_of = keyfile_name_of,
	.unlink = let_go,
};

/* SPDX-License-Identifier: MIT */
/* release/: held here, but this node is asked to let go. A file says who the
 * heir is; to remove it lets go. */
#include <errno.h>
#include <stdlib.h>

#include "fs/keyfile.h"
#include "fs/util.h"

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

/* The placement has moved: what a file says may be another heir now. A MODIFY
 * too many does no harm, so nothing is kept but which placement was told. */
static void on_status(struct tree *t)
{
	uint64_t **told = (uint64_t **)tree_data(t, &dir_release);
	struct ring_status status;
	size_t n;

	if (*told == NULL)
		*told = xcalloc(1, sizeof(**told));
	ring_status(t->ring, &status);
	if (**told == status.epoch)
		return;
	**told = status.epoch;
	uint64_t *ids = keyfile_list(t, &dir_release, &n);

	for (size_t i = 0; i < n; i++) {
		const char *name = keyfile_name_of(t, &dir_release, ids[i]);

		if (name != NULL)
			tree_post(t, &dir_release, name, HERALD_MODIFY);
	}
	free(ids);
}

static void finish(struct tree *t)
{
	free(*tree_data(t, &dir_release));
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
	.on_status = on_status,
	.finish = finish,
};

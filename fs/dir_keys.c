/* SPDX-License-Identifier: MIT */
/* keys/: every unfinished key of the cluster; to create one is to claim it. */
#include <errno.h>

#include "fs/keyfile.h"

static void create(struct call *c)
{
	c->creates = 1u << RING_VIEW_KEYS;
	keyfile_create(c, RING_CLAIM);
}

static void finish_key(struct call *c)
{
	c->deletes = 1u << RING_VIEW_KEYS;
	keyfile_act(c, RING_VIEW_KEYS, RING_FINISH);
}

/* A plain touch of a key that exists is an open for writing, and must not look
 * like a claim (fuse.md 21). */
static void open_key(struct call *c)
{
	if ((c->fi.flags & O_ACCMODE) != O_RDONLY || c->fi.flags & O_TRUNC)
		call_reply(c, -EEXIST);
	else
		keyfile_open(c);
}

static void write_note(struct call *c, const char *bytes, size_t n, off_t off)
{
	c->modifies = 1u << RING_VIEW_KEYS;
	keyfile_write(c, bytes, n, off);
}

static void set_attr(struct call *c, const struct stat *st, int to_set)
{
	c->modifies = 1u << RING_VIEW_KEYS;
	keyfile_setattr(c, st, to_set);
}

static const struct files key_files = {
	.attr = keyfile_attr,
	.open = open_key,
	.read = keyfile_read,
	.write = write_note,
	.setattr = set_attr,
	.fsync = keyfile_fsync,
	.lock = keyfile_lock,
	.release = keyfile_release,
	.xattr_names = keyfile_xattr_names,
	.xattr = keyfile_xattr,
};

const struct dir dir_keys = {
	.name = "keys",
	.flags = DIR_REPLICATED | DIR_WRITABLE | DIR_HERALDED | DIR_BEST_EFFORT,
	.files = &key_files,
	.view = RING_VIEW_KEYS,
	.lookup = keyfile_lookup,
	.list = keyfile_list,
	.name_of = keyfile_name_of,
	.create = create,
	.unlink = finish_key,
	.on_change = keyfile_on_change,
	.finish = keyfile_finish,
};

/* SPDX-License-Identifier: MIT */
#include "fs/held.h"

#include <errno.h>

#include "fs/keyfile.h"

/* Notes are for who works on the key: it must be in owned/. */
static int may_write(const struct call *c)
{
	const struct ring_key *key = ring_find_id(c->tree->ring, c->id);

	if (key == NULL)
		return c->what == CALL_WRITE ? -ESTALE : -ENOENT;
	if (key->state == RING_HELD || key->state == RING_RELEASING)
		return 0;
	return c->what == CALL_WRITE ? -ESTALE : -EPERM;
}

static void open_held(struct call *c)
{
	bool writes =
		(c->fi.flags & O_ACCMODE) != O_RDONLY || c->fi.flags & O_TRUNC;
	int rc = writes ? may_write(c) : 0;

	if (rc != 0) {
		call_reply(c, rc);
		return;
	}
	c->modifies = 1u << RING_VIEW_OWNED;
	keyfile_open(c);
}

static void write_held(struct call *c, const char *bytes, size_t n, off_t off)
{
	int rc = may_write(c);

	if (rc != 0) {
		call_reply(c, rc);
		return;
	}
	c->modifies = 1u << RING_VIEW_OWNED;
	keyfile_write(c, bytes, n, off);
}

static void set_attr(struct call *c, const struct stat *st, int to_set)
{
	const struct ring_key *key = ring_find_id(c->tree->ring, c->id);
	int rc = 0;

	if (key == NULL)
		rc = c->handle != NULL ? -ESTALE : -ENOENT;
	else if (to_set & KEYFILE_OWNER && !keyfile_same(key, st, to_set))
		rc = -EPERM;
	else if (to_set & FUSE_SET_ATTR_SIZE)
		rc = may_write(c);
	else if (to_set & KEYFILE_TIMES)
		rc = -EPERM;
	if (rc == 0 && to_set & FUSE_SET_ATTR_SIZE) {
		c->modifies = 1u << RING_VIEW_OWNED;
		keyfile_resize(c, st->st_size);
		return;
	}
	call_reply(c, rc);
}

const struct files held_files = {
	.attr = keyfile_attr,
	.open = open_held,
	.read = keyfile_read,
	.write = write_held,
	.setattr = set_attr,
	.fsync = keyfile_fsync,
	.lock = keyfile_lock,
	.release = keyfile_release,
	.xattr_names = keyfile_xattr_names,
	.xattr = keyfile_xattr,
};

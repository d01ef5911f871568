/* SPDX-License-Identifier: MIT */
/* route/K: a link to the ring owner of any name, claimed or not.
 *
 * Nothing is listed, since every name is there. The id is the vnode, low, and 40
 * bits of the name's hash above it: two names have two inodes, and the link can
 * be read from the id alone. */
#include "fs/tree_impl.h"

#include <errno.h>
#include <string.h>

#define VNODE_BITS 16 /* ring_settings.vnodes is at most 65536 */

/* FNV-1a, 64 bits: tells names apart, nothing more. */
static uint64_t hash(const char *name)
{
	uint64_t h = 0xcbf29ce484222325;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3;
	return h;
}

/* The owner's name, or "" when there is none. */
static const char *owner_of(const struct tree *t, uint64_t id)
{
	uint32_t vnode = (uint32_t)(id & ((1u << VNODE_BITS) - 1));

	return tree_node_name(t, ring_vnode_owner(t->ring, vnode));
}

static int route_lookup(struct tree *t, const struct dir *d, const char *name,
			uint64_t *id)
{
	(void)d;
	*id = ring_vnode(t->ring, name, strlen(name)) |
	      hash(name) >> 24 << VNODE_BITS;
	return owner_of(t, *id)[0] == '\0' ? -ENOENT : 0;
}

static int route_attr(struct tree *t, uint64_t id, struct stat *st)
{
	st->st_mode = S_IFLNK | 0777;
	return owner_of(t, id)[0] == '\0' ? -ENOENT : 0;
}

static int route_readlink(struct tree *t, uint64_t id, struct text *out)
{
	const char *owner = owner_of(t, id);

	if (owner[0] == '\0')
		return -ENOENT;
	text_printf(out, "../peers/%s", owner);
	return 0;
}

static const struct files files_route = {
	.attr = route_attr,
	.readlink = route_readlink,
};

const struct dir dir_route = {
	.name = "route",
	.flags = DIR_REPLICATED,
	.files = &files_route,
	.lookup = route_lookup,
};

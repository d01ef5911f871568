/* SPDX-License-Identifier: MIT */
/* peers/NAME: the members and what is known of each; `self` links to our own.
 *
 * Ids: 0 is self, the others are node index + 1. */
#include "fs/tree_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/dir_status.h"
#include "fs/facts.h"
#include "fs/util.h"

#define SELF 0

static const char self_name[] = "self";

/* What watchers were told of a node. */
struct seen {
	uint64_t epoch;
	uint32_t weight, n_vnodes;
	bool up;
};

struct peers {
	struct seen *nodes;
	uint32_t n;
	bool self;
};

static struct peers *peers_of(struct tree *t)
{
	void **data = tree_data(t, &dir_peers);

	if (*data == NULL)
		*data = xcalloc(1, sizeof(struct peers));
	return *data;
}

static struct seen seen_of(const struct ring_node *node)
{
	return (struct seen){
		.epoch = node->epoch,
		.weight = node->weight,
		.n_vnodes = node->n_vnodes,
		.up = node->up,
	};
}

static bool is_same(const struct seen *a, const struct seen *b)
{
	return a->epoch == b->epoch && a->weight == b->weight &&
	       a->n_vnodes == b->n_vnodes && a->up == b->up;
}

/* Nodes only come: their indexes are those of the log. Counts of keys change
 * with every claim and are not announced. */
static void peers_on_status(struct tree *t)
{
	struct peers *p = peers_of(t);
	const struct ring_node *node;

	for (uint32_t i = 0; (node = ring_node(t->ring, i)); i++) {
		struct seen now = seen_of(node);

		if (i == p->n) {
			p->nodes = xrealloc(p->nodes,
					    ++p->n * sizeof(p->nodes[0]));
			tree_post(t, &dir_peers, node->name, HERALD_CREATE);
		} else if (!is_same(&now, &p->nodes[i])) {
			tree_post(t, &dir_peers, node->name, HERALD_MODIFY);
		}
		p->nodes[i] = now;
	}
	if (!p->self && ring_self(t->ring) != RING_NONE) {
		p->self = true;
		tree_post(t, &dir_peers, self_name, HERALD_CREATE);
	}
}

static int peers_lookup(struct tree *t, const struct dir *d, const char *name,
			uint64_t *id)
{
	(void)d;
	const struct ring_node *node;

	*id = SELF;
	if (strcmp(name, self_name) == 0)
		return ring_self(t->ring) == RING_NONE ? -ENOENT : 0;
	for (uint32_t i = 0; (node = ring_node(t->ring, i)); i++) {
		if (strcmp(node->name, name) == 0) {
			*id = i + 1;
			return 0;
		}
	}
	return -ENOENT;
}

static uint64_t *peers_list(struct tree *t, const struct dir *d, size_t *n)
{
	(void)d;
	uint32_t nodes = 0;

	while (ring_node(t->ring, nodes))
		nodes++;
	uint64_t *ids = xcalloc(nodes + 1, sizeof(*ids));
	*n = 0;
	if (ring_self(t->ring) != RING_NONE)
		ids[(*n)++] = SELF;
	for (uint32_t i = 0; i < nodes; i++)
		ids[(*n)++] = i + 1;
	return ids;
}

static const struct ring_node *node_of(const struct tree *t, uint64_t id)
{
	uint32_t index = id == SELF ? ring_self(t->ring) : (uint32_t)(id - 1);

	return index == RING_NONE ? NULL : ring_node(t->ring, index);
}

static const char *peers_name_of(struct tree *t, const struct dir *d,
				 uint64_t id)
{
	(void)d;
	const struct ring_node *node = node_of(t, id);

	if (node == NULL)
		return NULL;
	return id == SELF ? self_name : node->name;
}

static int peers_attr(struct tree *t, uint64_t id, struct stat *st)
{
	const struct ring_node *node = node_of(t, id);

	if (node == NULL)
		return -ENOENT;
	if (id == SELF)
		st->st_mode = S_IFLNK | 0777;
	st->st_mtim.tv_sec = (time_t)(node->up_us / 1000000);
	st->st_mtim.tv_nsec = (long)(node->up_us % 1000000) * 1000;
	st->st_ctim = st->st_mtim;
	return 0;
}

static int peers_readlink(struct tree *t, uint64_t id, struct text *out)
{
	const struct ring_node *node = node_of(t, id);

	if (id != SELF)
		return -EINVAL;
	if (node == NULL)
		return -ENOENT;
	text_puts(out, node->name);
	return 0;
}

static int peers_render(struct tree *t, uint64_t id, struct text *out)
{
	struct facts f;

	if (id == SELF || node_of(t, id) == NULL)
		return -ENOENT;
	dir_status_facts(t, false, &f);
	facts_peer(&f, (uint32_t)(id - 1), out);
	facts_finish(&f);
	return 0;
}

/* Valid replies: err ENOENT, EBUSY. In a cluster of one every member lives. */
static void peers_unlink(struct call *c)
{
	uint64_t id;
	int rc = peers_lookup(c->tree, c->dir, c->name, &id);

	call_reply(c, rc == 0 ? -EBUSY : rc);
}

static void peers_finish(struct tree *t)
{
	struct peers *p = *tree_data(t, &dir_peers);

	if (p == NULL)
		return;
	free(p->nodes);
	free(p);
}

static const struct files files_peers = {
	.attr = peers_attr,
	.render = peers_render,
	.readlink = peers_readlink,
};

const struct dir dir_peers = {
	.name = "peers",
	.flags = DIR_HERALDED | DIR_WRITABLE,
	.files = &files_peers,
	.lookup = peers_lookup,
	.list = peers_list,
	.name_of = peers_name_of,
	.unlink = peers_unlink,
	.on_status = peers_on_status,
	.finish = peers_finish,
};

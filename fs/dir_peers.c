/* SPDX-License-Identifier: MIT */
/* peers/NAME: the members and what is known of each; `self` links to our own.
 *
 * A member is heard by gossip, known to the ring, or both: what the ring knows
 * of its weight, vnodes and keys counts more than what it says of itself. Names
 * and ids are those of the table (fs/peers.h), which is filled anew when either
 * has changed, before it is next looked at, and at the latest when the turn
 * ends; of thousands, when it has rested, or a change at a time would cost a
 * core. Ids: 0 is self, the others are the table's numbers. */
#include "fs/tree_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/cluster.h"
#include "fs/dir_status.h"
#include "fs/facts.h"
#include "fs/peers.h"
#include "fs/util.h"

#define SELF 0
#define REST 20 /* times as long as the table takes to fill */

static const char self_name[] = "self";

struct peers_dir {
	struct peers *table;
	bool is_stale;
	uint64_t rest_ms;  /* not filled before, unless somebody looks */
	bool is_heard;	   /* what was there at the start is no news */
	bool has_self;	   /* and watchers know */
	const char *quiet; /* going by the kernel's own event, or NULL */
};

static struct peers_dir *dir_of(struct tree *t)
{
	void **data = tree_data(t, &dir_peers);

	if (*data == NULL) {
		struct peers_dir *d = xcalloc(1, sizeof(*d));

		d->table = peers_create();
		d->is_stale = true;
		*data = d;
	}
	return *data;
}

/* ---- One member ---- */

/* What the ring knows of node i, over what gossip knows in out, if it does. */
static void put_node(const struct tree *t, uint32_t i, bool is_heard,
		     struct peer *out)
{
	const struct ring_node *node = ring_node(t->ring, i);
	bool is_self = i == ring_self(t->ring);

	if (!is_heard)
		*out = (struct peer){
			.id = node->id,
			.name = node->name,
			.state = node->up || is_self ? PEER_ALIVE : PEER_DEAD,
			.boot = node->boot,
			.since_us = node->up_us,
		};
	out->node = i;
	out->is_self = is_self;
	out->weight = node->weight;
	out->n_vnodes = node->n_vnodes;
	out->n_keys = node->n_keys;
	out->is_draining = node->is_draining;
	snprintf(out->role, sizeof(out->role), "%s",
		 node->is_client ? "client"
				 : peers_role_name(ring_node_role(t->ring, i)));
	if (is_self && out->address[0] == '\0')
		snprintf(out->address, sizeof(out->address), "%s", t->address);
	if (is_self && out->version[0] == '\0')
		snprintf(out->version, sizeof(out->version), "%s", t->version);
}

/* Of a line of the table. False: it is gone, and the table stale. */
static bool find_peer(const struct tree *t, const struct peers_line *line,
		      struct peer *out)
{
	bool is_heard =
		t->cluster != NULL && cluster_find(t->cluster, &line->id, out);

	if (line->node != RING_NONE)
		put_node(t, line->node, is_heard, out);
	out->shown = line->shown;
	out->since_us = line->since_us;
	return is_heard || line->node != RING_NONE;
}

/* ---- The table ---- */

/* The ring remembers each node that it ever had, and one that was forgotten by
 * the members until its keys have gone: only who is heard, or has been, shows. */
static void put_ring_node(const struct tree *t, struct peers *table, uint32_t i)
{
	const struct ring_node *node = ring_node(t->ring, i);
	struct peer peer;
	bool is_heard = t->cluster != NULL &&
			cluster_find(t->cluster, &node->id, &peer);

	if (!is_heard && t->cluster != NULL && i != ring_self(t->ring))
		return;
	put_node(t, i, is_heard, &peer);
	peers_put(table, &peer);
}

static void on_event(void *data, const char *shown, enum peers_event event)
{
	static const enum herald_what whats[] = {
		[PEERS_CREATE] = HERALD_CREATE,
		[PEERS_DELETE] = HERALD_DELETE,
		[PEERS_MODIFY] = HERALD_MODIFY,
	};
	struct tree *t = data;
	const struct peers_dir *d = dir_of(t);

	if (!d->is_heard)
		return;
	if (event == PEERS_DELETE && d->quiet != NULL &&
	    strcmp(d->quiet, shown) == 0)
		return;
	tree_post(t, &dir_peers, shown, whats[event]);
}

static uint64_t spent_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* We come first, and so have our own name. */
static void fill(struct tree *t, struct peers *table)
{
	uint32_t self = ring_self(t->ring), cursor = 0;
	struct peer peer;

	peers_begin(table);
	if (self != RING_NONE)
		put_ring_node(t, table, self);
	for (uint32_t i = 0; ring_node(t->ring, i) != NULL; i++)
		if (i != self)
			put_ring_node(t, table, i);
	while (t->cluster != NULL && cluster_next(t->cluster, &cursor, &peer))
		peers_put(table, &peer);
	peers_end(table, on_event, t);
}

static const struct peers *table_of(struct tree *t)
{
	struct peers_dir *d = dir_of(t);

	if (!d->is_stale)
		return d->table;
	uint64_t begin_us = spent_us();

	d->is_stale = false;
	fill(t, d->table);
	d->rest_ms = boot_ms() + (spent_us() - begin_us) * REST / 1000;
	if (!d->has_self && ring_self(t->ring) != RING_NONE) {
		d->has_self = true;
		on_event(t, self_name, PEERS_CREATE);
	}
	d->is_heard = true;
	return d->table;
}

static void peers_on_news(struct tree *t)
{
	dir_of(t)->is_stale = true;
}

/* Counts of keys change with every claim and are not announced. Who looks sees
 * what is; who listens hears of it when the table has rested, a moment when
 * there are thousands of members. */
static uint64_t peers_on_flush(struct tree *t, uint64_t now_ms)
{
	const struct peers_dir *d = dir_of(t);

	if (d->is_stale && now_ms < d->rest_ms)
		return d->rest_ms;
	table_of(t);
	return UINT64_MAX;
}

struct peer *dir_peers_all(struct tree *t, size_t *n)
{
	const struct peers *table = table_of(t);
	struct peer *all = NULL;
	struct peers_line line;
	uint64_t cursor = 0;
	size_t cap = 0;

	*n = 0;
	while (peers_next(table, &cursor, &line)) {
		if (*n == cap) {
			cap = cap == 0 ? 16 : 2 * cap;
			all = xrealloc(all, cap * sizeof(*all));
		}
		*n += find_peer(t, &line, &all[*n]);
	}
	return all;
}

int dir_peers_forget(struct tree *t, const char *name, bool is_unlink)
{
	struct peers_dir *d = dir_of(t);
	struct peers_line line;

	if (!peers_by_name(table_of(t), name, &line))
		return -ENOENT;
	if (t->cluster == NULL)
		return -EBUSY; /* a cluster of one, and it lives */
	int rc = cluster_forget(t->cluster, &line.id);
	if (rc != 0)
		return rc;
	if (is_unlink) {
		tree_forget(t, &dir_peers, name);
		d->quiet = name;
	}
	d->is_stale = true;
	table_of(t);
	d->quiet = NULL;
	return 0;
}

/* ---- The directory ---- */

static bool self_line(struct tree *t, struct peers_line *out)
{
	uint32_t self = ring_self(t->ring);

	return self != RING_NONE &&
	       peers_by_id(table_of(t), &ring_node(t->ring, self)->id, out);
}

static bool line_of(struct tree *t, uint64_t id, struct peers_line *out)
{
	return id == SELF ? self_line(t, out)
			  : peers_by_number(table_of(t), id, out);
}

static int peers_lookup(struct tree *t, const struct dir *d, const char *name,
			uint64_t *id)
{
	struct peers_line line;
	bool found;

	(void)d;
	if (strcmp(name, self_name) == 0) {
		found = self_line(t, &line);
		*id = SELF;
	} else {
		found = peers_by_name(table_of(t), name, &line);
		*id = found ? line.number : SELF;
	}
	return found ? 0 : -ENOENT;
}

static uint64_t *peers_list(struct tree *t, const struct dir *d, size_t *n)
{
	const struct peers *table = table_of(t);
	uint64_t *ids = xcalloc(1, sizeof(*ids)), cursor = 0;
	struct peers_line line;

	(void)d;
	*n = 0;
	if (self_line(t, &line))
		ids[(*n)++] = SELF;
	while (peers_next(table, &cursor, &line)) {
		ids = xrealloc(ids, (*n + 1) * sizeof(*ids));
		ids[(*n)++] = line.number;
	}
	return ids;
}

static const char *peers_name_of(struct tree *t, const struct dir *d,
				 uint64_t id)
{
	struct peers_line line;

	(void)d;
	if (!line_of(t, id, &line))
		return NULL;
	return id == SELF ? self_name : line.shown;
}

static int peers_attr(struct tree *t, uint64_t id, struct stat *st)
{
	struct peers_line line;
	struct peer peer;

	if (!line_of(t, id, &line) || !find_peer(t, &line, &peer))
		return -ENOENT;
	if (id == SELF)
		st->st_mode = S_IFLNK | 0777;
	st->st_mtim.tv_sec = (time_t)(peer.since_us / 1000000);
	st->st_mtim.tv_nsec = (long)(peer.since_us % 1000000) * 1000;
	st->st_ctim = st->st_mtim;
	return 0;
}

static int peers_readlink(struct tree *t, uint64_t id, struct text *out)
{
	struct peers_line line;

	if (id != SELF)
		return -EINVAL;
	if (!self_line(t, &line))
		return -ENOENT;
	text_puts(out, line.shown);
	return 0;
}

static int peers_render(struct tree *t, uint64_t id, struct text *out)
{
	struct peers_line line;
	struct peer peer;

	if (id == SELF || !line_of(t, id, &line) || !find_peer(t, &line, &peer))
		return -ENOENT;
	facts_peer(&peer, out);
	return 0;
}

/* Valid replies: err ENOENT, EBUSY, EPERM. */
static void peers_unlink(struct call *c)
{
	uint64_t id;
	int rc = peers_lookup(c->tree, c->dir, c->name, &id);

	if (rc == 0)
		rc = id == SELF ? -EBUSY : call_may_administer(c);
	if (rc == 0)
		rc = dir_peers_forget(c->tree, c->name, true);
	call_reply(c, rc);
}

static void peers_finish(struct tree *t)
{
	struct peers_dir *d = *tree_data(t, &dir_peers);

	if (d == NULL)
		return;
	peers_destroy(d->table);
	free(d);
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
	.on_status = peers_on_news,
	.on_peers = peers_on_news,
	.on_flush = peers_on_flush,
	.finish = peers_finish,
};

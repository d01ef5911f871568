/* SPDX-License-Identifier: MIT */
/* A log whose group has lost its majority for good: what it has, and how it goes
 * on alone (notes/raft.md 3, raft_recover; holes.md 22).
 *
 * The configuration that is in force is the last one in the log, or else the
 * store's; the library goes by the same rule. The new one is an entry behind all
 * others, so that whatever this log has becomes the cluster's: also what no
 * majority ever had. */
#include "ring/group_impl.h"

#include <errno.h>
#include <string.h>

#include "ring/mem.h"

static enum group_role role_of(int role)
{
	return role == RAFT_VOTER     ? GROUP_VOTER
	       : role == RAFT_STANDBY ? GROUP_STANDBY
				      : GROUP_SPARE;
}

static void put_servers(const struct raft_configuration *c,
			struct group_log *out)
{
	out->servers = xcalloc(c->n + 1, sizeof(*out->servers));
	for (unsigned i = 0; i < c->n; i++) {
		struct group_server *s = &out->servers[out->n_servers];

		s->server = c->servers[i].id;
		s->role = role_of(c->servers[i].role);
		s->heard_ms = UINT64_MAX;
		out->n_servers += group_node(c->servers[i].address, &s->node);
	}
}

/* 0; -EUCLEAN; -ENODATA: there is none. */
static int read_configuration(const struct group *g,
			      struct raft_configuration *out)
{
	const struct wal_found *f = &g->found;
	struct raft_snapshot s = {0};
	bool replaced;

	for (size_t i = f->n_entries; i-- > 0;) {
		struct raft_buffer b = {.base = (void *)f->entry[i].data,
					.len = f->entry[i].len};

		if (f->entry[i].type != RAFT_CHANGE)
			continue;
		raft_configuration_init(out);
		return raft_configuration_decode(&b, out) == 0 ? 0 : -EUCLEAN;
	}
	if (g->meta.snapshot.len == 0)
		return -ENODATA;
	if (group_io_snapshot(&g->meta.snapshot, &s, &replaced) != 0)
		return -EUCLEAN;
	*out = s.configuration;
	return 0;
}

/* Of the last entry, which the store may be the only one to have. */
static uint64_t last_term(const struct group *g)
{
	const struct wal_found *f = &g->found;
	struct raft_snapshot s = {0};
	bool replaced;

	if (f->n_entries > 0)
		return f->entry[f->n_entries - 1].term;
	if (group_io_snapshot(&g->meta.snapshot, &s, &replaced) != 0)
		return 0;
	raft_configuration_close(&s.configuration);
	return s.term;
}

/* What cannot be applied was never committed, or will be told at the start. */
static void apply_rest(struct group *g)
{
	const struct wal_found *f = &g->found;
	int rc = 0;

	for (size_t i = 0; i < f->n_entries && rc == 0; i++) {
		const struct wal_entry *e = &f->entry[i];
		struct raft_buffer b = {.base = (void *)e->data, .len = e->len};
		size_t len;

		if (e->type != RAFT_COMMAND ||
		    e->index <= g->applied_at_snapshot)
			continue;
		const uint8_t *bytes = group_entry_bytes(&b, &len);

		rc = bytes == NULL ? -EBADMSG
				   : g->config.apply(g->config.data, e->index,
						     bytes, len);
	}
}

static int look(struct group *g, struct group_log *out, char *errmsg)
{
	struct raft_configuration c;
	int rc = read_configuration(g, &c);

	*out = (struct group_log){.index = g->found.first + g->found.n_entries -
					   1,
				  .term = last_term(g),
				  .server = g->found.server,
				  .generation = g->found.generation};
	if (rc != 0) {
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 rc == -ENODATA ? "%s: the log has no entry: there is "
					  "nothing here to go on with"
					: "%s: the log's configuration is not "
					  "understood",
			 g->dir);
		return rc;
	}
	put_servers(&c, out);
	raft_configuration_close(&c);
	apply_rest(g);
	return 0;
}

static int recover(struct group *g, char *errmsg)
{
	struct raft_configuration c;
	char address[33];

	group_address(&g->config.node, address);
	raft_configuration_init(&c);
	int rc = raft_configuration_add(&c, g->found.server, address,
					RAFT_VOTER);

	if (rc == 0)
		rc = raft_recover(&g->raft, &c);
	raft_configuration_close(&c);
	if (rc == 0)
		return 0;
	snprintf(errmsg, RING_ERRMSG_SIZE, "%s/wal: cannot be written: %s",
		 g->dir, raft_strerror(rc));
	return rc == RAFT_NOSPACE ? -ENOSPC : -EIO;
}

static int run(const struct group_config *config, bool recovers,
	       struct group_log *out, char *errmsg)
{
	struct group *g;
	int rc = group_load(config, &g, errmsg);

	*out = (struct group_log){0};
	if (rc != 0)
		return rc;
	rc = look(g, out, errmsg);
	if (rc == 0 && recovers)
		rc = recover(g, errmsg);
	group_release(g);
	if (rc != 0) {
		free(out->servers);
		*out = (struct group_log){0};
	}
	return rc;
}

int group_look(const struct group_config *config, struct group_log *out,
	       char errmsg[RING_ERRMSG_SIZE])
{
	return run(config, false, out, errmsg);
}

int group_recover(const struct group_config *config, struct group_log *out,
		  char errmsg[RING_ERRMSG_SIZE])
{
	return run(config, true, out, errmsg);
}

/* SPDX-License-Identifier: MIT */
/* Who is in the group, in which role, and who leads it.
 *
 * The library's requests are given without a callback: it runs callbacks only
 * when it is closed. That a change is done shows in its state. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ring/group_impl.h"

#define DISK_SLOW_MS 1000 /* rule 16 */

static enum group_role role_of(int role)
{
	switch (role) {
	case RAFT_STANDBY:
		return GROUP_STANDBY;
	case RAFT_VOTER:
		return GROUP_VOTER;
	case RAFT_SPARE:
		return GROUP_SPARE;
	default:
		return GROUP_NONE;
	}
}

static const struct raft_server *find(const struct group *g, uint64_t server)
{
	const struct raft_configuration *c = &g->raft.configuration;

	for (unsigned i = 0; i < c->n; i++)
		if (c->servers[i].id == server)
			return &c->servers[i];
	return NULL;
}

static unsigned count_voters(const struct group *g)
{
	const struct raft_configuration *c = &g->raft.configuration;
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += c->servers[i].role == RAFT_VOTER;
	return n;
}

bool group_is_alone(const struct group *g)
{
	const struct raft_configuration *c = &g->raft.configuration;

	return c->n == 1 && c->servers[0].id == g->raft.id &&
	       c->servers[0].role == RAFT_VOTER;
}

static bool leads(const struct group *g)
{
	return g->raft.state == RAFT_LEADER && !g->failed && !g->stalled;
}

static bool is_heard(const struct group *g, uint64_t heard_ms)
{
	return heard_ms != NEVER && g->now_ms - heard_ms < ELECTION_MS;
}

bool group_in_contact(const struct group *g)
{
	const struct raft_configuration *c = &g->raft.configuration;
	unsigned n = 0;

	if (g->failed || g->stalled)
		return false;
	if (g->raft.state != RAFT_LEADER)
		return is_heard(g, g->leader_heard_ms);
	for (unsigned i = 0; i < c->n; i++) {
		struct peer *p = group_net_peer(g, c->servers[i].id);

		if (c->servers[i].role != RAFT_VOTER)
			continue;
		n += c->servers[i].id == g->raft.id ||
		     (p != NULL && is_heard(g, p->heard_ms));
	}
	return n > count_voters(g) / 2;
}

static bool is_changing(const struct group *g)
{
	const struct raft *r = &g->raft;

	return r->legacy.change != NULL ||
	       r->configuration_uncommitted_index != 0 ||
	       (r->state == RAFT_LEADER && r->leader_state.promotee_id != 0);
}

void group_roles_status(const struct group *g, struct group_status *out)
{
	struct raft *r = (struct raft *)&g->raft; /* read only */
	const struct raft_server *self = find(g, r->id);
	const char *address = NULL;
	raft_id leader = 0;

	raft_leader(r, &leader, &address);
	out->has_leader =
		leader != 0 && address != NULL &&
		group_node(address, &out->leader) &&
		(r->state == RAFT_LEADER || is_heard(g, g->leader_heard_ms));
	out->in_contact = group_in_contact(g);
	out->is_changing = is_changing(g);
	out->is_receiving = g->arrival != NULL || r->snapshot.installing;
	out->is_moved = g->is_moved;
	out->is_refuted = group_moved_is_refuted(g);
	out->role = self != NULL ? role_of(self->role) : GROUP_NONE;
	out->n_voters = count_voters(g);
	out->n_servers = r->configuration.n;
	for (unsigned i = 0; i < r->configuration.n; i++)
		out->n_standbys +=
			r->configuration.servers[i].role == RAFT_STANDBY;
}

uint64_t group_server_id(const struct group *g)
{
	return g->raft.id;
}

size_t group_servers(const struct group *g, struct group_server *out,
		     size_t max)
{
	const struct raft *r = &g->raft;

	for (unsigned i = 0; i < r->configuration.n && i < max; i++) {
		const struct raft_server *s = &r->configuration.servers[i];
		struct peer *p = group_net_peer(g, s->id);
		raft_index match = 0;

		out[i] = (struct group_server){
			.server = s->id,
			.role = role_of(s->role),
			.heard_ms = p != NULL ? p->heard_ms : NEVER};
		bool ours = group_node(s->address, &out[i].node);

		assert(ours); /* checked when it was decoded */
		(void)ours;
		if (r->state == RAFT_LEADER &&
		    raft_match_index(r, s->id, &match) == 0)
			out[i].match = match;
	}
	return r->configuration.n;
}

/* ---- Changes ---- */

static int err_of(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case RAFT_NOTLEADER:
		return -EAGAIN;
	case RAFT_CANTCHANGE:
		return -EBUSY;
	case RAFT_DUPLICATEID:
	case RAFT_DUPLICATEADDRESS:
		return -EEXIST;
	case RAFT_NOTFOUND:
	case RAFT_BADID:
		return -ENOENT;
	default:
		return -EINVAL;
	}
}

static int change_role(struct group *g, const struct raft_server *s, int role)
{
	int rc = raft_assign(&g->raft, &g->change, s->id, role, NULL);

	if (rc != 0 && g->raft.legacy.change == &g->change)
		g->raft.legacy.change = NULL; /* the library forgets to */
	return rc;
}

static int change(struct group *g, enum group_change_kind kind, uint64_t server,
		  const struct ring_id *node)
{
	const struct raft_server *s = find(g, server);
	char address[33];

	if (kind == GROUP_ADD) {
		group_address(node, address);
		return raft_add(&g->raft, &g->change, server, address, NULL);
	}
	if (s == NULL)
		return RAFT_NOTFOUND;
	switch (kind) {
	case GROUP_TO_STANDBY:
		return change_role(g, s, RAFT_STANDBY);
	case GROUP_TO_VOTER:
		return change_role(g, s, RAFT_VOTER);
	case GROUP_TO_SPARE:
		return change_role(g, s, RAFT_SPARE);
	default:
		return raft_remove(&g->raft, &g->change, server, NULL);
	}
}

int group_change(struct group *g, uint64_t now_ms, enum group_change_kind kind,
		 uint64_t server, const struct ring_id *node)
{
	group_set_time(g, now_ms);
	if (!leads(g) || !g->confirmed)
		return -EAGAIN;
	if (is_changing(g) || raft_transferee(&g->raft) != 0)
		return -EBUSY;
	if (server == 0 || (server == g->raft.id && kind != GROUP_ADD))
		return -EINVAL; /* a leader that demotes itself: B13 */
	memset(&g->change, 0, sizeof(g->change));
	int rc = change(g, kind, server, node);

	group_after(g);
	return err_of(rc);
}

int group_transfer(struct group *g, uint64_t now_ms, uint64_t server)
{
	group_set_time(g, now_ms);
	if (!leads(g))
		return -EAGAIN;
	if (g->raft.transfer != NULL || raft_transferee(&g->raft) != 0)
		return -EBUSY;
	memset(&g->transfer, 0, sizeof(g->transfer));
	int rc = raft_transfer(&g->raft, &g->transfer, server, NULL);

	group_after(g);
	return err_of(rc);
}

/* The library campaigns when the leader it follows tells it to; it goes on to
 * follow one whom somebody else's candidature has ended. */
int group_campaign(struct group *g, uint64_t now_ms)
{
	struct raft *r = &g->raft;
	struct raft_message m = {.type = RAFT_TIMEOUT_NOW};
	const struct raft_server *self = find(g, r->id);
	char address[33];
	raft_id leader = 0;

	group_set_time(g, now_ms);
	if (g->failed || g->stalled || r->state != RAFT_FOLLOWER ||
	    self == NULL || self->role != RAFT_VOTER ||
	    r->last_stored < raft_last_index(r) || r->snapshot.installing)
		return -EAGAIN;
	raft_leader(r, &leader, &m.server_address);
	if (leader == 0 || m.server_address == NULL)
		return -EAGAIN;
	snprintf(address, sizeof(address), "%s", m.server_address);
	m.server_address = address;
	m.server_id = leader;
	m.timeout_now.version = 1;
	m.timeout_now.term = raft_current_term(r);
	m.timeout_now.last_log_index = raft_last_index(r);
	m.timeout_now.last_log_term = group_net_term(r, raft_last_index(r));
	g->recv_cb(&g->io, &m);
	group_after(g);
	return r->state == RAFT_FOLLOWER ? -EAGAIN : 0;
}

/* ---- Rule 16 ---- */

static void set_stalled(struct group *g, bool stalled)
{
	if (g->stalled == stalled || g->failed)
		return;
	g->stalled = stalled;
	group_say(g, stalled ? 4 : 5,
		  stalled ? "the log's disk does not answer: this node is mute "
			    "until it does"
			  : "the log's disk answers again");
	g->config.on_change(g->config.data);
}

/* Without other voters there is nobody to hand over to, and nobody who waits. A
 * full disk is slow as well, but a leader that says so is better than none, and
 * a follower goes on hearing. */
void group_roles_check_disk(struct group *g)
{
	uint64_t oldest = group_io_oldest(g);
	bool leader = g->raft.state == RAFT_LEADER;

	if (oldest == NEVER || g->now_ms - oldest <= DISK_SLOW_MS) {
		set_stalled(g, false);
		g->slow_since_ms = NEVER;
	} else if (g->slow_since_ms != NEVER) {
		if (!g->log_full &&
		    (!leader || g->now_ms - g->slow_since_ms > ELECTION_MS))
			set_stalled(g, true);
	} else if (leader && count_voters(g) > 1) {
		g->slow_since_ms = g->now_ms;
		memset(&g->transfer, 0, sizeof(g->transfer));
		if (g->raft.transfer == NULL && raft_transferee(&g->raft) == 0)
			raft_transfer(&g->raft, &g->transfer, 0, NULL);
	}
}

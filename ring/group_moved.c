/* SPDX-License-Identifier: MIT */
/* A log that is found in another place than it was left in: it was moved, or it
 * is a copy, and then the server has forgotten what the original has written
 * and promised since. Under the same raft id it must not count (holes.md 21).
 *
 *   moved, the only voter       nobody else can know more: it goes on
 *   moved, a leader is heard    for 2 s, so that it has a majority without us:
 *                               the log is given up. The caller makes another,
 *                               with a new raft id, which is filled again
 *   moved, no leader            it is mute, but for pre-votes, which bind
 *                               nobody; until all voters are there, and all say
 *                               yes to the same candidate:
 *     it is this server         its log is the longest of all: it goes on
 *     it is another             it asks for our vote, and says so: it gets the
 *                               vote, and we go on, behind it
 *
 * The last is what a cluster needs of which a majority was moved, or half of
 * two. It is safe, for an entry that is committed is in the log of some server
 * that was not copied, or was copied with it, and nobody without that entry is
 * voted for; and a leader that is there says no. Of a majority that was set back
 * to a backup nobody can tell. With a voter missing, it waits for it, or for a
 * user's word (fs/state.h). */
#include "ring/group_impl.h"

#define HEARD_MS   1000 /* a leader is heard without a break */
#define REFUTED_MS 2000
#define GRANT_MS   2000 /* a yes is good for so long */

static bool votes(const struct group *g, uint64_t server)
{
	const struct raft_server *s = group_net_server(g, server);

	return s != NULL && s->role == RAFT_VOTER;
}

static bool has_granted(const struct group *g, uint64_t server)
{
	const struct peer *p = group_net_peer(g, server);

	return p != NULL && p->granted_index != 0 &&
	       p->granted_index == raft_last_index((struct raft *)&g->raft) &&
	       g->now_ms - p->granted_ms <= GRANT_MS;
}

bool group_moved_has_all(const struct group *g)
{
	const struct raft_configuration *c = &g->raft.configuration;

	for (unsigned i = 0; i < c->n; i++)
		if (c->servers[i].role == RAFT_VOTER &&
		    c->servers[i].id != g->raft.id &&
		    !has_granted(g, c->servers[i].id))
			return false;
	return votes(g, g->raft.id);
}

static void go_on(struct group *g, const char *why)
{
	g->is_moved = false;
	group_say(g, 5, "the state was moved, or is a copy; %s: it goes on",
		  why);
	g->config.on_change(g->config.data);
}

void group_moved_open(struct group *g)
{
	const struct raft_configuration *c = &g->raft.configuration;
	unsigned n = 0;

	g->is_moved = g->config.is_moved && c->n > 0;
	g->moved_heard_ms = NEVER;
	for (unsigned i = 0; i < c->n; i++)
		n += c->servers[i].role == RAFT_VOTER;
	if (g->is_moved && n == 1 && votes(g, g->raft.id))
		go_on(g, "no other node votes");
}

bool group_moved_sends(const struct group *g, const struct raft_message *m)
{
	if (!g->is_moved)
		return true;
	if (m->type == RAFT_REQUEST_VOTE)
		return m->request_vote.pre_vote;
	return m->type == RAFT_REQUEST_VOTE_RESULT &&
	       m->request_vote_result.pre_vote;
}

/* Whoever leads has been heard without a break, in one term. */
static void hear_leader(struct group *g, const struct peer *p, uint64_t term)
{
	if (term < raft_current_term(&g->raft))
		return;
	if (g->moved_heard_ms == NEVER || term != g->moved_term ||
	    p->server != g->moved_leader ||
	    g->now_ms - g->moved_heard_ms > HEARD_MS)
		g->moved_since_ms = g->now_ms;
	g->moved_heard_ms = g->now_ms;
	g->moved_term = term;
	g->moved_leader = p->server;
}

bool group_moved_is_refuted(const struct group *g)
{
	return g->is_moved && g->moved_heard_ms != NEVER &&
	       g->moved_heard_ms - g->moved_since_ms >= REFUTED_MS;
}

static bool takes_vote(struct group *g, const struct peer *p,
		       const struct wire_message *m)
{
	if (m->raft.request_vote.pre_vote)
		return true;
	if (m->by_all && votes(g, p->server))
		go_on(g, "all voters are there, and another has the longest "
			 "log");
	return !g->is_moved;
}

static bool takes_result(struct group *g)
{
	if (group_moved_has_all(g))
		go_on(g, "all voters are there, and this one has the longest "
			 "log");
	return !g->is_moved;
}

/* For every server: who is ready to vote for us? */
static void note_grant(struct group *g, struct peer *p,
		       const struct wire_message *m)
{
	const struct raft_request_vote_result *r = &m->raft.request_vote_result;

	if (m->kind == RAFT_APPEND_ENTRIES || m->kind == RAFT_INSTALL_SNAPSHOT)
		for (size_t i = 0; i < g->n_peers; i++)
			g->peers[i]->granted_index = 0;
	if (m->kind != RAFT_REQUEST_VOTE_RESULT || !r->pre_vote)
		return;
	p->granted_ms = g->now_ms;
	p->granted_index = r->vote_granted ? raft_last_index(&g->raft) : 0;
}

bool group_moved_takes(struct group *g, struct peer *p,
		       const struct wire_message *m)
{
	note_grant(g, p, m);
	if (!g->is_moved)
		return true;
	switch (m->kind) {
	case RAFT_APPEND_ENTRIES:
		hear_leader(g, p, m->raft.append_entries.term);
		return false;
	case RAFT_INSTALL_SNAPSHOT:
		hear_leader(g, p, m->raft.install_snapshot.term);
		return false;
	case RAFT_REQUEST_VOTE:
		return takes_vote(g, p, m);
	case RAFT_REQUEST_VOTE_RESULT:
		return m->raft.request_vote_result.pre_vote && takes_result(g);
	default:
		return false;
	}
}

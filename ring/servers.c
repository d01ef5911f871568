/* SPDX-License-Identifier: MIT */
/* The leader's work: which servers have a copy of the log, and which of them
 * vote. role.c decides, one change after the other; here it is told what is so.
 *
 *   a joiner      a server that no leader knows asks to be added
 *   a leaver      a node asks to go: its vote and its copy are taken away first
 *   a lost log    the node of a server asks as another: the old one is over
 *
 * Who asks does so again and again; what is known here is lost with the
 * leadership. */
#include <errno.h>
#include <stdio.h>

#include "ring/mem.h"
#include "ring/ring_impl.h"
#include "ring/role.h"

#define JOINERS_MAX 1024
#define ROLES_MS    1000	    /* the view is looked at, at least */
#define TRANSFER_MS 1000	    /* then leadership was not taken */
#define FRESH_MS    (REPEAT_MS / 2) /* a leave is asked for again */

void servers_destroy(struct ring *r)
{
	free(r->joiners);
	free(r->leavers);
	free(r->failures);
}

void servers_unsend(struct ring *r)
{
	r->n_joiners = r->n_leavers = r->n_failures = 0;
	r->change_step = ROLE_NOTHING;
	/* Who leaves, and leads, must not hand over to another that leaves:
	 * it listens first. */
	r->role_from_ms = r->is_leaving ? r->now_ms + 2 * REPEAT_MS : 0;
	r->role_at_ms = 0;
}

/* ---- Joiners ---- */

static void refuse(struct ring *r, const struct peer_join *j, enum peer_why why)
{
	struct peer_refusal no = {
		.whom = j->server, .why = why, .settings = *ring_settings(r)};
	struct buf b = {0};

	peer_put_refusal(&b, &no);
	ring_send(r, &j->node, &b);
	free(b.base);
}

static bool is_name_taken(const struct ring *r, const struct peer_join *j)
{
	const struct ring_node *n;

	for (uint32_t i = 0; (n = keyset_node(r->keys, i)) != NULL; i++)
		if (n->up && !ring_same(&n->id, &j->node) &&
		    strcmp(n->name, j->name) == 0)
			return true;
	return false;
}

static struct asker *find_asker(struct asker *list, size_t n,
				const struct ring_id *node)
{
	for (size_t i = 0; i < n; i++)
		if (ring_same(&list[i].node, node))
			return &list[i];
	return NULL;
}

static struct asker *add_asker(struct ring *r, struct asker **list, size_t *n,
			       size_t *cap)
{
	if (*n == JOINERS_MAX)
		return NULL;
	*list = ring_grown(*list, *n, cap, sizeof(**list));
	r->role_at_ms = 0;
	(*list)[*n] = (struct asker){.since_ms = r->now_ms};
	return &(*list)[(*n)++];
}

static void forget_askers(const struct ring *r, struct asker *list, size_t *n)
{
	size_t kept = 0;

	for (size_t i = 0; i < *n; i++)
		if (r->now_ms - list[i].heard_ms <= SILENT_MS)
			list[kept++] = list[i];
	*n = kept;
}

static void add_joiner(struct ring *r, const struct peer_join *j)
{
	struct asker *a = find_asker(r->joiners, r->n_joiners, &j->node);

	if (a == NULL)
		a = add_asker(r, &r->joiners, &r->n_joiners, &r->cap_joiners);
	if (a == NULL)
		return;
	a->node = j->node;
	a->server = j->server;
	a->heard_ms = r->now_ms;
}

/* A member that does not lead passes it on, once. */
static void pass_on(struct ring *r, struct peer_join *j)
{
	const struct group_status *s = &r->group_status;
	struct buf b = {0};

	if (j->hops > 0 || !s->has_leader || ring_is_self(r, &s->leader))
		return;
	j->hops = 1;
	peer_put_join(&b, j);
	ring_send(r, &s->leader, &b);
	free(b.base);
}

void servers_on_join(struct ring *r, struct reader *body,
		     const struct ring_id *from)
{
	char text[RING_ERRMSG_SIZE];
	struct peer_join j;

	if (peer_get_join(body, &j) != 0 || ring_is_self(r, &j.node) ||
	    (j.hops == 0 && !ring_same(&j.node, from)))
		return;
	if (!r->group_status.is_leader)
		pass_on(r, &j);
	else if (!ring_same(&j.cluster, &r->config.cluster))
		refuse(r, &j, PEER_OTHER_CLUSTER);
	else if (settings_check(&j.settings, ring_settings(r), text) != 0)
		refuse(r, &j, PEER_OTHER_SETTINGS);
	else if (is_name_taken(r, &j))
		refuse(r, &j, PEER_NAME_TAKEN);
	else
		add_joiner(r, &j);
}

/* ---- Leavers ---- */

static const struct group_server *server_of(const struct ring *r,
					    const struct ring_id *node)
{
	for (size_t i = 0; i < r->n_servers; i++)
		if (ring_same(&r->servers[i].node, node))
			return &r->servers[i];
	return NULL;
}

static bool is_up(const struct ring *r, const struct ring_id *node)
{
	const struct ring_node *n =
		keyset_node(r->keys, keyset_find_node(r->keys, node));

	return n != NULL && n->up;
}

/* To a node that by a configuration that is committed votes no more (holes.md
 * 28). */
static void say_farewell(struct ring *r, const struct asker *a)
{
	const struct ring_node *n =
		keyset_node(r->keys, keyset_find_node(r->keys, &a->node));
	const struct group_server *s = server_of(r, &a->node);
	struct peer_farewell f = {.number = a->number};
	struct buf b = {0};

	if (r->group_status.is_changing ||
	    (s != NULL && s->role == GROUP_VOTER))
		return;
	f.is_over = !is_up(r, &a->node) || n->boot != a->boot ||
		    n->epoch != a->epoch;
	peer_put_farewell(&b, &f);
	ring_send(r, &a->node, &b);
	free(b.base);
}

void servers_on_leaving(struct ring *r, const struct peer_leave *leave)
{
	struct asker *a = find_asker(r->leavers, r->n_leavers, &leave->node);

	if (leave->wish == PEER_STAYS) {
		if (a != NULL)
			*a = r->leavers[--r->n_leavers];
		r->role_at_ms = 0;
		return;
	}
	if (a == NULL)
		a = add_asker(r, &r->leavers, &r->n_leavers, &r->cap_leavers);
	if (a == NULL)
		return;
	a->node = leave->node;
	a->heard_ms = r->now_ms;
	r->role_at_ms = 0;
	a->number = leave->number;
	a->boot = leave->boot;
	a->epoch = leave->epoch;
	say_farewell(r, a);
}

/* ---- What is so ---- */

static enum role role_of(enum group_role role)
{
	static const enum role roles[] = {
		[GROUP_STANDBY] = ROLE_STANDBY,
		[GROUP_VOTER] = ROLE_VOTER,
		[GROUP_SPARE] = ROLE_SPARE,
		[GROUP_NONE] = ROLE_NONE,
	};

	return roles[role];
}

static void set_state(const struct ring *r, struct role_node *n,
		      const struct group_server *s)
{
	static const enum role_state states[] = {
		[RING_MEMBER_ALIVE] = ROLE_ALIVE,
		[RING_MEMBER_SUSPECT] = ROLE_SUSPECT,
		[RING_MEMBER_DEAD] = ROLE_DEAD,
		[RING_MEMBER_LEFT] = ROLE_GONE,
		[RING_MEMBER_FORGOTTEN] = ROLE_GONE,
	};
	const struct member *m = member_find(r, &n->id);
	const struct asker *joins =
		find_asker(r->joiners, r->n_joiners, &n->id);
	const struct asker *leaves =
		find_asker(r->leavers, r->n_leavers, &n->id);

	/* What was held up by a cut comes all at once, and may be over. */
	if (leaves != NULL && leaves->heard_ms - leaves->since_ms < FRESH_MS)
		leaves = NULL;
	n->state = n->is_self ? ROLE_ALIVE : ROLE_SUSPECT;
	n->since_ms = r->leader_since_ms;
	if (m != NULL && !n->is_self) {
		n->state = states[m->state];
		n->since_ms = m->since_ms;
	}
	/* Who votes no more hears of the log until its life is over: as a
	 * client does, which nobody wants to vote. */
	if (leaves != NULL && s != NULL && s->role != GROUP_VOTER &&
	    is_up(r, &n->id)) {
		n->is_client = true;
	} else if (leaves != NULL) {
		n->state = ROLE_LEAVING;
		n->since_ms = leaves->since_ms;
	}
	if (s != NULL && joins != NULL && joins->server != s->server)
		n->state = ROLE_GONE;
}

static uint64_t failed_ms(const struct ring *r, uint64_t server)
{
	for (size_t i = 0; i < r->n_failures; i++)
		if (r->failures[i].server == server)
			return r->failures[i].heard_ms;
	return 0;
}

/* Who never was up has not said yet that it is none. */
static bool is_client(const struct ring *r, const struct ring_id *id,
		      const struct ring_node *node)
{
	return node != NULL ? node->is_client : !ring_is_self(r, id);
}

/* s is NULL for a joiner that is not in the configuration. */
static struct role_node node_of(const struct ring *r, const struct ring_id *id,
				uint64_t server, const struct group_server *s)
{
	const struct ring_node *node =
		keyset_node(r->keys, keyset_find_node(r->keys, id));
	struct role_node n = {.id = *id,
			      .failed_ms = failed_ms(r, server),
			      .weight = node != NULL ? node->weight : 0,
			      .is_client = is_client(r, id, node),
			      .is_self = ring_is_self(r, id)};

	if (s != NULL) {
		n.role = role_of(s->role);
		n.heard_ms = s->heard_ms != UINT64_MAX ? s->heard_ms : 0;
		n.match = s->match;
	}
	set_state(r, &n, s);
	return n;
}

/* The servers, and behind them the joiners that are none. servers[] has the raft
 * id of each. */
static size_t make_view(const struct ring *r, struct role_node *nodes,
			uint64_t *servers)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_servers; i++) {
		const struct group_server *s = &r->servers[i];

		servers[n] = s->server;
		nodes[n++] = node_of(r, &s->node, s->server, s);
	}
	for (size_t i = 0; i < r->n_joiners; i++) {
		const struct asker *j = &r->joiners[i];
		const struct group_server *s = server_of(r, &j->node);

		if (s != NULL && s->server == j->server)
			continue;
		servers[n] = j->server;
		nodes[n++] = node_of(r, &j->node, j->server, NULL);
	}
	return n;
}

/* ---- Changing it ---- */

static const char *const steps[] = {
	[ROLE_ADD] = "is added",
	[ROLE_TO_SPARE] = "becomes a spare",
	[ROLE_TO_STANDBY] = "becomes a standby",
	[ROLE_TO_VOTER] = "becomes a voter",
	[ROLE_REMOVE] = "is removed",
	[ROLE_TRANSFER] = "is handed leadership",
};

static void say(struct ring *r, const struct ring_id *id, enum role_step step,
		int rc)
{
	const struct ring_node *n =
		keyset_node(r->keys, keyset_find_node(r->keys, id));
	char line[RING_ERRMSG_SIZE];

	snprintf(line, sizeof(line), "the server of %s %s%s%s",
		 n != NULL ? n->name : "a new node", steps[step],
		 rc != 0 ? ": " : "", rc != 0 ? strerror(-rc) : "");
	r->config.on_log(r->config.data, rc == 0 ? 6 : 4, line);
}

static int carry_out(struct ring *r, enum role_step step, uint64_t server,
		     const struct ring_id *node)
{
	static const enum group_change_kind kinds[] = {
		[ROLE_ADD] = GROUP_ADD,
		[ROLE_TO_SPARE] = GROUP_TO_SPARE,
		[ROLE_TO_STANDBY] = GROUP_TO_STANDBY,
		[ROLE_TO_VOTER] = GROUP_TO_VOTER,
		[ROLE_REMOVE] = GROUP_REMOVE,
	};

	if (step == ROLE_TRANSFER)
		return group_transfer(r->group, r->now_ms, server);
	return group_change(r->group, r->now_ms, kinds[step], server, node);
}

static void note_failure(struct ring *r, uint64_t server)
{
	for (size_t i = 0; i < r->n_failures; i++)
		if (r->failures[i].server == server) {
			r->failures[i].heard_ms = r->now_ms;
			return;
		}
	struct asker *f =
		add_asker(r, &r->failures, &r->n_failures, &r->cap_failures);

	if (f == NULL)
		return;
	f->server = server;
	f->heard_ms = r->now_ms;
}

static bool is_under_way(const struct ring *r)
{
	if (r->change_step == ROLE_TRANSFER)
		return r->now_ms - r->change_ms < TRANSFER_MS;
	return r->group_status.is_changing;
}

/* Has the last change been done? A transfer was not: else we would not lead. */
static void look_back(struct ring *r)
{
	static const enum group_role wanted[] = {
		[ROLE_ADD] = GROUP_SPARE,
		[ROLE_TO_SPARE] = GROUP_SPARE,
		[ROLE_TO_STANDBY] = GROUP_STANDBY,
		[ROLE_TO_VOTER] = GROUP_VOTER,
		[ROLE_REMOVE] = GROUP_NONE,
		[ROLE_TRANSFER] = GROUP_NONE, /* it votes: never so */
	};
	enum group_role role = GROUP_NONE;

	if (r->change_step == ROLE_NOTHING || is_under_way(r))
		return;
	for (size_t i = 0; i < r->n_servers; i++)
		if (r->servers[i].server == r->change_server)
			role = r->servers[i].role;
	if (role == wanted[r->change_step])
		r->changed_ms = r->now_ms;
	else
		note_failure(r, r->change_server);
	r->change_step = ROLE_NOTHING;
	r->role_at_ms = 0;
	/* Who is removed hears no more of the group, and knows no leader. */
	for (size_t i = 0; i < r->n_leavers; i++)
		say_farewell(r, &r->leavers[i]);
}

static void take_step(struct ring *r, struct role_node *nodes,
		      uint64_t *servers)
{
	struct role_view view = {.nodes = nodes,
				 .n = make_view(r, nodes, servers),
				 .changed_ms = r->changed_ms,
				 .is_changing = r->group_status.is_changing ||
						r->change_step != ROLE_NOTHING};

	for (size_t i = 0; i < view.n; i++)
		if (nodes[i].match > view.last)
			view.last = nodes[i].match;
	struct role_change next = role_next(&view, r->now_ms);

	r->role_at_ms = r->now_ms + ROLES_MS;
	if (next.step == ROLE_NOTHING) {
		if (next.again_ms < r->role_at_ms)
			r->role_at_ms = next.again_ms;
		return;
	}
	int rc = carry_out(r, next.step, servers[next.node],
			   &nodes[next.node].id);

	if (rc != -EBUSY) /* then it is asked again */
		say(r, &nodes[next.node].id, next.step, rc);
	r->change_step = rc == 0 ? next.step : ROLE_NOTHING;
	r->change_server = servers[next.node];
	r->change_ms = r->now_ms;
	if (rc != 0 && rc != -EBUSY)
		note_failure(r, r->change_server);
}

uint64_t servers_next_ms(const struct ring *r)
{
	return r->role_at_ms > r->role_from_ms ? r->role_at_ms
					       : r->role_from_ms;
}

void servers_run(struct ring *r)
{
	look_back(r);
	forget_askers(r, r->joiners, &r->n_joiners);
	forget_askers(r, r->leavers, &r->n_leavers);
	if (r->now_ms < servers_next_ms(r) ||
	    r->group_status.role != GROUP_VOTER)
		return;
	size_t most = r->n_servers + r->n_joiners;
	struct role_node *nodes = xcalloc(most, sizeof(*nodes));
	uint64_t *servers = xcalloc(most, sizeof(*servers));

	take_step(r, nodes, servers);
	free(nodes);
	free(servers);
}

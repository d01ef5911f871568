/* SPDX-License-Identifier: MIT */
/* The other servers: what the library sends and receives, and what stands
 * between it and the network.
 *
 * Out:
 *   - What is sent while a term or vote is on its way to the disk waits behind
 *     it (rule 15).
 *   - Entries go in frames; a frame of some size goes on the bulk lane, and so
 *     does all that has to stay in order behind it, until the peer has answered
 *     and the lane has been quiet. Meanwhile a heartbeat of ours on the small
 *     lane, anchored at what the peer is known to have, keeps it quiet.
 *   - To a peer that is silent only heartbeats are sent, and what it has not
 *     answered is bounded (rule 20): so a stopped peer costs a few MiB.
 *   - When the commit index has risen and 2 ms later no message has told it, a
 *     heartbeat does: followers apply soon (B7).
 * In:
 *   - A message for another life of ours, or from a node that the configuration
 *     knows under another id, is dropped.
 *   - While a snapshot is sent, rejections look stale, or each would begin it
 *     anew (B3).
 *   - What makes the library go wrong is kept from it: entries in conflict with
 *     committed ones (it frees them twice), those that replace entries which
 *     are on their way to the disk (it loses track of them), a configuration that
 *     is not the first entry of its message (it notes a wrong index), a message
 *     that is older than another (its commit index would fall), entries from
 *     before its log's beginning (it takes them for new).
 *   - It refuses a pre-vote of an older term with that term, so that the asker
 *     never hears of ours. When his log is the longer one, nobody is elected for
 *     ever: we tell him.
 *
 * Dropping any message is always safe, and so is sending fewer entries, or a
 * heartbeat at any index that is known: the leader sends again. */
#include "ring/group_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "ring/mem.h"

#define FRAME_BYTES  (64u << 10) /* of entries, unless one has more */
#define BULK_BYTES   (16u << 10) /* a larger message goes on the bulk lane */
#define FLYING_MAX   (4u << 20)	 /* bytes not answered, per peer */
#define HELD_MAX     (4u << 20)
#define AGAIN_MS     500 /* without an answer: sent again; then after twice */
#define AGAIN_MAX    8000
#define BULK_IDLE_MS 1000
#define SILENT_MS    (2 * ELECTION_MS)
#define FORGET_MS    10000 /* a peer that is in no configuration */
#define PEERS_MAX    64
#define NOTICE_MS    2

/* ---- Names ---- */

void group_address(const struct ring_id *id, char out[33])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++) {
		out[2 * i] = digits[id->byte[i] >> 4];
		out[2 * i + 1] = digits[id->byte[i] & 15];
	}
	out[32] = '\0';
}

/* As group_address writes it, and no other way. */
static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool group_node(const char *address, struct ring_id *out)
{
	for (int i = 0; i < 16; i++) {
		int high = digit(address[2 * i]);
		int low = high < 0 ? -1 : digit(address[2 * i + 1]);

		if (low < 0)
			return false;
		out->byte[i] = (uint8_t)(high << 4 | low);
	}
	return address[32] == '\0';
}

const struct raft_server *group_net_server(const struct group *g,
					   uint64_t server)
{
	const struct raft_configuration *c = &g->raft.configuration;

	for (unsigned i = 0; i < c->n; i++)
		if (c->servers[i].id == server)
			return &c->servers[i];
	return NULL;
}

uint64_t group_net_term(const struct raft *r, uint64_t index)
{
	const struct raft_trail *t = &r->trail;
	unsigned n = t->front <= t->back ? t->back - t->front
					 : t->size - t->front + t->back;

	for (unsigned i = 0; index > t->offset && i < n; i++) {
		unsigned at = (t->front + i) % t->size;

		if (index <= t->records[at].index)
			return t->records[at].term;
	}
	return index == t->snapshot.index ? t->snapshot.term : 0;
}

/* ---- Peers ---- */

struct peer *group_net_peer(const struct group *g, uint64_t server)
{
	for (size_t i = 0; i < g->n_peers; i++)
		if (g->peers[i]->server == server)
			return g->peers[i];
	return NULL;
}

static void remove_peer(struct group *g, size_t i)
{
	group_copy_stop(g, g->peers[i]);
	free(g->peers[i]);
	g->peers[i] = g->peers[--g->n_peers];
}

/* NULL: there are too many. */
static struct peer *peer_of(struct group *g, uint64_t server,
			    const struct ring_id *node)
{
	struct peer *p = group_net_peer(g, server);

	if (p != NULL || g->n_peers == PEERS_MAX)
		return p;
	p = xcalloc(1, sizeof(*p));
	p->server = server;
	p->node = *node;
	p->heard_ms = p->bulk_ms = NEVER;
	p->again_ms = AGAIN_MS;
	g->peers = xrealloc(g->peers, (g->n_peers + 1) * sizeof(*g->peers));
	g->peers[g->n_peers++] = p;
	return p;
}

static bool is_silent(const struct group *g, const struct peer *p)
{
	return p->heard_ms == NEVER || g->now_ms - p->heard_ms > SILENT_MS;
}

static void land_all(struct peer *p)
{
	p->n_flights = 0;
	p->flying = 0;
}

/* The peer has all up to index. */
static void land(struct group *g, struct peer *p, uint64_t index)
{
	unsigned n = 0;

	while (n < p->n_flights && p->flight[n].last <= index)
		p->flying -= p->flight[n++].bytes;
	if (n == 0)
		return;
	p->n_flights -= n;
	memmove(p->flight, p->flight + n, p->n_flights * sizeof(*p->flight));
	p->flying_ms = g->now_ms;
	p->again_ms = AGAIN_MS;
}

static void take_off(struct group *g, struct peer *p, uint64_t last,
		     size_t bytes)
{
	if (p->n_flights == 0)
		p->flying_ms = g->now_ms;
	if (p->n_flights == FLIGHTS_MAX)
		p->n_flights--, bytes += p->flight[FLIGHTS_MAX - 1].bytes,
			p->flying -= p->flight[FLIGHTS_MAX - 1].bytes;
	p->flight[p->n_flights++] =
		(struct flight){.last = last, .bytes = bytes};
	p->flying += bytes;
}

/* ---- Sending ---- */

static void send_now(struct group *g, const struct ring_id *to, bool bulk,
		     const struct buf *b)
{
	if (g->failed || g->stalled || g->closing || g->config.send == NULL)
		return;
	g->config.send(g->config.data, to, bulk, b->base, b->len);
}

/* Takes b. */
static void hold(struct group *g, const struct ring_id *to, bool bulk,
		 struct buf *b)
{
	struct held *h;

	if (g->held_bytes > 0 && g->held_bytes + b->len > HELD_MAX) {
		free(b->base);
		return;
	}
	h = xcalloc(1, sizeof(*h));
	*h = (struct held){
		.vote = g->n_votes, .to = *to, .bulk = bulk, .bytes = *b};
	*g->held_tail = h;
	g->held_tail = &h->next;
	g->held_bytes += b->len;
}

void group_net_release(struct group *g)
{
	while (g->held != NULL && g->held->vote <= g->n_votes_done) {
		struct held *h = g->held;

		g->held = h->next;
		if (g->held == NULL)
			g->held_tail = &g->held;
		g->held_bytes -= h->bytes.len;
		send_now(g, &h->to, h->bulk, &h->bytes);
		free(h->bytes.base);
		free(h);
	}
}

/* Send a message of the library, behind the votes that it follows. Gives its
 * size. */
static size_t send_message(struct group *g, const struct peer *p, bool bulk,
			   const struct raft_message *m)
{
	struct wire_message w = {.from = g->raft.id,
				 .to = p->server,
				 .kind = m->type,
				 .by_all = m->type == RAFT_REQUEST_VOTE &&
					   group_moved_has_all(g),
				 .raft = *m};
	struct buf b = {0};

	group_wire_encode(&w, &b);
	size_t len = b.len;

	if (g->n_votes_done < g->n_votes) {
		hold(g, &p->node, bulk, &b);
		return len;
	}
	send_now(g, &p->node, bulk, &b);
	free(b.base);
	return len;
}

void group_net_post(struct group *g, const struct ring_id *to, bool bulk,
		    const struct wire_message *m)
{
	struct buf b = {0};

	group_wire_encode(m, &b);
	send_now(g, to, bulk, &b);
	free(b.base);
}

/* A heartbeat at what the peer is known to have, whatever is in flight. */
static void send_keepalive(struct group *g, struct peer *p)
{
	struct raft *r = &g->raft;
	raft_index match = 0;

	if (raft_state(r) != RAFT_LEADER ||
	    raft_match_index(r, p->server, &match) != 0)
		return;
	uint64_t term = group_net_term(r, match);

	if (match == 0 || term == 0)
		return;
	struct raft_message m = {.type = RAFT_APPEND_ENTRIES};

	m.append_entries.version = 1;
	m.append_entries.term = raft_current_term(r);
	m.append_entries.prev_log_index = match;
	m.append_entries.prev_log_term = term;
	m.append_entries.leader_commit = raft_commit_index(r);
	p->keepalive_ms = g->now_ms;
	if (match >= raft_commit_index(r))
		p->told_commit = raft_commit_index(r);
	send_message(g, p, false, &m);
}

static bool uses_bulk(const struct group *g, const struct peer *p)
{
	return p->flying > 0 ||
	       (p->bulk_ms != NEVER && g->now_ms - p->bulk_ms < BULK_IDLE_MS);
}

/* How many of the entries from i on make a frame? */
static unsigned frame_of(const struct raft_append_entries *a, unsigned i,
			 size_t *bytes)
{
	unsigned n = 0;

	for (*bytes = 0; i + n < a->n_entries; n++) {
		size_t more = group_wire_entry_bytes(&a->entries[i + n]);

		if (n > 0 && *bytes + more > FRAME_BYTES)
			break;
		*bytes += more;
	}
	return n;
}

static void send_frame(struct group *g, struct peer *p,
		       const struct raft_message *m, size_t bytes)
{
	const struct raft_append_entries *a = &m->append_entries;
	bool bulk = bytes > BULK_BYTES || uses_bulk(g, p);

	if (bulk) {
		p->bulk_ms = g->now_ms;
		take_off(g, p, a->prev_log_index + a->n_entries, bytes);
	}
	send_message(g, p, bulk, m);
}

/* Send a's entries, as many as may be in flight. */
static void send_frames(struct group *g, struct peer *p,
			const struct raft_append_entries *a)
{
	struct raft_message m = {.type = RAFT_APPEND_ENTRIES,
				 .append_entries = *a};
	struct raft_append_entries *f = &m.append_entries;
	size_t bytes;

	for (unsigned i = 0; i < a->n_entries; i += f->n_entries) {
		unsigned n = frame_of(a, i, &bytes);

		if (p->flying > 0 && p->flying + bytes > FLYING_MAX)
			return;
		if (i > 0)
			f->prev_log_term = a->entries[i - 1].term;
		f->prev_log_index = a->prev_log_index + i;
		f->entries = a->entries + i;
		f->n_entries = n;
		send_frame(g, p, &m, bytes);
	}
}

/* Leave out what is in flight already: the library begins anew at what the peer
 * has answered, whenever it is unsure. */
static void skip_flying(const struct peer *p, struct raft_append_entries *a)
{
	uint64_t last = p->n_flights > 0 ? p->flight[p->n_flights - 1].last : 0;
	uint64_t skip = last > a->prev_log_index ? last - a->prev_log_index : 0;

	if (skip == 0)
		return;
	if (skip >= a->n_entries) {
		a->n_entries = 0;
		return;
	}
	a->prev_log_index += skip;
	a->prev_log_term = a->entries[skip - 1].term;
	a->entries += skip;
	a->n_entries -= (unsigned)skip;
}

static void send_entries(struct group *g, struct peer *p,
			 const struct raft_message *m)
{
	struct raft_message heartbeat = *m;

	if (p->flying > 0 && g->now_ms - p->flying_ms >= p->again_ms) {
		land_all(p);
		if (p->again_ms < AGAIN_MAX)
			p->again_ms *= 2;
	}
	if (uses_bulk(g, p) && g->now_ms - p->keepalive_ms >= TICK_MS)
		send_keepalive(g, p);
	if (m->append_entries.prev_log_index + m->append_entries.n_entries >=
	    m->append_entries.leader_commit)
		p->told_commit = m->append_entries.leader_commit;
	struct raft_append_entries a = m->append_entries;

	skip_flying(p, &a);
	if (a.n_entries > 0 && !is_silent(g, p)) {
		send_frames(g, p, &a);
		return;
	}
	heartbeat.append_entries.n_entries = 0;
	send_message(g, p, uses_bulk(g, p), &heartbeat);
}

static void send_snapshot(struct group *g, struct peer *p,
			  const struct raft_message *m)
{
	p->asked = m->install_snapshot.last_index;
	group_copy_start(g, p);
}

/* In a refusal for the term the library leaves its last index unset. */
static void send_result(struct group *g, const struct peer *p,
			const struct raft_message *m)
{
	struct raft_message result = *m;

	if (result.append_entries_result.rejected > 0)
		result.append_entries_result.last_log_index =
			raft_last_index(&g->raft);
	send_message(g, p, false, &result);
}

int group_net_send(struct raft_io *io, struct raft_io_send *req,
		   const struct raft_message *m, raft_io_send_cb cb)
{
	struct group *g = io->impl;
	struct ring_id node;
	struct peer *p = NULL;

	if (m->server_address != NULL && group_node(m->server_address, &node))
		p = peer_of(g, m->server_id, &node);
	if (p == NULL || g->failed || g->stalled || g->closing ||
	    !group_moved_sends(g, m))
		;
	else if (m->type == RAFT_APPEND_ENTRIES)
		send_entries(g, p, m);
	else if (m->type == RAFT_INSTALL_SNAPSHOT)
		send_snapshot(g, p, m);
	else if (m->type == RAFT_APPEND_ENTRIES_RESULT)
		send_result(g, p, m);
	else
		send_message(g, p, false, m);
	cb(req, 0); /* rule 14: always */
	return 0;
}

/* ---- Receiving ---- */

/* Is it for this life of ours, from whom it says? */
static bool is_addressed(const struct group *g, const struct wire_message *m,
			 const struct ring_id *from)
{
	const struct raft_server *s = group_net_server(g, m->from);
	char address[33];

	group_address(from, address);
	return m->to == g->raft.id && m->from != g->raft.id &&
	       (s == NULL || strcmp(s->address, address) == 0);
}

static void deliver(struct group *g, const struct peer *p,
		    struct raft_message *m)
{
	char address[33];

	group_address(&p->node, address);
	m->server_id = p->server;
	m->server_address = address;
	g->recv_cb(&g->io, m);
}

/* Does an entry of a conflict with one that is committed, or with one that is
 * on its way to the disk? The former cannot be. */
static bool has_conflict(struct group *g, const struct raft_append_entries *a)
{
	const struct raft *r = &g->raft;
	uint64_t term = a->prev_log_term;

	if (a->term < raft_current_term(r))
		return false; /* refused for that */
	for (unsigned i = 0; i <= a->n_entries; i++) {
		uint64_t index = a->prev_log_index + i;
		uint64_t have = index > 0 ? group_net_term(r, index) : 0;

		if (i > 0)
			term = a->entries[i - 1].term;
		if (have == 0 || have == term)
			continue;
		if (index <= raft_commit_index(r))
			group_fail(g,
				   "entry %" PRIu64 " is committed, but the "
				   "leader has another",
				   index);
		return index <= raft_commit_index(r) ||
		       (i > 0 && r->last_stored < raft_last_index(&g->raft));
	}
	return false;
}

/* Where the library has to be given a new message: at a configuration. */
static unsigned cut_of(const struct raft_append_entries *a)
{
	for (unsigned i = 1; i < a->n_entries; i++)
		if (a->entries[i].type == RAFT_CHANGE)
			return i;
	return 0;
}

/* The library sets its commit index to the last entry of a message, if the
 * leader has committed more: even to less than it was. */
static void keep_commit(const struct group *g, struct raft_append_entries *a)
{
	uint64_t commit = raft_commit_index(&g->raft);

	if (a->prev_log_index + a->n_entries < commit &&
	    a->leader_commit > commit)
		a->leader_commit = commit;
}

/* A message that begins before our log does. What was cut off is committed, so
 * it is the same in every leader's log; but the library takes entries it has no
 * longer for new ones, or refuses what it cannot compare, and the leader would
 * go further back. It hears that we have what the last snapshot has. */
static void begin_at_snapshot(const struct group *g, struct wire_message *m)
{
	struct raft_append_entries *a = &m->raft.append_entries;
	const struct raft_trail *t = &g->raft.trail;

	if (a->prev_log_index >= t->snapshot.index ||
	    a->term < raft_current_term(&g->raft) ||
	    (a->prev_log_index == 0 && t->offset == 0) ||
	    group_net_term(&g->raft, a->prev_log_index) != 0)
		return;
	group_wire_finish(m);
	a->entries = NULL;
	a->n_entries = 0;
	a->prev_log_index = t->snapshot.index;
	a->prev_log_term = t->snapshot.term;
}

/* Takes what m has. */
static void recv_entries(struct group *g, struct peer *p,
			 struct wire_message *m)
{
	struct raft_append_entries *a = &m->raft.append_entries;

	begin_at_snapshot(g, m);
	while (!g->failed && !has_conflict(g, a)) {
		struct wire_message tail = *m;
		unsigned k = cut_of(a);

		if (k > 0)
			group_wire_cut(a, k, &tail.raft.append_entries);
		keep_commit(g, a);
		deliver(g, p, &m->raft);
		if (k == 0)
			return;
		*m = tail;
	}
	group_wire_finish(m);
}

/* The library waits for a peer to have the snapshot that it sent last, but asks
 * at its latest: a rejection of that means nothing to it. Say what it waits
 * for; if it does not, this means nothing to it either. */
static void reject_asked(struct group *g, struct peer *p,
			 const struct raft_message *m)
{
	const struct raft_append_entries_result *a = &m->append_entries_result;
	struct raft_message asked = *m;

	if (p->asked == 0 || a->rejected == p->asked ||
	    a->rejected != g->raft.trail.snapshot.index)
		return;
	asked.append_entries_result.rejected = p->asked;
	if (a->last_log_index >= p->asked)
		asked.append_entries_result.last_log_index = p->asked - 1;
	deliver(g, p, &asked);
}

static void recv_result(struct group *g, struct peer *p, struct raft_message *m)
{
	struct raft_append_entries_result *a = &m->append_entries_result;

	if (a->term != raft_current_term(&g->raft)) {
		;
	} else if (a->rejected == 0) {
		land(g, p, a->last_log_index);
		if (a->last_log_index >= p->asked)
			p->asked = 0;
	} else if (p->copy != NULL) {
		land_all(p);
		a->rejected = 1; /* B3 */
		a->last_log_index = 0;
	} else {
		land_all(p);
		reject_asked(g, p, m);
	}
	deliver(g, p, m);
}

/* By a request for a vote in our term, for an empty log: nobody who has entries
 * can grant it, and nobody who grants it gives away more than that vote (Ongaro,
 * Ousterhout, 5.1: terms are exchanged whenever servers communicate). */
static void tell_term(struct group *g, const struct peer *p,
		      const struct raft_request_vote *asked)
{
	struct wire_message m = {
		.from = g->raft.id,
		.to = p->server,
		.kind = RAFT_REQUEST_VOTE,
		.raft.request_vote = {.version = asked->version,
				      .term = raft_current_term(&g->raft),
				      .candidate_id = g->raft.id}};

	if (asked->pre_vote && asked->term < m.raft.request_vote.term &&
	    g->n_votes_done == g->n_votes)
		group_net_post(g, &p->node, false, &m);
}

static void dispatch(struct group *g, struct peer *p, struct wire_message *m)
{
	switch (m->kind) {
	case RAFT_APPEND_ENTRIES:
		if (m->raft.append_entries.term >= raft_current_term(&g->raft))
			g->leader_heard_ms = g->now_ms;
		recv_entries(g, p, m);
		break;
	case RAFT_APPEND_ENTRIES_RESULT:
		recv_result(g, p, &m->raft);
		break;
	case RAFT_INSTALL_SNAPSHOT:
		group_install_begin(g, p, m);
		break;
	case WIRE_CHUNK:
		group_install_chunk(g, p, &m->chunk);
		break;
	case WIRE_ACK:
		group_copy_ack(g, p, &m->ack);
		break;
	case RAFT_REQUEST_VOTE:
		if (!g->is_moved)
			tell_term(g, p, &m->raft.request_vote);
		deliver(g, p, &m->raft);
		break;
	default:
		deliver(g, p, &m->raft);
	}
}

void group_recv(struct group *g, uint64_t now_ms, const struct ring_id *from,
		const void *bytes, size_t len)
{
	struct wire_message m;

	group_set_time(g, now_ms);
	if (g->failed || g->stalled || group_wire_decode(&m, bytes, len) != 0)
		return;
	struct peer *p =
		is_addressed(g, &m, from) ? peer_of(g, m.from, from) : NULL;

	if (p == NULL || memcmp(&p->node, from, sizeof(p->node)) != 0) {
		group_wire_finish(&m);
		return;
	}
	p->heard_ms = g->now_ms;
	if (group_moved_takes(g, p, &m))
		dispatch(g, p, &m);
	else
		group_wire_finish(&m);
	group_after(g);
}

/* ---- Time ---- */

void group_hurry(struct group *g, const struct ring_id *node)
{
	for (size_t i = 0; i < g->n_peers; i++)
		if (memcmp(&g->peers[i]->node, node, sizeof(*node)) == 0)
			g->is_hurried = g->peers[i]->is_waiting = true;
}

/* Who has not answered the entry itself yet is told when it has. */
static bool must_wait(struct group *g, const struct peer *p)
{
	raft_index match = 0;

	return group_net_server(g, p->server) != NULL && !is_silent(g, p) &&
	       raft_match_index(&g->raft, p->server, &match) == 0 &&
	       match < raft_commit_index(&g->raft);
}

static void tell_waiting(struct group *g)
{
	bool leads = raft_state(&g->raft) == RAFT_LEADER;

	g->is_hurried = false;
	for (size_t i = 0; i < g->n_peers; i++) {
		struct peer *p = g->peers[i];

		if (!p->is_waiting)
			continue;
		p->is_waiting = leads && must_wait(g, p);
		g->is_hurried |= p->is_waiting;
		if (leads && !p->is_waiting &&
		    p->told_commit < raft_commit_index(&g->raft))
			send_keepalive(g, p);
	}
}

void group_net_commit(struct group *g)
{
	uint64_t commit = raft_commit_index(&g->raft);

	if (g->is_hurried)
		tell_waiting(g);
	if (raft_state(&g->raft) != RAFT_LEADER || commit == g->noticed)
		return;
	g->noticed = commit;
	if (g->raft.configuration.n > 1 && g->notice_at_ms == NEVER)
		g->notice_at_ms = g->now_ms + NOTICE_MS;
}

static void notice(struct group *g)
{
	const struct raft_configuration *c = &g->raft.configuration;

	g->notice_at_ms = NEVER;
	for (unsigned i = 0; i < c->n; i++) {
		struct peer *p = group_net_peer(g, c->servers[i].id);

		if (p != NULL && p->server != g->raft.id && !is_silent(g, p) &&
		    p->told_commit < raft_commit_index(&g->raft))
			send_keepalive(g, p);
	}
}

void group_net_deposed(struct group *g)
{
	for (size_t i = 0; i < g->n_peers; i++) {
		land_all(g->peers[i]);
		group_copy_stop(g, g->peers[i]);
		g->peers[i]->asked = g->peers[i]->copied = 0;
	}
}

static bool is_forgotten(const struct group *g, const struct peer *p)
{
	return group_net_server(g, p->server) == NULL &&
	       (p->heard_ms == NEVER || g->now_ms - p->heard_ms > FORGET_MS);
}

void group_net_tick(struct group *g)
{
	if (g->now_ms >= g->notice_at_ms)
		notice(g);
	for (size_t i = g->n_peers; i-- > 0;)
		if (is_forgotten(g, g->peers[i]))
			remove_peer(g, i);
}

void group_net_finish(struct group *g)
{
	while (g->n_peers > 0)
		remove_peer(g, g->n_peers - 1);
	free(g->peers);
	while (g->held != NULL) {
		struct held *h = g->held;

		g->held = h->next;
		free(h->bytes.base);
		free(h);
	}
}

/* SPDX-License-Identifier: MIT */
/* Several groups in one process, in virtual time: a network in memory with
 * delay, loss, repeats, cuts and a slow bulk lane; disks that take their time, hang,
 * and lose what they were not yet done with when a node is killed.
 *
 * The machine is a table of slots; an entry writes one of them. Every apply is
 * compared with what others have applied at the same index. */
#ifndef TESTS_UNIT_GROUP_RIG_H
#define TESTS_UNIT_GROUP_RIG_H

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#include "ring/group.h"
#include "ring/mem.h"
#include "tests/unit/scratch.h"

#define RIG_NODES   6
#define RIG_SLOTS   512
#define RIG_HISTORY (1u << 20)

struct rig_machine {
	uint64_t applied, n, hash; /* last index; entries; over all entries */
	uint64_t slot[RIG_SLOTS];
	uint32_t size[RIG_SLOTS]; /* of the payload that wrote it */
	bool dirty[RIG_SLOTS];
};

struct rig_node {
	struct group *g;
	struct rig_machine m;
	struct ring_id id;
	char dir[512];
	uint64_t tick_ms, log_ms, store_ms; /* when due; disks: UINT64_MAX */
	unsigned log_delay, store_delay;    /* of a batch, ms, at most */
	bool paused, log_hangs, store_hangs;
	unsigned n_changes, n_resets;
	size_t sent_bytes, sent_bulk; /* to anybody */
};

struct rig_message {
	uint64_t at_ms, order;
	unsigned from, to;
	bool bulk;
	size_t len;
	uint8_t *bytes;
	struct rig_message *next;
};

static struct {
	uint64_t seed, now_ms, order;
	struct rig_node node[RIG_NODES];
	unsigned n;
	bool cut[RIG_NODES][RIG_NODES];		   /* from, to */
	uint64_t lane_ms[RIG_NODES][RIG_NODES][2]; /* free again at */
	unsigned delay_ms, loss, repeats;	   /* the latter per 1000 */
	unsigned bulk_bytes_per_ms;
	struct rig_message *queue;
	size_t queued[RIG_NODES][RIG_NODES][2];
	size_t sent[RIG_NODES][RIG_NODES]; /* bytes, arrived or not */
	uint64_t history[RIG_HISTORY];	   /* hash of the entry at each index */
	uint64_t last_index;		   /* in it */
	uint32_t snapshot_entries, trailing_entries;
	/* Told of each message before it is sent; false: drop it. */
	bool (*on_send)(unsigned from, unsigned to, bool bulk,
			const uint8_t *bytes, size_t len);
	bool is_verbose;
	bool threads; /* real disks, real time; before rig_make */
	int in_disk;  /* the node whose disk works just now, or -1 */
} rig;

static inline unsigned rig_random(unsigned n)
{
	return n ? (unsigned)(check_random(&rig.seed) % n) : 0;
}

/* ---- The machine ---- */

static inline int rig_apply(void *data, uint64_t index, const void *bytes,
			    size_t len)
{
	struct rig_node *node = data;
	struct rig_machine *m = &node->m;
	uint64_t id, hash = XXH3_64bits(bytes, len) | 1;

	check(index > m->applied, "entry %llu again after %llu",
	      (unsigned long long)index, (unsigned long long)m->applied);
	check(len >= 8 && index < RIG_HISTORY, "entry");
	check(rig.history[index] == 0 || rig.history[index] == hash,
	      "node %td has another entry %llu", node - rig.node,
	      (unsigned long long)index);
	rig.history[index] = hash;
	if (index > rig.last_index)
		rig.last_index = index;
	memcpy(&id, bytes, 8);
	m->applied = index;
	m->n++;
	m->hash = m->hash * 0x9e3779b97f4a7c15 + hash;
	m->slot[id % RIG_SLOTS] = id;
	m->size[id % RIG_SLOTS] = (uint32_t)len;
	m->dirty[id % RIG_SLOTS] = true;
	return 0;
}

static inline void rig_collect(void *data, struct store_batch *out)
{
	struct rig_machine *m = &((struct rig_node *)data)->m;
	static uint8_t payload[17 << 20];

	for (unsigned i = 0; i < RIG_SLOTS; i++) {
		if (!m->dirty[i])
			continue;
		m->dirty[i] = false;
		buf_u64(&out->records, i + 1);
		buf_u32(&out->records, 16 + m->size[i]);
		buf_u64(&out->records, i);
		buf_u64(&out->records, m->slot[i]);
		buf_put(&out->records, payload, m->size[i]);
		out->n_records++;
	}
	buf_u64(&out->meta, m->applied);
	buf_u64(&out->meta, m->n);
	buf_u64(&out->meta, m->hash);
}

static inline int rig_load_key(void *data, const void *record, size_t len)
{
	struct rig_machine *m = &((struct rig_node *)data)->m;
	struct reader r = reader_of(record, len);
	uint64_t i = reader_u64(&r);

	if (i >= RIG_SLOTS)
		return -EBADMSG;
	m->slot[i] = reader_u64(&r);
	m->size[i] = (uint32_t)reader_left(&r);
	return r.bad ? -EBADMSG : 0;
}

static inline int rig_load_meta(void *data, const void *meta, size_t len)
{
	struct rig_machine *m = &((struct rig_node *)data)->m;
	struct reader r = reader_of(meta, len);

	m->applied = reader_u64(&r);
	m->n = reader_u64(&r);
	m->hash = reader_u64(&r);
	return r.bad ? -EBADMSG : 0;
}

static inline void rig_reset(void *data)
{
	struct rig_node *node = data;

	node->n_resets++;
	node->m = (struct rig_machine){0};
}

/* ---- The network ---- */

static inline void rig_enqueue(unsigned from, unsigned to, bool bulk,
			       const uint8_t *bytes, size_t len)
{
	struct rig_message *m = xcalloc(1, sizeof(*m)), **at = &rig.queue;
	uint64_t *free_ms = &rig.lane_ms[from][to][bulk];

	m->at_ms = rig.now_ms + 1 + rig_random(rig.delay_ms);
	if (m->at_ms < *free_ms)
		m->at_ms = *free_ms; /* a stream is in order */
	if (bulk && rig.bulk_bytes_per_ms > 0)
		m->at_ms += len / rig.bulk_bytes_per_ms;
	*free_ms = m->at_ms;
	m->order = rig.order++;
	m->from = from;
	m->to = to;
	m->bulk = bulk;
	m->len = len;
	m->bytes = memcpy(xmalloc(len), bytes, len);
	rig.queued[from][to][bulk] += len;
	while (*at != NULL && (*at)->at_ms <= m->at_ms)
		at = &(*at)->next;
	m->next = *at;
	*at = m;
}

static inline unsigned rig_find(const struct ring_id *id)
{
	return id->byte[15] - 1u;
}

static inline void rig_send(void *data, const struct ring_id *to, bool bulk,
			    const void *bytes, size_t len)
{
	struct rig_node *node = data;
	unsigned from = (unsigned)(node - rig.node), t = rig_find(to);

	check(t < rig.n && t != from, "a message to node %u", t);
	node->sent_bytes += len;
	rig.sent[from][t] += len;
	node->sent_bulk += bulk ? len : 0;
	if (rig.on_send != NULL && !rig.on_send(from, t, bulk, bytes, len))
		return;
	if (rig.cut[from][t] || rig_random(1000) < rig.loss)
		return;
	if (rig.queued[from][t][bulk] > 0 &&
	    rig.queued[from][t][bulk] + len > (4u << 20))
		return; /* as the transport does */
	rig_enqueue(from, t, bulk, bytes, len);
	if (rig_random(1000) < rig.repeats)
		rig_enqueue(from, t, bulk, bytes, len);
}

static inline void rig_deliver(void)
{
	while (rig.queue != NULL && rig.queue->at_ms <= rig.now_ms) {
		struct rig_message *m = rig.queue;
		struct rig_node *to = &rig.node[m->to];

		if (to->paused) { /* what arrives waits, in order */
			struct rig_message **at = &rig.queue;

			rig.queue = m->next;
			m->at_ms = rig.now_ms + 1;
			while (*at != NULL && (*at)->at_ms <= m->at_ms &&
			       (*at)->order < m->order)
				at = &(*at)->next;
			m->next = *at;
			*at = m;
			continue;
		}
		rig.queue = m->next;
		rig.queued[m->from][m->to][m->bulk] -= m->len;
		if (to->g != NULL && !rig.cut[m->from][m->to])
			group_recv(to->g, rig.now_ms, &rig.node[m->from].id,
				   m->bytes, m->len);
		free(m->bytes);
		free(m);
	}
}

/* ---- Nodes ---- */

static inline void rig_on_change(void *data)
{
	((struct rig_node *)data)->n_changes++;
}

static inline void rig_on_log(void *data, int level, const char *line)
{
	struct rig_node *node = data;

	if (rig.is_verbose)
		printf("# %llu node %td: %d %s\n",
		       (unsigned long long)rig.now_ms, node - rig.node, level,
		       line);
}

static inline void rig_wake(void *data)
{
	(void)data;
}

static inline int rig_peek(void *data, const void *bytes, size_t len)
{
	(void)data;
	(void)bytes;
	(void)len;
	return 0;
}

static char rig_errmsg[RING_ERRMSG_SIZE];

/* 0 or group_open's error. */
static inline int rig_open(unsigned i, bool create)
{
	struct rig_node *node = &rig.node[i];
	struct group_config config = {.dir = node->dir,
				      .cluster = {{9}},
				      .node = node->id,
				      .create = create,
				      .join = !create,
				      .apply = rig_apply,
				      .collect = rig_collect,
				      .load_key = rig_load_key,
				      .load_meta = rig_load_meta,
				      .reset = rig_reset,
				      .on_change = rig_on_change,
				      .on_log = rig_on_log,
				      .send = rig_send,
				      .wake = rig_wake,
				      .data = node,
				      .snapshot_entries = rig.snapshot_entries,
				      .trailing_entries = rig.trailing_entries,
				      .seed = check_random(&rig.seed) | 1,
				      .inline_jobs = !rig.threads};

	node->m = (struct rig_machine){0};
	node->log_ms = node->store_ms = UINT64_MAX;
	node->tick_ms = rig.now_ms;
	node->paused = node->log_hangs = node->store_hangs = false;
	return group_open(&config, rig.now_ms, rig_peek, &node->g, rig_errmsg);
}

static inline void rig_start(unsigned i, bool create)
{
	int rc = rig_open(i, create);

	check(rc == 0, "node %u: %s: %s", i, strerror(-rc), rig_errmsg);
}

static inline void rig_kill(unsigned i)
{
	if (rig.node[i].g == NULL)
		return;
	struct group *g = rig.node[i].g;

	rig.node[i].g = NULL;
	if (rig.threads)
		group_close(g);
	else
		group_abandon(g);
}

static inline void rig_wipe(unsigned i)
{
	rig_kill(i);
	scratch_remove(rig.node[i].dir);
	check_int(mkdir(rig.node[i].dir, 0700), 0);
}

static inline void rig_step_disks(struct rig_node *node)
{
	bool done = false;

	if (node->log_ms == UINT64_MAX)
		node->log_ms = rig.now_ms + rig_random(node->log_delay + 1);
	if (node->store_ms == UINT64_MAX)
		node->store_ms = rig.now_ms + rig_random(node->store_delay + 1);
	rig.in_disk = (int)(node - rig.node);
	if (node->log_ms <= rig.now_ms && !node->log_hangs) {
		done |= group_disk_step(node->g, true);
		node->log_ms = UINT64_MAX;
	}
	if (node->store_ms <= rig.now_ms && !node->store_hangs) {
		done |= group_disk_step(node->g, false);
		node->store_ms = UINT64_MAX;
	}
	rig.in_disk = -1;
	if (done)
		group_wake(node->g, rig.now_ms);
}

static inline uint64_t rig_clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* In real time a turn is a millisecond, or what it takes. */
static inline void rig_pass_time(void)
{
	if (!rig.threads) {
		rig.now_ms++;
		return;
	}
	usleep(1000);
	rig.now_ms = rig_clock_ms();
}

static inline void rig_turn(void)
{
	rig_pass_time();
	rig_deliver();
	for (unsigned i = 0; i < rig.n; i++) {
		struct rig_node *node = &rig.node[i];

		if (node->g == NULL || node->paused)
			continue;
		if (rig.threads)
			group_wake(node->g, rig.now_ms);
		else
			rig_step_disks(node);
		if (group_due_ms(node->g) <= rig.now_ms)
			group_tick(node->g, rig.now_ms);
	}
}

static inline void rig_run(unsigned ms)
{
	while (ms-- > 0)
		rig_turn();
}

/* ---- Asking ---- */

static inline struct group_status rig_status(unsigned i)
{
	struct group_status s = {0};

	if (rig.node[i].g != NULL)
		group_status(rig.node[i].g, &s);
	return s;
}

/* The one that leads and is in contact, or -1. */
static inline int rig_leader(void)
{
	for (unsigned i = 0; i < rig.n; i++) {
		struct group_status s = rig_status(i);

		if (s.is_leader && s.in_contact && !rig.node[i].paused)
			return (int)i;
	}
	return -1;
}

static inline unsigned rig_wait_leader(unsigned ms)
{
	while (ms-- > 0 && rig_leader() < 0)
		rig_turn();
	check(rig_leader() >= 0, "no leader at %llu",
	      (unsigned long long)rig.now_ms);
	return (unsigned)rig_leader();
}

/* An entry of size bytes; 0 or -EAGAIN. */
static inline int rig_propose(unsigned i, uint64_t id, size_t size)
{
	static const uint8_t zeros[1 << 20];
	struct buf b = {0};

	buf_u64(&b, id);
	buf_put(&b, zeros, size - 8);
	int rc = group_propose(rig.node[i].g, rig.now_ms, &b);

	free(b.base);
	return rc;
}

static inline bool rig_are_equal(void)
{
	const struct rig_machine *first = NULL;

	for (unsigned i = 0; i < rig.n; i++) {
		const struct rig_machine *m = &rig.node[i].m;

		if (rig.node[i].g == NULL)
			continue;
		first = first != NULL ? first : m;
		if (m->applied != rig.last_index || m->hash != first->hash)
			return false;
	}
	return true;
}

static inline void rig_wait_equal(unsigned ms)
{
	while (ms-- > 0 && !rig_are_equal())
		rig_turn();
	for (unsigned i = 0; i < rig.n && !rig_are_equal(); i++) {
		struct group_status s = rig_status(i);

		printf("# node %u: applied %llu of %llu, %llu, role %d, term "
		       "%llu%s%s\n",
		       i, (unsigned long long)rig.node[i].m.applied,
		       (unsigned long long)rig.last_index,
		       (unsigned long long)s.applied, s.role,
		       (unsigned long long)s.term, s.is_leader ? " leads" : "",
		       s.failed ? s.errmsg : "");
	}
	check(rig_are_equal(), "the machines differ");
	for (unsigned i = 1; i < rig.n; i++)
		if (rig.node[0].g != NULL && rig.node[i].g != NULL)
			check(memcmp(rig.node[0].m.slot, rig.node[i].m.slot,
				     sizeof(rig.node[0].m.slot)) == 0,
			      "the slots of node %u differ", i);
}

static inline bool rig_find_server(unsigned at, unsigned node,
				   struct group_server *out)
{
	struct group_server s[16];
	size_t n = group_servers(rig.node[at].g, s, 16);

	for (size_t i = 0; i < n; i++) {
		if (memcmp(&s[i].node, &rig.node[node].id, 16) != 0)
			continue;
		*out = s[i];
		return true;
	}
	return false;
}

/* Change node's role, asking whoever leads until it is done. */
static inline void rig_change(enum group_change_kind kind, unsigned node,
			      uint64_t server, enum group_role want)
{
	for (unsigned t = 0; t < 30000; t++) {
		int l = rig_leader();
		struct group_server s = {.role = GROUP_NONE};
		struct group_status st;

		if (l >= 0) {
			st = rig_status((unsigned)l);
			if (!rig_find_server((unsigned)l, node, &s))
				s.role = GROUP_NONE;
			if (s.role == want && !st.is_changing)
				return;
			if (t % 100 == 0 && s.role != want)
				group_change(rig.node[l].g, rig.now_ms, kind,
					     server, &rig.node[node].id);
		}
		rig_turn();
	}
	check(false, "change %d of node %u is not done", kind, node);
}

static inline void rig_join(unsigned node, bool voter)
{
	uint64_t server = group_server_id(rig.node[node].g);

	rig_change(GROUP_ADD, node, server, GROUP_SPARE);
	rig_change(GROUP_TO_STANDBY, node, server, GROUP_STANDBY);
	if (voter)
		rig_change(GROUP_TO_VOTER, node, server, GROUP_VOTER);
}

static inline void rig_begin(uint64_t seed)
{
	memset(&rig, 0, sizeof(rig));
	rig.seed = seed;
	rig.now_ms = 1000;
	rig.delay_ms = 3;
	rig.in_disk = -1;
}

/* n voters, the first of which has made the cluster. */
static inline void rig_make(unsigned n)
{
	static unsigned number;

	rig.n = n;
	for (unsigned i = 0; i < n; i++) {
		struct rig_node *node = &rig.node[i];

		snprintf(node->dir, sizeof(node->dir), "%s/%u-%u", scratch_dir,
			 number, i);
		check_int(mkdir(node->dir, 0700), 0);
		node->id.byte[15] = (uint8_t)(i + 1);
		rig_start(i, i == 0);
	}
	number++;
	rig_wait_leader(1000);
	for (unsigned i = 1; i < n; i++)
		rig_join(i, true);
}

static inline void rig_end(void)
{
	for (unsigned i = 0; i < rig.n; i++) {
		rig_kill(i);
		scratch_remove(rig.node[i].dir);
	}
	while (rig.queue != NULL) {
		struct rig_message *m = rig.queue;

		rig.queue = m->next;
		free(m->bytes);
		free(m);
	}
}

#endif

/* SPDX-License-Identifier: MIT */
/* Messages to bytes and back. Integers are little-endian.
 *
 *   every message   1 version of this format: 1
 *                   1 kind
 *                   8 raft id of the sender
 *                   8 raft id of the receiver
 *
 * then, by kind; the library's begin with 1 byte, its version of the message:
 *
 *   1 AppendEntries        8 term, 8 previous index, 8 its term, 8 commit
 *                          index, 4 number of entries; for each 8 term, 1 type,
 *                          4 length; then the bytes of all
 *   2 ... result           8 term, 8 rejected index, 8 last index, 2 features,
 *                          2 capacity
 *   3 RequestVote          8 term, 8 last index, 8 its term,
 *                          1 flags: 1 disrupt leader, 2 pre-vote, 4 all
 *                          others said yes to the pre-vote
 *   4 ... result           8 term, 1 flags: 1 granted, 2 pre-vote, 2 features,
 *                          2 capacity
 *   5 InstallSnapshot      8 term, 8 last index, 8 its term, 8 configuration's
 *                          index, 4 length, the configuration, 8 number of the
 *                          copy
 *   6 TimeoutNow           8 term, 8 last index, 8 its term
 *   7 chunk                8 number of the copy, 4 seq, 1 part, 8 XXH3 of the
 *                          rest, the rest
 *   8 acknowledgement      8 number of the copy, 4 next seq, 1 state
 *
 * A configuration is as the library writes it; ours have addresses that are
 * node ids in hex:
 *
 *                   1 version: 1, 8 number of servers; for each 8 raft id,
 *                   32 hex digits, 1 zero, 1 role; zeros up to a multiple of 8
 *
 * The library's reader of it trusts its input, and a message of which it can
 * make nothing frees memory twice: so what it gets is checked here. */
#include "ring/group_wire.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "ring/mem.h"

#define WIRE_VERSION 1
#define ENTRY_HEAD   13	  /* bytes of an entry beside its own */
#define ENTRIES_MAX  4096 /* in one message */
#define SERVERS_MAX  256  /* in a configuration */
#define ID_DIGITS    32

/* ---- Writing ---- */

static void put_entries(struct buf *b, const struct raft_append_entries *m)
{
	buf_u8(b, m->version);
	buf_u64(b, m->term);
	buf_u64(b, m->prev_log_index);
	buf_u64(b, m->prev_log_term);
	buf_u64(b, m->leader_commit);
	buf_u32(b, m->n_entries);
	for (unsigned i = 0; i < m->n_entries; i++) {
		buf_u64(b, m->entries[i].term);
		buf_u8(b, (uint8_t)m->entries[i].type);
		buf_u32(b, (uint32_t)m->entries[i].buf.len);
	}
	for (unsigned i = 0; i < m->n_entries; i++)
		buf_put(b, m->entries[i].buf.base, m->entries[i].buf.len);
}

static void put_entries_result(struct buf *b,
			       const struct raft_append_entries_result *m)
{
	buf_u8(b, m->version);
	buf_u64(b, m->term);
	buf_u64(b, m->rejected);
	buf_u64(b, m->last_log_index);
	buf_u16(b, m->features);
	buf_u16(b, m->capacity);
}

static void put_vote(struct buf *b, const struct raft_request_vote *m,
		     bool by_all)
{
	buf_u8(b, m->version);
	buf_u64(b, m->term);
	buf_u64(b, m->last_log_index);
	buf_u64(b, m->last_log_term);
	buf_u8(b,
	       (uint8_t)(m->disrupt_leader | m->pre_vote << 1 | by_all << 2));
}

static void put_vote_result(struct buf *b,
			    const struct raft_request_vote_result *m)
{
	buf_u8(b, m->version);
	buf_u64(b, m->term);
	buf_u8(b, (uint8_t)(m->vote_granted | m->pre_vote << 1));
	buf_u16(b, m->features);
	buf_u16(b, m->capacity);
}

static void put_install(struct buf *b, const struct raft_install_snapshot *m)
{
	struct raft_buffer conf;

	mem_check(raft_configuration_encode(&m->conf, &conf) == 0 ? conf.base
								  : NULL);
	buf_u8(b, m->version);
	buf_u64(b, m->term);
	buf_u64(b, m->last_index);
	buf_u64(b, m->last_term);
	buf_u64(b, m->conf_index);
	buf_u32(b, (uint32_t)conf.len);
	buf_put(b, conf.base, conf.len);
	buf_put(b, m->data.base, 8);
	raft_free(conf.base);
}

static void put_timeout(struct buf *b, const struct raft_timeout_now *m)
{
	buf_u8(b, m->version);
	buf_u64(b, m->term);
	buf_u64(b, m->last_log_index);
	buf_u64(b, m->last_log_term);
}

static void put_chunk(struct buf *b, const struct wire_chunk *c)
{
	buf_u64(b, c->copy);
	buf_u32(b, c->seq);
	buf_u8(b, (uint8_t)c->part);
	buf_u64(b, XXH3_64bits(c->bytes, c->len));
	buf_put(b, c->bytes, c->len);
}

void group_wire_encode(const struct wire_message *m, struct buf *b)
{
	buf_u8(b, WIRE_VERSION);
	buf_u8(b, (uint8_t)m->kind);
	buf_u64(b, m->from);
	buf_u64(b, m->to);
	switch (m->kind) {
	case RAFT_APPEND_ENTRIES:
		put_entries(b, &m->raft.append_entries);
		break;
	case RAFT_APPEND_ENTRIES_RESULT:
		put_entries_result(b, &m->raft.append_entries_result);
		break;
	case RAFT_REQUEST_VOTE:
		put_vote(b, &m->raft.request_vote, m->by_all);
		break;
	case RAFT_REQUEST_VOTE_RESULT:
		put_vote_result(b, &m->raft.request_vote_result);
		break;
	case RAFT_INSTALL_SNAPSHOT:
		put_install(b, &m->raft.install_snapshot);
		break;
	case RAFT_TIMEOUT_NOW:
		put_timeout(b, &m->raft.timeout_now);
		break;
	case WIRE_CHUNK:
		put_chunk(b, &m->chunk);
		break;
	case WIRE_ACK:
		buf_u64(b, m->ack.copy);
		buf_u32(b, m->ack.next);
		buf_u8(b, (uint8_t)m->ack.state);
		break;
	}
}

size_t group_wire_entry_bytes(const struct raft_entry *e)
{
	return ENTRY_HEAD + e->buf.len;
}

/* ---- Configurations ---- */

static bool is_address(const uint8_t *at)
{
	for (int i = 0; i < ID_DIGITS; i++)
		if (at == NULL || at[i] == 0 ||
		    strchr("0123456789abcdef", at[i]) == NULL)
			return false;
	return at[ID_DIGITS] == 0;
}

/* Is the i-th server like none before it? Each has 8 + 33 + 1 bytes. */
static bool is_new(const uint8_t *servers, uint64_t i)
{
	const uint8_t *at = servers + i * 42;

	for (; servers < at; servers += 42)
		if (memcmp(servers, at, 8) == 0 ||
		    memcmp(servers + 8, at + 8, ID_DIGITS) == 0)
			return false;
	return true;
}

static bool is_configuration(const uint8_t *bytes, size_t len)
{
	struct reader r = reader_of(bytes, len);
	uint8_t version = reader_u8(&r);
	uint64_t n = reader_u64(&r);
	const uint8_t *servers = r.at;

	if (r.bad || version != 1 || n == 0 || n > SERVERS_MAX)
		return false;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t id = reader_u64(&r);
		const uint8_t *address = reader_bytes(&r, ID_DIGITS + 1);
		uint8_t role = reader_u8(&r);

		if (r.bad || id == 0 || !is_address(address) ||
		    role > RAFT_SPARE || !is_new(servers, i))
			return false;
	}
	size_t padding = reader_left(&r);
	static const uint8_t zeros[8];

	return padding < 8 && len % 8 == 0 && memcmp(r.at, zeros, padding) == 0;
}

/* ---- Reading ---- */

static bool get_entry_heads(struct reader *r, struct raft_append_entries *m,
			    uint64_t *total)
{
	*total = 0;
	for (unsigned i = 0; i < m->n_entries; i++) {
		struct raft_entry *e = &m->entries[i];

		e->term = reader_u64(r);
		e->type = reader_u8(r);
		e->buf.len = reader_u32(r);
		*total += e->buf.len;
		if (e->term == 0 || e->type < RAFT_COMMAND ||
		    e->type > RAFT_CHANGE)
			return false;
	}
	return !r->bad && *total == reader_left(r);
}

/* The library frees the batch of the first entry, which holds all. */
static bool get_entry_bytes(struct reader *r, struct raft_append_entries *m,
			    uint64_t total)
{
	uint8_t *at = mem_check(raft_malloc(total + 1));
	uint8_t *batch = at;
	bool good = true;

	for (unsigned i = 0; i < m->n_entries; i++) {
		struct raft_entry *e = &m->entries[i];

		e->batch = batch;
		e->buf.base = at;
		if (e->buf.len > 0)
			memcpy(at, reader_bytes(r, e->buf.len), e->buf.len);
		if (e->type == RAFT_CHANGE && !is_configuration(at, e->buf.len))
			good = false;
		at += e->buf.len;
	}
	if (!good)
		raft_free(batch);
	return good;
}

static void get_entries(struct reader *r, struct raft_append_entries *m)
{
	uint64_t total;

	m->version = reader_u8(r);
	m->term = reader_u64(r);
	m->prev_log_index = reader_u64(r);
	m->prev_log_term = reader_u64(r);
	m->leader_commit = reader_u64(r);
	m->n_entries = reader_u32(r);
	m->entries = NULL;
	if (m->term == 0 || m->prev_log_index > UINT64_MAX / 2 ||
	    (m->prev_log_index == 0) != (m->prev_log_term == 0) ||
	    m->n_entries > ENTRIES_MAX ||
	    m->n_entries > reader_left(r) / ENTRY_HEAD)
		r->bad = true;
	if (r->bad || m->n_entries == 0)
		return;
	m->entries = mem_check(raft_calloc(m->n_entries, sizeof(*m->entries)));
	if (get_entry_heads(r, m, &total) && get_entry_bytes(r, m, total))
		return;
	r->bad = true;
	raft_free(m->entries);
}

static void get_entries_result(struct reader *r,
			       struct raft_append_entries_result *m)
{
	m->version = reader_u8(r);
	m->term = reader_u64(r);
	m->rejected = reader_u64(r);
	m->last_log_index = reader_u64(r);
	m->features = reader_u16(r);
	m->capacity = reader_u16(r);
}

static void get_vote(struct reader *r, struct wire_message *w)
{
	struct raft_request_vote *m = &w->raft.request_vote;

	m->version = reader_u8(r);
	m->term = reader_u64(r);
	m->candidate_id = w->from;
	m->last_log_index = reader_u64(r);
	m->last_log_term = reader_u64(r);
	uint8_t flags = reader_u8(r);

	m->disrupt_leader = flags & 1;
	m->pre_vote = flags & 2;
	w->by_all = flags & 4;
	if (m->term == 0 || flags > 7)
		r->bad = true;
}

static void get_vote_result(struct reader *r,
			    struct raft_request_vote_result *m)
{
	m->version = reader_u8(r);
	m->term = reader_u64(r);
	uint8_t flags = reader_u8(r);

	m->vote_granted = flags & 1;
	m->pre_vote = flags & 2;
	m->features = reader_u16(r);
	m->capacity = reader_u16(r);
	if (flags > 3)
		r->bad = true;
}

static struct raft_buffer copy_of(const void *bytes, size_t len)
{
	struct raft_buffer b = {.base = mem_check(raft_malloc(len)),
				.len = len};

	memcpy(b.base, bytes, len);
	return b;
}

static void get_install(struct reader *r, struct raft_install_snapshot *m)
{
	m->version = reader_u8(r);
	m->term = reader_u64(r);
	m->last_index = reader_u64(r);
	m->last_term = reader_u64(r);
	m->conf_index = reader_u64(r);
	uint32_t n = reader_u32(r);
	const uint8_t *conf = reader_bytes(r, n);
	const uint8_t *copy = reader_bytes(r, 8);

	if (m->last_index == 0 || m->last_term == 0 || m->term < m->last_term ||
	    m->conf_index == 0 || m->conf_index > m->last_index)
		r->bad = true;
	if (r->bad || !is_configuration(conf, n)) {
		r->bad = true;
		return;
	}
	struct raft_buffer b = copy_of(conf, n);

	mem_check(raft_configuration_decode(&b, &m->conf) == 0 ? m : NULL);
	raft_free(b.base);
	m->data = copy_of(copy, 8);
}

static void get_timeout(struct reader *r, struct raft_timeout_now *m)
{
	m->version = reader_u8(r);
	m->term = reader_u64(r);
	m->last_log_index = reader_u64(r);
	m->last_log_term = reader_u64(r);
}

static void get_chunk(struct reader *r, struct wire_chunk *c)
{
	c->copy = reader_u64(r);
	c->seq = reader_u32(r);
	c->part = reader_u8(r);
	uint64_t sum = reader_u64(r);

	c->len = reader_left(r);
	c->bytes = reader_bytes(r, c->len);
	if (r->bad || c->seq == 0 || sum != XXH3_64bits(c->bytes, c->len) ||
	    (c->part != WIRE_RECORDS && c->part != WIRE_END))
		r->bad = true;
}

static void get_ack(struct reader *r, struct wire_ack *a)
{
	a->copy = reader_u64(r);
	a->next = reader_u32(r);
	a->state = reader_u8(r);
	if (a->state > WIRE_LOST)
		r->bad = true;
}

static void get_body(struct reader *r, struct wire_message *m)
{
	switch (m->kind) {
	case RAFT_APPEND_ENTRIES:
		get_entries(r, &m->raft.append_entries);
		break;
	case RAFT_APPEND_ENTRIES_RESULT:
		get_entries_result(r, &m->raft.append_entries_result);
		break;
	case RAFT_REQUEST_VOTE:
		get_vote(r, m);
		break;
	case RAFT_REQUEST_VOTE_RESULT:
		get_vote_result(r, &m->raft.request_vote_result);
		break;
	case RAFT_INSTALL_SNAPSHOT:
		get_install(r, &m->raft.install_snapshot);
		break;
	case RAFT_TIMEOUT_NOW:
		get_timeout(r, &m->raft.timeout_now);
		break;
	case WIRE_CHUNK:
		get_chunk(r, &m->chunk);
		break;
	case WIRE_ACK:
		get_ack(r, &m->ack);
		break;
	default:
		r->bad = true;
	}
}

int group_wire_decode(struct wire_message *m, const void *bytes, size_t len)
{
	struct reader r = reader_of(bytes, len);

	memset(m, 0, sizeof(*m));
	if (reader_u8(&r) != WIRE_VERSION)
		return -EBADMSG;
	m->kind = reader_u8(&r);
	m->from = reader_u64(&r);
	m->to = reader_u64(&r);
	if (r.bad || m->from == 0)
		return -EBADMSG;
	if (m->kind <= RAFT_TIMEOUT_NOW)
		m->raft.type = (enum raft_message_type)m->kind;
	get_body(&r, m);
	if (r.bad)
		return -EBADMSG;
	if (reader_left(&r) == 0)
		return 0;
	group_wire_finish(m);
	return -EBADMSG;
}

void group_wire_finish(struct wire_message *m)
{
	struct raft_append_entries *a = &m->raft.append_entries;

	if (m->kind == RAFT_APPEND_ENTRIES && a->n_entries > 0) {
		raft_free(a->entries[0].batch);
		raft_free(a->entries);
	} else if (m->kind == RAFT_INSTALL_SNAPSHOT) {
		raft_configuration_close(&m->raft.install_snapshot.conf);
		raft_free(m->raft.install_snapshot.data.base);
	}
}

void group_wire_cut(struct raft_append_entries *m, unsigned k,
		    struct raft_append_entries *tail)
{
	unsigned n = m->n_entries - k;
	size_t total = 0;

	for (unsigned i = k; i < m->n_entries; i++)
		total += m->entries[i].buf.len;
	uint8_t *at = mem_check(raft_malloc(total + 1));
	uint8_t *batch = at;

	*tail = *m;
	tail->prev_log_index += k;
	tail->prev_log_term = m->entries[k - 1].term;
	tail->entries = mem_check(raft_calloc(n, sizeof(*tail->entries)));
	tail->n_entries = n;
	for (unsigned i = 0; i < n; i++) {
		struct raft_entry *e = &tail->entries[i];

		*e = m->entries[k + i];
		if (e->buf.len > 0)
			memcpy(at, e->buf.base, e->buf.len);
		e->buf.base = at;
		e->batch = batch;
		at += e->buf.len;
	}
	m->n_entries = k;
}

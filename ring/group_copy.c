/* SPDX-License-Identifier: MIT */
/* Sending the content of a snapshot (rule 17).
 *
 * The library asks for a snapshot to be sent whenever it likes; the first time
 * begins a copy, and as long as there is one the others mean nothing. What is
 * sent is the store as of one transaction, which may be newer than asked for:
 *
 *   store's worker: begin to read -> loop: InstallSnapshot, seq 0
 *        -> worker: read some records -> loop: chunk, seq 1 ...
 *        -> worker: no more -> loop: chunk of the census, the last
 *   acknowledged: what is on the receiver's disk is no longer kept here, and
 *        the next is read
 *   done: the receiver's library has taken it, or needs it no more
 *
 * and each way to fail:
 *   no answer for a while:      all that is kept is sent again
 *   none for long, or lost:     given up; the library will ask again
 *   leadership lost, closing:   given up
 *   the store cannot be read:   given up, and said
 *
 * At most WINDOW chunks are kept and on their way, on the bulk lane. Reading
 * ends before anything else happens to a copy: what is read is told first. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "ring/group_impl.h"
#include "ring/mem.h"

#define CHUNK_BYTES (64u << 10)
#define WINDOW	    8
#define AGAIN_MS    500 /* at first; then twice as long each time */
#define AGAIN_MAX   4000
#define GIVE_UP_MS  10000
#define COPIES_MAX  4
#define KEEP_BYTES  (128u << 20) /* of the log behind a copy */
#define KEEP_MS	    10000	 /* after it, until the peer has caught up */

struct copy {
	struct disk_job job; /* one at a time: reading */
	struct group *g;
	struct peer *peer; /* NULL: given up */
	struct store_reader *reader;
	uint64_t number;
	bool reading, all_read;
	struct store_batch batch; /* what was read */
	struct store_census census;

	struct buf kept[WINDOW]; /* messages, from acked on */
	uint32_t acked, next;	 /* seq: below, answered; to be read next */
	uint64_t sent_ms, heard_ms, again_ms;

	uint64_t index;	      /* as of; 0: not known yet */
	uint64_t log_entries; /* bytes appended when it began */
};

static void post_read(struct copy *c);

/* ---- Its end ---- */

static int end_work(struct disk_job *job)
{
	struct copy *c = (struct copy *)job;

	store_reader_close(c->reader);
	c->reader = NULL;
	return 0;
}

static void end_done(struct disk_job *job)
{
	struct copy *c = (struct copy *)job;

	end_work(job); /* if the machine stopped before */
	for (size_t i = 0; i < WINDOW; i++)
		free(c->kept[i].base);
	store_batch_finish(&c->batch);
	free(c);
}

static void post_end(struct copy *c)
{
	if (c->g->closing) { /* the store is closed, and its readers with it */
		end_work(&c->job);
		end_done(&c->job);
		return;
	}
	c->job.work = end_work;
	c->job.done = end_done;
	disk_post(c->g->store_disk, &c->job);
}

void group_copy_stop(struct group *g, struct peer *p)
{
	struct copy *c = p->copy;

	(void)g;
	if (c == NULL)
		return;
	p->copy = NULL;
	c->peer = NULL;
	if (!c->reading)
		post_end(c);
}

/* ---- Reading and sending ---- */

static int read_work(struct disk_job *job)
{
	struct copy *c = (struct copy *)job;
	int rc = 0;

	if (c->reader == NULL) {
		rc = store_reader_open(c->g->store, &c->reader);
		if (rc == 0)
			rc = store_reader_metas(c->reader, &c->batch,
						&c->census);
		return rc;
	}
	return store_reader_next(c->reader, CHUNK_BYTES, &c->batch);
}

static void send_kept(struct copy *c, uint32_t seq)
{
	const struct buf *b = &c->kept[seq % WINDOW];

	c->sent_ms = c->g->now_ms;
	if (!c->g->failed && !c->g->stalled)
		c->g->config.send(c->g->config.data, &c->peer->node, true,
				  b->base, b->len);
}

/* Keep m as the next, and send it. */
static void keep(struct copy *c, struct wire_message *m)
{
	struct buf *b = &c->kept[c->next % WINDOW];

	m->from = c->g->raft.id;
	m->to = c->peer->server;
	b->len = 0;
	group_wire_encode(m, b);
	send_kept(c, c->next++);
}

/* The first: what the content is as of. */
static int keep_head(struct copy *c)
{
	struct wire_message m = {.kind = RAFT_INSTALL_SNAPSHOT};
	struct raft_install_snapshot *i = &m.raft.install_snapshot;
	struct raft_snapshot s;
	uint8_t number[8];
	bool replaced;

	if (group_io_snapshot(&c->batch.snapshot, &s, &replaced) != 0)
		return -EUCLEAN;
	memcpy(number, &c->number, sizeof(number));
	i->version = 1;
	i->term = raft_current_term(&c->g->raft);
	i->last_index = c->index = s.index;
	i->last_term = s.term;
	i->conf_index = s.configuration_index;
	i->conf = s.configuration;
	i->data = (struct raft_buffer){.base = number, .len = sizeof(number)};
	keep(c, &m);
	raft_configuration_close(&s.configuration);
	return 0;
}

static void keep_chunk(struct copy *c, enum wire_part part, const struct buf *b)
{
	struct wire_message m = {.kind = WIRE_CHUNK,
				 .chunk = {.copy = c->number,
					   .seq = c->next,
					   .part = part,
					   .bytes = b->base,
					   .len = b->len}};

	keep(c, &m);
}

/* u32 number of records, the records; or, at the end, u64 number of all, u64
 * sum of their checksums, the machine's meta. */
static void keep_read(struct copy *c)
{
	struct buf b = {0};

	c->all_read = c->batch.n_records == 0;
	if (c->all_read) {
		buf_u64(&b, c->census.n);
		buf_u64(&b, c->census.sum);
		buf_put(&b, c->batch.meta.base, c->batch.meta.len);
	} else {
		buf_u32(&b, (uint32_t)c->batch.n_records);
		buf_put(&b, c->batch.records.base, c->batch.records.len);
	}
	keep_chunk(c, c->all_read ? WIRE_END : WIRE_RECORDS, &b);
	free(b.base);
	c->batch.records.len = 0;
	c->batch.n_records = 0;
}

static void read_done(struct disk_job *job)
{
	struct copy *c = (struct copy *)job;
	int rc = job->rc;

	c->reading = false;
	if (c->peer == NULL || c->g->closing) {
		if (c->peer != NULL)
			c->peer->copy = NULL;
		post_end(c);
		return;
	}
	if (rc == 0 && c->next == 0)
		rc = keep_head(c);
	else if (rc == 0)
		keep_read(c);
	if (rc != 0) {
		if (rc != -ESTALE)
			group_say(c->g, 4, "the store cannot be sent: %s",
				  strerror(-rc));
		group_copy_stop(c->g, c->peer);
		return;
	}
	post_read(c);
}

/* Read on, if there is more, and room for it. */
static void post_read(struct copy *c)
{
	if (c->reading || c->all_read || c->next - c->acked >= WINDOW)
		return;
	c->reading = true;
	c->job.work = read_work;
	c->job.done = read_done;
	disk_post(c->g->store_disk, &c->job);
}

static size_t count(const struct group *g)
{
	size_t n = 0;

	for (size_t i = 0; i < g->n_peers; i++)
		n += g->peers[i]->copy != NULL;
	return n;
}

void group_copy_start(struct group *g, struct peer *p)
{
	if (p->copy != NULL || count(g) >= COPIES_MAX)
		return;
	struct copy *c = xcalloc(1, sizeof(*c));

	c->g = g;
	c->peer = p;
	if (getrandom(&c->number, sizeof(c->number), 0) != sizeof(c->number))
		mem_check(NULL); /* cannot fail for 8 bytes */
	c->sent_ms = c->heard_ms = g->now_ms;
	c->again_ms = AGAIN_MS;
	c->log_entries = g->bytes_appended;
	p->copy = c;
	post_read(c);
}

void group_copy_ack(struct group *g, struct peer *p, const struct wire_ack *a)
{
	struct copy *c = p->copy;

	if (c == NULL || a->copy != c->number || a->next > c->next)
		return;
	c->heard_ms = g->now_ms;
	if (a->state == WIRE_DONE) {
		p->copied = c->index;
		p->copied_ms = g->now_ms;
	}
	if (a->state != WIRE_RECEIVING) {
		group_copy_stop(g, p);
		return;
	}
	if (a->next > c->acked) {
		c->acked = a->next;
		c->sent_ms = g->now_ms; /* progress: nothing again yet */
		c->again_ms = AGAIN_MS;
	}
	post_read(c);
}

/* All that is not answered; or, if all is, the last as a question. */
static void send_again(struct copy *c)
{
	uint32_t seq =
		c->acked < c->next || c->next == 0 ? c->acked : c->next - 1;

	for (; seq < c->next; seq++)
		send_kept(c, seq);
	if (c->again_ms < AGAIN_MAX)
		c->again_ms *= 2;
}

void group_copy_tick(struct group *g)
{
	bool leader = raft_state(&g->raft) == RAFT_LEADER && !g->failed;

	for (size_t i = 0; i < g->n_peers; i++) {
		struct copy *c = g->peers[i]->copy;

		if (c == NULL)
			continue;
		if (!leader || g->now_ms - c->heard_ms > GIVE_UP_MS)
			group_copy_stop(g, g->peers[i]);
		else if (g->now_ms - c->sent_ms >= c->again_ms)
			send_again(c);
	}
}

/* From where on does p need the log? */
static uint64_t index_of(const struct group *g, const struct peer *p)
{
	const struct copy *c = p->copy;
	raft_index match;

	if (c != NULL)
		return c->index > 0 && g->bytes_appended - c->log_entries <
					       KEEP_BYTES
			       ? c->index
			       : NEVER;
	if (p->copied == 0 || g->now_ms - p->copied_ms > KEEP_MS ||
	    raft_match_index(&g->raft, p->server, &match) != 0)
		return NEVER;
	return match > p->copied ? match : p->copied;
}

uint64_t group_copy_index(const struct group *g)
{
	uint64_t least = NEVER;

	for (size_t i = 0; i < g->n_peers; i++) {
		uint64_t index = index_of(g, g->peers[i]);

		least = index < least ? index : least;
	}
	return least;
}

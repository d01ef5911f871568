/* SPDX-License-Identifier: MIT */
/* Receiving the content of a snapshot, and putting it in the store's place
 * (rule 17).
 *
 *   InstallSnapshot, chunks: written in order to a store beside ours, by its
 *        worker; acknowledged when written
 *   the census: everything is there and unharmed; flushed
 *   the library has a leader, and takes no snapshot itself just now (B2): it
 *        gets the InstallSnapshot, from that leader, whoever sent the content:
 *        what is committed is in every leader's log
 *   it wants it stored:
 *        1  store's worker: the stores change places
 *        2  log's worker: the log begins anew behind the snapshot
 *        3  the library restores: the machine is loaded from the new store
 *
 * A stop between 1 and 2 leaves a store that says it came from another node,
 * and a log that does not begin behind it: the start then does step 2. From a
 * stop before 1 nothing is left but a folder that is removed.
 *
 * Ways to fail:
 *   a chunk out of order, or twice:  acknowledged as it stands
 *   of a copy that is not known:     lost; the sender begins again
 *   cannot be written, or harmed:    thrown away; lost
 *   the sender is silent for long:   thrown away
 *   the log has overtaken it:        thrown away; done
 *   step 1 or 2 fails:               the group fails */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ring/group_impl.h"
#include "ring/mem.h"

#define GIVE_UP_MS	 15000
#define SILENT_SENDER_MS 2000
#define PART_JOBS_MAX	 16

struct arrival {
	struct group *g;
	uint64_t number;
	uint64_t server; /* the sender */
	struct ring_id node;
	struct raft_install_snapshot head; /* conf is ours, data is not used */
	struct store *store;		   /* its worker's */
	uint32_t next;			   /* seq that is expected */
	uint32_t written;		   /* all below are */
	unsigned n_jobs;
	bool sealed, broken, ended;
	bool offered; /* the library has it, or does not want it */
	uint64_t heard_ms;
};

struct part_job {
	struct disk_job job;
	struct arrival *a;
	enum wire_part part;
	struct store_batch batch;
	struct store_census census;
};

struct install_job {
	struct disk_job job;
	struct group *g;
	struct raft_io_snapshot_put *req;
	struct store *copy;
	uint64_t index;
	struct buf snapshot; /* meta of the new store */
};

static void acknowledge(struct group *g, const struct ring_id *to,
			uint64_t server, const struct wire_ack *ack)
{
	struct wire_message m = {.from = g->raft.id,
				 .to = server,
				 .kind = WIRE_ACK,
				 .ack = *ack};

	group_net_post(g, to, false, &m);
}

static void answer(const struct arrival *a, enum wire_state state)
{
	struct wire_ack ack = {
		.copy = a->number, .next = a->written, .state = state};

	acknowledge(a->g, &a->node, a->server, &ack);
}

/* ---- Its end ---- */

struct discard_job {
	struct disk_job job;
	struct store *store;
};

static int discard_work(struct disk_job *job)
{
	store_copy_discard(((struct discard_job *)job)->store);
	return 0;
}

static void discard_done(struct disk_job *job)
{
	free(job);
}

static void post_discard(struct group *g, struct store *s)
{
	struct discard_job *d = xcalloc(1, sizeof(*d));

	d->job.work = discard_work;
	d->job.done = discard_done;
	d->store = s;
	disk_post(g->store_disk, &d->job);
}

/* When the last job is done. */
static void release(struct arrival *a)
{
	if (!a->ended || a->n_jobs > 0)
		return;
	a->g->n_ending--;
	if (a->store != NULL && a->g->closing)
		store_copy_discard(a->store);
	else if (a->store != NULL)
		post_discard(a->g, a->store);
	raft_configuration_close(&a->head.conf);
	free(a);
}

static void end(struct arrival *a)
{
	assert(a->g->arrival == a);
	a->g->arrival = NULL;
	a->ended = true;
	a->g->n_ending++;
	release(a);
}

static void give_up(struct arrival *a, enum wire_state state)
{
	answer(a, state);
	end(a);
}

/* ---- Writing ---- */

/* The store is new when the first part comes. */
static int write_part(struct part_job *p)
{
	struct arrival *a = p->a;
	int rc = 0;

	if (a->store == NULL)
		rc = store_copy_open(a->g->dir, &a->store);
	if (rc == 0)
		rc = store_write(a->store, &p->batch);
	if (rc == 0 && p->part == WIRE_END)
		rc = store_copy_seal(a->store, &p->census);
	return rc;
}

static int part_work(struct disk_job *job)
{
	struct part_job *p = (struct part_job *)job;
	int rc = p->a->broken ? -ECANCELED : write_part(p);

	if (rc != 0)
		p->a->broken = true;
	return rc;
}

static void part_done(struct disk_job *job)
{
	struct part_job *p = (struct part_job *)job;
	struct arrival *a = p->a;
	int rc = job->rc;

	a->n_jobs--;
	a->written += rc == 0;
	a->sealed = rc == 0 && p->part == WIRE_END;
	store_batch_finish(&p->batch);
	free(p);
	if (a->ended) {
		release(a);
	} else if (a->g->closing) {
		end(a);
	} else if (rc != 0) {
		if (rc != -ECANCELED)
			group_say(a->g, 4, "a snapshot cannot be received: %s",
				  strerror(-rc));
		give_up(a, WIRE_LOST);
	} else {
		answer(a, WIRE_RECEIVING);
	}
}

static bool get_records(struct part_job *p, struct reader *r)
{
	struct reader all;

	p->batch.n_records = reader_u32(r);
	all = *r;
	for (size_t i = 0; i < p->batch.n_records && !r->bad; i++) {
		reader_u64(r);
		uint32_t len = reader_u32(r);

		if (len == 0 || reader_bytes(r, len) == NULL)
			r->bad = true;
	}
	if (r->bad || reader_left(r) != 0)
		return false;
	buf_put(&p->batch.records, all.at, reader_left(&all));
	return true;
}

static bool get_end(struct part_job *p, struct reader *r)
{
	const struct raft_install_snapshot *h = &p->a->head;
	struct raft_snapshot s = {.index = h->last_index,
				  .term = h->last_term,
				  .configuration = h->conf,
				  .configuration_index = h->conf_index};

	p->census.n = reader_u64(r);
	p->census.sum = reader_u64(r);
	buf_put(&p->batch.meta, r->at, reader_left(r));
	group_io_put_snapshot(&p->batch.snapshot, &s, true);
	return !r->bad;
}

static bool post_part(struct arrival *a, const struct wire_chunk *c)
{
	struct part_job *p = xcalloc(1, sizeof(*p));
	struct reader r = reader_of(c->bytes, c->len);

	p->job.work = part_work;
	p->job.done = part_done;
	p->a = a;
	p->part = c->part;
	if (!(c->part == WIRE_END ? get_end(p, &r) : get_records(p, &r))) {
		store_batch_finish(&p->batch);
		free(p);
		return false;
	}
	a->n_jobs++;
	disk_post(a->g->store_disk, &p->job);
	return true;
}

/* ---- Receiving ---- */

/* May m begin a new copy now? One at a time; a sender that begins again has
 * given up the one before. */
static bool may_begin(struct group *g, const struct peer *p)
{
	struct arrival *a = g->arrival;

	if (g->raft.snapshot.installing || g->config.reset == NULL)
		return false;
	if (a != NULL && a->server != p->server && !a->offered &&
	    g->now_ms - a->heard_ms < SILENT_SENDER_MS)
		return false;
	if (a != NULL)
		end(a);
	return g->n_ending == 0; /* they use the same folder */
}

static void begin(struct group *g, const struct peer *p, uint64_t number,
		  struct raft_install_snapshot *head)
{
	struct arrival *a = xcalloc(1, sizeof(*a));

	a->g = g;
	a->number = number;
	a->server = p->server;
	a->node = p->node;
	a->head = *head;
	a->next = a->written = 1;
	a->heard_ms = g->now_ms;
	g->arrival = a;
	answer(a, WIRE_RECEIVING);
}

void group_install_begin(struct group *g, const struct peer *p,
			 struct wire_message *m)
{
	struct raft_install_snapshot *head = &m->raft.install_snapshot;
	struct arrival *a = g->arrival;
	struct wire_ack ack = {.state = WIRE_DONE};

	memcpy(&ack.copy, head->data.base, sizeof(ack.copy));
	if (head->term < raft_current_term(&g->raft)) {
		; /* not from a leader any more: it will see */
	} else if (a != NULL && a->number == ack.copy) {
		a->heard_ms = g->now_ms;
		answer(a, WIRE_RECEIVING);
	} else if (head->last_index <= raft_last_applied(&g->raft)) {
		acknowledge(g, &p->node, p->server, &ack);
	} else if (may_begin(g, p)) {
		begin(g, p, ack.copy, head);
		raft_free(head->data.base);
		return;
	}
	group_wire_finish(m);
}

void group_install_chunk(struct group *g, const struct peer *p,
			 const struct wire_chunk *c)
{
	struct arrival *a = g->arrival;
	struct wire_ack ack = {.copy = c->copy, .state = WIRE_LOST};

	if (a == NULL || a->number != c->copy) {
		if (!g->raft.snapshot.installing)
			acknowledge(g, &p->node, p->server, &ack);
		return;
	}
	a->heard_ms = g->now_ms;
	if (c->seq != a->next || a->n_jobs >= PART_JOBS_MAX || a->sealed) {
		answer(a, a->offered ? WIRE_DONE : WIRE_RECEIVING);
		return;
	}
	a->next++;
	if (!post_part(a, c))
		give_up(a, WIRE_LOST);
}

/* ---- Installing ---- */

/* The leader that the library follows, if it can take a snapshot just now. */
static const char *leader_for(struct group *g, raft_id *id)
{
	const struct raft *r = &g->raft;
	const char *address = NULL;

	if (g->failed || raft_state(&g->raft) != RAFT_FOLLOWER ||
	    r->legacy.snapshot_taking || r->legacy.snapshot_install ||
	    r->snapshot.installing)
		return NULL;
	*id = 0;
	raft_leader(&g->raft, id, &address);
	return *id != 0 ? address : NULL;
}

static void offer(struct arrival *a, raft_id leader, const char *address)
{
	struct group *g = a->g;
	struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT,
				 .server_id = leader,
				 .server_address = address};
	struct raft_install_snapshot *i = &m.install_snapshot;

	*i = a->head;
	i->term = raft_current_term(&g->raft);
	i->data = (struct raft_buffer){.base = mem_check(raft_calloc(1, 8)),
				       .len = 8};
	raft_configuration_init(&a->head.conf); /* the library has it */
	a->offered = true;
	g->recv_cb(&g->io, &m);
}

void group_install_try(struct group *g)
{
	struct arrival *a = g->arrival;
	char copy[33];
	raft_id id;

	if (a == NULL || !a->sealed)
		return;
	if (a->head.last_index <= raft_last_applied(&g->raft)) {
		give_up(a, WIRE_DONE);
		return;
	}
	const char *address = leader_for(g, &id);

	if (address == NULL)
		return;
	snprintf(copy, sizeof(copy), "%s", address);
	offer(a, id, copy);
	if (g->arrival == a) /* it has all entries */
		give_up(a, WIRE_DONE);
}

static int swap_work(struct disk_job *job)
{
	struct install_job *i = (struct install_job *)job;
	struct store *copy = i->copy;

	i->copy = NULL;
	return store_swap(i->g->store, i->g->dir, copy);
}

static int restart_once(struct disk_job *job)
{
	struct install_job *i = (struct install_job *)job;

	return wal_restart(i->g->wal, i->index + 1);
}

static int restart_work(struct disk_job *job)
{
	return group_io_with_room(((struct install_job *)job)->g, restart_once,
				  job);
}

/* The library is told of a failure when the group closes. */
static void install_failed(struct install_job *i)
{
	struct group *g = i->g;

	if (!g->closing) {
		group_fail(g, "a snapshot cannot be installed: %s",
			   strerror(-i->job.rc));
		g->install_waiting = i;
		return;
	}
	if (i->copy != NULL)
		store_copy_discard(i->copy);
	i->req->cb(i->req, RAFT_CANCELED);
	free(i->snapshot.base);
	free(i);
}

static void restart_done(struct disk_job *job)
{
	struct install_job *i = (struct install_job *)job;
	struct group *g = i->g;

	if (job->rc != 0 || g->closing || g->failed) {
		install_failed(i);
		return;
	}
	free(g->meta.snapshot.base);
	g->meta.snapshot = i->snapshot;
	g->replaced = true;
	group_say(g, 5, "the state as of entry %llu has come from another node",
		  (unsigned long long)i->index);
	i->req->cb(i->req, 0);
	free(i);
}

static void swap_done(struct disk_job *job)
{
	struct install_job *i = (struct install_job *)job;

	if (job->rc != 0 || i->g->closing || i->g->failed) {
		install_failed(i);
		return;
	}
	i->job.work = restart_work;
	i->job.done = restart_done;
	disk_post(i->g->log_disk, &i->job);
}

void group_install_put(struct group *g, struct raft_io_snapshot_put *req,
		       const struct raft_snapshot *snapshot)
{
	struct install_job *i = xcalloc(1, sizeof(*i));
	struct arrival *a = g->arrival;

	assert(a != NULL && a->sealed && a->n_jobs == 0);
	assert(a->head.last_index == snapshot->index);
	i->g = g;
	i->req = req;
	i->index = snapshot->index;
	i->copy = a->store;
	a->store = NULL;
	group_io_put_snapshot(&i->snapshot, snapshot, true);
	give_up(a, WIRE_DONE);
	i->job.work = swap_work;
	i->job.done = swap_done;
	disk_post(g->store_disk, &i->job);
}

void group_install_tick(struct group *g)
{
	struct arrival *a = g->arrival;

	if (a != NULL && g->now_ms - a->heard_ms > GIVE_UP_MS && !a->sealed)
		end(a);
	group_install_try(g);
}

void group_install_finish(struct group *g)
{
	if (g->install_waiting != NULL) {
		struct install_job *i = g->install_waiting;

		g->install_waiting = NULL;
		install_failed(i);
	}
	if (g->arrival != NULL)
		end(g->arrival);
}

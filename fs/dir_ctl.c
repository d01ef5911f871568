/* SPDX-License-Identifier: MIT */
/* ctl: verbs by the line, and whole batches of names.
 *
 * What the bytes mean is batch.c's; here they become operations of the ring.
 *
 *   read-only    the help
 *   write-only   write -> line -> ring -> line -> ring ... -> the write returns.
 *                The first refusal is the write's errno; the rest of that write,
 *                and a line it began, are dropped
 *   read-write   write, write: kept. The first read takes them all to the ring,
 *                waits, and then the answers are read as a stream. The next
 *                write begins a new batch
 *
 * A batch goes to the ring in parts, each one commit, so that others are served
 * in between. What became of a part is said of each name in it; the read itself
 * fails only if no part was carried out, and is interrupted between two.
 *
 * Offsets say nothing here: a descriptor's moves with reads and writes alike. What
 * a commit needs lives in a job of its own, for an interrupted caller may be gone,
 * handle and all, when the ring answers. */
#include "fs/tree_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/batch.h"
#include "fs/dir_ctl_nodes.h"
#include "fs/log.h"
#include "fs/util.h"

/* Parts of a batch under way at a time: while one is carried out, the next is
 * on its way to the disk. What other nodes are asked for is a part by itself. */
enum {
	N_PARTS = 2
};

/* An open ctl that may be written to. */
struct ctl {
	struct batch batch;
	size_t at;	 /* where the next read begins in the handle's text */
	bool collecting; /* read-write: a batch is being written */
	int error;	 /* of that batch: nothing of it will be done */
	bool busy;	 /* write-only: a write has not come to its end */
};

struct job;

/* A request of the ring, for some items of a job. */
struct part {
	struct job *job;
	struct batch_item *items;
	size_t n_items;
	struct ring_op *ops; /* NULL: nothing is under way */
	struct ring_request request;
};

/* Items on their way to the ring, for one call. */
struct job {
	struct call *call;
	struct batch batch; /* holds the names, if it is a whole one */
	struct batch_item *items;
	size_t n_items, n_sent;
	bool carried_out; /* a part of it */
	int refusal;	  /* of a part; that with an unknown outcome first */
	void (*done)(struct job *job);
	size_t n_open; /* parts under way */
	struct part parts[N_PARTS];
};

static void job_free(struct job *job)
{
	batch_finish(&job->batch);
	free(job->items);
	free(job);
}

/* ---- Items to operations ---- */

/* What a verb does, and the views one of which must show the key, or 0. */
static const struct act {
	enum ring_op_type op;
	unsigned views;
} acts[] = {
	[BATCH_CLAIM] = {RING_CLAIM, 0},
	[BATCH_SUBMIT] = {RING_SUBMIT, 0},
	[BATCH_FINISH] = {RING_FINISH, 0},
	[BATCH_FORCE] = {RING_FINISH, 0},
	[BATCH_TAKE] = {RING_TAKE, 1u << RING_VIEW_RECOVER},
	[BATCH_GIVE] = {RING_GIVE, 1u << RING_VIEW_OWNED},
	[BATCH_PARK] = {RING_PARK,
			1u << RING_VIEW_OWNED | 1u << RING_VIEW_RECOVER},
};

static bool shown_in(const struct ring *r, const struct ring_key *key,
		     unsigned views)
{
	for (enum ring_view v = 0; v < RING_N_VIEWS; v++)
		if (views & 1u << v && ring_shows(r, key, v))
			return true;
	return views == 0;
}

/* May c ask for this? 0 or a negative errno. What is about no key is done, once,
 * by asking. A key that is not there yet, and
 * comes by the same batch, is the caller's own. */
static int check_item(const struct call *c, const struct batch_item *item)
{
	if (item->rc != 0 || item->verb == BATCH_CLAIM ||
	    item->verb == BATCH_SUBMIT)
		return item->rc;
	if (item->verb == BATCH_ADMIN)
		return dir_ctl_admin(c, item->admin, item->name, item->len);
	const struct ring_key *key = ring_find(c->tree->ring, item->name);

	if (key == NULL)
		return item->verb == BATCH_FORCE ? -ENOENT : 0;
	if (!shown_in(c->tree->ring, key, acts[item->verb].views))
		return -ENOENT;
	return call_may(c, key->uid);
}

/* A finish is of the life that is seen now, as rm's is: if another has come when
 * it is applied, the answer is ENOENT. One that is forced is of that life in
 * whoever's hands. */
static void fill_ops(const struct call *c, const struct batch_item *item,
		     struct ring_op *op)
{
	op[0] = (struct ring_op){
		.type = acts[item->verb].op,
		.name = item->name,
		.token = item->token,
		.uid = c->uid,
		.gid = c->gid,
	};
	if (item->verb == BATCH_SUBMIT) {
		op[1] = op[0];
		op[1].type = RING_OFFER;
	}
	if (item->verb == BATCH_FINISH && item->token == 0) {
		const struct ring_key *key =
			ring_find(c->tree->ring, item->name);
		op[0].id = key ? key->id : 0;
		op[0].token = key ? key->token : 0;
	}
	if (item->verb == BATCH_FORCE)
		op[0].id = ring_find(c->tree->ring, item->name)->id;
}

static int rc_of_ops(const struct batch_item *item, const struct ring_op *op)
{
	if (item->verb == BATCH_SUBMIT && op[0].rc == 0)
		return op[1].rc;
	return op[0].rc;
}

/* ---- Jobs: parts in a row, a few at a time ---- */

static void on_part(struct ring_request *request);

/* Send these items. False: there is nothing to be done about any. */
static bool part_send(struct part *p)
{
	struct call *c = p->job->call;
	size_t n_ops = 0, at = 0;

	for (size_t i = 0; i < p->n_items; i++) {
		p->items[i].rc = check_item(c, &p->items[i]);
		n_ops += batch_n_ops(&p->items[i]);
	}
	if (n_ops == 0)
		return false;
	p->ops = xcalloc(n_ops, sizeof(*p->ops));
	for (size_t i = 0; i < p->n_items; i++) {
		if (p->items[i].rc == 0)
			fill_ops(c, &p->items[i], &p->ops[at]);
		at += batch_n_ops(&p->items[i]);
	}
	p->request = (struct ring_request){
		.ops = p->ops, .n_ops = n_ops, .cb = on_part, .data = p};
	if (p->items[0].verb == BATCH_FORCE)
		ring_force(c->tree->ring, boot_ms(), &p->request);
	else
		ring_submit(c->tree->ring, boot_ms(), &p->request);
	return true;
}

/* Each of its items has what became of it as its rc. */
static void part_settle(struct part *p)
{
	const struct ring_op *op = p->ops;
	int rc = p->request.rc;

	for (size_t i = 0; i < p->n_items; i++) {
		struct batch_item *item = &p->items[i];
		size_t n_ops = batch_n_ops(item);

		if (n_ops > 0)
			item->rc = rc != 0 ? rc : rc_of_ops(item, op);
		op += n_ops;
	}
	if (rc == 0)
		p->job->carried_out = true;
	else if (p->job->refusal == 0 || rc == -ETIMEDOUT)
		p->job->refusal = rc;
	free(p->ops);
	p->ops = NULL;
}

/* May the next part be sent, beside those that are under way? */
static bool has_turn(const struct job *job)
{
	bool force = job->items[job->n_sent].verb == BATCH_FORCE;

	for (size_t i = 0; i < N_PARTS; i++)
		if (job->parts[i].ops != NULL &&
		    (force || job->parts[i].items[0].verb == BATCH_FORCE))
			return false;
	return true;
}

/* Whatever became of a part, the next one is sent: the names in it are others,
 * and their answers say what became of them. */
static void job_send(struct job *job)
{
	for (size_t i = 0; i < N_PARTS; i++) {
		struct part *p = &job->parts[i];

		while (p->ops == NULL && job->n_sent < job->n_items &&
		       has_turn(job)) {
			size_t n_ops;

			p->job = job;
			p->items = job->items + job->n_sent;
			p->n_items = batch_part(
				p->items, job->n_items - job->n_sent, &n_ops);
			job->n_sent += p->n_items;
			job->n_open += part_send(p);
		}
	}
}

static void on_part(struct ring_request *request)
{
	struct part *p = request->data;
	struct job *job = p->job;

	part_settle(p);
	job->n_open--;
	if (job->call->req != NULL)
		job_send(job);
	if (job->n_open > 0)
		return;
	call_go_on(job->call);
	job->done(job);
}

/* The caller is gone: what was asked is abandoned, the rest is not asked. */
static void job_left(void *data)
{
	struct job *job = data;

	for (size_t i = 0; i < N_PARTS; i++)
		if (job->parts[i].ops != NULL)
			ring_abandon(job->call->tree->ring,
				     &job->parts[i].request);
}

/* Carry out n items, which are taken; then done(), which frees the job. */
static void job_run(struct call *c, struct batch_item *items, size_t n,
		    void (*done)(struct job *job), const struct batch *batch)
{
	struct job *job = xcalloc(1, sizeof(*job));

	job->call = c;
	job->items = items;
	job->n_items = n;
	job->done = done;
	if (batch != NULL)
		job->batch = *batch;
	job_send(job);
	if (job->n_open > 0)
		call_wait(c, job_left, job);
	else
		done(job);
}

/* 0; or why nothing of it is known to have been done. */
static int job_rc(const struct job *job)
{
	return job->carried_out ? 0 : job->refusal;
}

/* ---- Write-only: lines ---- */

static void next_line(struct call *c);

/* The rest of the write is not carried out. */
static void stop_lines(struct call *c, int rc)
{
	struct ctl *ctl = c->handle->data;

	ctl->busy = false;
	batch_reset(&ctl->batch);
	call_reply(c, rc);
}

static void line_done(struct job *job)
{
	struct call *c = job->call;
	int rc = job->items[0].rc;

	job_free(job);
	if (c->req == NULL)
		call_reply(c, rc); /* interrupted; the handle may be gone */
	else if (rc != 0)
		stop_lines(c, rc);
	else
		next_line(c);
}

static void next_line(struct call *c)
{
	struct ctl *ctl = c->handle->data;
	struct batch_item item;
	int more = batch_next(&ctl->batch, &item);

	if (more == 0) {
		ctl->busy = false;
		call_reply(c, 0);
		return;
	}
	if (more < 0) {
		stop_lines(c, more);
		return;
	}
	/* The name is copied by the ring; no answer repeats it. */
	struct batch_item *copy = xmalloc(sizeof(*copy));
	*copy = item;
	job_run(c, copy, 1, line_done, NULL);
}

static void write_lines(struct call *c, const char *bytes, size_t n)
{
	struct ctl *ctl = c->handle->data;

	if (ctl->busy) /* the write before this one was interrupted */
		batch_reset(&ctl->batch);
	ctl->busy = true;
	int rc = batch_feed(&ctl->batch, bytes, n);
	if (rc != 0)
		stop_lines(c, rc);
	else
		next_line(c);
}

/* ---- Read-write: whole batches ---- */

/* The next part of the handle's text. */
static void give(struct call *c, size_t size)
{
	struct ctl *ctl = c->handle->data;
	size_t at = ctl->at, left = c->handle->text.len - at;

	ctl->at += left < size ? left : size;
	call_reply_slice(c, &c->handle->text, size, (off_t)at);
}

static void batch_done(struct job *job)
{
	struct call *c = job->call;
	int rc = job_rc(job);
	bool waits = c->req != NULL;

	if (waits && rc == 0)
		for (size_t i = 0; i < job->n_items; i++)
			batch_answer(&job->batch, &job->items[i],
				     job->items[i].rc, &c->handle->text);
	job_free(job);
	if (waits && rc == 0)
		give(c, c->size);
	else
		call_reply(c, rc);
}

/* All items of b as a new array of *n. 0, or -EINVAL or -EFBIG, and no array:
 * then nothing of the batch is carried out. */
static int read_items(struct batch *b, struct batch_item **out, size_t *n)
{
	size_t max = (b->n_nuls ? b->n_nuls : b->n_newlines) + 1, n_ops = 0;
	struct batch_item *items = xcalloc(max, sizeof(*items));
	int rc = 0;

	*n = 0;
	batch_end(b);
	while (*n < max && (rc = batch_next(b, &items[*n])) == 1)
		n_ops += batch_n_ops(&items[(*n)++]);
	if (*n < max && rc < 0)
		goto err_items;
	rc = -EFBIG;
	if (n_ops > BATCH_OPS_MAX)
		goto err_items;
	*out = items;
	return 0;

err_items:
	free(items);
	return rc;
}

static void run_batch(struct call *c, struct ctl *ctl)
{
	struct batch_item *items;
	size_t n;
	int rc = read_items(&ctl->batch, &items, &n);

	if (rc != 0) {
		call_reply(c, rc);
		return;
	}
	struct batch batch = ctl->batch;

	batch_init(&ctl->batch, true);
	job_run(c, items, n, batch_done, &batch);
}

static void write_batch(struct call *c, const char *bytes, size_t n)
{
	struct ctl *ctl = c->handle->data;

	if (!ctl->collecting) {
		batch_reset(&ctl->batch);
		ctl->error = 0;
		ctl->collecting = true;
	}
	if (ctl->error == 0)
		ctl->error = batch_feed(&ctl->batch, bytes, n);
	if (ctl->error != 0)
		batch_reset(&ctl->batch); /* it may be large */
	call_reply(c, ctl->error);
}

/* ---- The file ---- */

/* Who may write in the directories may write here; what he may do to a key is
 * another question. */
static int ctl_attr(struct tree *t, uint64_t id, struct stat *st)
{
	(void)id;
	st->st_mode = S_IFREG | (t->write_mode & 0666);
	return 0;
}

static int ctl_render(struct tree *t, uint64_t id, struct text *out)
{
	(void)t;
	(void)id;
	batch_help(out);
	return 0;
}

static void ctl_open(struct call *c)
{
	int access = c->fi.flags & O_ACCMODE;

	if (access != O_WRONLY)
		batch_help(&c->handle->text);
	if (access != O_RDONLY) {
		struct ctl *ctl = xcalloc(1, sizeof(*ctl));

		batch_init(&ctl->batch, access == O_RDWR);
		c->handle->data = ctl;
	}
	call_reply(c, 0);
}

/* Valid replies: buf; err EINVAL, EFBIG, EINTR and what the ring refuses a whole
 * request with: then nothing is known of any name, or nothing was done. */
static void ctl_read(struct call *c, size_t size, off_t off)
{
	struct ctl *ctl = c->handle->data;

	if (ctl == NULL) {
		call_reply_slice(c, &c->handle->text, size, off);
		return;
	}
	if (!ctl->collecting) {
		give(c, size);
		return;
	}
	ctl->collecting = false;
	ctl->at = 0;
	c->handle->text.len = 0;
	c->size = size;
	if (ctl->error != 0)
		call_reply(c, ctl->error);
	else
		run_batch(c, ctl);
}

/* Valid replies: write; err EINVAL, ENAMETOOLONG, EFBIG, EPERM, EINTR and the
 * ring's. */
static void ctl_write(struct call *c, const char *bytes, size_t n, off_t off)
{
	(void)off;
	if ((c->handle->flags & O_ACCMODE) == O_RDWR)
		write_batch(c, bytes, n);
	else
		write_lines(c, bytes, n);
}

/* The shell's > truncates. */
static void ctl_setattr(struct call *c, const struct stat *st, int to_set)
{
	(void)st;
	call_reply(c, to_set & FUSE_SET_ATTR_SIZE ? 0 : -EPERM);
}

static void ctl_release(struct tree *t, struct handle *h)
{
	struct ctl *ctl = h->data;

	(void)t;
	if (ctl == NULL)
		return;
	if (ctl->collecting)
		log_warning("ctl: a batch was not carried out, for its "
			    "answers were never read");
	else if (!ctl->batch.whole && !ctl->busy &&
		 ctl->batch.at < ctl->batch.len)
		log_warning("ctl: a last line without newline was not carried "
			    "out");
	batch_finish(&ctl->batch);
	free(ctl);
}

static const struct files files_ctl = {
	.attr = ctl_attr,
	.render = ctl_render,
	.open = ctl_open,
	.read = ctl_read,
	.write = ctl_write,
	.setattr = ctl_setattr,
	.release = ctl_release,
};

const struct dir dir_ctl = {
	.name = "ctl",
	.flags = DIR_IS_FILE,
	.files = &files_ctl,
};

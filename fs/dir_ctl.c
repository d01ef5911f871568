/* SPDX-License-Identifier: MIT */
/* ctl: verbs by the line, and whole batches of names as one commit.
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
 * Offsets say nothing here: a descriptor's moves with reads and writes alike. What
 * a commit needs lives in a job of its own, for an interrupted caller may be gone,
 * handle and all, when the ring answers. */
#include "fs/tree_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/batch.h"
#include "fs/log.h"
#include "fs/util.h"

/* An open ctl that may be written to. */
struct ctl {
	struct batch batch;
	size_t at;	 /* where the next read begins in the handle's text */
	bool collecting; /* read-write: a batch is being written */
	int error;	 /* of that batch: nothing of it will be done */
	bool busy;	 /* write-only: a write has not come to its end */
};

/* Items on their way to the ring, and the operations they became. */
struct job {
	struct batch batch; /* holds the items' names */
	struct batch_item *items;
	size_t n_items, n_ops;
	struct ring_op ops[];
};

static struct job *job_of(const struct call *c)
{
	char *ops = (char *)c->request.ops;

	return (struct job *)(void *)(ops - offsetof(struct job, ops));
}

static void job_free(struct job *job)
{
	batch_finish(&job->batch);
	free(job->items);
	free(job);
}

/* ---- Items to operations ---- */

/* May c ask for this? 0 or a negative errno. A key that is not there yet, and
 * comes by the same batch, is the caller's own. */
static int check_item(const struct call *c, const struct batch_item *item)
{
	if (item->rc != 0 || item->verb != BATCH_FINISH)
		return item->rc;
	const struct ring_key *key = ring_find(c->tree->ring, item->name);
	return key ? call_may(c, key->uid) : 0;
}

static size_t n_ops_of(const struct batch_item *item)
{
	if (item->rc != 0)
		return 0;
	return item->verb == BATCH_SUBMIT ? 2 : 1;
}

/* A finish is of the life that is seen now, as rm's is: if another has come when
 * it is applied, the answer is ENOENT. */
static void fill_ops(const struct call *c, const struct batch_item *item,
		     struct ring_op *op)
{
	static const enum ring_op_type types[] = {
		[BATCH_CLAIM] = RING_CLAIM,
		[BATCH_SUBMIT] = RING_SUBMIT,
		[BATCH_FINISH] = RING_FINISH,
	};

	op[0] = (struct ring_op){
		.type = types[item->verb],
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
}

static int rc_of_ops(const struct batch_item *item, const struct ring_op *op)
{
	if (item->verb == BATCH_SUBMIT && op[0].rc == 0)
		return op[1].rc;
	return op[0].rc;
}

/* A job of n items, which are taken, as what holds their names is. */
static struct job *job_make(const struct call *c, struct batch_item *items,
			    size_t n, size_t n_ops)
{
	struct job *job = xcalloc(1, sizeof(*job) + n_ops * sizeof(*job->ops));

	job->items = items;
	job->n_items = n;
	for (size_t i = 0; i < n; i++) {
		if (items[i].rc == 0)
			fill_ops(c, &items[i], &job->ops[job->n_ops]);
		job->n_ops += n_ops_of(&items[i]);
	}
	assert(job->n_ops == n_ops);
	return job;
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

static void line_done(struct call *c, int rc)
{
	struct job *job = job_of(c);

	if (rc == 0)
		rc = rc_of_ops(&job->items[0], job->ops);
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
	int rc = more < 0 ? more : check_item(c, &item);
	if (rc != 0) {
		stop_lines(c, rc);
		return;
	}
	/* The name is copied by the ring; no answer repeats it. */
	struct batch_item *copy = xmalloc(sizeof(*copy));
	*copy = item;
	struct job *job = job_make(c, copy, 1, n_ops_of(&item));
	call_commit_many(c, job->ops, job->n_ops, line_done);
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

static void put_answers(const struct job *job, struct text *out)
{
	const struct ring_op *op = job->ops;

	for (size_t i = 0; i < job->n_items; i++) {
		const struct batch_item *item = &job->items[i];
		int rc = item->rc ? item->rc : rc_of_ops(item, op);

		batch_answer(&job->batch, item, rc, out);
		op += n_ops_of(item);
	}
}

static void batch_done(struct call *c, int rc)
{
	struct job *job = job_of(c);
	bool waits = c->req != NULL;

	if (waits && rc == 0)
		put_answers(job, &c->handle->text);
	job_free(job);
	if (waits && rc == 0)
		give(c, c->size);
	else
		call_reply(c, rc);
}

/* All items of b, checked, as a new array of *n, which become *n_ops. 0, or
 * -EINVAL or -EFBIG, and no array. */
static int read_items(const struct call *c, struct batch *b,
		      struct batch_item **out, size_t *n, size_t *n_ops)
{
	size_t max = (b->n_nuls ? b->n_nuls : b->n_newlines) + 1;
	struct batch_item *items = xcalloc(max, sizeof(*items));
	int rc = 0;

	*n = *n_ops = 0;
	batch_end(b);
	while (*n < max && (rc = batch_next(b, &items[*n])) == 1) {
		items[*n].rc = check_item(c, &items[*n]);
		*n_ops += n_ops_of(&items[(*n)++]);
	}
	if (*n < max && rc < 0)
		goto err_items;
	rc = -EFBIG;
	if (*n_ops > RING_OPS_MAX)
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
	size_t n, n_ops;
	int rc = read_items(c, &ctl->batch, &items, &n, &n_ops);

	if (rc != 0) {
		call_reply(c, rc);
		return;
	}
	struct job *job = job_make(c, items, n, n_ops);
	job->batch = ctl->batch;
	batch_init(&ctl->batch, true);
	if (job->n_ops > 0) {
		call_commit_many(c, job->ops, job->n_ops, batch_done);
		return;
	}
	put_answers(job, &c->handle->text);
	job_free(job);
	give(c, c->size);
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

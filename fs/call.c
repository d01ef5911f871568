/* SPDX-License-Identifier: MIT */
/* Requests that wait, and who hears of what they change.
 *
 * A call goes one of these ways:
 *
 *   call_make -> handler -> call_reply                      at once
 *   call_make -> call_commit -> ring -> done -> call_reply  after the commit
 *   ... -> call_commit -> interrupted: EINTR -> ring -> released
 *   ... -> call_commit -> drained: ETIMEDOUT -> ring -> released
 *
 * or, with requests of the handler's, by call_wait and call_go_on.
 *
 * A change that the caller of a waiting call made is announced by the kernel,
 * in the directory where it was made, once we answer with success. So the
 * herald is told all the rest: what others changed, the other directories that
 * show the key, and what the kernel has announced and is not so, or was not
 * told to announce after all, because the answer became an error. */
#include "fs/tree_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/util.h"

/* ---- Making and answering ---- */

struct call *call_make(fuse_req_t req, enum call_what what)
{
	struct call *c = xcalloc(1, sizeof(*c));

	c->tree = fuse_req_userdata(req);
	c->req = req;
	c->what = what;
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	c->uid = ctx->uid;
	c->gid = ctx->gid;
	c->pid = ctx->pid;
	return c;
}

struct handle *handle_make(struct tree *t, const struct files *files,
			   uint64_t id, int flags)
{
	struct handle *h = xcalloc(1, sizeof(*h));

	h->files = files;
	h->id = id;
	h->flags = flags;
	h->next = t->handles;
	if (h->next != NULL)
		h->next->prev = h;
	t->handles = h;
	return h;
}

void handle_free(struct tree *t, struct handle *h)
{
	tree_lock_drop(t, h);
	if (h->files->release != NULL)
		h->files->release(t, h);
	if (h->prev != NULL)
		h->prev->next = h->next;
	else
		t->handles = h->next;
	if (h->next != NULL)
		h->next->prev = h->prev;
	text_finish(&h->text);
	free(h);
}

static void call_free(struct call *c)
{
	assert(c->req == NULL && !c->waits);
	text_finish(&c->note);
	free(c);
}

static bool opens(const struct call *c)
{
	return c->what == CALL_CREATE || c->what == CALL_OPEN;
}

/* Tell the kernel of success. Fails if it waits for the answer no more. */
static int reply_success(struct call *c)
{
	struct fuse_entry_param e;
	int rc;

	switch (c->what) {
	case CALL_CREATE:
	case CALL_MKNOD:
		rc = tree_entry(c->tree, c->files, c->id, &e);
		if (rc != 0) /* gone again already: as for a name just seen */
			tree_ghost(c->tree, &e);
		if (c->what == CALL_MKNOD)
			return fuse_reply_entry(c->req, &e);
		c->handle->id = c->id;
		return fuse_reply_create(c->req, &e, &c->fi);
	case CALL_OPEN:
		return fuse_reply_open(c->req, &c->fi);
	case CALL_WRITE:
		return fuse_reply_write(c->req, c->size);
	case CALL_ATTR:
		rc = tree_attr(c->tree, c->files, c->id, &e.attr);
		return rc != 0 ? fuse_reply_err(c->req, -rc)
			       : fuse_reply_attr(c->req, &e.attr, 0);
	case CALL_READ:
		return fuse_reply_buf(c->req, NULL, 0);
	case CALL_PLAIN:
		return fuse_reply_err(c->req, 0);
	}
	return 0;
}

static void set_fi(struct call *c)
{
	/* Sizes change at any time, so no page may be kept; what was only read
	 * has nothing to say at close. */
	c->fi.fh = (uintptr_t)c->handle;
	c->fi.direct_io = 1;
	c->fi.noflush = (c->fi.flags & O_ACCMODE) == O_RDONLY;
}

/* Is key name shown in view, at this instant? */
static bool shown(const struct tree *t, const char *name, enum ring_view view)
{
	const struct ring_key *key = ring_find(t->ring, name);

	return key != NULL && ring_shows(t->ring, key, view);
}

static const struct dir *const dir_of[RING_N_VIEWS] = {
	[RING_VIEW_KEYS] = &dir_keys,	    [RING_VIEW_OWNED] = &dir_owned,
	[RING_VIEW_RECOVER] = &dir_recover, [RING_VIEW_RELEASE] = &dir_release,
	[RING_VIEW_PARKED] = &dir_parked,
};

static void post_views(struct tree *t, const char *name, unsigned views,
		       enum herald_what what)
{
	for (enum ring_view v = 0; v < RING_N_VIEWS; v++)
		if (views & 1u << v)
			tree_post(t, dir_of[v], name, what);
}

/* The kernel announces now what c makes and removes. That is the news of these
 * names, so what waits about them is forgotten; but what is not so by now is
 * announced after it: a key given back is in recover/ only after its
 * back-off. */
static void settle_announced(struct call *c)
{
	struct tree *t = c->tree;
	unsigned views = c->creates | c->deletes;

	for (enum ring_view v = 0; v < RING_N_VIEWS; v++) {
		if ((views & 1u << v) == 0)
			continue;
		tree_forget(t, dir_of[v], c->name);
		if (c->creates & 1u << v && !shown(t, c->name, v))
			tree_post(t, dir_of[v], c->name, HERALD_DELETE);
		if (c->deletes & 1u << v && shown(t, c->name, v))
			tree_post(t, dir_of[v], c->name, HERALD_CREATE);
	}
}

/* The kernel has been answered, with success or without: then it announces
 * nothing of what we had left to it. */
static void settle(struct call *c, bool success)
{
	if (success) {
		settle_announced(c);
	} else {
		post_views(c->tree, c->name, c->heard_deletes, HERALD_DELETE);
		post_views(c->tree, c->name, c->heard_creates, HERALD_CREATE);
		post_views(c->tree, c->name, c->heard_modifies, HERALD_MODIFY);
	}
	c->creates = c->deletes = c->modifies = 0;
	c->heard_creates = c->heard_deletes = c->heard_modifies = 0;
}

/* What the user is told instead: the outcome is unknown all the same. EINTR is
 * for signals only, and those were answered when they came. */
static int errno_of(int rc)
{
	return rc == -ECANCELED || rc == -EINTR ? ETIMEDOUT : -rc;
}

void call_reply(struct call *c, int rc)
{
	assert(rc <= 0 && !c->waits);
	bool kept = false;

	if (c->req != NULL && rc == 0) {
		if (opens(c))
			set_fi(c);
		kept = reply_success(c) == 0;
	} else if (c->req != NULL) {
		fuse_reply_err(c->req, errno_of(rc));
	}
	c->req = NULL;
	settle(c, kept);
	/* Not opened, as far as the kernel knows: no release will come. */
	if (opens(c) && !kept && c->handle != NULL)
		handle_free(c->tree, c->handle);
	call_free(c);
}

void call_reply_bytes(struct call *c, const void *bytes, size_t n)
{
	assert(c->what == CALL_READ && !c->waits);
	if (c->req != NULL)
		fuse_reply_buf(c->req, bytes, n);
	c->req = NULL;
	call_free(c);
}

void call_reply_slice(struct call *c, const struct text *text, size_t size,
		      off_t off)
{
	size_t at = (uint64_t)off < text->len ? (size_t)off : text->len;
	size_t n = text->len - at < size ? text->len - at : size;

	call_reply_bytes(c, n == 0 ? NULL : text->base + at, n);
}

/* ---- Waiting ---- */

/* By name, since each change of a key looks for those who made it: a thousand
 * callers and a batch of thousands meet here. */
static struct call **bucket_of(struct tree *t, const char *name)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (; *name != '\0'; name++)
		hash = (hash ^ (uint8_t)*name) * 16777619u;
	return &t->waiting[hash % CALL_BUCKETS];
}

struct call *call_waiting(struct tree *t, const char *name)
{
	return *bucket_of(t, name);
}

static void waiting_add(struct call *c)
{
	struct call **first = bucket_of(c->tree, c->name);

	c->waits = true;
	c->prev = NULL;
	c->next = *first;
	if (c->next != NULL)
		c->next->prev = c;
	*first = c;
}

static void waiting_remove(struct call *c)
{
	assert(c->waits);
	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		*bucket_of(c->tree, c->name) = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	c->waits = false;
}

/* Answer now; the ring's own answer only releases c. */
static void leave(struct call *c, int error)
{
	assert(c->waits && c->req != NULL);
	fuse_reply_err(c->req, error);
	c->req = NULL;
	if (!opens(c))
		c->handle = NULL; /* the kernel's, and may go before us */
	settle(c, false);
	c->left(c->left_data);
}

/* Runs inside libfuse, which holds the request's lock: it may be answered, but
 * not asked anything (fuse.md 17). */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct call *c = data;

	(void)req;
	leave(c, EINTR);
}

void call_wait(struct call *c, void (*left)(void *data), void *data)
{
	c->left = left;
	c->left_data = data;
	waiting_add(c);
	/* Interrupted before we had seen it: on_interrupt would run at once,
	 * where answering is not allowed. */
	if (fuse_req_interrupted(c->req))
		leave(c, EINTR);
	else if (c->tree->draining)
		leave(c, ETIMEDOUT);
	else
		fuse_req_interrupt_func(c->req, on_interrupt, c);
}

void call_go_on(struct call *c)
{
	waiting_remove(c);
}

static void on_request(struct ring_request *request)
{
	struct call *c = request->data;
	int rc = request->rc != 0 ? request->rc : c->op.rc;

	call_go_on(c);
	if (c->done != NULL && c->req != NULL)
		c->done(c, rc);
	else
		call_reply(c, rc);
}

static void abandon(void *data)
{
	struct call *c = data;

	ring_abandon(c->tree->ring, &c->request);
}

void call_commit(struct call *c, void (*done)(struct call *c, int rc))
{
	if (c->op.name == NULL)
		c->op.name = c->name;
	c->done = done;
	c->request = (struct ring_request){
		.ops = &c->op,
		.n_ops = 1,
		.cb = on_request,
		.data = c,
	};
	ring_submit(c->tree->ring, boot_ms(), &c->request);
	call_wait(c, abandon, c);
}

int call_may(const struct call *c, uid_t uid)
{
	if (c->uid == uid || c->uid == c->tree->uid || c->uid == 0)
		return 0;
	return -EPERM;
}

int call_may_administer(const struct call *c)
{
	return call_may(c, c->tree->uid);
}

void tree_drain(struct tree *t)
{
	t->draining = true;
	tree_lock_drain(t);
	for (size_t i = 0; i < CALL_BUCKETS; i++)
		for (struct call *c = t->waiting[i]; c != NULL; c = c->next)
			if (c->req != NULL)
				leave(c, ETIMEDOUT);
}

/* ---- Changes ---- */

void tree_on_change(struct tree *t, const struct ring_change *change)
{
	const char *name = change->key->name;
	unsigned came = change->after & ~change->before;
	unsigned went = change->before & ~change->after;
	unsigned wrote = change->note ? change->before & change->after : 0;

	/* release/K says the heir, not the note. */
	wrote &= ~(1u << RING_VIEW_RELEASE);
	for (struct call *c = call_waiting(t, name); c != NULL; c = c->next) {
		if (c->req == NULL || strcmp(c->name, name) != 0)
			continue;
		c->heard_creates |= came & c->creates;
		c->heard_deletes |= went & c->deletes;
		c->heard_modifies |= wrote & c->modifies;
		came &= ~c->creates;
		went &= ~c->deletes;
		wrote &= ~c->modifies;
	}
	post_views(t, name, went, HERALD_DELETE);
	post_views(t, name, came, HERALD_CREATE);
	post_views(t, name, wrote, HERALD_MODIFY);
	tree_tell(t, change);
}

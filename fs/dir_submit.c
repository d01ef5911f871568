/* SPDX-License-Identifier: MIT */
/* submit/: adds a key from any node; it lists nothing. The last close of the
 * file that made the key offers it to its ring owner. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/keyfile.h"
#include "fs/util.h"

/* A submission that is complete. Nobody waits for the answer, so it is repeated
 * until there is one: at once when it is in doubt, else when the ring is ready
 * again. */
struct offer {
	struct tree *tree;
	struct ring_op op;
	struct ring_request request;
	bool asked;
	struct offer *next;
	char name[RING_NAME_MAX + 1];
};

static struct offer **offers(struct tree *t)
{
	return (struct offer **)tree_data(t, &dir_submit);
}

static void offer_forget(struct offer *o)
{
	struct offer **at = offers(o->tree);

	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	free(o);
}

static void on_offered(struct ring_request *request);

static void offer_ask(struct offer *o)
{
	o->asked = true;
	o->request = (struct ring_request){
		.ops = &o->op,
		.n_ops = 1,
		.cb = on_offered,
		.data = o,
	};
	ring_submit(o->tree->ring, boot_ms(), &o->request);
}

static void on_offered(struct ring_request *request)
{
	struct offer *o = request->data;

	o->asked = false;
	if (request->rc == -ETIMEDOUT && !o->tree->draining)
		offer_ask(o);
	else if (request->rc == 0)
		offer_forget(o); /* or the key has been finished meanwhile */
}

static void offer(struct tree *t, uint64_t id)
{
	const struct ring_key *key = ring_find_id(t->ring, id);

	if (key == NULL)
		return;
	struct offer *o = xcalloc(1, sizeof(*o));

	o->tree = t;
	memcpy(o->name, key->name, key->name_len + 1u);
	o->op.type = RING_OFFER;
	o->op.name = o->name;
	o->op.id = id;
	o->next = *offers(t);
	*offers(t) = o;
	offer_ask(o);
}

static void on_status(struct tree *t)
{
	struct ring_status status;

	ring_status(t->ring, &status);
	if (status.health != RING_READY && status.health != RING_DRAINING)
		return;
	for (struct offer *o = *offers(t); o != NULL; o = o->next)
		if (!o->asked)
			offer_ask(o);
}

static void finish(struct tree *t)
{
	while (*offers(t) != NULL)
		offer_forget(*offers(t));
}

/* No file is open, so no close will come: it is complete as it is. */
static void on_made(struct call *c, int rc)
{
	if (rc == 0) {
		c->id = c->op.got_id;
		offer(c->tree, c->id);
	}
	call_reply(c, rc);
}

/* Nothing is listed, but install(1) sets the mode by path after its close: what
 * was just submitted is there for that long. */
static int lookup(struct tree *t, const struct dir *d, const char *name,
		  uint64_t *id)
{
	(void)d;
	const struct ring_key *key = ring_find(t->ring, name);

	if (key == NULL || key->reason != RING_SUBMITTED ||
	    !keyfile_is_new(t, key->id))
		return -ENOENT;
	*id = key->id;
	return 0;
}

/* Who submits may set times and mode through the file, so it is his here, and
 * not the mount owner's. */
static int attr(struct tree *t, uint64_t id, struct stat *st)
{
	int rc = keyfile_attr(t, id, st);

	if (rc != 0)
		return rc;
	const struct ring_key *key = ring_find_id(t->ring, id);

	if (key != NULL) { /* else it is over, and its file still open */
		st->st_uid = key->uid;
		st->st_gid = key->gid;
	}
	return 0;
}

static void create(struct call *c)
{
	if (c->handle != NULL) {
		keyfile_create(c, RING_SUBMIT);
		return;
	}
	c->op.type = RING_SUBMIT;
	c->op.uid = c->uid;
	c->op.gid = c->gid;
	call_commit(c, on_made);
}

static void release(struct tree *t, struct handle *h)
{
	/* Draining, it is too late: the next start offers what we have left. */
	if (keyfile_created(h) && !t->draining)
		offer(t, h->id);
	keyfile_release(t, h);
}

/* There is no name to open, but to make one that is there is refused. */
static void open_submitted(struct call *c)
{
	call_reply(c,
		   (c->fi.flags & O_ACCMODE) == O_RDONLY ? -ENOENT : -EEXIST);
}

static const struct files submit_files = {
	.attr = attr,
	.open = open_submitted,
	.read = keyfile_read,
	.write = keyfile_write,
	.setattr = keyfile_setattr,
	.fsync = keyfile_fsync,
	.lock = keyfile_lock,
	.release = release,
	.xattr_names = keyfile_xattr_names,
	.xattr = keyfile_xattr,
};

const struct dir dir_submit = {
	.name = "submit",
	.flags = DIR_REPLICATED | DIR_WRITABLE,
	.files = &submit_files,
	.lookup = lookup,
	.create = create,
	.on_status = on_status,
	.finish = finish,
};

/* SPDX-License-Identifier: MIT */
#include "fs/keyfile.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/log.h"
#include "fs/util.h"

/* install(1) sets the mode by path, after its close: for this long, the thread
 * that made a key may. */
#define CREATOR_LINGERS_MS 1000

/* Who made a key, while the file is open and a moment longer. */
struct creator {
	uint64_t id;
	pid_t tid;
	bool open;
	uint64_t closed_ms; /* boot_ms(), when not open */
	struct creator *next;
};

/* A handle's data. */
struct keyfile {
	uint64_t token;
	struct creator *creator; /* if this handle made the key */
};

/* ---- Creators ---- */

static struct creator **creators(struct tree *t)
{
	/* They are the tree's, whichever directory made the key. */
	return (struct creator **)tree_data(t, &dir_keys);
}

static void creators_expire(struct tree *t, uint64_t now_ms)
{
	struct creator **at = creators(t);

	while (*at != NULL) {
		struct creator *k = *at;

		if (k->open || now_ms - k->closed_ms < CREATOR_LINGERS_MS) {
			at = &k->next;
			continue;
		}
		*at = k->next;
		free(k);
	}
}

static struct creator *creator_add(struct tree *t, uint64_t id, pid_t tid)
{
	struct creator *k = xcalloc(1, sizeof(*k));

	creators_expire(t, boot_ms());
	*k = (struct creator){.id = id, .tid = tid, .open = true};
	k->next = *creators(t);
	*creators(t) = k;
	return k;
}

/* Did thread tid make id, just now? NULL if not. A thread outside our pid
 * namespace is nobody: all of them have id 0. */
static const struct creator *creator_find(struct tree *t, uint64_t id,
					  pid_t tid)
{
	creators_expire(t, boot_ms());
	for (const struct creator *k = *creators(t); k != NULL; k = k->next)
		if (k->id == id && k->tid == tid && tid != 0)
			return k;
	return NULL;
}

/* Is the file open that made id? */
static bool is_being_made(struct tree *t, uint64_t id)
{
	for (const struct creator *k = *creators(t); k != NULL; k = k->next)
		if (k->id == id && k->open)
			return true;
	return false;
}

bool keyfile_is_new(struct tree *t, uint64_t id)
{
	creators_expire(t, boot_ms());
	for (const struct creator *k = *creators(t); k != NULL; k = k->next)
		if (k->id == id)
			return true;
	return false;
}

void keyfile_finish(struct tree *t)
{
	while (*creators(t) != NULL) {
		struct creator *k = *creators(t);

		*creators(t) = k->next;
		free(k);
	}
}

/* ---- Names ---- */

int keyfile_lookup(struct tree *t, const struct dir *d, const char *name,
		   uint64_t *id)
{
	const struct ring_key *key = ring_find(t->ring, name);

	if (key == NULL || !ring_shows(t->ring, key, d->view))
		return -ENOENT;
	*id = key->id;
	return 0;
}

uint64_t *keyfile_list(struct tree *t, const struct dir *d, size_t *n)
{
	return ring_list(t->ring, d->view, n);
}

const char *keyfile_name_of(struct tree *t, const struct dir *d, uint64_t id)
{
	const struct ring_key *key = ring_find_id(t->ring, id);

	if (key == NULL || !ring_shows(t->ring, key, d->view))
		return NULL;
	return key->name;
}

static void on_created(struct call *c, int rc)
{
	if (rc == 0) {
		c->id = c->op.got_id;
		if (c->handle != NULL) {
			struct keyfile *f = xcalloc(1, sizeof(*f));

			f->token = c->op.got_token;
			f->creator = creator_add(c->tree, c->id, c->pid);
			c->handle->data = f;
		}
	}
	call_reply(c, rc);
}

void keyfile_create(struct call *c, enum ring_op_type op)
{
	c->op.type = op;
	c->op.uid = c->uid;
	c->op.gid = c->gid;
	call_commit(c, on_created);
}

void keyfile_act(struct call *c, enum ring_view view, enum ring_op_type op)
{
	const struct ring_key *key = ring_find(c->tree->ring, c->name);
	int rc = 0;

	if (key == NULL || !ring_shows(c->tree->ring, key, view))
		rc = -ENOENT;
	else
		rc = call_may(c, key->uid);
	if (rc != 0) {
		call_reply(c, rc);
		return;
	}
	c->op.type = op;
	c->op.id = key->id;
	c->op.token = key->token;
	c->op.uid = c->uid;
	c->op.gid = c->gid;
	call_commit(c, NULL);
}

/* ---- Attributes ---- */

static struct timespec time_of(uint64_t us)
{
	return (struct timespec){
		.tv_sec = (time_t)(us / 1000000),
		.tv_nsec = (long)(us % 1000000) * 1000,
	};
}

int keyfile_attr(struct tree *t, uint64_t id, struct stat *st)
{
	const struct ring_key *key = ring_find_id(t->ring, id);

	/* The kernel asks in the middle of open(2), after the creation: were it
	 * told that the key is finished by now, it would create it again. */
	if (key == NULL)
		return is_being_made(t, id) ? 0 : -ENOENT;
	/* What is offered has no worker yet: it is the mount owner's. */
	if (key->state == RING_HELD || key->state == RING_RELEASING) {
		st->st_uid = key->uid;
		st->st_gid = key->gid;
	}
	st->st_size = key->note_len;
	st->st_mtim = st->st_atim = time_of(key->note_us);
	st->st_ctim = time_of(key->claimed_us);
	return 0;
}

enum {
	XATTR_TOKEN,
	XATTR_HOLDER,
	XATTR_HEIR,
	XATTR_VNODE,
	XATTR_STATE,
	XATTR_REASON,
	XATTR_FROM,
	XATTR_ATTEMPTS,
	XATTR_SINCE,
	XATTR_CLAIMED,
	N_XATTRS,
};

const char *const keyfile_xattr_names[N_XATTRS + 1] = {
	[XATTR_TOKEN] = "user.ring.token",
	[XATTR_HOLDER] = "user.ring.holder",
	[XATTR_HEIR] = "user.ring.heir",
	[XATTR_VNODE] = "user.ring.vnode",
	[XATTR_STATE] = "user.ring.state",
	[XATTR_REASON] = "user.ring.reason",
	[XATTR_FROM] = "user.ring.from",
	[XATTR_ATTEMPTS] = "user.ring.attempts",
	[XATTR_SINCE] = "user.ring.since",
	[XATTR_CLAIMED] = "user.ring.claimed",
};

/* As `date -d @...` reads it. */
static void put_time(struct text *out, uint64_t us)
{
	text_printf(out, "%llu.%06llu", (unsigned long long)(us / 1000000),
		    (unsigned long long)(us % 1000000));
}

static void put_xattr(const struct tree *t, const struct ring_key *key, int i,
		      struct text *out)
{
	switch (i) {
	case XATTR_TOKEN:
		text_printf(out, "%llu", (unsigned long long)key->token);
		break;
	case XATTR_HOLDER:
		text_puts(out, tree_node_name(t, key->holder));
		break;
	case XATTR_HEIR:
		text_puts(out, tree_node_name(t, ring_vnode_owner(t->ring,
								  key->vnode)));
		break;
	case XATTR_VNODE:
		text_printf(out, "%u", key->vnode);
		break;
	case XATTR_STATE:
		text_puts(out, ring_state_name(key->state));
		break;
	case XATTR_REASON:
		text_puts(out, ring_reason_name(key->reason));
		break;
	case XATTR_FROM:
		text_puts(out, tree_node_name(t, key->from));
		break;
	case XATTR_ATTEMPTS:
		text_printf(out, "%u", key->attempts);
		break;
	case XATTR_SINCE:
		put_time(out, key->since_us);
		break;
	case XATTR_CLAIMED:
		put_time(out, key->claimed_us);
		break;
	}
}

int keyfile_xattr(struct tree *t, uint64_t id, const char *name,
		  struct text *out)
{
	for (int i = 0; i < N_XATTRS; i++) {
		if (strcmp(keyfile_xattr_names[i], name) != 0)
			continue;
		const struct ring_key *key = ring_find_id(t->ring, id);

		if (key == NULL)
			return -ENOENT;
		put_xattr(t, key, i, out);
		return 0;
	}
	return -ENODATA;
}

bool keyfile_same(const struct ring_key *key, const struct stat *st, int to_set)
{
	if (to_set & FUSE_SET_ATTR_MODE && (st->st_mode & 07777) != 0644)
		return false;
	if (to_set & FUSE_SET_ATTR_UID && st->st_uid != key->uid)
		return false;
	return !(to_set & FUSE_SET_ATTR_GID) || st->st_gid == key->gid;
}

void keyfile_setattr(struct call *c, const struct stat *st, int to_set)
{
	struct tree *t = c->tree;
	const struct ring_key *key = ring_find_id(t->ring, c->id);
	const struct creator *k = creator_find(t, c->id, c->pid);
	int rc = 0;

	if (key == NULL) {
		rc = c->handle != NULL ? -ESTALE : -ENOENT;
	} else if (to_set & FUSE_SET_ATTR_SIZE) {
		if (c->handle != NULL) {
			keyfile_resize(c, st->st_size);
			return;
		}
		rc = -EEXIST;
	} else if (to_set & KEYFILE_TIMES && (k == NULL || !k->open)) {
		/* As if it were claimed: it was not by this call. */
		rc = -EEXIST;
		if (c->pid == 0 && !t->warned_pid) {
			t->warned_pid = true;
			log_warning("touch from outside the daemon's pid "
				    "namespace: use set -C; : > keys/K");
		}
	} else if (to_set & KEYFILE_OWNER && k == NULL &&
		   !keyfile_same(key, st, to_set)) {
		rc = -EPERM;
	}
	call_reply(c, rc);
}

/* ---- Notes ---- */

/* The key of an open file, or NULL when that life has passed. */
static const struct ring_key *key_of(const struct tree *t,
				     const struct handle *h)
{
	const struct keyfile *f = h->data;
	const struct ring_key *key = ring_find_id(t->ring, h->id);

	return key != NULL && key->token == f->token ? key : NULL;
}

static void on_note(struct call *c, int rc)
{
	/* The life has passed: for a file that was open, not for a path. */
	if (rc == -ENOENT && c->handle != NULL && c->what != CALL_OPEN)
		rc = -ESTALE;
	if (rc == 0 && c->handle != NULL)
		text_finish(&c->handle->text); /* read it anew */
	call_reply(c, rc);
}

/* The note as it will be when all that waits is done: a write is of the whole
 * note, and those by files of two directories do not wait for each other. */
static struct text note_of(struct tree *t, const struct ring_key *key)
{
	const struct call *c = call_waiting(t, key->name);

	for (; c != NULL; c = c->next)
		if (c->op.type == RING_NOTE && c->op.id == key->id &&
		    c->op.token == key->token)
			return c->note; /* the latest is the first */
	return (struct text){.base = key->note, .len = key->note_len};
}

/* Begin to write: old, cut or extended to len. */
static void take_note(struct call *c, const struct text *old, size_t len)
{
	assert(len <= RING_NOTE_MAX);
	c->note = (struct text){
		.base = xcalloc(1, len + 1), .len = len, .cap = len + 1};
	if (old->len > 0)
		memcpy(c->note.base, old->base,
		       old->len < len ? old->len : len);
}

static void commit_note(struct call *c, const struct ring_key *key)
{
	memcpy(c->name, key->name, key->name_len + 1u);
	c->op.type = RING_NOTE;
	c->op.id = key->id;
	c->op.token = key->token;
	c->op.note = c->note.base;
	c->op.note_len = (uint32_t)c->note.len;
	call_commit(c, on_note);
}

void keyfile_open(struct call *c)
{
	const struct ring_key *key = ring_find_id(c->tree->ring, c->id);

	if (key == NULL) {
		call_reply(c, -ENOENT);
		return;
	}
	struct keyfile *f = xcalloc(1, sizeof(*f));

	f->token = key->token;
	c->handle->data = f;
	/* Here, and not with the first write: the shell closes a descriptor
	 * before it writes, so a close can not tell `: > f` from `echo > f`,
	 * and the first must be durable when it has returned. */
	if (c->fi.flags & O_TRUNC &&
	    (key->note_len > 0 || note_of(c->tree, key).len > 0))
		commit_note(c, key);
	else
		call_reply(c, 0);
}

/* Who reads on sees the note that the reading began with, so that no reader
 * gets parts of two; but what was only appended to since, follows. */
static void refresh(struct text *seen, const struct ring_key *key, off_t off)
{
	if (off != 0) {
		if ((uint64_t)off < seen->len || key->note_len <= seen->len ||
		    (seen->len > 0 &&
		     memcmp(seen->base, key->note, seen->len) != 0))
			return;
	}
	seen->len = 0;
	text_add(seen, key->note, key->note_len);
}

void keyfile_read(struct call *c, size_t size, off_t off)
{
	const struct ring_key *key = key_of(c->tree, c->handle);

	if (key == NULL) {
		call_reply(c, -ESTALE);
		return;
	}
	refresh(&c->handle->text, key, off);
	call_reply_slice(c, &c->handle->text, size, off);
}

void keyfile_write(struct call *c, const char *bytes, size_t n, off_t off)
{
	const struct ring_key *key = key_of(c->tree, c->handle);

	if (key == NULL) {
		call_reply(c, -ESTALE);
		return;
	}
	struct text old = note_of(c->tree, key);

	if (c->fi.flags & O_APPEND) /* as it is now: fcntl */
		off = (off_t)old.len;
	if ((uint64_t)off > RING_NOTE_MAX || n > RING_NOTE_MAX - (size_t)off) {
		call_reply(c, -EFBIG);
		return;
	}
	size_t end = (size_t)off + n;

	take_note(c, &old, end > old.len ? end : old.len);
	memcpy(c->note.base + off, bytes, n);
	commit_note(c, key);
}

void keyfile_resize(struct call *c, off_t size)
{
	const struct ring_key *key =
		c->handle != NULL ? key_of(c->tree, c->handle)
				  : ring_find_id(c->tree->ring, c->id);

	int rc = 0;

	if (key == NULL)
		rc = c->handle != NULL ? -ESTALE : -ENOENT;
	else if ((uint64_t)size > RING_NOTE_MAX)
		rc = -EFBIG;
	if (rc != 0) {
		call_reply(c, rc);
		return;
	}
	struct text old = note_of(c->tree, key);

	if ((size_t)size == old.len && old.base == key->note) {
		call_reply(c, 0); /* it is so, and stays so */
		return;
	}
	take_note(c, &old, (size_t)size);
	commit_note(c, key);
}

int keyfile_fsync(struct tree *t, struct handle *h)
{
	return key_of(t, h) == NULL ? -ESTALE : 0; /* notes are durable */
}

int keyfile_lock(struct tree *t, const struct handle *h, uint64_t *ino)
{
	*ino = tree_ino_of(dir_owned.files, h->id);
	return key_of(t, h) == NULL ? -ESTALE : 0;
}

bool keyfile_created(const struct handle *h)
{
	const struct keyfile *f = h->data;

	return f != NULL && f->creator != NULL;
}

void keyfile_release(struct tree *t, struct handle *h)
{
	struct keyfile *f = h->data;

	(void)t;
	if (keyfile_created(h)) {
		f->creator->open = false;
		f->creator->closed_ms = boot_ms();
	}
	free(f);
}

void keyfile_on_change(struct tree *t, const struct ring_change *change)
{
	tree_lock_changed(t, tree_ino_of(dir_owned.files, change->key->id),
			  change->removed);
}

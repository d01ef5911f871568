/* SPDX-License-Identifier: MIT */
/* A key as a file: what the directories of keys have in common.
 *
 * An entry's id is the key's life. The content is the note as it stands; a
 * write commits the whole new note and waits. An open file belongs to one life
 * and one token: when either has passed, it answers ESTALE.
 *
 * The kernel sends no handle with a change of times or mode, so who may do that
 * to a key just made is known by the thread that made it (interface.md 2.1).
 * Thread: the loop. */
#ifndef FS_KEYFILE_H
#define FS_KEYFILE_H

#include "fs/tree_impl.h"

/* Kinds of setattr's to_set. */
enum {
	KEYFILE_TIMES = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME |
			FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW,
	KEYFILE_OWNER =
		FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID,
};

/* For a struct dir that shows d->view. */
int keyfile_lookup(struct tree *t, const struct dir *d, const char *name,
		   uint64_t *id);
uint64_t *keyfile_list(struct tree *t, const struct dir *d, size_t *n);
const char *keyfile_name_of(struct tree *t, const struct dir *d, uint64_t id);

/* Make c->name: op is RING_CLAIM or RING_SUBMIT. done may be NULL. */
void keyfile_create(struct call *c, enum ring_op_type op);
/* Do op to the life that c->name has in view at this instant. */
void keyfile_act(struct call *c, enum ring_view view, enum ring_op_type op);

/* For struct files. */
int keyfile_attr(struct tree *t, uint64_t id, struct stat *st);
extern const char *const keyfile_xattr_names[];
int keyfile_xattr(struct tree *t, uint64_t id, const char *name,
		  struct text *out);
/* Open the present life; with O_TRUNC the note is emptied first. */
void keyfile_open(struct call *c);
void keyfile_read(struct call *c, size_t size, off_t off);
void keyfile_write(struct call *c, const char *bytes, size_t n, off_t off);
/* Cut or extend the note, by handle or by path. */
void keyfile_resize(struct call *c, off_t size);
/* Of a file that only the handle that made it may change: the rest is
 * EEXIST. */
void keyfile_setattr(struct call *c, const struct stat *st, int to_set);
int keyfile_fsync(struct tree *t, struct handle *h);
/* One lock for each life, whichever directory the file is in. */
int keyfile_lock(struct tree *t, const struct handle *h, uint64_t *ino);
void keyfile_release(struct tree *t, struct handle *h);

/* Was the key made here, by a file that is open or was a moment ago? */
bool keyfile_is_new(struct tree *t, uint64_t id);
/* Did the handle make its key? */
bool keyfile_created(const struct handle *h);
/* Would this leave mode, uid and gid as they are? */
bool keyfile_same(const struct ring_key *key, const struct stat *st,
		  int to_set);
/* For struct dir: once for all directories. */
void keyfile_on_change(struct tree *t, const struct ring_change *change);
/* Forget who made what. */
void keyfile_finish(struct tree *t);

#endif

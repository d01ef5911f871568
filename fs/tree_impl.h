/* SPDX-License-Identifier: MIT */
/* Inside the tree: what a directory of it is made of.
 *
 * A directory is one file, fs/dir_NAME.c, with one `const struct dir` and, for
 * what it lists, one `const struct files`; both are tables of functions, in
 * which NULL is a refusal (EPERM) or a default that is said below. To add a
 * directory, write that file and name it in the table in tree.c.
 *
 * An entry is a number: its id, 56 bits, that the directory chooses and never
 * uses for another thing while the daemon lives. tree.c makes the node id of it
 * by adding the class, which is the place of the first directory with the same
 * struct files: so owned, recover and parked share their inodes, and a rename
 * keeps the number.
 *
 *   lookup, list, attr, render, xattr   answer at once, from memory, and have no
 *                                       effect, ever (interface.md 2.6)
 *   create, unlink, rename, open, ...   get a struct call and end it, now or
 *                                       later, with exactly one call_reply()
 *
 * tree_ops.c has seen to these before a directory is asked: names over 255
 * bytes (ENAMETOOLONG), names with a leading dot in DIR_REPLICATED (ENOENT, to
 * create EINVAL), the herald's own operations, interrupts.
 *
 * Thread: the loop. */
#ifndef FS_TREE_IMPL_H
#define FS_TREE_IMPL_H

#include <fcntl.h> /* struct flock */
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/herald.h"
#include "fs/text.h"
#include "fs/tree.h"
#include "ring/ring.h"

struct call;
struct handle;
struct tree_locks;

/* What a directory lists. Each function may be NULL. */
struct files {
	/* Fill what differs from the default (regular, 0644, nlink 1, the mount
	 * owner's, times of the daemon's start, size of what render gives).
	 * 0; -ENOENT when the entry is gone. NULL: always there. */
	int (*attr)(struct tree *t, uint64_t id, struct stat *st);

	/* The whole content. Run at open, where it becomes the handle's text,
	 * and at every getattr for the size, unless attr gave one: keep it
	 * cheap. 0 or -ENOENT. NULL: empty. */
	int (*render)(struct tree *t, uint64_t id, struct text *out);

	/* Of a symbolic link. 0 or -ENOENT. NULL: EINVAL. */
	int (*readlink)(struct tree *t, uint64_t id, struct text *out);

	/* Open: c->handle is made, its text is still empty, c->fi.flags says
	 * how. NULL: for reading only, what render gives; writing is EPERM. */
	void (*open)(struct call *c);

	/* Reply with call_reply_bytes(). NULL: the handle's text. */
	void (*read)(struct call *c, size_t size, off_t off);

	/* On 0 the caller is told that all n bytes were written. NULL: EPERM.
	 * bytes are borrowed until it returns. */
	void (*write)(struct call *c, const char *bytes, size_t n, off_t off);

	/* c->handle is NULL when it came by path. to_set: FUSE_SET_ATTR_*. On 0
	 * the attributes as they then are. NULL: EPERM. */
	void (*setattr)(struct call *c, const struct stat *st, int to_set);

	/* NULL: 0. */
	int (*fsync)(struct tree *t, struct handle *h);

	/* Which lock a flock of the open file is about: files with the same
	 * node id have the same. 0 or -ESTALE. NULL: its own. */
	int (*lock)(struct tree *t, const struct handle *h, uint64_t *ino);

	/* The last close; the handle is freed by the tree, after it. */
	void (*release)(struct tree *t, struct handle *h);

	/* Names, ended by NULL, and the value of one, without newline.
	 * 0, -ENODATA (also for unknown names) or -ENOENT. */
	const char *const *xattr_names;
	int (*xattr)(struct tree *t, uint64_t id, const char *name,
		     struct text *out);
};

enum {
	DIR_REPLICATED =
		1, /* its names are the cluster's: none begins with a dot */
	DIR_WRITABLE = 2,    /* mode 0755 or, with a group, 0775; else 0755 */
	DIR_HERALDED = 4,    /* changes in it may be posted */
	DIR_BEST_EFFORT = 8, /* ... and dropped when too many wait */
	DIR_IS_FILE = 16,    /* no directory: a file in the root, its id is 0 */
};

/* A directory. Each function may be NULL. */
struct dir {
	const char *name;
	unsigned flags;
	const struct files *files;
	enum ring_view view; /* for keyfile_lookup and its kin only */

	/* The id of name. 0 or -ENOENT. */
	int (*lookup)(struct tree *t, const struct dir *d, const char *name,
		      uint64_t *id);

	/* The ids of what it shows, as a new array of *n that free() releases
	 * (or NULL and 0). Taken once per opendir; each is asked for its name
	 * when its turn comes, so the array may hold what is gone by then.
	 * NULL: empty. */
	uint64_t *(*list)(struct tree *t, const struct dir *d, size_t *n);

	/* The name of id, borrowed until the next turn; NULL if this directory
	 * does not show it at this instant. */
	const char *(*name_of)(struct tree *t, const struct dir *d,
			       uint64_t id);

	/* Set c->id, then call_reply(c, 0). mknod: c->handle is NULL. */
	void (*create)(struct call *c);
	void (*unlink)(struct call *c);
	/* From c->dir to c->to, both names being c->name. */
	void (*rename)(struct call *c);

	/* What other nodes had committed before this is visible after it.
	 * NULL: it is already. */
	void (*fsync)(struct call *c);

	/* After each change of a key, and of nodes, placement, health or leader:
	 * the place to post CREATE, DELETE and MODIFY from. What the views of
	 * keys show is posted by the tree itself. */
	void (*on_change)(struct tree *t, const struct ring_change *change);
	void (*on_status)(struct tree *t);
	/* Members came, changed or went. */
	void (*on_peers)(struct tree *t);
	/* Once per turn of the loop. Gives when it is due again, at the latest;
	 * UINT64_MAX: never. */
	uint64_t (*on_flush)(struct tree *t, uint64_t now_ms);
	/* Release tree_data(). */
	void (*finish)(struct tree *t);
};

/* An open file. */
struct handle {
	const struct files *files;
	uint64_t id;
	int flags;	  /* open(2)'s */
	struct text text; /* what read gives, fixed at open */
	void *data;	  /* of files */
	uint64_t lock; /* private to tree_lock.c: the one it asked for, or 0 */

	struct handle *next, *prev; /* private to call.c: all that are open */
};

enum call_what {
	CALL_CREATE, /* replies: c->id's entry and c->handle */
	CALL_MKNOD,  /* c->id's entry */
	CALL_OPEN,   /* c->handle */
	CALL_READ,   /* bytes, by call_reply_bytes() */
	CALL_WRITE,  /* c->size */
	CALL_ATTR,   /* c->id's attributes */
	CALL_PLAIN,  /* success */
};

/* One request of the kernel, until it is answered. Made by tree.c, released by
 * call_reply(). An interrupted call is answered EINTR at once and lives on,
 * without req, until what it waits for has come. */
struct call {
	struct tree *tree;
	fuse_req_t req; /* NULL: answered, only waiting for the ring */
	enum call_what what;
	const struct dir *dir, *to; /* NULL where only a node id is known */
	const struct files *files;
	uint64_t id;
	char name[RING_NAME_MAX + 1];
	uid_t uid;
	gid_t gid;
	pid_t pid; /* the thread's id; 0 from outside our pid namespace */
	struct handle *handle;
	struct fuse_file_info fi;
	size_t size;

	/* What the kernel announces by itself if this succeeds: bit sets of
	 * 1 << enum ring_view. Set before call_commit(). */
	unsigned creates, deletes, modifies;

	/* Private to call.c. */
	unsigned heard_creates, heard_deletes, heard_modifies;
	struct ring_op op; /* the handler fills it, for call_commit() */
	struct text note;  /* keyfile.c's: the whole of what op.note says */
	struct ring_request request;
	void (*done)(struct call *c, int rc);
	void (*left)(void *data); /* of call_wait() */
	void *left_data;
	struct call *next, *prev; /* among those that wait */
	bool waits;
};

enum {
	CALL_BUCKETS = 256
};

struct tree {
	struct ring *ring;
	struct herald *herald; /* may be NULL: then nothing is announced */
	char *mountpoint;
	uid_t uid;
	gid_t gid;
	mode_t write_mode;
	char *version, *address;
	struct cluster *cluster; /* may be NULL */
	uint32_t expect;
	struct timespec started;
	bool draining;
	struct call *waiting[CALL_BUCKETS]; /* by name; private to call.c */
	struct handle *handles;
	struct tree_locks *locks;
	void **data; /* one per directory */
	uint64_t ghosts;
	bool warned_pid;
};

/* The tree's table, in the order of the herald's directory numbers. */
extern const struct dir dir_keys, dir_owned, dir_recover, dir_release,
	dir_parked, dir_submit, dir_peers, dir_route, dir_status, dir_ctl;

/* Answer c and release it. rc: 0, or a negative errno. The handle of a call
 * that fails to open is released as by its last close. */
void call_reply(struct call *c, int rc);

/* Answer a CALL_READ. bytes are borrowed until it returns. */
void call_reply_bytes(struct call *c, const void *bytes, size_t n);

/* Answer a CALL_READ with what a file that says text gives at off. */
void call_reply_slice(struct call *c, const struct text *text, size_t size,
		      off_t off);

/* Carry out c->op; then done(c, rc), which ends with call_reply() (NULL: is
 * call_reply()). Not run for a call that was interrupted meanwhile. What op
 * borrows may go when this returns. */
void call_commit(struct call *c, void (*done)(struct call *c, int rc));

/* For what asks the ring by requests of its own: c waits from here on for
 * call_go_on(). If it is interrupted meanwhile (or was: from inside this call),
 * it is answered, c->req is NULL and left(data) runs once, to abandon what was
 * asked. */
void call_wait(struct call *c, void (*left)(void *data), void *data);

/* Nothing that c has asked for is under way any more: it waits no longer, and
 * ends with call_reply(), which only releases it if c->req is NULL. */
void call_go_on(struct call *c);

/* Those that wait for the ring, about name and a few others: the first, by next;
 * the latest comes first. */
struct call *call_waiting(struct tree *t, const char *name);

/* May the caller touch what belongs to uid: uid itself, the mount's owner, or
 * root. 0 or -EPERM. */
int call_may(const struct call *c, uid_t uid);

/* May the caller administer the node: the mount's owner, or root. 0 or
 * -EPERM. */
int call_may_administer(const struct call *c);

/* ---- For all ---- */

/* Tell watchers, by the herald, that this happened to name in dir. */
void tree_post(struct tree *t, const struct dir *dir, const char *name,
	       enum herald_what what);

/* Directory d's own data in this tree, NULL at first; its finish() frees it. */
void **tree_data(struct tree *t, const struct dir *d);

/* Let the directories hear of a change of a key. */
void tree_tell(struct tree *t, const struct ring_change *change);

/* The name of a node, or "" for RING_NONE. */
const char *tree_node_name(const struct tree *t, uint32_t index);

/* Those who wait for the lock ino by a file that may not have it any more are
 * told so; over: all of them. */
void tree_lock_changed(struct tree *t, uint64_t ino, bool over);

/* ---- Between tree.c, tree_*.c and call.c ---- */

/* What a node id is about. */
struct node {
	const struct dir *dir;	   /* of a directory, but for the root */
	const struct files *files; /* of a file */
	uint64_t id;
	bool root, ghost;
};

/* The directory at a place of the table, or NULL past its end. */
const struct dir *tree_dir(unsigned place);
unsigned tree_place(const struct dir *d);

struct node tree_node(fuse_ino_t ino);
fuse_ino_t tree_ino_of_dir(const struct dir *d);
fuse_ino_t tree_ino_of(const struct files *files, uint64_t id);

void tree_attr_default(const struct tree *t, struct stat *st);
/* Of directory d, or of the root for NULL. */
void tree_attr_dir(const struct tree *t, const struct dir *d, struct stat *st);
/* Of an entry. 0, or -ENOENT when it is gone. */
int tree_attr(struct tree *t, const struct files *files, uint64_t id,
	      struct stat *st);
/* The same, as an entry that is never to be cached. */
int tree_entry(struct tree *t, const struct files *files, uint64_t id,
	       struct fuse_entry_param *e);
/* An entry for a name that has nothing behind it any more. */
void tree_ghost(struct tree *t, struct fuse_entry_param *e);

/* The kernel itself announces a change of name in dir just now. */
void tree_forget(struct tree *t, const struct dir *dir, const char *name);

/* Of the kernel's request. Never NULL; ends with call_reply(). */
struct call *call_make(fuse_req_t req, enum call_what what);
struct handle *handle_make(struct tree *t, const struct files *files,
			   uint64_t id, int flags);
void handle_free(struct tree *t, struct handle *h);

/* The kernel's requests for listings. Replies: open, err ENOTDIR; buf. */
void tree_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void tree_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		  struct fuse_file_info *fi);

/* Locks. Replies: err 0, EWOULDBLOCK, EINTR, ENOLCK, ESTALE. */
void tree_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		int op);
void tree_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		struct flock *lock, int sleep);
void tree_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		struct flock *lock);
void tree_lock_init(struct tree *t);
void tree_lock_finish(struct tree *t);
/* What h holds; at its last close, too. */
void tree_lock_drop(struct tree *t, struct handle *h);
void tree_lock_drain(struct tree *t);
/* Let go who has waited too long; gives when it is due again. */
uint64_t tree_lock_tick(struct tree *t, uint64_t now_ms);

#endif

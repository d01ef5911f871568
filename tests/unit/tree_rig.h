/* SPDX-License-Identifier: MIT */
/* The kernel's requests, one function each, over tree_session.h.
 *
 * Each sends one request, lets the ring answer (unless r->slow is set) and gives
 * the errno of the reply, 0 for success, or RIG_WAITS when there is none yet.
 * What a reply says beyond that is in r->entry, attr, open, file, n_written and
 * bytes. */
#ifndef TESTS_UNIT_TREE_RIG_H
#define TESTS_UNIT_TREE_RIG_H

#include "tests/unit/tree_session.h"

/* The node id of a name, that must be there. */
static inline uint64_t rig_ino(struct rig *r, enum rig_dir d, const char *name)
{
	int error = rig_lookup(r, r->dirs[d], name);

	check(error == 0, "%s/%s: %s", rig_names[d], name, strerror(error));
	return r->entry.nodeid;
}

/* Is there such a name? */
static inline bool rig_has(struct rig *r, enum rig_dir d, const char *name)
{
	int error = rig_lookup(r, r->dirs[d], name);

	check(error == 0 || error == ENOENT, "%s/%s: %s", rig_names[d], name,
	      strerror(error));
	return error == 0;
}

/* in->valid says what is set: FATTR_... */
static inline int rig_setattr(struct rig *r, uint64_t ino,
			      const struct fuse_setattr_in *in)
{
	return rig_ask(r, FUSE_SETATTR, ino, in, sizeof(*in), NULL);
}

static inline int rig_resize(struct rig *r, uint64_t ino, uint64_t size,
			     const struct rig_file *f)
{
	struct fuse_setattr_in in = {
		.valid = FATTR_SIZE | (f != NULL ? FATTR_FH : 0),
		.fh = f != NULL ? f->fh : 0,
		.size = size,
	};

	rig_begin(r, FUSE_SETATTR, ino);
	rig_making(r)->fh = in.fh;
	rig_put(r, &in, sizeof(in));
	return rig_send(r);
}

/* As touch. */
static inline int rig_touch(struct rig *r, uint64_t ino)
{
	struct fuse_setattr_in in = {.valid = FATTR_ATIME | FATTR_MTIME |
					      FATTR_ATIME_NOW |
					      FATTR_MTIME_NOW};

	return rig_setattr(r, ino, &in);
}

static inline int rig_chmod(struct rig *r, uint64_t ino, uint32_t mode)
{
	struct fuse_setattr_in in = {.valid = FATTR_MODE, .mode = mode};

	return rig_setattr(r, ino, &in);
}

static inline int rig_chown(struct rig *r, uint64_t ino, uint32_t uid)
{
	struct fuse_setattr_in in = {.valid = FATTR_UID, .uid = uid};

	return rig_setattr(r, ino, &in);
}

static inline int rig_mknod(struct rig *r, uint64_t dir, const char *name,
			    uint32_t mode)
{
	struct fuse_mknod_in in = {.mode = mode};

	return rig_ask(r, FUSE_MKNOD, dir, &in, sizeof(in), name);
}

static inline int rig_create(struct rig *r, uint64_t dir, const char *name,
			     uint32_t flags)
{
	struct fuse_create_in in = {.flags = flags | O_CREAT,
				    .mode = S_IFREG | 0644};

	rig_begin(r, FUSE_CREATE, dir);
	rig_making(r)->flags = flags;
	rig_put(r, &in, sizeof(in));
	rig_put_name(r, name);
	return rig_send(r);
}

static inline int rig_open(struct rig *r, uint64_t ino, uint32_t flags)
{
	struct fuse_open_in in = {.flags = flags};

	rig_begin(r, FUSE_OPEN, ino);
	rig_making(r)->flags = flags;
	rig_put(r, &in, sizeof(in));
	return rig_send(r);
}

static inline int rig_opendir(struct rig *r, uint64_t ino)
{
	struct fuse_open_in in = {.flags = O_RDONLY | O_DIRECTORY};

	return rig_ask(r, FUSE_OPENDIR, ino, &in, sizeof(in), NULL);
}

static inline int rig_read_at(struct rig *r, const struct rig_file *f,
			      uint32_t size, uint64_t off, uint32_t opcode)
{
	struct fuse_read_in in = {
		.fh = f->fh, .offset = off, .size = size, .flags = f->flags};
	int error = rig_ask_file(r, opcode, f, &in, sizeof(in));

	check(error != 0 || r->len <= size, "%zu bytes for %u", r->len, size);
	return error;
}

static inline int rig_pread(struct rig *r, const struct rig_file *f,
			    uint32_t size, uint64_t off)
{
	return rig_read_at(r, f, size, off, FUSE_READ);
}

static inline int rig_readdir(struct rig *r, const struct rig_file *f,
			      uint32_t size, uint64_t off)
{
	return rig_read_at(r, f, size, off, FUSE_READDIR);
}

static inline int rig_pwrite(struct rig *r, const struct rig_file *f,
			     const void *bytes, size_t n, uint64_t off)
{
	struct fuse_write_in in = {.fh = f->fh,
				   .offset = off,
				   .size = (uint32_t)n,
				   .flags = f->flags};

	rig_begin(r, FUSE_WRITE, f->ino);
	rig_making(r)->fh = f->fh;
	rig_put(r, &in, sizeof(in));
	rig_put(r, bytes, n);
	return rig_send(r);
}

static inline int rig_fsync(struct rig *r, const struct rig_file *f,
			    uint32_t opcode)
{
	struct fuse_fsync_in in = {.fh = f->fh};

	return rig_ask_file(r, opcode, f, &in, sizeof(in));
}

/* The last close. */
static inline void rig_release(struct rig *r, const struct rig_file *f,
			       uint32_t opcode)
{
	struct fuse_release_in in = {.fh = f->fh, .flags = f->flags};

	check_int(rig_ask_file(r, opcode, f, &in, sizeof(in)), 0);
}

static inline void rig_close(struct rig *r, const struct rig_file *f)
{
	rig_release(r, f, FUSE_RELEASE);
}

/* flock(2): F_RDLCK, F_WRLCK or F_UNLCK; POSIX locks with flags 0. */
static inline int rig_lock(struct rig *r, uint32_t opcode,
			   const struct rig_file *f, uint32_t type,
			   uint32_t flags)
{
	struct fuse_lk_in in = {
		.fh = f->fh,
		.owner = f->fh,
		.lk = {.end = INT64_MAX, .type = type, .pid = r->pid},
		.lk_flags = flags,
	};

	return rig_ask_file(r, opcode, f, &in, sizeof(in));
}

static inline int rig_unlink(struct rig *r, uint64_t dir, const char *name)
{
	return rig_ask(r, FUSE_UNLINK, dir, NULL, 0, name);
}

static inline int rig_rename(struct rig *r, uint64_t from, const char *name,
			     uint64_t to, const char *new_name)
{
	struct fuse_rename_in in = {.newdir = to};

	rig_begin(r, FUSE_RENAME, from);
	rig_put(r, &in, sizeof(in));
	rig_put_name(r, name);
	rig_put_name(r, new_name);
	return rig_send(r);
}

static inline int rig_rename2(struct rig *r, uint64_t from, const char *name,
			      uint64_t to, uint32_t flags)
{
	struct fuse_rename2_in in = {.newdir = to, .flags = flags};

	rig_begin(r, FUSE_RENAME2, from);
	rig_put(r, &in, sizeof(in));
	rig_put_name(r, name);
	rig_put_name(r, name);
	return rig_send(r);
}

static inline int rig_getxattr(struct rig *r, uint64_t ino, const char *name,
			       uint32_t size)
{
	struct fuse_getxattr_in in = {.size = size};

	return rig_ask(r, FUSE_GETXATTR, ino, &in, sizeof(in), name);
}

static inline int rig_listxattr(struct rig *r, uint64_t ino, uint32_t size)
{
	struct fuse_getxattr_in in = {.size = size};

	return rig_ask(r, FUSE_LISTXATTR, ino, &in, sizeof(in), NULL);
}

static inline int rig_setxattr(struct rig *r, uint64_t ino, const char *name)
{
	struct fuse_setxattr_in in = {.size = 1};

	rig_begin(r, FUSE_SETXATTR, ino);
	rig_put(r, &in, FUSE_COMPAT_SETXATTR_IN_SIZE);
	rig_put_name(r, name);
	rig_put(r, "v", 1);
	return rig_send(r);
}

static inline void rig_forget(struct rig *r, uint64_t ino, uint64_t n)
{
	struct fuse_forget_in in = {.nlookup = n};

	check_int(rig_ask(r, FUSE_FORGET, ino, &in, sizeof(in), NULL),
		  RIG_WAITS);
}

/* ---- Whole files ---- */

/* The whole content, as a string in r->bytes. */
static inline int rig_cat(struct rig *r, uint64_t ino)
{
	int error = rig_open(r, ino, O_RDONLY);

	if (error != 0)
		return error;
	struct rig_file f = r->file;

	error = rig_pread(r, &f, 128 * 1024, 0);
	rig_close(r, &f);
	return error;
}

/* Does ino say text? */
static inline bool rig_says(struct rig *r, uint64_t ino, const char *text)
{
	return rig_cat(r, ino) == 0 && r->len == strlen(text) &&
	       memcmp(r->bytes, text, r->len) == 0;
}

#endif

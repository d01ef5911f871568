/* SPDX-License-Identifier: MIT */
/* The kernel's requests, to the directory or file they are about. */
#include "fs/tree_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h> /* RENAME_NOREPLACE */
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/util.h"

/* What never changes may be cached for a day. */
static const double for_long = 86400;

/* ---- The herald ---- */

static bool is_herald(const struct tree *t, fuse_req_t req)
{
	return t->herald != NULL &&
	       herald_is(t->herald, fuse_req_ctx(req)->pid);
}

static bool expects(const struct tree *t, const struct dir *d, const char *name,
		    enum herald_what what)
{
	return d != NULL && d->flags & DIR_HERALDED &&
	       herald_expects(t->herald, tree_place(d), name, what);
}

/* The herald must be let in by the kernel whoever owns the file. */
static void own_for_herald(const struct tree *t, struct stat *st)
{
	st->st_uid = t->uid;
	st->st_gid = t->gid;
}

/* A record may be out of date when its turn comes: a caller's own operation
 * came first, and the kernel has announced that. A name that goes is announced
 * only while it is gone, one that comes while it is there, so the last event
 * of a name always agrees with the listing. */
static void herald_refuse(fuse_req_t req, const struct dir *d, const char *name,
			  enum herald_what what)
{
	struct tree *t = fuse_req_userdata(req);

	herald_granted(t->herald, tree_place(d), name, what);
	fuse_reply_err(req, ENOENT);
}

/* What the herald sees of name: what it is about to make is not there yet, what
 * it is about to remove still is. */
static void herald_lookup(fuse_req_t req, const struct dir *d, const char *name)
{
	struct tree *t = fuse_req_userdata(req);
	struct fuse_entry_param e;
	uint64_t id;
	bool there = d->lookup != NULL && d->lookup(t, d, name, &id) == 0 &&
		     tree_entry(t, d->files, id, &e) == 0;

	if (expects(t, d, name, HERALD_DELETE)) {
		if (there) {
			herald_refuse(req, d, name, HERALD_DELETE);
			return;
		}
		tree_ghost(t, &e);
		fuse_reply_entry(req, &e);
	} else if (expects(t, d, name, HERALD_MODIFY)) {
		if (!there) {
			herald_refuse(req, d, name, HERALD_MODIFY);
			return;
		}
		own_for_herald(t, &e.attr);
		fuse_reply_entry(req, &e);
	} else {
		fuse_reply_err(req, ENOENT);
	}
}

static void herald_mknod(fuse_req_t req, const struct dir *d, const char *name)
{
	struct tree *t = fuse_req_userdata(req);
	struct fuse_entry_param e;
	uint64_t id;

	if (!expects(t, d, name, HERALD_CREATE))
		fuse_reply_err(req, EPERM);
	else if (d->lookup(t, d, name, &id) != 0 ||
		 tree_entry(t, d->files, id, &e) != 0)
		herald_refuse(req, d, name, HERALD_CREATE);
	else if (fuse_reply_entry(req, &e) == 0)
		herald_granted(t->herald, tree_place(d), name, HERALD_CREATE);
}

static void herald_unlink(fuse_req_t req, const struct dir *d, const char *name)
{
	struct tree *t = fuse_req_userdata(req);
	uint64_t id;

	if (!expects(t, d, name, HERALD_DELETE))
		fuse_reply_err(req, EPERM);
	else if (d->lookup(t, d, name, &id) == 0)
		herald_refuse(req, d, name, HERALD_DELETE);
	else if (fuse_reply_err(req, 0) == 0)
		herald_granted(t->herald, tree_place(d), name, HERALD_DELETE);
}

/* The change of time that makes a MODIFY, in a directory that shows the
 * file. */
static void herald_setattr(fuse_req_t req, const struct node *n)
{
	struct tree *t = fuse_req_userdata(req);
	struct stat st;

	for (unsigned i = 0; n->files != NULL && tree_dir(i) != NULL; i++) {
		const struct dir *d = tree_dir(i);

		if (d->files != n->files || d->name_of == NULL)
			continue;
		const char *name = d->name_of(t, d, n->id);

		if (name == NULL || !expects(t, d, name, HERALD_MODIFY))
			continue;
		if (tree_attr(t, n->files, n->id, &st) != 0)
			break;
		if (fuse_reply_attr(req, &st, 0) == 0)
			herald_granted(t->herald, i, name, HERALD_MODIFY);
		return;
	}
	fuse_reply_err(req, EPERM);
}

/* ---- Names ---- */

static void lookup_in_root(fuse_req_t req, const char *name)
{
	struct tree *t = fuse_req_userdata(req);
	struct fuse_entry_param e = {0};
	const struct dir *d;
	unsigned i = 0;

	while ((d = tree_dir(i)) != NULL && strcmp(d->name, name) != 0)
		i++;
	if (d == NULL) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	if (d->flags & DIR_IS_FILE) {
		tree_entry(t, d->files, 0, &e);
	} else {
		tree_attr_dir(t, d, &e.attr);
		e.ino = e.attr.st_ino;
		e.attr_timeout = e.entry_timeout = for_long;
	}
	fuse_reply_entry(req, &e);
}

/* Valid replies: entry; err ENOENT, ENAMETOOLONG. */
static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(parent);
	struct fuse_entry_param e;
	uint64_t id;

	if (strlen(name) > RING_NAME_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
	} else if (n.root) {
		lookup_in_root(req, name);
	} else if (n.dir == NULL) {
		fuse_reply_err(req, ENOTDIR);
	} else if (is_herald(t, req)) {
		herald_lookup(req, n.dir, name);
	} else if (n.dir->lookup == NULL ||
		   (n.dir->flags & DIR_REPLICATED && name[0] == '.') ||
		   n.dir->lookup(t, n.dir, name, &id) != 0 ||
		   tree_entry(t, n.dir->files, id, &e) != 0) {
		/* Without a time to live: it may come at any moment. */
		fuse_reply_err(req, ENOENT);
	} else {
		fuse_reply_entry(req, &e);
	}
}

static void on_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	(void)ino;
	(void)nlookup;
	fuse_reply_none(req);
}

static void on_forget_multi(fuse_req_t req, size_t n,
			    struct fuse_forget_data *forgets)
{
	(void)n;
	(void)forgets;
	fuse_reply_none(req);
}

/* May name be made in directory n, or moved to it? 0, or the errno. */
static int check_name(const struct tree *t, const struct node *n,
		      const char *name)
{
	if (strlen(name) > RING_NAME_MAX)
		return ENAMETOOLONG;
	if (n->dir == NULL)
		return EPERM;
	if (t->draining)
		return EROFS;
	return 0;
}

static struct call *call_in(fuse_req_t req, enum call_what what,
			    const struct dir *d, const char *name)
{
	struct call *c = call_make(req, what);

	c->dir = d;
	c->files = d->files;
	assert(strlen(name) <= RING_NAME_MAX);
	memcpy(c->name, name, strlen(name) + 1);
	return c;
}

/* Valid replies: entry or create; err EPERM, EINVAL, ENAMETOOLONG, EROFS and
 * the directory's. */
static void create_in(fuse_req_t req, const struct node *n, const char *name,
		      const struct fuse_file_info *fi)
{
	struct tree *t = fuse_req_userdata(req);
	int error = check_name(t, n, name);

	if (error == 0 && n->dir->create == NULL)
		error = EPERM;
	if (error == 0 && n->dir->flags & DIR_REPLICATED && name[0] == '.')
		error = EINVAL;
	if (error != 0) {
		fuse_reply_err(req, error);
		return;
	}
	struct call *c = call_in(req, fi != NULL ? CALL_CREATE : CALL_MKNOD,
				 n->dir, name);

	if (fi != NULL) {
		c->fi = *fi;
		c->handle = handle_make(t, n->dir->files, 0, fi->flags);
	}
	n->dir->create(c);
}

static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name,
		      mode_t mode, struct fuse_file_info *fi)
{
	struct node n = tree_node(parent);

	(void)mode;
	if (is_herald(fuse_req_userdata(req), req))
		fuse_reply_err(req, EPERM);
	else
		create_in(req, &n, name, fi);
}

static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name,
		     mode_t mode, dev_t rdev)
{
	struct node n = tree_node(parent);

	(void)rdev;
	if (is_herald(fuse_req_userdata(req), req))
		herald_mknod(req, n.dir, name);
	else if (!S_ISREG(mode))
		fuse_reply_err(req, EPERM);
	else
		create_in(req, &n, name, NULL);
}

/* Valid replies: err 0, EPERM, EROFS, ENOENT and the directory's. */
static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(parent);

	if (is_herald(t, req)) {
		herald_unlink(req, n.dir, name);
		return;
	}
	int error = check_name(t, &n, name);

	if (error == 0 && n.dir->unlink == NULL)
		error = EPERM;
	if (error != 0)
		fuse_reply_err(req, error);
	else
		n.dir->unlink(call_in(req, CALL_PLAIN, n.dir, name));
}

/* Valid replies: err 0, EPERM, EINVAL, EROFS, ENOENT and the directory's. Never
 * EXDEV: mv would copy and delete. */
static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		      fuse_ino_t new_parent, const char *new_name,
		      unsigned int flags)
{
	struct tree *t = fuse_req_userdata(req);
	struct node from = tree_node(parent), to = tree_node(new_parent);
	int error = check_name(t, &to, new_name);

	if (error == 0 && flags & ~(unsigned)RENAME_NOREPLACE)
		error = EINVAL;
	if (error == 0 &&
	    (from.dir == NULL || from.dir->rename == NULL || is_herald(t, req)))
		error = EPERM;
	if (error == 0 && strcmp(name, new_name) != 0)
		error = EPERM;
	if (error != 0) {
		fuse_reply_err(req, error);
		return;
	}
	struct call *c = call_in(req, CALL_PLAIN, from.dir, name);

	c->to = to.dir;
	from.dir->rename(c);
}

/* The tree has no such operation, anywhere. */
static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name,
		     mode_t mode)
{
	(void)parent;
	(void)name;
	(void)mode;
	fuse_reply_err(req, EPERM);
}

static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)name;
	fuse_reply_err(req, EPERM);
}

static void on_symlink(fuse_req_t req, const char *link, fuse_ino_t parent,
		       const char *name)
{
	(void)link;
	(void)parent;
	(void)name;
	fuse_reply_err(req, EPERM);
}

static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent,
		    const char *new_name)
{
	(void)ino;
	(void)new_parent;
	(void)new_name;
	fuse_reply_err(req, EPERM);
}

/* ---- Attributes, asked and set ---- */

/* Valid replies: attr; err ESTALE: for a file that is open, the truth, and for
 * a path the kernel looks the name up again and finds that it is gone. */
static void on_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(ino);
	struct stat st;

	(void)fi;
	if (n.ghost) {
		tree_attr_default(t, &st);
		st.st_ino = ino;
	} else if (n.files == NULL) {
		tree_attr_dir(t, n.dir, &st);
		fuse_reply_attr(req, &st, for_long);
		return;
	} else if (tree_attr(t, n.files, n.id, &st) != 0) {
		fuse_reply_err(req, ESTALE);
		return;
	} else if (is_herald(t, req)) {
		own_for_herald(t, &st);
	}
	fuse_reply_attr(req, &st, 0);
}

static struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

/* A call about an open or closed file. */
static struct call *call_on(fuse_req_t req, enum call_what what,
			    const struct node *n,
			    const struct fuse_file_info *fi)
{
	struct call *c = call_make(req, what);

	c->files = n->files;
	c->id = n->id;
	if (fi != NULL) {
		c->fi = *fi;
		c->handle = handle_of(fi);
	}
	return c;
}

/* Valid replies: attr; err EPERM, ENOENT, EROFS and the files'. */
static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st,
		       int to_set, struct fuse_file_info *fi)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(ino);

	if (is_herald(t, req)) {
		herald_setattr(req, &n);
		return;
	}
	if (n.files == NULL || n.files->setattr == NULL)
		fuse_reply_err(req, EPERM);
	else if (t->draining)
		fuse_reply_err(req, EROFS);
	else
		n.files->setattr(call_on(req, CALL_ATTR, &n, fi), st, to_set);
}

/* Valid replies: readlink; err EINVAL, ENOENT. */
static void on_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(ino);
	struct text x = {0};
	int rc = -EINVAL;

	if (n.files != NULL && n.files->readlink != NULL)
		rc = n.files->readlink(t, n.id, &x);
	text_add(&x, "", 1); /* the NUL that libfuse wants */
	if (rc != 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_readlink(req, x.base);
	text_finish(&x);
}

/* Valid replies: statfs. Something free, so that df shows the mount. */
static void on_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct tree *t = fuse_req_userdata(req);
	struct statvfs st = {
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = 1 << 20,
		.f_bfree = 1 << 20,
		.f_bavail = 1 << 20,
		.f_ffree = 1 << 20,
		.f_favail = 1 << 20,
		.f_namemax = RING_NAME_MAX,
	};

	(void)ino;
	st.f_files = st.f_ffree + ring_count(t->ring, RING_VIEW_KEYS);
	fuse_reply_statfs(req, &st);
}

/* ---- Extended attributes ---- */

/* What both kinds of question end with: the length, or the bytes if they
 * fit. */
static void reply_xattr(fuse_req_t req, const struct text *x, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, x->len);
	else if (x->len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, x->base, x->len);
}

/* Valid replies: buf, xattr; err ENODATA, ENOENT, ERANGE. */
static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			size_t size)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(ino);
	struct text x = {0};
	int rc = -ENODATA;

	if (n.files != NULL && n.files->xattr != NULL)
		rc = n.files->xattr(t, n.id, name, &x);
	if (rc != 0)
		fuse_reply_err(req, -rc);
	else
		reply_xattr(req, &x, size);
	text_finish(&x);
}

/* Valid replies: buf, xattr; err ERANGE. */
static void on_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct node n = tree_node(ino);
	struct text x = {0};

	if (n.files != NULL && n.files->xattr_names != NULL) {
		for (size_t i = 0; n.files->xattr_names[i] != NULL; i++) {
			text_puts(&x, n.files->xattr_names[i]);
			text_add(&x, "", 1);
		}
	}
	reply_xattr(req, &x, size);
	text_finish(&x);
}

/* Valid replies: err EPERM; EOPNOTSUPP for what cp -p then does by chmod. */
static void on_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			const char *value, size_t size, int flags)
{
	bool acl = strncmp(name, "system.", 7) == 0;

	(void)ino;
	(void)value;
	(void)size;
	(void)flags;
	fuse_reply_err(req, acl ? EOPNOTSUPP : EPERM);
}

static void on_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	on_setxattr(req, ino, name, NULL, 0, 0);
}

/* ---- Open files ---- */

static bool for_writing(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

static void open_rendered(struct call *c)
{
	int rc = 0;

	if (for_writing(c->fi.flags))
		rc = -EPERM;
	else if (c->files->render != NULL)
		rc = c->files->render(c->tree, c->id, &c->handle->text);
	call_reply(c, rc);
}

/* Valid replies: open; err EPERM, EROFS, ENOENT and the files'. Never ESTALE:
 * the kernel would repeat it. */
static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(ino);

	if (n.ghost || n.files == NULL) {
		fuse_reply_err(req, ENOENT);
	} else if (is_herald(t, req)) {
		fuse_reply_err(req, EPERM);
	} else if (t->draining && for_writing(fi->flags)) {
		fuse_reply_err(req, EROFS);
	} else {
		struct call *c = call_on(req, CALL_OPEN, &n, fi);

		c->handle = handle_make(t, n.files, n.id, fi->flags);
		if (n.files->open != NULL)
			n.files->open(c);
		else
			open_rendered(c);
	}
}

/* Valid replies: buf; err ESTALE and the files'. */
static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct node n = tree_node(ino);
	struct call *c = call_on(req, CALL_READ, &n, fi);

	if (n.files->read == NULL)
		call_reply_slice(c, &c->handle->text, size, off);
	else
		n.files->read(c, size, off);
}

/* Valid replies: write; err EPERM, EFBIG, ESTALE, EROFS and the files'. */
static void on_write(fuse_req_t req, fuse_ino_t ino, const char *bytes,
		     size_t size, off_t off, struct fuse_file_info *fi)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(ino);

	if (n.files->write == NULL) {
		fuse_reply_err(req, EPERM);
	} else if (t->draining) {
		fuse_reply_err(req, EROFS);
	} else {
		struct call *c = call_on(req, CALL_WRITE, &n, fi);

		c->size = size;
		n.files->write(c, bytes, size, off);
	}
}

/* Valid replies: err 0, ESTALE and the files'. */
static void on_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
		     struct fuse_file_info *fi)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(ino);
	int rc = 0;

	(void)datasync;
	if (n.files->fsync != NULL)
		rc = n.files->fsync(t, handle_of(fi));
	fuse_reply_err(req, -rc);
}

/* Of a file, and of a directory. */
static void on_release(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	(void)ino;
	handle_free(fuse_req_userdata(req), handle_of(fi));
	fuse_reply_err(req, 0);
}

/* ---- Directories ---- */

/* Valid replies: err 0 and the directory's. */
static void on_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
			struct fuse_file_info *fi)
{
	struct node n = tree_node(ino);

	(void)datasync;
	(void)fi;
	if (n.dir == NULL || n.dir->fsync == NULL)
		fuse_reply_err(req, 0);
	else
		n.dir->fsync(call_in(req, CALL_PLAIN, n.dir, ""));
}

/* Not here: access (the kernel checks modes), flush (nothing waits for a
 * close), write_buf (it brings pipes), readdirplus (it counts lookups), lseek
 * and poll (the kernel's own are right). */
const struct fuse_lowlevel_ops tree_ops = {
	.lookup = on_lookup,
	.forget = on_forget,
	.forget_multi = on_forget_multi,
	.getattr = on_getattr,
	.setattr = on_setattr,
	.readlink = on_readlink,
	.mknod = on_mknod,
	.mkdir = on_mkdir,
	.unlink = on_unlink,
	.rmdir = on_rmdir,
	.symlink = on_symlink,
	.rename = on_rename,
	.link = on_link,
	.open = on_open,
	.read = on_read,
	.write = on_write,
	.release = on_release,
	.fsync = on_fsync,
	.opendir = tree_opendir,
	.readdir = tree_readdir,
	.releasedir = on_release,
	.fsyncdir = on_fsyncdir,
	.statfs = on_statfs,
	.setxattr = on_setxattr,
	.getxattr = on_getxattr,
	.listxattr = on_listxattr,
	.removexattr = on_removexattr,
	.create = on_create,
	.getlk = tree_getlk,
	.setlk = tree_setlk,
	.flock = tree_flock,
};

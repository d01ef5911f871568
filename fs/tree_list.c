/* SPDX-License-Identifier: MIT */
/* Listings: what a directory showed when the reading of it began.
 *
 * Offsets are 1 for ".", 2 for "..", 3 + place among the ids for the rest, each
 * naming what comes next; an id becomes a name when it is given out. So a
 * listing is complete and has nothing twice, whatever happens in between. */
#include "fs/tree_impl.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/util.h"

struct listing {
	uint64_t *ids; /* NULL in the root, which has the table's lines */
	size_t n;
};

static void listing_release(struct tree *t, struct handle *h)
{
	struct listing *l = h->data;

	(void)t;
	free(l->ids);
	free(l);
}

static const struct files listing_files = {.release = listing_release};

/* Valid replies: open; err ENOTDIR. */
void tree_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tree *t = fuse_req_userdata(req);
	struct node n = tree_node(ino);

	if (!n.root && n.dir == NULL) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	struct handle *h = handle_make(t, &listing_files, 0, fi->flags);

	h->data = xcalloc(1, sizeof(struct listing));
	fi->fh = (uintptr_t)h;
	if (fuse_reply_open(req, fi) != 0)
		handle_free(t, h);
}

static void listing_take(struct listing *l, struct tree *t,
			 const struct node *n)
{
	free(l->ids);
	*l = (struct listing){0};
	if (n->root)
		while (tree_dir((unsigned)l->n) != NULL)
			l->n++;
	else if (n->dir->list != NULL)
		l->ids = n->dir->list(t, n->dir, &l->n);
}

/* The name of entry i, and its number and type; NULL: not shown any more. */
static const char *listing_entry(const struct listing *l, struct tree *t,
				 const struct node *n, size_t i,
				 struct stat *st)
{
	if (n->root) {
		const struct dir *d = tree_dir((unsigned)i);

		st->st_mode = d->flags & DIR_IS_FILE ? S_IFREG : S_IFDIR;
		st->st_ino = tree_ino_of_dir(d);
		return d->name;
	}
	const struct files *files = n->dir->files;

	st->st_mode = S_IFREG;
	if (files->readlink != NULL && tree_attr(t, files, l->ids[i], st) != 0)
		return NULL;
	st->st_ino = tree_ino_of(files, l->ids[i]);
	return n->dir->name_of(t, n->dir, l->ids[i]);
}

/* Valid replies: buf. */
void tree_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		  struct fuse_file_info *fi)
{
	struct tree *t = fuse_req_userdata(req);
	struct listing *l = ((struct handle *)(uintptr_t)fi->fh)->data;
	struct node n = tree_node(ino);
	char *buf = xmalloc(size);
	size_t used = 0;

	if (off == 0)
		listing_take(l, t, &n);
	for (size_t i = (size_t)off; i < l->n + 2; i++) {
		struct stat st = {.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR};
		const char *name = i == 0 ? "." : "..";

		if (i == 0)
			st.st_ino = ino;
		else if (i > 1)
			name = listing_entry(l, t, &n, i - 2, &st);
		if (name == NULL)
			continue;
		size_t need = fuse_add_direntry(req, buf + used, size - used,
						name, &st, (off_t)i + 1);
		if (need > size - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

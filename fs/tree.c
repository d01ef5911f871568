/* SPDX-License-Identifier: MIT */
/* The table of directories, and what its lines and their entries are as nodes.
 *
 * Node ids: class << 56 | id. Class 0 is the tree itself: 1 the root, then one
 * for each line of the table. Class 255 is the ghosts, names that are gone and
 * that only the herald still sees. The others are 1 + the first line of the
 * table with the same struct files. */
#include "fs/tree_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/util.h"

static const struct dir *const table[] = {
	&dir_keys,   &dir_owned, &dir_recover, &dir_release, &dir_parked,
	&dir_submit, &dir_peers, &dir_route,   &dir_status,  &dir_ctl,
};

enum {
	N_DIRS = sizeof(table) / sizeof(table[0]),
	ID_BITS = 56,
	CLASS_TREE = 0,
	CLASS_GHOST = 255,
	FIRST_DIR = FUSE_ROOT_ID + 1,
};

_Static_assert(N_DIRS <= HERALD_DIRS, "the herald has room for all");

/* ---- Nodes ---- */

const struct dir *tree_dir(unsigned place)
{
	return place < N_DIRS ? table[place] : NULL;
}

static fuse_ino_t ino_of(unsigned class, uint64_t id)
{
	assert(id >> ID_BITS == 0);
	return (fuse_ino_t) class << ID_BITS | id;
}

unsigned tree_place(const struct dir *d)
{
	for (unsigned i = 0; i < N_DIRS; i++)
		if (table[i] == d)
			return i;
	assert(!"a directory that is in the table");
	return 0;
}

fuse_ino_t tree_ino_of_dir(const struct dir *d)
{
	return ino_of(CLASS_TREE, FIRST_DIR + tree_place(d));
}

fuse_ino_t tree_ino_of(const struct files *files, uint64_t id)
{
	for (unsigned i = 0; i < N_DIRS; i++) {
		if (table[i]->files != files)
			continue;
		if (table[i]->flags & DIR_IS_FILE)
			return tree_ino_of_dir(table[i]);
		return ino_of(1 + i, id);
	}
	assert(!"files of a directory that is in the table");
	return 0;
}

struct node tree_node(fuse_ino_t ino)
{
	unsigned class = (unsigned)(ino >> ID_BITS);
	struct node n = {.id = ino & ((UINT64_C(1) << ID_BITS) - 1)};

	if (class == CLASS_GHOST) {
		n.ghost = true;
	} else if (class != CLASS_TREE) {
		assert(class <= N_DIRS);
		n.files = table[class - 1]->files;
	} else if (n.id == FUSE_ROOT_ID) {
		n.root = true;
	} else {
		assert(n.id >= FIRST_DIR && n.id < FIRST_DIR + N_DIRS);
		const struct dir *d = table[n.id - FIRST_DIR];

		if (d->flags & DIR_IS_FILE) {
			n.files = d->files;
			n.id = 0;
		} else {
			n.dir = d;
		}
	}
	return n;
}

/* ---- Attributes ---- */

void tree_attr_default(const struct tree *t, struct stat *st)
{
	*st = (struct stat){
		.st_mode = S_IFREG | 0644,
		.st_nlink = 1,
		.st_uid = t->uid,
		.st_gid = t->gid,
		.st_blksize = 4096,
		.st_atim = t->started,
		.st_mtim = t->started,
		.st_ctim = t->started,
	};
}

void tree_attr_dir(const struct tree *t, const struct dir *d, struct stat *st)
{
	tree_attr_default(t, st);
	st->st_mode = S_IFDIR | 0755;
	if (d != NULL && d->flags & DIR_WRITABLE)
		st->st_mode = S_IFDIR | t->write_mode;
	st->st_nlink = 2;
	st->st_ino = d == NULL ? FUSE_ROOT_ID : tree_ino_of_dir(d);
}

int tree_attr(struct tree *t, const struct files *files, uint64_t id,
	      struct stat *st)
{
	tree_attr_default(t, st);
	st->st_size = -1;
	int rc = files->attr == NULL ? 0 : files->attr(t, id, st);

	if (rc != 0)
		return rc;
	if (st->st_size < 0) {
		struct text x = {0};

		if (S_ISLNK(st->st_mode) && files->readlink != NULL)
			rc = files->readlink(t, id, &x);
		else if (files->render != NULL)
			rc = files->render(t, id, &x);
		st->st_size = (off_t)x.len;
		text_finish(&x);
	}
	st->st_ino = tree_ino_of(files, id);
	st->st_blocks = (st->st_size + 511) / 512;
	return rc;
}

int tree_entry(struct tree *t, const struct files *files, uint64_t id,
	       struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){0};
	int rc = tree_attr(t, files, id, &e->attr);

	e->ino = e->attr.st_ino;
	return rc;
}

void tree_ghost(struct tree *t, struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){0};
	tree_attr_default(t, &e->attr);
	e->ino = e->attr.st_ino = ino_of(CLASS_GHOST, ++t->ghosts);
}

void tree_forget(struct tree *t, const struct dir *dir, const char *name)
{
	if (t->herald != NULL)
		herald_forget(t->herald, tree_place(dir), name);
}

void tree_post(struct tree *t, const struct dir *dir, const char *name,
	       enum herald_what what)
{
	assert(dir->flags & DIR_HERALDED);
	if (t->herald != NULL)
		herald_post(t->herald, tree_place(dir), name, what);
}

/* ---- The tree ---- */

struct tree *tree_create(const struct tree_config *config)
{
	struct tree *t = xcalloc(1, sizeof(*t));

	t->ring = config->ring;
	t->herald = config->herald;
	t->mountpoint = xstrdup(config->mountpoint);
	t->uid = config->uid;
	t->gid = config->gid;
	t->write_mode = config->write_mode;
	t->version = xstrdup(config->version);
	t->address = xstrdup(config->address);
	t->cluster = config->cluster;
	t->expect = config->expect;
	t->data = xcalloc(N_DIRS, sizeof(*t->data));
	clock_gettime(CLOCK_REALTIME, &t->started);
	tree_lock_init(t);
	return t;
}

void tree_destroy(struct tree *t)
{
	if (t == NULL)
		return;
	for (size_t i = 0; i < CALL_BUCKETS; i++)
		assert(t->waiting[i] == NULL);
	while (t->handles != NULL) /* after an abort, no releases came */
		handle_free(t, t->handles);
	tree_lock_finish(t);
	for (unsigned i = 0; i < N_DIRS; i++)
		if (table[i]->finish != NULL)
			table[i]->finish(t);
	free(t->data);
	free(t->address);
	free(t->version);
	free(t->mountpoint);
	free(t);
}

void tree_herald_dirs(const char *dirs[], size_t n, size_t *best_effort)
{
	*best_effort = 0;
	for (size_t i = 0; i < n; i++) {
		bool heralded = i < N_DIRS && table[i]->flags & DIR_HERALDED;

		dirs[i] = heralded ? table[i]->name : NULL;
		if (heralded && table[i]->flags & DIR_BEST_EFFORT)
			*best_effort |= (size_t)1 << i;
	}
}

void tree_on_status(struct tree *t)
{
	for (unsigned i = 0; i < N_DIRS; i++)
		if (table[i]->on_status != NULL)
			table[i]->on_status(t);
}

void tree_on_peers(struct tree *t)
{
	for (unsigned i = 0; i < N_DIRS; i++)
		if (table[i]->on_peers != NULL)
			table[i]->on_peers(t);
}

uint32_t tree_flush(struct tree *t, uint64_t now_ms)
{
	uint64_t due_ms = tree_lock_tick(t, now_ms);

	for (unsigned i = 0; i < N_DIRS; i++) {
		uint64_t due = table[i]->on_flush != NULL
				       ? table[i]->on_flush(t, now_ms)
				       : UINT64_MAX;

		if (due < due_ms)
			due_ms = due;
	}
	return due_ms - now_ms < UINT32_MAX ? (uint32_t)(due_ms - now_ms)
					    : UINT32_MAX;
}

void tree_tell(struct tree *t, const struct ring_change *change)
{
	for (unsigned i = 0; i < N_DIRS; i++)
		if (table[i]->on_change != NULL)
			table[i]->on_change(t, change);
}

void **tree_data(struct tree *t, const struct dir *d)
{
	return &t->data[tree_place(d)];
}

const char *tree_node_name(const struct tree *t, uint32_t index)
{
	const struct ring_node *node =
		index == RING_NONE ? NULL : ring_node(t->ring, index);

	return node == NULL ? "" : node->name;
}

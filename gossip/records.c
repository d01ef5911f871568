/* SPDX-License-Identifier: MIT */
#include "gossip/records.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gossip/mem.h"
#include "gossip/records_format.h"
#include "gossip/refuse.h"

#define DAMAGED_MAX 99 /* are kept; then no more is set aside */

struct entry {
	uint8_t kind;
	uint32_t index;
	size_t len;
	uint64_t sum;
	uint8_t *bytes; /* NULL: the file has them */
};

struct census {
	struct entry *entries; /* by kind and index */
	size_t n, cap;
};

struct records {
	char *path;   /* DIR/gossip */
	MDB_env *env; /* of a file that this process has made, or NULL */
	MDB_dbi dbi;
	struct census kept; /* what is in it */
};

struct records_batch {
	struct records *r;
	struct census census;
	bool is_written;
};

static int name_of(const struct records *r, const char *file,
		   char out[PATH_MAX])
{
	int n = snprintf(out, PATH_MAX, "%s/%s", r->path, file);

	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* ---- What is in a file ---- */

static int compare(const struct entry *a, const struct entry *b)
{
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	return (a->index > b->index) - (a->index < b->index);
}

static int by_key(const void *a, const void *b)
{
	return compare(a, b);
}

static const struct entry *find(const struct census *c, const struct entry *e)
{
	return c->n == 0 ? NULL
			 : bsearch(e, c->entries, c->n, sizeof(*e), by_key);
}

static struct entry *census_add(struct census *c)
{
	if (c->n == c->cap) {
		c->cap += c->cap + 16;
		c->entries = xrealloc(c->entries, c->cap * sizeof(*c->entries));
	}
	return &c->entries[c->n++];
}

static void census_finish(struct census *c)
{
	for (size_t i = 0; i < c->n; i++)
		free(c->entries[i].bytes);
	free(c->entries);
	*c = (struct census){0};
}

/* ---- LMDB ---- */

static int err_from_mdb(int rc)
{
	switch (rc) {
	case MDB_SUCCESS:
		return 0;
	case MDB_MAP_FULL:
	case EDQUOT:
		return -ENOSPC;
	default:
		return rc > 0 ? -rc : -EIO;
	}
}

static void close_env(struct records *r)
{
	if (r->env != NULL)
		mdb_env_close(r->env);
	r->env = NULL;
	census_finish(&r->kept);
}

/* No lock file, which LMDB would write through a map: the state directory has a
 * lock, and there is one thread at a time. */
static int make_env(struct records *r, const char *name)
{
	int rc = mdb_env_create(&r->env);

	if (rc != 0) {
		r->env = NULL;
		return err_from_mdb(rc);
	}
	unlink(name);
	rc = mdb_env_set_mapsize(r->env, RECORDS_BYTES_MAX);
	if (rc == 0)
		rc = mdb_env_open(r->env, name,
				  MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS, 0600);
	return err_from_mdb(rc);
}

static MDB_val val(const void *bytes, size_t n)
{
	return (MDB_val){n, (void *)(uintptr_t)bytes};
}

static int put_value(struct records *r, MDB_txn *txn, MDB_val key,
		     const struct entry *e)
{
	MDB_val value = {8 + e->len, NULL};
	int rc = mdb_put(txn, r->dbi, &key, &value, MDB_RESERVE);

	if (rc != 0)
		return rc;
	struct bytes_out out = bytes_out_of(value.mv_data, value.mv_size);
	bytes_put_u64(&out, e->sum);
	bytes_put(&out, e->bytes, e->len);
	assert(!out.full);
	return 0;
}

static int put_entry(struct records *r, MDB_txn *txn, const struct entry *e)
{
	uint8_t key[RECORDS_KEY_BYTES];

	if (e->bytes == NULL)
		return 0; /* it is there */
	records_key(key, e->kind, e->index);
	return put_value(r, txn, val(key, sizeof(key)), e);
}

static int drop_entry(struct records *r, MDB_txn *txn, const struct entry *e)
{
	uint8_t key[RECORDS_KEY_BYTES];

	records_key(key, e->kind, e->index);
	MDB_val name = val(key, sizeof(key));
	return mdb_del(txn, r->dbi, &name, NULL);
}

static int put_meta(struct records *r, MDB_txn *txn, const struct census *c)
{
	uint8_t bytes[RECORDS_META_BYTES];
	struct bytes_out out = bytes_out_of(bytes, sizeof(bytes));
	uint64_t sum = 0;

	for (size_t i = 0; i < c->n; i++)
		sum += c->entries[i].sum;
	bytes_put_u32(&out, RECORDS_FORMAT);
	bytes_put_u32(&out, (uint32_t)c->n);
	bytes_put_u64(&out, sum);
	struct entry e = {.len = out.len,
			  .sum = records_sum("m", 1, bytes, out.len),
			  .bytes = bytes};
	return put_value(r, txn, val("m", 1), &e);
}

static int put_all(struct records *r, MDB_txn *txn, const struct census *c)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < r->kept.n; i++)
		if (find(c, &r->kept.entries[i]) == NULL)
			rc = drop_entry(r, txn, &r->kept.entries[i]);
	for (size_t i = 0; rc == 0 && i < c->n; i++)
		rc = put_entry(r, txn, &c->entries[i]);
	return rc == 0 ? put_meta(r, txn, c) : rc;
}

static int write_txn(struct records *r, const struct census *c)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(r->env, NULL, 0, &txn);

	if (rc != 0)
		return err_from_mdb(rc);
	rc = mdb_dbi_open(txn, NULL, 0, &r->dbi);
	if (rc == 0)
		rc = put_all(r, txn, c);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return err_from_mdb(rc);
	}
	return err_from_mdb(mdb_txn_commit(txn));
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	int rc = fsync(fd) != 0 ? -errno : 0;
	close(fd);
	return rc;
}

/* A file of its own with all there is, then in the place of the old one. */
static int write_new(struct records *r, const struct census *c)
{
	char new[PATH_MAX], name[PATH_MAX];
	int rc = name_of(r, "new.mdb", new);

	if (rc == 0)
		rc = name_of(r, "data.mdb", name);
	if (rc == 0)
		rc = make_env(r, new);
	if (rc == 0)
		rc = write_txn(r, c);
	if (rc == 0 && rename(new, name) != 0)
		rc = -errno;
	if (rc == 0)
		return sync_folder(r->path);
	unlink(new);
	return rc;
}

/* ---- Batches ---- */

struct records_batch *records_begin(struct records *r)
{
	struct records_batch *b = xcalloc(1, sizeof(*b));

	b->r = r;
	return b;
}

void records_put(struct records_batch *b, const struct records_item *item)
{
	uint8_t key[RECORDS_KEY_BYTES];
	struct entry *e = census_add(&b->census);

	assert(item->len <= RECORDS_ITEM_MAX);
	records_key(key, item->kind, item->index);
	*e = (struct entry){
		.kind = item->kind,
		.index = item->index,
		.len = item->len,
		.sum = records_sum(key, sizeof(key), item->bytes, item->len)};
	const struct entry *old = find(&b->r->kept, e);
	if (old != NULL && old->sum == e->sum && old->len == e->len)
		return;
	e->bytes = xmalloc(e->len + 1);
	if (e->len > 0)
		memcpy(e->bytes, item->bytes, e->len);
}

bool records_is_kept(const struct records_batch *b)
{
	if (b->r->env == NULL || b->census.n != b->r->kept.n)
		return false;
	for (size_t i = 0; i < b->census.n; i++)
		if (b->census.entries[i].bytes != NULL)
			return false;
	return true;
}

int records_write(struct records_batch *b)
{
	struct records *r = b->r;
	struct census *c = &b->census;
	int rc;

	if (c->n > 0)
		qsort(c->entries, c->n, sizeof(*c->entries), by_key);
	rc = r->env != NULL ? write_txn(r, c) : write_new(r, c);
	if (rc != 0)
		close_env(r); /* the next one makes a new file */
	b->is_written = rc == 0;
	return rc;
}

void records_end(struct records_batch *b)
{
	if (b->is_written) {
		census_finish(&b->r->kept);
		b->r->kept = b->census;
		b->census = (struct census){0};
		for (size_t i = 0; i < b->r->kept.n; i++) {
			free(b->r->kept.entries[i].bytes);
			b->r->kept.entries[i].bytes = NULL;
		}
	}
	census_finish(&b->census);
	free(b);
}

/* ---- Opening ---- */

static int make_folder(const struct records *r, char *errmsg)
{
	struct stat st;

	if (mkdir(r->path, 0700) != 0 && errno != EEXIST)
		return gossip_refuse(errmsg, -errno, "cannot make '%.300s': %s",
				     r->path, strerror(errno));
	if (stat(r->path, &st) != 0)
		return gossip_refuse(errmsg, -errno, "cannot use '%.300s': %s",
				     r->path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return gossip_refuse(
			errmsg, -ENOTDIR,
			"'%.300s' must be a directory of ours: move it "
			"away",
			r->path);
	return 0;
}

/* The folder under a name that is free. When so much was set aside before that
 * none is, it stays, and is written over. */
static int set_aside(const struct records *r, char to[PATH_MAX])
{
	for (unsigned i = 1; i <= DAMAGED_MAX; i++) {
		int n = snprintf(to, PATH_MAX, "%s.damaged-%u", r->path, i);

		if (n < 0 || n >= PATH_MAX)
			return -ENAMETOOLONG;
		if (access(to, F_OK) == 0)
			continue;
		return rename(r->path, to) != 0 ? -errno : 0;
	}
	return -EEXIST;
}

static int handle_damage(struct records *r, const char *what, char *note,
			 char *errmsg)
{
	char to[PATH_MAX];
	int rc = set_aside(r, to);

	if (rc != 0) {
		snprintf(note, GOSSIP_ERRMSG_SIZE,
			 "'%.200s/data.mdb' is damaged (%s) and cannot be set "
			 "aside (%s): what is whole in it is kept, the rest "
			 "comes back from the other members",
			 r->path, what, strerror(-rc));
		return 0;
	}
	snprintf(note, GOSSIP_ERRMSG_SIZE,
		 "'%.160s/data.mdb' is damaged (%s) and was set aside as "
		 "'%.160s': what is whole in it is kept, the rest comes back "
		 "from the other members",
		 r->path, what, to);
	return make_folder(r, errmsg);
}

static int load_all(struct records *r, const struct records_load *load,
		    char *errmsg)
{
	char name[PATH_MAX];
	const char *what = "";
	int rc = name_of(r, "data.mdb", name);

	if (rc == 0)
		rc = records_read(name, load, &what);
	if (rc == 0 || rc == -ENOENT)
		return 0;
	if (rc == -EUCLEAN || rc == -EIO)
		return handle_damage(r, rc == -EIO ? "it cannot be read" : what,
				     load->note, errmsg);
	if (rc == -EPROTONOSUPPORT)
		return handle_damage(r, "another version of ringfs wrote it",
				     load->note, errmsg);
	return gossip_refuse(errmsg, rc, "cannot read '%.300s/data.mdb': %s",
			     r->path, strerror(-rc));
}

int records_open(const char *dir, const struct records_load *load,
		 struct records **out, char errmsg[GOSSIP_ERRMSG_SIZE])
{
	struct records *r = xcalloc(1, sizeof(*r));
	size_t size = strlen(dir) + sizeof("/gossip");

	load->note[0] = '\0';
	r->path = xmalloc(size);
	snprintf(r->path, size, "%s/gossip", dir);
	int rc = make_folder(r, errmsg);
	if (rc == 0)
		rc = load_all(r, load, errmsg);
	if (rc != 0) {
		records_close(r);
		return rc;
	}
	*out = r;
	return 0;
}

void records_close(struct records *r)
{
	if (r == NULL)
		return;
	close_env(r);
	free(r->path);
	free(r);
}

/* SPDX-License-Identifier: MIT */
/* One LMDB table, in dir/store/data.mdb:
 *
 *   key                        value
 *   'k', 8 life (big-endian)   8 XXH3, the record
 *   "meta-machine"             8 XXH3, the machine's meta
 *   "meta-snapshot"            8 XXH3, group.c's
 *   "meta-store"               8 XXH3, 4 version of this format: 1,
 *                              8 LMDB's id of the transaction that wrote it,
 *                              8 number of records, 8 sum of their XXH3
 *
 * Integers are little-endian where nothing else is said. An XXH3 is over the
 * value, seeded with the XXH3 of the key, so that a value under a wrong key is
 * noticed; number and sum show a record that is missing, and the transaction id
 * shows that LMDB has gone back to an older one.
 *
 * LMDB writes with pwrite, not through its map, so that a full disk is an error
 * and not a SIGBUS, and never touches a page in use, so that a failed write
 * changes nothing. store_check.c has what LMDB itself does not check. */
#include "ring/store_impl.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "ring/mem.h"
#include "ring/ring.h"
#include "ring/store_check.h"

#define FORMAT_VERSION 1
#define MAP_MAX	       ((size_t)1 << 40)
#define LOCK_BYTES     8192 /* of LMDB's lock file */
#define STORE	       "meta-store"
#define WAY_OUT                                                                \
	"restore the file, or remove the state directory and join again as "   \
	"a new node"

int store_err(int rc)
{
	switch (rc) {
	case MDB_SUCCESS:
		return 0;
	case MDB_MAP_FULL:
		return -ENOSPC;
	case MDB_PANIC: /* after a failed write of a meta page */
		return -EIO;
	default:
		return rc > 0 ? -rc : -EUCLEAN;
	}
}

static int fail(const struct store *s, int rc, const char *what, char *errmsg)
{
	if (rc == -EUCLEAN)
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "%s/data.mdb: damaged: %s; " WAY_OUT, s->path, what);
	else
		snprintf(errmsg, RING_ERRMSG_SIZE, "%s/data.mdb: %s: %s",
			 s->path, what, strerror(-rc));
	return rc;
}

void store_batch_finish(struct store_batch *b)
{
	free(b->records.base);
	free(b->meta.base);
	free(b->snapshot.base);
	*b = (struct store_batch){0};
}

/* ---- Keys and values ---- */

struct life_key {
	uint8_t byte[9];
};

static struct life_key life_key(uint64_t life)
{
	struct life_key key = {{'k'}};

	life = htobe64(life);
	memcpy(key.byte + 1, &life, sizeof(life));
	return key;
}

bool store_is_life(const MDB_val *key)
{
	return key->mv_size == sizeof(struct life_key) &&
	       *(const uint8_t *)key->mv_data == 'k';
}

MDB_val store_name_key(const char *name)
{
	return (MDB_val){strlen(name), (void *)(uintptr_t)name};
}

static uint64_t checksum(const MDB_val *key, const void *bytes, size_t n)
{
	return XXH3_64bits_withSeed(bytes, n,
				    XXH3_64bits(key->mv_data, key->mv_size));
}

/* The bytes of value, which stands under key; its XXH3 in *sum. False: they are
 * not what was written. */
bool store_unwrap(const MDB_val *key, const MDB_val *value, MDB_val *bytes,
		  uint64_t *sum)
{
	struct reader r = reader_of(value->mv_data, value->mv_size);

	*sum = reader_u64(&r);
	if (r.bad)
		return false;
	*bytes = (MDB_val){reader_left(&r), (void *)(uintptr_t)r.at};
	return *sum == checksum(key, bytes->mv_data, bytes->mv_size);
}

/* ---- The environment ---- */

static int open_dbi(MDB_env *env, MDB_dbi *dbi)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);

	if (rc != 0)
		return rc;
	rc = mdb_dbi_open(txn, NULL, 0, dbi);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

/* LMDB writes to its lock file through a map: on a full disk that would end in
 * SIGBUS, if the file had a hole. */
static int reserve_lock(const char *path)
{
	char name[4096];

	snprintf(name, sizeof(name), "%s/lock.mdb", path);
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	int rc = posix_fallocate(fd, 0, LOCK_BYTES);
	close(fd);
	/* Where it does not exist we do without. */
	return rc == EOPNOTSUPP || rc == EINVAL ? 0 : rc;
}

static int start_env(MDB_env *env, const char *path, size_t map_bytes,
		     unsigned flags)
{
	int rc = reserve_lock(path);

	if (rc == 0)
		rc = mdb_env_set_mapsize(env, map_bytes);
	/* NOTLS: a reader belongs to no thread. */
	return rc != 0 ? rc : mdb_env_open(env, path, MDB_NOTLS | flags, 0600);
}

int store_open_env(struct store *s)
{
	MDB_env *env;
	int rc = mdb_env_create(&env);

	if (rc != 0)
		return rc;
	rc = start_env(env, s->path, s->map_bytes,
		       s->unsynced ? MDB_NOSYNC : 0);
	if (rc == 0)
		rc = open_dbi(env, &s->dbi);
	if (rc != 0) {
		mdb_env_close(env); /* also after a failed open */
		return rc;
	}
	s->env = env;
	return 0;
}

/* ---- Writing ---- */

/* Put bytes under key; the value's XXH3 in *sum. */
static int put(struct store *s, MDB_txn *txn, MDB_val key, const void *bytes,
	       size_t n, uint64_t *sum)
{
	*sum = checksum(&key, bytes, n);
	s->value.len = 0;
	buf_u64(&s->value, *sum);
	buf_put(&s->value, bytes, n);
	MDB_val value = {s->value.len, s->value.base};
	return mdb_put(txn, s->dbi, &key, &value, 0);
}

int store_census(struct store *s, MDB_txn *txn, struct store_census *out)
{
	MDB_val key = store_name_key(STORE), value, bytes;
	uint64_t sum;
	int rc = mdb_get(txn, s->dbi, &key, &value);

	*out = (struct store_census){0};
	if (rc != 0)
		return rc;
	if (!store_unwrap(&key, &value, &bytes, &sum))
		return MDB_CORRUPTED;
	struct reader r = reader_of(bytes.mv_data, bytes.mv_size);
	if (reader_u32(&r) != FORMAT_VERSION)
		return MDB_VERSION_MISMATCH;
	out->txn = reader_u64(&r);
	out->n = reader_u64(&r);
	out->sum = reader_u64(&r);
	return r.bad || reader_left(&r) != 0 ? MDB_CORRUPTED : 0;
}

static int put_census(struct store *s, MDB_txn *txn,
		      const struct store_census *c)
{
	struct buf b = {0};
	uint64_t sum;

	buf_u32(&b, FORMAT_VERSION);
	buf_u64(&b, mdb_txn_id(txn));
	buf_u64(&b, c->n);
	buf_u64(&b, c->sum);
	int rc = put(s, txn, store_name_key(STORE), b.base, b.len, &sum);
	free(b.base);
	return rc;
}

/* Take the old value of key, if there is one, out of the census. */
static int uncount(struct store *s, MDB_txn *txn, MDB_val *key,
		   struct store_census *c)
{
	MDB_val value, bytes;
	uint64_t sum;
	int rc = mdb_get(txn, s->dbi, key, &value);

	if (rc != 0)
		return rc;
	if (!store_unwrap(key, &value, &bytes, &sum))
		return MDB_CORRUPTED;
	c->n--;
	c->sum -= sum;
	return 0;
}

static int write_record(struct store *s, MDB_txn *txn, struct reader *r,
			struct store_census *c)
{
	struct life_key life = life_key(reader_u64(r));
	MDB_val key = {sizeof(life.byte), life.byte};
	uint32_t len = reader_u32(r);
	const uint8_t *bytes = reader_bytes(r, len);
	uint64_t sum;
	int rc;

	assert(!r->bad);
	rc = uncount(s, txn, &key, c);
	if (rc == MDB_NOTFOUND && len == 0)
		return 0;
	if (rc != 0 && rc != MDB_NOTFOUND)
		return rc;
	if (len == 0)
		return mdb_del(txn, s->dbi, &key, NULL);
	rc = put(s, txn, key, bytes, len, &sum);
	if (rc != 0)
		return rc;
	c->n++;
	c->sum += sum;
	return 0;
}

static int write_all(struct store *s, MDB_txn *txn, const struct store_batch *b)
{
	struct reader r = reader_of(b->records.base, b->records.len);
	struct store_census c;
	uint64_t sum;
	int rc = store_census(s, txn, &c);

	if (rc != 0 && rc != MDB_NOTFOUND)
		return rc;
	for (size_t i = 0; i < b->n_records; i++) {
		rc = write_record(s, txn, &r, &c);
		if (rc != 0)
			return rc;
	}
	assert(reader_left(&r) == 0);
	rc = put(s, txn, store_name_key(STORE_MACHINE), b->meta.base,
		 b->meta.len, &sum);
	if (rc != 0)
		return rc;
	rc = put(s, txn, store_name_key(STORE_SNAPSHOT), b->snapshot.base,
		 b->snapshot.len, &sum);
	return rc != 0 ? rc : put_census(s, txn, &c);
}

void store_close_env(struct store *s)
{
	store_lose_readers(s);
	if (s->env != NULL)
		mdb_env_close(s->env);
	s->env = NULL;
}

/* For a larger map; or after a failed write of a meta page, when LMDB does
 * nothing any more. What that page now says, the old transaction or the new,
 * makes no difference: a batch written twice gives what it gives once. */
static int reopen(struct store *s)
{
	store_close_env(s);
	return store_open_env(s);
}

static int write_txn(struct store *s, const struct store_batch *b)
{
	MDB_txn *txn;
	int rc = s->env == NULL ? MDB_PANIC
				: mdb_txn_begin(s->env, NULL, 0, &txn);

	if (rc == MDB_PANIC) {
		rc = reopen(s);
		if (rc == 0)
			rc = mdb_txn_begin(s->env, NULL, 0, &txn);
	}
	if (rc != 0)
		return rc;
	rc = write_all(s, txn, b);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

/* LMDB says EIO when the disk became full in the middle of a write. */
static bool disk_is_full(const struct store *s, const struct store_batch *b)
{
	struct statvfs v;
	uint64_t need = b->records.len + b->meta.len + (1u << 20);

	return statvfs(s->path, &v) == 0 && v.f_bavail * v.f_frsize < need;
}

int store_write(struct store *s, const struct store_batch *b)
{
	int rc = write_txn(s, b);

	while (rc == MDB_MAP_FULL && s->map_bytes <= MAP_MAX / 2) {
		s->map_bytes *= 2;
		rc = reopen(s);
		if (rc == 0)
			rc = write_txn(s, b);
	}
	if (rc == EDQUOT || (rc == EIO && disk_is_full(s, b)))
		rc = ENOSPC;
	return store_err(rc);
}

/* ---- Loading ---- */

struct loading {
	int (*on_key)(void *data, const void *record, size_t len);
	void *data;
	int rc;		  /* on_key's */
	const char *what; /* damage: a record or meta */
	char key[32];	  /* its name, for what */
	struct store_census seen;
	struct buf *meta, *snapshot;
};

static int bad_value(struct loading *l, const char *what)
{
	l->what = what;
	return MDB_CORRUPTED;
}

static int load_keys(struct loading *l, MDB_cursor *cursor)
{
	MDB_val key, value, bytes;
	uint64_t sum;
	int rc;

	while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0 &&
	       store_is_life(&key)) {
		if (!store_unwrap(&key, &value, &bytes, &sum)) {
			uint64_t life;
			memcpy(&life, (uint8_t *)key.mv_data + 1, 8);
			snprintf(l->key, sizeof(l->key), "key %llu",
				 (unsigned long long)be64toh(life));
			return bad_value(l, l->key);
		}
		l->seen.n++;
		l->seen.sum += sum;
		l->rc = l->on_key(l->data, bytes.mv_data, bytes.mv_size);
		if (l->rc != 0)
			return MDB_SUCCESS;
	}
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int load_meta(struct loading *l, struct store *s, MDB_txn *txn,
		     const char *name, struct buf *out)
{
	MDB_val key = store_name_key(name), value, bytes;
	uint64_t sum;
	int rc = mdb_get(txn, s->dbi, &key, &value);

	if (rc == MDB_NOTFOUND)
		return bad_value(l, "a meta is missing");
	if (rc != 0)
		return rc;
	if (!store_unwrap(&key, &value, &bytes, &sum))
		return bad_value(l, name);
	buf_put(out, bytes.mv_data, bytes.mv_size);
	return 0;
}

static int load_metas(struct loading *l, struct store *s, MDB_txn *txn)
{
	struct store_census c;
	MDB_stat stat;
	int rc = mdb_stat(txn, s->dbi, &stat);

	if (rc != 0 || stat.ms_entries == 0)
		return rc; /* new, and never written to */
	rc = store_census(s, txn, &c);
	if (rc == MDB_VERSION_MISMATCH)
		return rc;
	if (rc != 0)
		return bad_value(l, STORE);
	if (c.n != l->seen.n || c.sum != l->seen.sum ||
	    stat.ms_entries != c.n + 3)
		return bad_value(l, "records are missing or old");
	if (c.txn != mdb_txn_id(txn))
		return bad_value(l, "the last transaction is missing");
	rc = load_meta(l, s, txn, STORE_MACHINE, l->meta);
	return rc != 0 ? rc : load_meta(l, s, txn, STORE_SNAPSHOT, l->snapshot);
}

static int load_all(struct loading *l, struct store *s)
{
	MDB_txn *txn;
	MDB_cursor *cursor;

	if (s->env == NULL)
		return MDB_PANIC; /* reopen() failed */
	int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

	if (rc != 0)
		return rc;
	rc = mdb_cursor_open(txn, s->dbi, &cursor);
	if (rc == 0) {
		rc = load_keys(l, cursor);
		mdb_cursor_close(cursor);
	}
	if (rc == 0 && l->rc == 0)
		rc = load_metas(l, s, txn);
	mdb_txn_abort(txn);
	return rc;
}

static int fail_load(const struct store *s, const struct loading *l, int rc,
		     char *errmsg)
{
	if (rc == MDB_VERSION_MISMATCH) {
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "%s was written by another version of ringfs; start "
			 "that one, or remove the state directory and join "
			 "again as a new node",
			 s->path);
		return -EPROTONOSUPPORT;
	}
	return fail(s, store_err(rc), l->what ? l->what : mdb_strerror(rc),
		    errmsg);
}

int store_load(struct store *s,
	       int (*on_key)(void *data, const void *record, size_t len),
	       void *data, struct buf *meta, struct buf *snapshot, char *errmsg)
{
	struct loading l = {
		.on_key = on_key,
		.data = data,
		.meta = meta,
		.snapshot = snapshot,
	};

	*meta = *snapshot = (struct buf){0};
	int rc = load_all(&l, s);
	if (rc == 0 && l.rc == 0)
		return 0;
	free(meta->base);
	free(snapshot->base);
	*meta = *snapshot = (struct buf){0};
	return rc != 0 ? fail_load(s, &l, rc, errmsg) : l.rc;
}

/* ---- Opening ---- */

/* An empty store in the folder path, on disk when this returns. */
int store_fill(const char *path, size_t map_bytes)
{
	MDB_env *env;

	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return -errno;
	int rc = mdb_env_create(&env);
	if (rc != 0)
		return store_err(rc);
	rc = start_env(env, path, map_bytes, 0);
	if (rc == 0)
		rc = mdb_env_sync(env, 1);
	mdb_env_close(env);
	rc = store_err(rc);
	return rc == 0 ? store_dir_flush(path) : rc;
}

/* Make dir/store beside its place first: a crash leaves none or a whole one. */
static int make_store(struct store *s, const char *dir)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/store.new", dir);
	store_dir_remove(path);
	int rc = store_fill(path, s->map_bytes);
	if (rc == 0 && rename(path, s->path) != 0)
		rc = -errno;
	if (rc == 0)
		rc = store_dir_flush(dir);
	if (rc != 0)
		store_dir_remove(path);
	return rc;
}

/* LMDB's file may be in use already: then it is to have some bytes. */
static int check_file(struct store *s, char *errmsg)
{
	char file[4096];
	struct stat st;

	snprintf(file, sizeof(file), "%s/data.mdb", s->path);
	if (stat(file, &st) != 0) {
		if (errno != ENOENT)
			return fail(s, -errno, "cannot be opened", errmsg);
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "%s/data.mdb is missing; " WAY_OUT, s->path);
		return -ENOENT;
	}
	if (st.st_size == 0)
		return fail(s, -EUCLEAN, "the file is empty", errmsg);
	return store_check(file, errmsg);
}

int store_open(const char *dir, size_t map_bytes, struct store **out,
	       char *errmsg)
{
	struct store *s = xcalloc(1, sizeof(*s));
	size_t size = strlen(dir) + sizeof("/store");
	int rc = 0;

	s->map_bytes = map_bytes;
	s->path = xmalloc(size);
	snprintf(s->path, size, "%s/store", dir);
	store_dir_tidy(dir);
	if (access(s->path, F_OK) != 0)
		rc = errno == ENOENT ? make_store(s, dir) : -errno;
	if (rc != 0) {
		fail(s, rc, "cannot be made", errmsg);
		goto err_store;
	}
	rc = check_file(s, errmsg);
	if (rc != 0)
		goto err_store;
	int mdb_rc = store_open_env(s);
	if (mdb_rc != 0) {
		rc = fail(s, store_err(mdb_rc), mdb_strerror(mdb_rc), errmsg);
		goto err_store;
	}
	*out = s;
	return 0;

err_store:
	store_close(s);
	return rc;
}

void store_close(struct store *s)
{
	if (s == NULL)
		return;
	store_close_env(s);
	free(s->value.base);
	free(s->path);
	free(s);
}

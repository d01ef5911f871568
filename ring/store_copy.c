/* SPDX-License-Identifier: MIT */
/* A store as it is sent to another node, and received there.
 *
 * The sender reads in one transaction, so what it sends is the store as of one
 * index however long it takes, and writing goes on beside it. The receiver
 * writes into a folder of its own, without flushing, and flushes once, when the
 * census of the whole is that of the sender: number and sum of the checksums of
 * all records, each over key and value. */
#include "ring/store_impl.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ring/mem.h"

#define COPY_MAP_BYTES ((size_t)1 << 30)

struct store_reader {
	struct store *store;
	MDB_txn *txn; /* NULL: lost */
	MDB_cursor *cursor;
	struct store_reader *next, **at; /* of the store */
};

static void lose(struct store_reader *r)
{
	if (r->txn == NULL)
		return;
	mdb_cursor_close(r->cursor);
	mdb_txn_abort(r->txn);
	r->txn = NULL;
	*r->at = r->next;
	if (r->next != NULL)
		r->next->at = r->at;
}

void store_lose_readers(struct store *s)
{
	while (s->readers != NULL)
		lose(s->readers);
}

static int begin(struct store_reader *r)
{
	struct store *s = r->store;
	int rc = s->env == NULL
			 ? MDB_PANIC
			 : mdb_txn_begin(s->env, NULL, MDB_RDONLY, &r->txn);

	if (rc != 0)
		return rc;
	rc = mdb_cursor_open(r->txn, s->dbi, &r->cursor);
	if (rc != 0)
		mdb_txn_abort(r->txn);
	return rc;
}

int store_reader_open(struct store *s, struct store_reader **out)
{
	struct store_reader *r = xcalloc(1, sizeof(*r));

	r->store = s;
	int rc = begin(r);

	if (rc != 0) {
		free(r);
		return store_err(rc);
	}
	r->at = &s->readers;
	r->next = s->readers;
	if (r->next != NULL)
		r->next->at = &r->next;
	s->readers = r;
	*out = r;
	return 0;
}

static int get_meta(struct store_reader *r, const char *name, struct buf *out)
{
	MDB_val key = store_name_key(name), value, bytes;
	uint64_t sum;
	int rc = mdb_get(r->txn, r->store->dbi, &key, &value);

	if (rc != 0)
		return rc;
	if (!store_unwrap(&key, &value, &bytes, &sum))
		return MDB_CORRUPTED;
	buf_put(out, bytes.mv_data, bytes.mv_size);
	return 0;
}

int store_reader_metas(struct store_reader *r, struct store_batch *out,
		       struct store_census *census)
{
	if (r->txn == NULL)
		return -ESTALE;
	int rc = store_census(r->store, r->txn, census);

	if (rc == 0)
		rc = get_meta(r, STORE_MACHINE, &out->meta);
	if (rc == 0)
		rc = get_meta(r, STORE_SNAPSHOT, &out->snapshot);
	return rc == MDB_NOTFOUND ? -ENOENT : store_err(rc);
}

int store_reader_next(struct store_reader *r, size_t bytes,
		      struct store_batch *out)
{
	MDB_val key, value, record;
	uint64_t life, sum;
	int rc = 0;

	if (r->txn == NULL)
		return -ESTALE;
	while (out->records.len < bytes) {
		rc = mdb_cursor_get(r->cursor, &key, &value, MDB_NEXT);
		if (rc != 0 || !store_is_life(&key))
			break;
		if (!store_unwrap(&key, &value, &record, &sum))
			return -EUCLEAN;
		memcpy(&life, (uint8_t *)key.mv_data + 1, 8);
		buf_u64(&out->records, be64toh(life));
		buf_u32(&out->records, (uint32_t)record.mv_size);
		buf_put(&out->records, record.mv_data, record.mv_size);
		out->n_records++;
	}
	return rc == MDB_NOTFOUND ? 0 : store_err(rc);
}

void store_reader_close(struct store_reader *r)
{
	if (r == NULL)
		return;
	lose(r);
	free(r);
}

int store_copy_open(const char *dir, struct store **out)
{
	struct store *s = xcalloc(1, sizeof(*s));
	size_t size = strlen(dir) + sizeof("/store.copy");

	s->map_bytes = COPY_MAP_BYTES;
	s->unsynced = true;
	s->path = xmalloc(size);
	snprintf(s->path, size, "%s/store.copy", dir);
	store_dir_remove(s->path);
	int rc = store_fill(s->path, s->map_bytes);

	if (rc == 0)
		rc = store_err(store_open_env(s));
	if (rc != 0) {
		store_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

static int compare_census(struct store *s, const struct store_census *want)
{
	struct store_census have;
	MDB_txn *txn;
	int rc = s->env == NULL ? MDB_PANIC
				: mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

	if (rc != 0)
		return store_err(rc);
	rc = store_err(store_census(s, txn, &have));
	mdb_txn_abort(txn);
	if (rc != 0)
		return rc;
	return have.n == want->n && have.sum == want->sum ? 0 : -EBADMSG;
}

int store_copy_seal(struct store *s, const struct store_census *want)
{
	int rc = compare_census(s, want);

	return rc != 0 ? rc : store_err(mdb_env_sync(s->env, 1));
}

void store_copy_discard(struct store *s)
{
	store_close_env(s);
	store_dir_remove(s->path);
	store_close(s);
}

int store_swap(struct store *s, const char *dir, struct store *copy)
{
	s->map_bytes =
		copy->map_bytes > s->map_bytes ? copy->map_bytes : s->map_bytes;
	store_close(copy);
	store_close_env(s);
	int rc = store_dir_swap(dir);

	return rc != 0 ? rc : store_err(store_open_env(s));
}

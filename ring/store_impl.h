/* SPDX-License-Identifier: MIT */
/* The inside of the store, shared by store.c (what is in it, writing, loading),
 * store_copy.c (sending it to another node, and receiving it) and store_dir.c
 * (its folders). The only place that knows LMDB. */
#ifndef RING_STORE_IMPL_H
#define RING_STORE_IMPL_H

#include <lmdb.h>
#include <stdbool.h>

#include "ring/store.h"

#define STORE_MACHINE  "meta-machine"
#define STORE_SNAPSHOT "meta-snapshot"

struct store {
	MDB_env *env; /* NULL after a failed store_open_env() */
	MDB_dbi dbi;
	size_t map_bytes;
	char *path;	  /* dir/store, or dir/store.copy */
	bool unsynced;	  /* a copy that is being received */
	struct buf value; /* the one being written */
	struct store_reader *readers;
};

/* ---- store.c ---- */

int store_err(int rc); /* LMDB's code to ours */
bool store_is_life(const MDB_val *key);
MDB_val store_name_key(const char *name);
/* The bytes of value, which stands under key; its XXH3 in *sum. False: they are
 * not what was written. */
bool store_unwrap(const MDB_val *key, const MDB_val *value, MDB_val *bytes,
		  uint64_t *sum);
/* LMDB's codes. */
int store_census(struct store *s, MDB_txn *txn, struct store_census *out);
int store_open_env(struct store *s);
void store_close_env(struct store *s);
/* An empty store in the folder path, on disk when this returns. 0 or -errno. */
int store_fill(const char *path, size_t map_bytes);

/* ---- store_copy.c ---- */

/* LMDB's map goes away: end all readers. */
void store_lose_readers(struct store *s);

/* ---- store_dir.c ---- */

int store_dir_flush(const char *path);
void store_dir_remove(const char *path); /* with what is in it */
/* Remove what a crash has left of a copy, or of a swap. */
void store_dir_tidy(const char *dir);
/* Let dir/store.copy and dir/store change names; the old one is removed. After
 * a crash one of them is in place. 0 or -errno. */
int store_dir_swap(const char *dir);

#endif

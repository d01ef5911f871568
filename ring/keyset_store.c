/* SPDX-License-Identifier: MIT */
/* The machine to and from the store, and its hash.
 *
 *   record  id u64 | token u64 | claimed_us u64 | since_us u64 | note_us u64
 *           | holder u32 | from u32 | claimer u32 | uid u32 | gid u32
 *           | backoff_ms u32 | attempts u16 | state u8 | reason u8
 *           | submitting u8 | name_len u8 | name | note_len u32 | note
 *
 *   meta    version u8 = 1 | hash u64 | n_keys u64 | head | rows
 *   head    index u64 | now_ms u64 | epoch u64 | token u64 | most_up u32
 *           | cluster 16 | vnodes u32 (0: no first entry yet) | claims u8
 *           | lease_ms u32 | calm_ms u32 | max_attempts u32
 *           | handover_timeout_ms u32
 *           | n_nodes u32 | nodes | vnodes times: owner u32
 *   node    id 16 | life 16 | boot u64 | epoch u64 | up_us u64 | weight u32
 *           | grace_ms u32 | host 32 | up u8 | is_client u8
 *           | is_draining u8 | floor u64 | name_len u8 | name
 *   rows    per node: n_rows u32 | n_rows times: as row_put() in keyset.c
 *
 * The hash is that of the head, of the sum of all records and of the sum of all
 * rows. Everything that decides what the next entry does is in one of them; a
 * machine that was loaded is compared with the one that was collected. */
#include "ring/keyset_impl.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "ring/mem.h"
#include "ring/place.h"
#include "ring/store.h"

#define META_VERSION 1
#define ROW_BYTES    (8 + 4)
#define ANSWER_BYTES (4 + 8 + 8)

/* ---- Out ---- */

static void put_settings(struct buf *b, const struct keyset *k)
{
	const struct ring_settings *s = &k->settings;

	buf_put(b, k->cluster.byte, sizeof(k->cluster.byte));
	buf_u32(b, s->vnodes);
	buf_u8(b, (uint8_t)s->claims);
	buf_u32(b, s->lease_ms);
	buf_u32(b, s->calm_ms);
	buf_u32(b, s->max_attempts);
	buf_u32(b, s->handover_timeout_ms);
}

static void put_node(struct buf *b, const struct node *n)
{
	size_t len = strlen(n->pub.name);

	buf_put(b, n->pub.id.byte, sizeof(n->pub.id.byte));
	buf_put(b, n->life.byte, sizeof(n->life.byte));
	buf_u64(b, n->pub.boot);
	buf_u64(b, n->pub.epoch);
	buf_u64(b, n->pub.up_us);
	buf_u32(b, n->pub.weight);
	buf_u32(b, n->grace_ms);
	buf_put(b, n->host, sizeof(n->host));
	buf_u8(b, n->pub.up);
	buf_u8(b, n->pub.is_client);
	buf_u8(b, n->pub.is_draining);
	buf_u64(b, n->floor);
	buf_u8(b, (uint8_t)len);
	buf_put(b, n->pub.name, len);
}

static void put_head(struct buf *b, const struct keyset *k)
{
	buf_u64(b, k->index);
	buf_u64(b, k->now_ms);
	buf_u64(b, k->epoch);
	buf_u64(b, k->token);
	buf_u32(b, k->most_up);
	put_settings(b, k);
	buf_u32(b, k->n_nodes);
	for (uint32_t i = 0; i < k->n_nodes; i++)
		put_node(b, k->nodes[i]);
	for (uint32_t v = 0; v < k->settings.vnodes; v++)
		buf_u32(b, k->owners[v]);
}

static void put_rows(struct buf *b, const struct node *n)
{
	uint32_t n_rows = 0;

	for (size_t i = 0; n->rows != NULL && i < KEYSET_WINDOW; i++)
		n_rows += n->rows[i] != NULL;
	buf_u32(b, n_rows);
	for (size_t i = 0; n->rows != NULL && i < KEYSET_WINDOW; i++)
		if (n->rows[i] != NULL)
			row_put(b, n->rows[i]);
}

uint64_t keyset_hash(const struct keyset *k)
{
	struct buf b = {0};
	uint64_t hash;

	put_head(&b, k);
	buf_u64(&b, k->all.n);
	buf_u64(&b, k->key_sum);
	buf_u64(&b, k->row_sum);
	hash = XXH3_64bits(b.base, b.len);
	free(b.base);
	return hash;
}

static void collect_key(struct keyset *k, struct ring_key *key,
			struct store_batch *out)
{
	k->scratch.len = 0;
	key_put_record(&k->scratch, key);
	buf_u64(&out->records, key->id);
	buf_u32(&out->records, (uint32_t)(k->scratch.len + key->note_len));
	buf_put(&out->records, k->scratch.base, k->scratch.len);
	buf_put(&out->records, key->note, key->note_len);
	out->n_records++;
	slot_of(key)->dirty = false;
	slot_of(key)->stored = true;
}

void keyset_collect(struct keyset *k, struct store_batch *out)
{
	for (uint32_t i = 0; i < k->ended.n; i++) {
		buf_u64(&out->records, k->ended.at[i]);
		buf_u32(&out->records, 0);
		out->n_records++;
	}
	for (uint32_t i = 0; i < k->dirty.n; i++) {
		struct ring_key *key = keyset_find_id(k, k->dirty.at[i]);

		if (key != NULL)
			collect_key(k, key, out);
	}
	ids_finish(&k->ended);
	ids_finish(&k->dirty);

	buf_u8(&out->meta, META_VERSION);
	buf_u64(&out->meta, keyset_hash(k));
	buf_u64(&out->meta, k->all.n);
	put_head(&out->meta, k);
	for (uint32_t i = 0; i < k->n_nodes; i++)
		put_rows(&out->meta, k->nodes[i]);
}

void keyset_dirty_again(struct keyset *k, const struct store_batch *batch)
{
	struct reader r = reader_of(batch->records.base, batch->records.len);

	while (reader_left(&r) > 0) {
		uint64_t id = reader_u64(&r);
		struct ring_key *key = keyset_find_id(k, id);

		reader_bytes(&r, reader_u32(&r));
		if (key != NULL)
			key_dirty(k, key);
		else
			ids_push(&k->ended, id);
	}
}

/* ---- In ---- */

static int bad_unless(bool cond)
{
	return cond ? 0 : -EBADMSG;
}

static void get_fields(struct reader *r, struct ring_key *key)
{
	key->id = reader_u64(r);
	key->token = reader_u64(r);
	key->claimed_us = reader_u64(r);
	key->since_us = reader_u64(r);
	key->note_us = reader_u64(r);
	key->holder = reader_u32(r);
	key->from = reader_u32(r);
	key->claimer = reader_u32(r);
	key->uid = reader_u32(r);
	key->gid = reader_u32(r);
	key->backoff_ms = reader_u32(r);
	key->attempts = reader_u16(r);
	key->state = reader_u8(r);
	key->reason = reader_u8(r);
	key->submitting = reader_u8(r);
}

static bool fields_valid(const struct ring_key *key)
{
	bool held = key->state == RING_HELD || key->state == RING_RELEASING;

	return key->id > 0 && key->id <= key->token &&
	       key->state <= RING_PARKED && key->reason <= RING_RETRIED &&
	       (!held || key->holder != RING_NONE) &&
	       (key->state != RING_PARKED || key->holder == RING_NONE) &&
	       key->submitting <= (key->state == RING_OFFERED);
}

static struct ring_key *get_key(struct keyset *k, const struct ring_key *fields,
				const char *name, size_t len)
{
	struct ring_key *key = key_alloc(name, len);

	memcpy(key, fields, offsetof(struct ring_key, name_len));
	index_name(k, key);
	ids_push(&k->all, key->id); /* until the lists are built */
	return key;
}

int keyset_load_key(struct keyset *k, const void *record, size_t len)
{
	struct reader r = reader_of(record, len);
	struct ring_key fields = {0}, *key;
	const char *name;
	const void *note;
	size_t name_len;
	uint32_t note_len;

	k->loading = true;
	get_fields(&r, &fields);
	name_len = reader_u8(&r);
	name = (const char *)reader_bytes(&r, name_len);
	note_len = reader_u32(&r);
	note = reader_bytes(&r, note_len);
	if (r.bad || reader_left(&r) != 0 || note_len > RING_NOTE_MAX ||
	    entry_name_check(name, name_len) != 0 || !fields_valid(&fields) ||
	    keyset_find_id(k, fields.id) != NULL ||
	    keyset_find(k, name, name_len) != NULL)
		return -EBADMSG;

	key = get_key(k, &fields, name, name_len);
	key->note_len = note_len;
	if (note_len > 0) {
		key->note = xmalloc(note_len);
		memcpy(key->note, note, note_len);
	}
	key_loaded(k, key);
	return 0;
}

static int get_settings(struct reader *r, struct keyset *k)
{
	const uint8_t *cluster = reader_bytes(r, sizeof(k->cluster.byte));
	struct ring_settings s = {0};

	s.vnodes = reader_u32(r);
	s.claims = reader_u8(r);
	s.lease_ms = reader_u32(r);
	s.calm_ms = reader_u32(r);
	s.max_attempts = reader_u32(r);
	s.handover_timeout_ms = reader_u32(r);
	if (r->bad)
		return -EBADMSG;
	if (s.vnodes == 0)
		return 0;
	if (!entry_settings_valid(&s))
		return -EBADMSG;
	memcpy(k->cluster.byte, cluster, sizeof(k->cluster.byte));
	k->settings = s;
	k->started = true;
	keyset_place_alloc(k);
	return 0;
}

static int get_node(struct reader *r, struct keyset *k)
{
	const uint8_t *id = reader_bytes(r, sizeof(struct ring_id));
	const uint8_t *life = reader_bytes(r, sizeof(struct ring_id));
	struct ring_node pub = {0};
	struct node *n;
	const uint8_t *host;
	const char *name;
	size_t len;
	uint64_t floor;
	uint32_t grace_ms;
	uint8_t up, is_client, is_draining;

	pub.boot = reader_u64(r);
	pub.epoch = reader_u64(r);
	pub.up_us = reader_u64(r);
	pub.weight = reader_u32(r);
	grace_ms = reader_u32(r);
	host = reader_bytes(r, RING_HOST_SIZE);
	up = reader_u8(r);
	is_client = reader_u8(r);
	is_draining = reader_u8(r);
	floor = reader_u64(r);
	len = reader_u8(r);
	name = (const char *)reader_bytes(r, len);
	if (r->bad || entry_name_check(name, len) != 0 || floor == 0 ||
	    up > 1 || is_client > 1 || is_draining > 1)
		return -EBADMSG;
	pub.up = up;
	pub.is_client = is_client;
	pub.is_draining = is_draining;
	memcpy(pub.id.byte, id, sizeof(pub.id.byte));
	memcpy(pub.name, name, len);
	if (keyset_find_node(k, &pub.id) != RING_NONE)
		return -EBADMSG;
	n = keyset_node_add(k);
	n->pub = pub;
	memcpy(n->life.byte, life, sizeof(n->life.byte));
	n->grace_ms = grace_ms;
	memcpy(n->host, host, sizeof(n->host));
	n->floor = floor;
	return 0;
}

static int get_row(struct reader *r, struct keyset *k, uint32_t node)
{
	struct node *n = k->nodes[node];
	uint64_t seq = reader_u64(r);
	uint32_t n_answers = reader_u32(r);
	struct row *row;

	if (r->bad || seq < n->floor || seq - n->floor >= KEYSET_WINDOW ||
	    n_answers > reader_left(r) / ANSWER_BYTES ||
	    n->n_answers + n_answers > KEYSET_ANSWERS_MAX ||
	    (n->rows != NULL && n->rows[seq % KEYSET_WINDOW] != NULL))
		return -EBADMSG;
	row = xmalloc(sizeof(*row) + n_answers * sizeof(*row->answers));
	row->seq = seq;
	row->n = n_answers;
	for (uint32_t i = 0; i < n_answers; i++) {
		row->answers[i].rc = (int32_t)reader_u32(r);
		row->answers[i].id = reader_u64(r);
		row->answers[i].token = reader_u64(r);
	}
	row_insert(k, node, row);
	return 0;
}

static int get_nodes(struct reader *r, struct keyset *k)
{
	uint32_t n_nodes = reader_u32(r);
	int rc = bad_unless(n_nodes <= KEYSET_NODES_MAX);

	for (uint32_t i = 0; rc == 0 && i < n_nodes; i++)
		rc = get_node(r, k);
	for (uint32_t v = 0; rc == 0 && v < k->settings.vnodes; v++) {
		uint32_t owner = reader_u32(r);

		k->owners[v] = owner;
		rc = bad_unless(owner == RING_NONE || owner < n_nodes);
	}
	if (rc == 0 && k->started)
		keyset_place_count(k);
	return rc;
}

int keyset_load_meta(struct keyset *k, const void *meta, size_t len)
{
	struct reader r = reader_of(meta, len);
	int rc;

	k->loading = true;
	rc = bad_unless(reader_u8(&r) == META_VERSION && !k->started &&
			k->n_nodes == 0);
	if (rc != 0)
		return rc;
	k->loaded_hash = reader_u64(&r);
	k->loaded_keys = reader_u64(&r);
	k->index = reader_u64(&r);
	k->now_ms = reader_u64(&r);
	k->epoch = reader_u64(&r);
	k->token = reader_u64(&r);
	k->most_up = reader_u32(&r);
	rc = get_settings(&r, k);
	if (rc == 0)
		rc = get_nodes(&r, k);
	for (uint32_t i = 0; rc == 0 && i < k->n_nodes; i++) {
		uint32_t n_rows = reader_u32(&r);

		rc = bad_unless(n_rows <= reader_left(&r) / ROW_BYTES);
		for (uint32_t j = 0; rc == 0 && j < n_rows; j++)
			rc = get_row(&r, k, i);
	}
	return rc == 0 ? bad_unless(!r.bad && reader_left(&r) == 0) : rc;
}

static bool is_node(const struct keyset *k, uint32_t node)
{
	return node == RING_NONE || node < k->n_nodes;
}

static int list_key(struct keyset *k, struct ring_key *key)
{
	if (!is_node(k, key->holder) || !is_node(k, key->from) ||
	    key->claimer >= k->n_nodes || key->token > k->token)
		return -EBADMSG;
	key->vnode = place_vnode(key->name, key->name_len, k->settings.vnodes);
	index_list(k, key);
	return 0;
}

int keyset_load_end(struct keyset *k)
{
	struct ids loaded = k->all;
	int rc = bad_unless(loaded.n == k->loaded_keys &&
			    (k->started || loaded.n == 0));

	k->all = (struct ids){0};
	for (uint32_t i = 0; rc == 0 && i < loaded.n; i++)
		rc = list_key(k, keyset_find_id(k, loaded.at[i]));
	ids_finish(&loaded);
	if (rc == 0)
		rc = bad_unless(keyset_hash(k) == k->loaded_hash);
	if (rc == 0)
		k->loading = false;
	return rc;
}

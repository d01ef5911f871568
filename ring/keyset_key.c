/* SPDX-License-Identifier: MIT */
/* One key's life. Every change runs between key_begin and key_end, which keep
 * the sums, the lists and the list of dirty lives right and tell of it once.
 *
 * The sum of all keys, mod 2^64, is what the machine's hash knows of them: a
 * record's share is the XXH3 of its fields and name, and that of the note
 * seeded with the life, taken apart so that a move does not read the note. */
#include "ring/keyset_impl.h"

#include <assert.h>
#include <stdalign.h>
#include <string.h>
#include <xxhash.h>

#include "ring/mem.h"

static_assert(sizeof(struct key_slot) % alignof(struct ring_key) == 0,
	      "a key can stand behind its slot");

static uint64_t record_sum(struct keyset *k, const struct ring_key *key)
{
	k->scratch.len = 0;
	key_put_record(&k->scratch, key);
	return XXH3_64bits(k->scratch.base, k->scratch.len);
}

static uint64_t note_sum(const struct ring_key *key)
{
	if (key->note_len == 0)
		return 0;
	return XXH3_64bits_withSeed(key->note, key->note_len, key->id);
}

static void tell(struct keyset *k, struct ring_key *key,
		 const struct keyset_was *was, bool note, bool removed)
{
	if (k->events.on_key != NULL)
		k->events.on_key(k->events.data, key, was, note, removed);
}

static struct keyset_was was_of(const struct ring_key *key)
{
	return (struct keyset_was){.existed = true,
				   .state = key->state,
				   .submitting = key->submitting,
				   .holder = key->holder,
				   .token = key->token};
}

/* Zeros but for the name. */
struct ring_key *key_alloc(const char *name, size_t len)
{
	size_t size = sizeof(struct key_slot) +
		      offsetof(struct ring_key, name) + len + 1;
	struct key_slot *slot = xcalloc(1, size);
	struct ring_key *key = (struct ring_key *)(slot + 1);

	assert(len > 0 && len <= RING_NAME_MAX);
	memcpy(key->name, name, len);
	key->name_len = (uint8_t)len;
	return key;
}

void key_free(struct ring_key *key)
{
	free(key->note);
	free(slot_of(key));
}

struct ring_key *key_create(struct keyset *k, uint32_t node,
			    const struct entry_op *op, struct keyset_was *was)
{
	struct ring_key *key = key_alloc(op->name, op->name_len);

	*was = (struct keyset_was){.holder = RING_NONE};
	key->id = key->token = ++k->token;
	key->claimed_us = key->since_us = key->note_us = k->wall_us;
	key->holder = key->from = RING_NONE;
	key->claimer = node;
	key->uid = op->uid;
	key->gid = op->gid;
	key_set_note(k, key, op->note, op->note_len);
	return key;
}

void key_begin(struct keyset *k, struct ring_key *key, struct keyset_was *was)
{
	*was = was_of(key);
	k->key_sum -= slot_of(key)->sum;
}

void key_end(struct keyset *k, struct ring_key *key,
	     const struct keyset_was *was, bool note)
{
	assert(key->holder != RING_NONE || key->state == RING_OFFERED ||
	       key->state == RING_PARKED);
	assert(!key->submitting || key->state == RING_OFFERED);
	if (was->existed) {
		index_move(k, key, was);
	} else {
		index_name(k, key);
		index_list(k, key);
	}
	slot_of(key)->sum = record_sum(k, key);
	k->key_sum += slot_of(key)->sum;
	key_dirty(k, key);
	tell(k, key, was, note, false);
}

void key_destroy(struct keyset *k, struct ring_key *key)
{
	struct keyset_was was = was_of(key);

	k->key_sum -= slot_of(key)->sum + note_sum(key);
	index_remove(k, key);
	if (slot_of(key)->stored)
		ids_push(&k->ended, key->id);
	tell(k, key, &was, false, true);
	key_free(key);
}

void key_set_note(struct keyset *k, struct ring_key *key, const void *note,
		  uint32_t len)
{
	k->key_sum -= note_sum(key);
	free(key->note);
	key->note = NULL;
	key->note_len = len;
	if (len > 0) {
		key->note = xmalloc(len);
		memcpy(key->note, note, len);
	}
	k->key_sum += note_sum(key);
}

void key_pass(struct keyset *k, struct ring_key *key, enum ring_state state,
	      uint32_t holder)
{
	/* A restarted node is another holder than the one before. */
	if (key->holder != RING_NONE)
		key->from = key->holder;
	key->holder = holder;
	key->state = state;
	key->since_us = k->wall_us;
}

void key_dirty(struct keyset *k, struct ring_key *key)
{
	if (slot_of(key)->dirty)
		return;
	slot_of(key)->dirty = true;
	ids_push(&k->dirty, key->id);
}

void key_loaded(struct keyset *k, struct ring_key *key)
{
	slot_of(key)->stored = true;
	slot_of(key)->sum = record_sum(k, key);
	k->key_sum += slot_of(key)->sum + note_sum(key);
}

/* As keyset_store.c draws it, up to the note. */
void key_put_record(struct buf *b, const struct ring_key *key)
{
	buf_u64(b, key->id);
	buf_u64(b, key->token);
	buf_u64(b, key->claimed_us);
	buf_u64(b, key->since_us);
	buf_u64(b, key->note_us);
	buf_u32(b, key->holder);
	buf_u32(b, key->from);
	buf_u32(b, key->claimer);
	buf_u32(b, key->uid);
	buf_u32(b, key->gid);
	buf_u32(b, key->backoff_ms);
	buf_u16(b, key->attempts);
	buf_u8(b, key->state);
	buf_u8(b, key->reason);
	buf_u8(b, key->submitting);
	buf_u8(b, key->name_len);
	buf_put(b, key->name, key->name_len);
	buf_u32(b, key->note_len);
}

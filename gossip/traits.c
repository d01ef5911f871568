/* SPDX-License-Identifier: MIT */
/* A record's body:
 *
 *	0  key length  1   1 to 255
 *	1  key
 *	   value           to the end; of a tombstone: empty */
#include "gossip/traits.h"

#include <assert.h>
#include <errno.h>
#include <xxhash.h>

#include "gossip/bytes.h"
#include "gossip/index.h"
#include "gossip/name.h"

/* The newest life that a member has said anything in. */
struct speaker {
	struct gossip_id id;
	uint64_t life;
};

struct traits {
	struct sb *sb;
	struct index keys;     /* records by member and key */
	struct index speakers; /* struct speaker by id */
	uint64_t seed;
	traits_cb cb;
	void *data;
};

static bool read_body(const struct sb_record *r, struct trait *trait)
{
	struct bytes_in in = bytes_in_of(r->body, r->len);

	*trait = (struct trait){.id = &r->source->id};
	trait->key_len = bytes_u8(&in);
	trait->key = (const char *)bytes_take(&in, trait->key_len);
	trait->value = r->is_tomb ? NULL : in.at;
	trait->value_len = bytes_left(&in);
	return !in.bad && name_is_good(trait->key, trait->key_len) &&
	       trait->value_len <= (r->is_tomb ? 0 : TRAITS_VALUE_MAX);
}

static uint64_t hash_id(const struct traits *t, const struct gossip_id *id)
{
	return XXH3_64bits_withSeed(id->b, sizeof(id->b), t->seed);
}

static uint64_t hash_key(const struct traits *t, const struct trait *trait)
{
	return XXH3_64bits_withSeed(trait->key, trait->key_len,
				    hash_id(t, trait->id));
}

static struct sb_record *find(const struct traits *t, const struct trait *key)
{
	uint64_t hash = hash_key(t, key);
	struct trait trait;
	struct sb_record *r;

	for (size_t at = index_begin(&t->keys, hash);
	     (r = index_next(&t->keys, hash, &at)) != NULL;)
		if (read_body(r, &trait) &&
		    gossip_id_equal(trait.id, key->id) &&
		    trait.key_len == key->key_len &&
		    memcmp(trait.key, key->key, key->key_len) == 0)
			return r;
	return NULL;
}

static struct speaker *speaker_of(struct traits *t, const struct gossip_id *id)
{
	uint64_t hash = hash_id(t, id);
	struct speaker *sp;

	for (size_t at = index_begin(&t->speakers, hash);
	     (sp = index_next(&t->speakers, hash, &at)) != NULL;)
		if (gossip_id_equal(&sp->id, id))
			return sp;
	sp = xcalloc(1, sizeof(*sp));
	sp->id = *id;
	index_put(&t->speakers, hash, sp);
	return sp;
}

static void announce(const struct traits *t, const struct trait *trait)
{
	if (t->cb != NULL)
		t->cb(t->data, trait);
}

/* All that a member said in lives before this. */
static void drop_lives(struct traits *t, const struct gossip_id *id,
		       uint64_t before)
{
	const struct sb_source *src;
	size_t at = 0;

	while ((src = sb_next(t->sb, &at)) != NULL)
		while (gossip_id_equal(&src->id, id) && src->life < before &&
		       src->first != NULL)
			sb_drop(t->sb, src->first);
}

/* Newest life first, then the newest version: within a member's sources only,
 * so no stamps are needed. */
static bool is_newer(const struct sb_record *r, const struct sb_record *old)
{
	return r->source->life != old->source->life
		       ? r->source->life > old->source->life
		       : r->version > old->version;
}

static bool on_apply(void *user, struct sb_record *r, bool is_fresh)
{
	struct traits *t = user;
	struct trait trait;

	(void)is_fresh;
	if (!read_body(r, &trait))
		return false;
	struct speaker *sp = speaker_of(t, trait.id);
	if (r->source->life < sp->life)
		return false;
	struct sb_record *old = find(t, &trait);
	if (old != NULL && !is_newer(r, old))
		return false;
	if (old == NULL)
		index_put(&t->keys, hash_key(t, &trait), r);
	else
		index_replace(&t->keys, hash_key(t, &trait), old, r);
	if (!r->is_tomb || (old != NULL && !old->is_tomb))
		announce(t, &trait);
	if (old != NULL)
		sb_drop(t->sb, old);
	if (r->source->life > sp->life) {
		sp->life = r->source->life;
		drop_lives(t, trait.id, sp->life);
	}
	return true;
}

static void on_drop(void *user, struct sb_record *r)
{
	struct traits *t = user;
	struct trait trait;

	read_body(r, &trait);
	if (find(t, &trait) != r)
		return; /* it was replaced */
	index_remove(&t->keys, hash_key(t, &trait), r);
	trait.value = NULL;
	trait.value_len = 0;
	if (!r->is_tomb)
		announce(t, &trait);
}

static int write_trait(struct traits *t, const struct trait *trait)
{
	uint8_t body[1 + NAME_BYTES_MAX + TRAITS_VALUE_MAX];
	struct bytes_out out = bytes_out_of(body, sizeof(body));

	bytes_put_u8(&out, (uint8_t)trait->key_len);
	bytes_put(&out, trait->key, trait->key_len);
	bytes_put(&out, trait->value, trait->value_len);
	assert(!out.full);
	return sb_write(t->sb, body, out.len, trait->value == NULL);
}

/* A new life must say again what the former one said: its first word drops it
 * all. So all of it is copied first. */
static void on_reborn(void *user)
{
	struct traits *t = user;
	const struct gossip_id *id = &sb_own(t->sb)->id;
	struct trait trait, *said = xcalloc(t->keys.n + 1, sizeof(*said));
	size_t at = 0, n = 0;

	while (traits_next(t, &at, &trait)) {
		if (!gossip_id_equal(trait.id, id))
			continue;
		char *copy = xmalloc(trait.key_len + trait.value_len);
		memcpy(copy, trait.key, trait.key_len);
		memcpy(copy + trait.key_len, trait.value, trait.value_len);
		trait.key = copy;
		trait.value = (uint8_t *)copy + trait.key_len;
		said[n++] = trait;
	}
	for (size_t i = 0; i < n; i++) {
		write_trait(t, &said[i]); /* full: then it is said no more */
		free((void *)said[i].key);
	}
	free(said);
}

static const struct sb_class class = {.apply = on_apply,
				      .drop = on_drop,
				      .reborn = on_reborn,
				      .channel = TRAITS_CHANNEL};

struct traits *traits_create(const struct sb_config *config,
			     const struct sb_self *self, traits_cb cb,
			     void *data)
{
	struct traits *t = xcalloc(1, sizeof(*t));

	t->seed = self->seed * 0x9e3779b97f4a7c15;
	t->cb = cb;
	t->data = data;
	t->sb = sb_create(config, &class, t, self);
	return t;
}

void traits_destroy(struct traits *t)
{
	if (t == NULL)
		return;
	sb_destroy(t->sb);
	for (size_t i = 0; i < t->speakers.cap; i++)
		free(t->speakers.slots[i].item);
	index_finish(&t->speakers);
	index_finish(&t->keys);
	free(t);
}

struct sb *traits_sb(const struct traits *t)
{
	return t->sb;
}

static bool is_said(const struct traits *t, const struct trait *trait)
{
	struct trait now;
	struct sb_record *r = find(t, trait);

	if (r == NULL || r->source != sb_own(t->sb))
		return false;
	return read_body(r, &now) && !r->is_tomb &&
	       now.value_len == trait->value_len &&
	       memcmp(now.value, trait->value, now.value_len) == 0;
}

int traits_set(struct traits *t, const char *key, const void *value,
	       size_t value_len)
{
	struct trait trait = {.id = &sb_own(t->sb)->id,
			      .key = key,
			      .key_len = strlen(key),
			      .value = value_len > 0 ? value : "",
			      .value_len = value_len};

	if (!name_is_good(key, trait.key_len))
		return -EINVAL;
	if (value_len > TRAITS_VALUE_MAX)
		return -EFBIG;
	return is_said(t, &trait) ? 0 : write_trait(t, &trait);
}

int traits_delete(struct traits *t, const char *key)
{
	struct trait trait;

	if (!traits_get(t, &sb_own(t->sb)->id, key, &trait))
		return -ENOENT;
	return write_trait(t,
			   &(struct trait){.key = key, .key_len = strlen(key)});
}

bool traits_get(const struct traits *t, const struct gossip_id *id,
		const char *key, struct trait *trait)
{
	struct trait wanted = {.id = id, .key = key, .key_len = strlen(key)};
	struct sb_record *r = find(t, &wanted);

	return r != NULL && !r->is_tomb && read_body(r, trait);
}

bool traits_next(const struct traits *t, size_t *cursor, struct trait *trait)
{
	while (*cursor < t->keys.cap) {
		struct sb_record *r = t->keys.slots[(*cursor)++].item;
		if (r != NULL && !r->is_tomb)
			return read_body(r, trait);
	}
	return false;
}

void traits_forget(struct traits *t, const struct gossip_id *id)
{
	drop_lives(t, id, UINT64_MAX);
}

/* SPDX-License-Identifier: MIT */
/* A record's body:
 *
 *	0  counter     8
 *	8  key length  1   1 to 255
 *	9  key
 *	   value           to the end; of a tombstone: empty */
#include "gossip/model.h"

#include <assert.h>
#include <errno.h>
#include <xxhash.h>

#include "gossip/index.h"
#include "gossip/name.h"
#include "gossip/stamp.h"

struct model {
	struct sb *sb;
	struct index keys; /* the newest record of each, tombstones too */
	uint64_t seed;
	uint64_t clock; /* the highest counter seen */
	model_change_cb cb;
	void *data;
};

static bool read_body(const struct sb_record *r, struct model_view *view)
{
	struct bytes_in in = bytes_in_of(r->body, r->len);

	*view = (struct model_view){.source = r->source};
	view->counter = bytes_u64(&in);
	view->key_len = bytes_u8(&in);
	view->key = (const char *)bytes_take(&in, view->key_len);
	view->value_len = bytes_left(&in);
	if (in.bad || !name_is_good(view->key, view->key_len) ||
	    view->value_len > MODEL_VALUE_MAX)
		return false;
	view->value = r->is_tomb ? NULL : in.at;
	return !r->is_tomb || view->value_len == 0;
}

static uint64_t hash_key(const struct model *m, const char *key, size_t len)
{
	return XXH3_64bits_withSeed(key, len, m->seed);
}

static struct sb_record *find(const struct model *m, const char *key,
			      size_t len)
{
	uint64_t hash = hash_key(m, key, len);
	struct model_view view;
	struct sb_record *r;

	for (size_t at = index_begin(&m->keys, hash);
	     (r = index_next(&m->keys, hash, &at)) != NULL;)
		if (read_body(r, &view) && view.key_len == len &&
		    memcmp(view.key, key, len) == 0)
			return r;
	return NULL;
}

static void announce(const struct model *m, const struct model_view *view)
{
	if (m->cb != NULL)
		m->cb(m->data, view);
}

static bool on_apply(void *user, struct sb_record *r, bool is_fresh)
{
	struct model *m = user;
	struct model_view view;

	(void)is_fresh;
	if (!read_body(r, &view) || !stamp_see(&m->clock, view.counter))
		return false;
	uint64_t hash = hash_key(m, view.key, view.key_len);
	struct sb_record *old = find(m, view.key, view.key_len);
	if (old != NULL && stamp_compare(r, old) < 0) {
		sb_outlives(m->sb, old);
		return false;
	}
	if (old == NULL)
		index_put(&m->keys, hash, r);
	else
		index_replace(&m->keys, hash, old, r);
	if (!r->is_tomb || (old != NULL && !old->is_tomb))
		announce(m, &view);
	if (old != NULL)
		sb_drop(m->sb, old);
	return true;
}

static void on_drop(void *user, struct sb_record *r)
{
	struct model *m = user;
	struct model_view view;

	read_body(r, &view);
	if (find(m, view.key, view.key_len) != r)
		return; /* it was replaced */
	index_remove(&m->keys, hash_key(m, view.key, view.key_len), r);
	view.value = NULL;
	view.value_len = 0;
	if (!r->is_tomb)
		announce(m, &view);
}

static const struct sb_class class = {.apply = on_apply,
				      .drop = on_drop,
				      .channel = MODEL_CHANNEL};

struct model *model_create(const struct sb_config *config,
			   const struct sb_self *self, model_change_cb cb,
			   void *data)
{
	struct model *m = xcalloc(1, sizeof(*m));

	m->seed = self->seed * 0x9e3779b97f4a7c15;
	m->cb = cb;
	m->data = data;
	m->sb = sb_create(config, &class, m, self);
	return m;
}

void model_destroy(struct model *m)
{
	if (m == NULL)
		return;
	sb_destroy(m->sb);
	index_finish(&m->keys);
	free(m);
}

struct sb *model_sb(const struct model *m)
{
	return m->sb;
}

static int write_value(struct model *m, const char *key, size_t key_len,
		       const void *value, size_t value_len)
{
	size_t len = 9 + key_len + value_len;
	uint8_t *body = xmalloc(len);
	struct bytes_out out = bytes_out_of(body, len);

	bytes_put_u64(&out, m->clock + 1);
	bytes_put_u8(&out, (uint8_t)key_len);
	bytes_put(&out, key, key_len);
	bytes_put(&out, value, value_len);
	assert(!out.full && out.len == len);
	int rc = sb_write(m->sb, body, len, value == NULL);
	free(body);
	return rc;
}

int model_set(struct model *m, const char *key, size_t key_len,
	      const void *value, size_t value_len)
{
	if (!name_is_good(key, key_len))
		return -EINVAL;
	if (value_len > MODEL_VALUE_MAX)
		return -EFBIG;
	return write_value(m, key, key_len, value != NULL ? value : "",
			   value_len);
}

int model_delete(struct model *m, const char *key, size_t key_len)
{
	struct model_view view;

	if (!model_get(m, key, key_len, &view))
		return -ENOENT;
	return write_value(m, key, key_len, NULL, 0);
}

bool model_get(const struct model *m, const char *key, size_t key_len,
	       struct model_view *view)
{
	struct sb_record *r = find(m, key, key_len);

	return r != NULL && !r->is_tomb && read_body(r, view);
}

bool model_next(const struct model *m, size_t *cursor, struct model_view *view)
{
	while (*cursor < m->keys.cap) {
		struct sb_record *r = m->keys.slots[(*cursor)++].item;
		if (r != NULL && !r->is_tomb)
			return read_body(r, view);
	}
	return false;
}

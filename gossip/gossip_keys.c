/* SPDX-License-Identifier: MIT */
/* The cluster's keys, the same on all members in the end (K1 to K5).
 *
 * Every member says which keys it has, the one it seals with first, as the
 * trait "key-ids": 8 bytes each, little-endian. A *wish* is what this process
 * was told to bring about; as long as a member's trait says that it has not
 * been done there, it is asked again, every two seconds (NET_KEYS; integers
 * little-endian):
 *
 *	0  format  1   1
 *	1  verb    1   enum key_verb
 *	2  id      8   of the key
 *	10 key    32   ADD: the key itself
 *
 * Only over streams that are sealed. What was asked for is done if it can be
 * done without locking anybody out, by the same rules as the command; else it
 * comes again. The file is written first: a key that we say to have, we have.
 *
 * A member that was away comes back with the keys that it had. So a key is used
 * only when all known members have it, and removed only when none of them was
 * last heard to seal with it: the dead, and those that left, too, until they
 * are forgotten. Two who wish for the opposite at the same time: each carries
 * out the other's, and both have had their way; it has to be said again. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "gossip/gossip_impl.h"

#define FORMAT	  1
#define MSG_BYTES (10 + SEAL_KEY_BYTES)

enum key_verb {
	KEY_ADD = 1,
	KEY_USE = 2,
	KEY_REMOVE = 3,
};

/* ---- Who has what ---- */

static bool is_here(const struct gossip *g, uint64_t id, bool *is_used)
{
	struct seal_key_view view;
	size_t at = 0;

	while (seal_key_next(g->lobby_seal, &at, &view))
		if (view.id == id) {
			*is_used = view.is_used;
			return true;
		}
	*is_used = false;
	return false;
}

struct claim {
	bool has, uses;
};

/* What a member says about a key. */
static struct claim claim_of(const struct gossip *g, const struct gossip_id *id,
			     uint64_t key)
{
	struct claim c = {0};
	struct trait trait;

	if (!traits_get(g->traits, id, WORD_KEYS, &trait))
		return c;
	struct bytes_in in = bytes_in_of(trait.value, trait.value_len);
	for (bool is_first = true; bytes_left(&in) >= 8; is_first = false) {
		bool is_it = bytes_u64(&in) == key;
		c.has |= is_it;
		c.uses |= is_it && is_first;
	}
	return c;
}

/* The next of the others that are known, whatever their state. */
static bool next_other(const struct gossip *g, uint32_t *at,
		       struct swim_view *view)
{
	while (swim_next(g->swim, at, view))
		if (view->status != WIRE_FORGOTTEN &&
		    !gossip_id_equal(&view->facts->id, &g->config.self))
			return true;
	return false;
}

static bool does_somebody_use(const struct gossip *g, uint64_t id)
{
	struct swim_view view;
	uint32_t at = 0;

	while (next_other(g, &at, &view))
		if (claim_of(g, &view.facts->id, id).uses)
			return true;
	return false;
}

static bool has_somebody(const struct gossip *g, uint64_t id)
{
	struct swim_view view;
	uint32_t at = 0;

	while (next_other(g, &at, &view))
		if (claim_of(g, &view.facts->id, id).has)
			return true;
	return false;
}

/* ---- What we have ---- */

/* Our keys, the one in use first; the caller wipes them. */
static size_t get_keys(const struct gossip *g,
		       struct seal_key keys[SEAL_KEYS_MAX])
{
	struct seal_key_view view;
	size_t n = 0;

	for (unsigned rest = 0; rest < 2; rest++)
		for (size_t at = 0; seal_key_next(g->lobby_seal, &at, &view);)
			if (view.is_used != rest &&
			    seal_key_get(g->lobby_seal, view.id, &keys[n]) == 0)
				n++;
	return n;
}

void gossip_keys_heard(struct gossip *g, const struct trait *trait)
{
	struct bytes_in in = bytes_in_of(trait->value, trait->value_len);
	uint64_t ids[SEAL_KEYS_MAX];
	size_t n = 0;

	while (n < SEAL_KEYS_MAX && bytes_left(&in) >= 8)
		ids[n++] = bytes_u64(&in);
	if (!gossip_id_equal(trait->id, &g->config.self))
		seal_confirm(g->seal, trait->id, ids, n);
}

void gossip_keys_meet(struct gossip *g, const struct gossip_id *id)
{
	struct trait trait;

	if (traits_get(g->traits, id, WORD_KEYS, &trait))
		gossip_keys_heard(g, &trait);
}

/* What was said of a key before we had it counts from now on. */
static void meet_all_again(struct gossip *g)
{
	struct swim_view view;
	uint32_t at = 0;

	while (next_other(g, &at, &view))
		gossip_keys_meet(g, &view.facts->id);
}

void gossip_keys_say(struct gossip *g)
{
	struct seal_key keys[SEAL_KEYS_MAX];
	uint8_t ids[SEAL_KEYS_MAX * 8];
	struct bytes_out out = bytes_out_of(ids, sizeof(ids));
	size_t n = get_keys(g, keys);

	if (g->phase != PHASE_MEMBER)
		return;
	for (size_t i = 0; i < n; i++)
		bytes_put_u64(&out, seal_key_id(&keys[i]));
	seal_wipe(keys, sizeof(keys));
	assert(!out.full);
	traits_set(g->traits, WORD_KEYS, ids, out.len);
	gossip_traits_done(g);
	meet_all_again(g);
}

/* The ring has changed. */
static void changed(struct gossip *g, const char *what, uint64_t id)
{
	gossip_log(g, 5, "key %016llx: %s", (unsigned long long)id, what);
	gossip_keys_say(g);
	if (g->phase != PHASE_IDLE)
		net_reseal(g->net);
}

static int save(const struct gossip *g, const struct seal_key *keys, size_t n)
{
	return g->config.key_file != NULL
		       ? keyring_save(g->config.key_file, keys, n)
		       : -EOPNOTSUPP;
}

static int add(struct gossip *g, const struct seal_key *key)
{
	struct seal_key keys[SEAL_KEYS_MAX + 1];
	uint64_t id = seal_key_id(key);
	bool is_used;

	if (is_here(g, id, &is_used))
		return -EEXIST;
	size_t n = get_keys(g, keys);
	int rc = n < SEAL_KEYS_MAX ? 0 : -ENOSPC;
	if (rc == 0) {
		keys[n] = *key;
		rc = save(g, keys, n + 1);
	}
	seal_wipe(keys, sizeof(keys));
	if (rc != 0)
		return rc;
	seal_add(g->lobby_seal, key);
	if (g->seal != NULL)
		seal_add(g->seal, key);
	changed(g, "added", id);
	return 0;
}

/* The keys to be written: the one with that id first, or without it. */
static int save_but(struct gossip *g, uint64_t id, bool is_first)
{
	struct seal_key all[SEAL_KEYS_MAX], keys[SEAL_KEYS_MAX];
	size_t n_all = get_keys(g, all), n = 0;

	if (is_first && seal_key_get(g->lobby_seal, id, &keys[0]) == 0)
		n = 1;
	for (size_t i = 0; i < n_all; i++)
		if (seal_key_id(&all[i]) != id)
			keys[n++] = all[i];
	int rc = save(g, keys, n);
	seal_wipe(all, sizeof(all));
	seal_wipe(keys, sizeof(keys));
	return rc;
}

static int use(struct gossip *g, uint64_t id)
{
	struct gossip_id member;
	size_t at = 0;
	bool is_used;

	if (!is_here(g, id, &is_used))
		return -ENOENT;
	if (is_used)
		return 0;
	if (g->seal != NULL && seal_lacks_next(g->seal, id, &at, &member))
		return -EBUSY;
	int rc = save_but(g, id, true);
	if (rc != 0)
		return rc;
	seal_use_by_force(g->lobby_seal, id);
	if (g->seal != NULL)
		seal_use_by_force(g->seal, id);
	changed(g, "used", id);
	return 0;
}

static uint64_t used_key(const struct gossip *g)
{
	struct seal_key_view view;
	size_t at = 0;

	while (seal_key_next(g->lobby_seal, &at, &view))
		if (view.is_used)
			return view.id;
	return 0;
}

static int remove_key(struct gossip *g, uint64_t id)
{
	struct gossip_id member;
	size_t at = 0;
	bool is_used;

	if (!is_here(g, id, &is_used))
		return -ENOENT;
	if (is_used || does_somebody_use(g, id))
		return -EBUSY;
	if (g->seal != NULL &&
	    seal_lacks_next(g->seal, used_key(g), &at, &member))
		return -EBUSY;
	int rc = save_but(g, id, false);
	if (rc != 0)
		return rc;
	rc = seal_remove(g->lobby_seal, id);
	assert(rc == 0); /* it knows no members */
	if (g->seal != NULL)
		rc = seal_remove(g->seal, id);
	assert(rc == 0); /* as was looked at above */
	changed(g, "removed", id);
	return 0;
}

/* ---- Wishes ---- */

static void drop_wish(struct gossip *g, unsigned i)
{
	g->wishes[i] = g->wishes[--g->n_wishes];
}

/* Somebody wishes this now: what was wished before, and is the opposite, is
 * over. */
static void forget_wishes(struct gossip *g, const struct wish *by)
{
	for (unsigned i = g->n_wishes; i-- > 0;) {
		const struct wish *w = &g->wishes[i];
		bool is_other_use = w->verb == KEY_USE && by->verb == KEY_USE;
		bool is_one_removal =
			(w->verb == KEY_REMOVE) != (by->verb == KEY_REMOVE);

		if (is_other_use || (w->id == by->id && is_one_removal))
			drop_wish(g, i);
	}
}

static void wish_for(struct gossip *g, uint8_t verb, uint64_t id)
{
	struct wish wish = {.verb = verb, .id = id};

	forget_wishes(g, &wish);
	for (unsigned i = g->n_wishes; i-- > 0;)
		if (g->wishes[i].verb == verb && g->wishes[i].id == id)
			drop_wish(g, i);
	if (g->n_wishes == WISHES_MAX) { /* the oldest */
		memmove(g->wishes, g->wishes + 1,
			(WISHES_MAX - 1) * sizeof(wish));
		g->n_wishes--;
	}
	g->wishes[g->n_wishes++] = wish;
	gossip_keys_repeat(g);
}

static bool is_granted(const struct gossip *g, const struct wish *w,
		       const struct gossip_id *id)
{
	struct claim c = claim_of(g, id, w->id);

	switch (w->verb) {
	case KEY_ADD:
		return c.has;
	case KEY_USE:
		return c.uses;
	default:
		return !c.has;
	}
}

static void send_wish(struct gossip *g, const struct wish *w,
		      const struct facts *to)
{
	uint8_t bytes[MSG_BYTES];
	struct bytes_out out = bytes_out_of(bytes, sizeof(bytes));
	struct seal_key key;

	bytes_put_u8(&out, FORMAT);
	bytes_put_u8(&out, w->verb);
	bytes_put_u64(&out, w->id);
	if (w->verb == KEY_ADD) {
		if (seal_key_get(g->lobby_seal, w->id, &key) != 0)
			return; /* removed since: the wish is for nothing */
		bytes_put(&out, key.b, sizeof(key.b));
		seal_key_wipe(&key);
	}
	assert(!out.full);
	net_send(g->net, &to->addr, &to->id, GOSSIP_URGENT, NET_KEYS, bytes,
		 out.len);
	seal_wipe(bytes, sizeof(bytes));
}

void gossip_keys_repeat(struct gossip *g)
{
	/* In the clear nothing of this leaves. */
	if (g->phase != PHASE_MEMBER || g->config.seal == GOSSIP_CLEAR)
		return;
	for (unsigned i = 0; i < g->n_wishes; i++) {
		struct swim_view view;
		uint32_t at = 0;

		while (next_other(g, &at, &view))
			if (view.is_verified && view.status <= WIRE_SUSPECT &&
			    !is_granted(g, &g->wishes[i], &view.facts->id))
				send_wish(g, &g->wishes[i], view.facts);
	}
}

void gossip_keys_recv(struct gossip *g, const struct net_from *from,
		      struct bytes_in in)
{
	struct seal_key key;
	unsigned format = bytes_u8(&in);
	struct wish w = {.verb = bytes_u8(&in), .id = bytes_u64(&in)};
	int rc = 0;

	if (in.bad || format != FORMAT || !from->is_sealed)
		return;
	gossip_members_sweep(g);
	forget_wishes(g, &w);
	if (w.verb == KEY_ADD) {
		bytes_copy(&in, key.b, sizeof(key.b));
		if (!in.bad && seal_key_id(&key) == w.id)
			rc = add(g, &key);
		seal_key_wipe(&key);
	} else if (w.verb == KEY_USE) {
		rc = use(g, w.id);
	} else if (w.verb == KEY_REMOVE) {
		rc = remove_key(g, w.id);
	}
	/* The others come again, until they are done. */
	if (rc != 0 && rc != -EEXIST && rc != -ENOENT && rc != -EBUSY)
		gossip_log(g, 4, "cannot write the key file '%s': %s",
			   g->config.key_file != NULL ? g->config.key_file : "",
			   strerror(-rc));
}

/* ---- The commands ---- */

bool gossip_key_next(const struct gossip *g, size_t *cursor,
		     struct gossip_key *out)
{
	struct seal_key_view view;

	if (!seal_key_next(g->seal != NULL ? g->seal : g->lobby_seal, cursor,
			   &view))
		return false;
	*out = (struct gossip_key){
		.id = view.id, .is_used = view.is_used, .n_lack = view.n_lack};
	return true;
}

static int key_from(const char *text, struct seal_key *key)
{
	struct seal_key keys[SEAL_KEYS_MAX];
	unsigned line;
	size_t n;

	if (text == NULL)
		return seal_key_make(key);
	int rc = seal_file_parse(text, strlen(text), keys, &n, &line);
	*key = keys[0];
	seal_wipe(keys, sizeof(keys));
	return rc == 0 && n == 1 ? 0 : -EINVAL;
}

int gossip_key_add(struct gossip *g, const char *text, uint64_t *id)
{
	struct seal_key key = {{0}};
	int rc = key_from(text, &key);

	*id = 0;
	if (rc == 0) {
		*id = seal_key_id(&key);
		rc = add(g, &key);
	}
	seal_key_wipe(&key);
	if (rc == 0 || rc == -EEXIST)
		wish_for(g, KEY_ADD, *id);
	return rc;
}

static void look_again(struct gossip *g)
{
	if (g->phase == PHASE_MEMBER)
		gossip_members_sweep(g);
}

int gossip_key_use(struct gossip *g, uint64_t id)
{
	look_again(g);
	int rc = use(g, id);
	if (rc == 0)
		wish_for(g, KEY_USE, id);
	return rc;
}

int gossip_key_remove(struct gossip *g, uint64_t id)
{
	look_again(g);
	int rc = remove_key(g, id);
	if (rc == -ENOENT && has_somebody(g, id))
		rc = 0; /* it remains to be done elsewhere */
	if (rc == 0)
		wish_for(g, KEY_REMOVE, id);
	return rc;
}

/* ---- Life ---- */

int gossip_keys_load(struct gossip *g, char errmsg[GOSSIP_ERRMSG_SIZE])
{
	struct seal_key keys[SEAL_KEYS_MAX];
	const char *path = g->config.key_file;
	size_t n = 0;
	int rc = 0;

	if (path == NULL && g->config.seal == GOSSIP_CLEAR)
		return 0;
	rc = keyring_load(path != NULL ? path : "", keys, &n, errmsg);
	if (rc == -EISDIR || rc == -EBADMSG || rc == -EPROTONOSUPPORT ||
	    rc == -E2BIG)
		rc = -EINVAL; /* errmsg tells them apart */
	if (rc == -ENOKEY && g->config.seal == GOSSIP_CLEAR)
		return 0;
	for (size_t i = 0; rc == 0 && i < n; i++)
		seal_add(g->lobby_seal, &keys[i]); /* one twice: once */
	seal_wipe(keys, sizeof(keys));
	return rc;
}

/* SPDX-License-Identifier: MIT */
/* The key machine against a plain model of it: random entries, several nodes,
 * both claims modes, nodes going up and down. Every answer, every event, every
 * list and every field of every key is compared after each entry; a replica
 * that applies the same entries, and is now and then replaced by one loaded
 * from the store, must have the same hash.
 *
 * keyset_model_test [SEED [OPERATIONS]] */
#include <errno.h>
#include <inttypes.h>

#include "ring/place.h"
#include "tests/unit/mem_store.h"

enum {
	N_NAMES = 40,
	N_NODES = 5,
	N_VNODES = 32,
	MAX_OPS = 6,
	MAX_ITEMS = 4,
	MAX_ATTEMPTS = 3,
	NOTE_SIZE = 12,
};

/* ---- The model: one array of keys, one of nodes, and no index ---- */

struct mkey {
	bool there;
	uint64_t id, token, claimed, since, noted;
	uint32_t holder, from, claimer, uid, backoff, attempts;
	int state, reason, submitting;
	char note[NOTE_SIZE];
	uint32_t note_len;
	uint32_t n_notes; /* so that the same note again is a change */
};

struct manswer {
	uint64_t seq;
	size_t n;
	struct keyset_answer a[MAX_OPS];
};

struct mnode {
	bool known, up;
	struct ring_id id, life;
	uint64_t boot, epoch, floor, next_seq;
	uint32_t weight, index;
	int name;
	struct manswer row[KEYSET_WINDOW];
};

struct expected {
	struct keyset_origin origin;
	int rc;
	size_t n;
	struct keyset_answer a[MAX_OPS];
};

static struct mkey keys[N_NAMES];
static struct mnode nodes[N_NODES];
static uint32_t owners[N_VNODES]; /* by the machine's index */
static char names[N_NAMES][16];
static uint32_t vnode_of[N_NAMES];
static enum ring_claims claims;
static uint64_t counter, index_now, wall;
static uint32_t n_known;

static struct expected want[MAX_ITEMS];
static size_t n_want, n_got;
static unsigned changes_want[N_NAMES], changes_got[N_NAMES];
static struct mkey shadow[N_NAMES]; /* as the events tell it */

static uint64_t seed;

static uint64_t below(uint64_t n)
{
	return check_random(&seed) % n;
}

static void count_changes(const struct mkey before[N_NAMES])
{
	for (int i = 0; i < N_NAMES; i++)
		if (memcmp(&before[i], &keys[i], sizeof(keys[i])) != 0)
			changes_want[i]++;
}

static bool working(const struct mkey *key, uint32_t node)
{
	return (key->state == RING_HELD || key->state == RING_RELEASING) &&
	       key->holder == node;
}

static void model_park(struct mkey *key)
{
	key->from = key->holder;
	key->holder = RING_NONE;
	key->state = RING_PARKED;
	key->token = ++counter;
	key->backoff = 0;
	key->since = wall;
}

static int model_create(uint32_t node, const struct ring_op *op, int i)
{
	struct mkey *key = &keys[i];
	uint32_t owner = owners[vnode_of[i]];

	if (key->there)
		return -EEXIST;
	if (op->type == RING_CLAIM && claims == RING_CLAIMS_OWNER &&
	    owner != node)
		return -EREMOTE;
	memset(key, 0, sizeof(*key));
	key->there = true;
	key->id = key->token = ++counter;
	key->claimed = key->since = key->noted = wall;
	key->claimer = node;
	key->from = RING_NONE;
	key->uid = op->uid;
	key->note_len = op->note_len;
	if (op->note_len > 0)
		memcpy(key->note, op->note, op->note_len);
	key->submitting = op->type == RING_SUBMIT;
	key->holder = op->type == RING_SUBMIT ? owner : node;
	key->state = op->type == RING_SUBMIT ? RING_OFFERED : RING_HELD;
	key->reason = op->type == RING_SUBMIT ? RING_SUBMITTED : RING_CLAIMED;
	return 0;
}

static int model_give(struct mkey *key)
{
	static const uint32_t ms[] = {1000, 1000, 2000, 4000};

	if (key->attempts >= MAX_ATTEMPTS) {
		model_park(key);
	} else {
		key->state = RING_OFFERED;
		key->backoff = ms[key->attempts];
		key->since = wall;
	}
	key->reason = RING_GIVEN_BACK;
	return 0;
}

static void model_offer_to_heir(struct mkey *key, int i, int reason)
{
	if (key->holder != RING_NONE)
		key->from = key->holder;
	key->holder = owners[vnode_of[i]];
	key->state = RING_OFFERED;
	key->reason = reason;
	key->token = ++counter;
	key->since = wall;
}

static int model_op(uint32_t node, const struct ring_op *op, int i)
{
	struct mkey *key = &keys[i];
	bool mine = key->there && working(key, node);
	bool offered = key->there && key->state == RING_OFFERED &&
		       key->holder == node && !key->submitting;
	bool submitter = key->there && key->submitting && key->claimer == node;

	if (op->type == RING_CLAIM || op->type == RING_SUBMIT)
		return model_create(node, op, i);
	if (!key->there || (op->id != 0 && op->id != key->id) ||
	    (op->token != 0 && op->token != key->token))
		return -ENOENT;
	switch (op->type) {
	case RING_OFFER:
		if (!submitter)
			return -ENOENT;
		key->submitting = 0;
		key->since = wall;
		return 0;
	case RING_NOTE:
		if (!mine && !submitter)
			return -ENOENT;
		memset(key->note, 0, sizeof(key->note));
		key->note_len = op->note_len;
		if (op->note_len > 0)
			memcpy(key->note, op->note, op->note_len);
		key->noted = wall;
		key->n_notes++;
		return 0;
	case RING_TAKE:
		if (!offered)
			return -ENOENT;
		key->state = RING_HELD;
		if (claims == RING_CLAIMS_OWNER &&
		    owners[vnode_of[i]] != node &&
		    owners[vnode_of[i]] != RING_NONE)
			key->state = RING_RELEASING;
		key->uid = op->uid;
		key->token = ++counter;
		key->attempts++;
		key->backoff = 0;
		key->since = wall;
		return 0;
	case RING_GIVE:
		return mine ? model_give(key) : -ENOENT;
	case RING_PARK:
		if (!mine && !offered)
			return -ENOENT;
		model_park(key);
		return 0;
	case RING_RETRY:
		if (key->state != RING_PARKED)
			return -ENOENT;
		model_offer_to_heir(key, i, RING_RETRIED);
		key->attempts = 0;
		return 0;
	case RING_LET:
		if (!mine || key->state != RING_RELEASING)
			return -ENOENT;
		model_offer_to_heir(key, i, RING_MOVED);
		return 0;
	case RING_FINISH:
		if (key->submitting
			    ? !submitter
			    : key->state != RING_PARKED && key->holder != node)
			return -EREMOTE;
		key->there = false;
		return 0;
	default:
		check(false, "no such operation");
		return 0;
	}
}

static int find_name(const char *name)
{
	for (int i = 0; i < N_NAMES; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

static struct keyset_answer model_answer(uint32_t node,
					 const struct ring_op *op)
{
	int i = find_name(op->name);
	struct mkey before[N_NAMES];
	struct keyset_answer a = {0};

	memcpy(before, keys, sizeof(keys));
	if (i < 0)
		return (struct keyset_answer){.rc = -EINVAL};
	a.rc = model_op(node, op, i);
	if (a.rc != -ENOENT && (keys[i].there || op->type == RING_FINISH)) {
		a.id = keys[i].id;
		a.token = keys[i].token;
	}
	if (!keys[i].there)
		memset(&keys[i], 0, sizeof(keys[i]));
	count_changes(before);
	return a;
}

static struct mnode *model_find(const struct ring_id *id)
{
	for (int i = 0; i < N_NODES; i++)
		if (nodes[i].known &&
		    memcmp(&nodes[i].id, id, sizeof(*id)) == 0)
			return &nodes[i];
	return NULL;
}

static int model_refuses(struct mnode *n, const struct keyset_origin *o)
{
	if (n == NULL)
		return -ENOTCONN;
	if (o->boot < n->boot)
		return -ESTALE;
	if (!n->up || o->boot > n->boot || o->epoch != n->epoch)
		return -ENOTCONN;
	if (o->floor > n->floor)
		n->floor = o->floor;
	if (o->seq < n->floor)
		return -ESTALE;
	return o->seq >= n->floor + KEYSET_WINDOW ? -EAGAIN : 0;
}

static void model_request(const struct keyset_origin *o,
			  const struct ring_op *ops, size_t n_ops)
{
	struct expected *e = &want[n_want++];
	struct mnode *n = model_find(&o->id);
	struct manswer *row;

	*e = (struct expected){.origin = *o};
	e->rc = model_refuses(n, o);
	if (e->rc != 0)
		return;
	row = &n->row[o->seq % KEYSET_WINDOW];
	if (row->seq != o->seq) {
		*row = (struct manswer){.seq = o->seq, .n = n_ops};
		for (size_t i = 0; i < n_ops; i++)
			row->a[i] = model_answer(n->index, &ops[i]);
	}
	e->n = row->n;
	memcpy(e->a, row->a, sizeof(e->a));
}

static void model_plan(uint32_t before[N_VNODES])
{
	struct place_node up[N_NODES];
	uint32_t n_up = 0;

	memcpy(before, owners, sizeof(owners));
	for (int i = 0; i < N_NODES; i++)
		if (nodes[i].known && nodes[i].up)
			up[n_up++] = (struct place_node){
				nodes[i].id, nodes[i].index, nodes[i].weight};
	place_plan(owners, N_VNODES, up, n_up);
}

/* What one key becomes when the life of gone is over. */
static void model_settle_key(int i, uint32_t gone, int reason, bool moved)
{
	struct mkey *key = &keys[i];
	uint32_t heir = owners[vnode_of[i]];
	bool held = key->state == RING_HELD || key->state == RING_RELEASING;
	bool submitted = key->submitting && key->claimer == gone;
	bool pass = false;

	if (!key->there || key->state == RING_PARKED)
		return;
	if (held && key->holder == gone) {
		pass = true;
		key->reason = reason;
		key->backoff = 0;
	} else if (held && moved && claims == RING_CLAIMS_OWNER) {
		int state = heir != RING_NONE && heir != key->holder
				    ? RING_RELEASING
				    : RING_HELD;

		if (state != key->state)
			key->since = wall;
		key->state = state;
	} else if (!held && key->holder == gone && reason != RING_RESTART) {
		pass = true;
		if (!key->submitting) {
			key->reason = reason;
			key->backoff = 0;
		}
	} else if (!held && key->holder == RING_NONE && heir != RING_NONE) {
		pass = true;
	}
	if (pass) {
		key->from = key->holder != RING_NONE ? key->holder : key->from;
		if (reason != RING_RESTART || key->holder != gone)
			key->holder = heir;
		key->state = RING_OFFERED;
		key->token = counter;
	}
	if (submitted)
		key->submitting = 0;
	if (pass || submitted)
		key->since = wall;
}

static void model_settle(struct mnode *n, int reason)
{
	uint32_t old[N_VNODES];
	struct mkey before[N_NAMES];

	memcpy(before, keys, sizeof(keys));
	counter++;
	model_plan(old);
	for (int i = 0; i < N_NAMES; i++) {
		uint32_t v = vnode_of[i];

		model_settle_key(i, n->index, reason, old[v] != owners[v]);
	}
	memset(n->row, 0, sizeof(n->row));
	n->floor = 1;
	count_changes(before);
}

static bool has_name(const struct mnode *except, int name)
{
	for (int i = 0; i < N_NODES; i++)
		if (&nodes[i] != except && nodes[i].up && nodes[i].name == name)
			return true;
	return false;
}

static void model_up(struct mnode *n, const struct keyset_up *up, int name)
{
	struct expected *e = &want[n_want++];
	bool same = n->known && up->boot == n->boot &&
		    memcmp(&up->life, &n->life, sizeof(up->life)) == 0;

	*e = (struct expected){.origin = {.id = up->id, .boot = up->boot}};
	if (has_name(n, name)) {
		e->rc = -EEXIST;
		return;
	}
	if (n->known && !same && up->boot <= n->boot) {
		e->rc = -ESTALE;
		return;
	}
	if (!same || !n->up) {
		if (!n->known)
			n->index = n_known++;
		n->known = n->up = true;
		n->name = name;
		n->life = up->life;
		n->boot = up->boot;
		n->weight = up->weight;
		n->epoch = index_now;
		model_settle(n, RING_RESTART);
	}
	e->origin.epoch = n->epoch;
}

/* ---- What the machine tells ---- */

static void on_key(void *data, struct ring_key *key,
		   const struct keyset_was *was, bool note, bool removed)
{
	int i = find_name(key->name);
	struct mkey *s = &shadow[i];

	(void)data;
	(void)note;
	check(i >= 0, "a known name");
	changes_got[i]++;
	check_int(was->existed, s->there);
	if (was->existed) {
		check_int(was->state, s->state);
		check_int(was->submitting, s->submitting);
		check_int(was->holder, s->holder);
		check_int(was->token, s->token);
	}
	s->there = !removed;
	s->state = key->state;
	s->submitting = key->submitting;
	s->holder = key->holder;
	s->token = key->token;
}

static void on_answer(void *data, const struct keyset_origin *origin, int rc,
		      const struct keyset_answer *answers, size_t n)
{
	const struct expected *e = &want[n_got++];

	(void)data;
	check(n_got <= n_want, "no answer too many");
	check(memcmp(&e->origin.id, &origin->id, sizeof(origin->id)) == 0,
	      "the right origin");
	check_int(origin->seq, e->origin.seq);
	check_int(rc, e->rc);
	if (rc == 0)
		check_int(origin->epoch, e->origin.epoch);
	check_int(n, e->n);
	for (size_t i = 0; i < n; i++) {
		check_int(answers[i].rc, e->a[i].rc);
		check_int(answers[i].id, e->a[i].id);
		check_int(answers[i].token, e->a[i].token);
	}
}

static const struct keyset_events watching = {.on_key = on_key,
					      .on_answer = on_answer};
static const struct keyset_events deaf;

/* ---- Random entries ---- */

static uint64_t some_id(const struct mkey *key, uint64_t of_key)
{
	switch (below(8)) {
	case 0:
		return key->there ? of_key : 1 + below(counter + 1);
	case 1:
		return below(16) == 0 ? 1 + below(counter + 1) : 0;
	default:
		return 0;
	}
}

static void random_op(struct ring_op *op)
{
	static const char notes[] = "a note of words";
	int i = (int)below(N_NAMES);

	*op = (struct ring_op){.type = 1 + below(RING_N_OPS - 1)};
	op->name = below(200) == 0 ? "a/b" : names[i];
	op->id = some_id(&keys[i], keys[i].id);
	op->token = some_id(&keys[i], keys[i].token);
	op->note = notes + below(4);
	op->note_len = (uint32_t)below(NOTE_SIZE);
	op->uid = (uint32_t)below(3);
}

static void random_request(struct buf *e, size_t *n_done)
{
	struct mnode *n = &nodes[below(N_NODES)];
	struct ring_op ops[MAX_OPS] = {0};
	size_t n_ops = 1 + below(MAX_OPS);
	struct keyset_origin o = {n->id, n->boot, n->epoch, 0, 0};

	for (size_t i = 0; i < n_ops; i++)
		random_op(&ops[i]);
	o.seq = n->next_seq;
	if (below(12) == 0)
		o.seq = 1 + below(n->next_seq); /* a repeat, or below */
	else if (below(500) == 0)
		o.seq += below(2 * KEYSET_WINDOW);
	else
		n->next_seq++;
	if (below(4) == 0)
		o.floor = o.seq - below(o.seq < 100 ? o.seq : 100);
	if (below(50) == 0)
		o.boot += below(3) - 1;
	if (below(50) == 0)
		o.epoch += below(3) - 1;
	keyset_put_request(e, &o, ops, n_ops);
	model_request(&o, ops, n_ops);
	*n_done += n_ops;
}

static void random_up(struct buf *e)
{
	struct mnode *n = &nodes[below(N_NODES)];
	static const char *const node_names[] = {"a", "b", "c", "d", "e"};
	uint64_t name = below(8) == 0 ? below(N_NODES) : (uint64_t)(n - nodes);
	struct keyset_up up = {
		.id = n->id, .life = n->life, .name = node_names[name]};

	up.boot = n->boot;
	up.weight = (uint32_t)below(3);
	if (below(4) != 0) { /* else the same life again */
		up.life.byte[0] = (uint8_t)below(256);
		up.life.byte[1] = (uint8_t)below(256);
		up.boot += below(8) == 0 ? 0 : 1;
		n->next_seq = 1;
	}
	keyset_put_up(e, &up);
	model_up(n, &up, (int)name);
}

static void random_down(struct buf *e)
{
	struct mnode *n = &nodes[below(N_NODES)];
	enum ring_reason reason = below(2) ? RING_DEAD : RING_LEFT;
	uint64_t boot = n->boot + (below(20) == 0);
	uint64_t epoch = n->epoch - (below(20) == 0);

	keyset_put_down(e, &n->id, boot, epoch, reason);
	if (!n->known || !n->up || boot != n->boot || epoch != n->epoch)
		return;
	n->up = false;
	n->next_seq = 1;
	model_settle(n, reason);
}

static void random_entry(struct buf *e, size_t *n_done)
{
	size_t n_items = 1 + below(MAX_ITEMS);

	e->len = 0;
	index_now += 1 + below(3);
	wall += 1 + below(1000);
	keyset_entry_begin(e, wall, wall);
	n_want = n_got = 0;
	memset(changes_want, 0, sizeof(changes_want));
	memset(changes_got, 0, sizeof(changes_got));
	for (size_t i = 0; i < n_items; i++) {
		uint64_t what = below(100);

		if (what < 2)
			random_up(e);
		else if (what < 3)
			random_down(e);
		else
			random_request(e, n_done);
	}
}

/* ---- Comparing ---- */

static void compare_key(const struct keyset *k, int i)
{
	const struct mkey *m = &keys[i];
	const struct ring_key *key = keyset_find(k, names[i], strlen(names[i]));

	check_int(changes_got[i], changes_want[i]);
	check_int(key != NULL, m->there);
	check_int(shadow[i].there, m->there);
	if (key == NULL)
		return;
	check(keyset_find_id(k, m->id) == key, "found by its life");
	check_int(key->id, m->id);
	check_int(key->token, m->token);
	check_int(shadow[i].token, m->token);
	check_int(key->state, m->state);
	check_int(key->reason, m->reason);
	check_int(key->holder, m->holder);
	check_int(key->from, m->from);
	check_int(key->claimer, m->claimer);
	check_int(key->uid, m->uid);
	check_int(key->attempts, m->attempts);
	check_int(key->backoff_ms, m->backoff);
	check_int(key->submitting, m->submitting);
	check_int(key->claimed_us, m->claimed);
	check_int(key->since_us, m->since);
	check_int(key->note_us, m->noted);
	check_int(key->vnode, vnode_of[i]);
	check_int(key->note_len, m->note_len);
	check(m->note_len == 0 || memcmp(key->note, m->note, m->note_len) == 0,
	      "the note");
}

static bool in_view(const struct mkey *key, enum ring_view view, uint32_t node)
{
	if (!key->there)
		return false;
	switch (view) {
	case RING_VIEW_KEYS:
		return true;
	case RING_VIEW_OWNED:
		return working(key, node);
	case RING_VIEW_RECOVER:
		return key->state == RING_OFFERED && key->holder == node;
	case RING_VIEW_RELEASE:
		return key->state == RING_RELEASING && key->holder == node;
	default:
		return key->state == RING_PARKED;
	}
}

static void compare_view(const struct keyset *k, enum ring_view view,
			 uint32_t node)
{
	bool seen[N_NAMES] = {false};
	size_t n, n_model = 0;
	const uint64_t *ids = keyset_list(k, view, node, &n);

	for (int i = 0; i < N_NAMES; i++)
		n_model += in_view(&keys[i], view, node);
	check_int(n, n_model);
	for (size_t i = 0; i < n; i++) {
		int name = find_name(keyset_find_id(k, ids[i])->name);

		check(in_view(&keys[name], view, node), "%s in view %d",
		      names[name], view);
		check(!seen[name], "%s is listed once", names[name]);
		seen[name] = true;
	}
}

static void compare_nodes(const struct keyset *k)
{
	uint32_t shares[N_NODES] = {0};

	for (uint32_t v = 0; v < N_VNODES; v++) {
		check_int(keyset_vnode_owner(k, v), owners[v]);
		if (owners[v] != RING_NONE)
			shares[owners[v]]++;
	}
	for (int i = 0; i < N_NODES; i++) {
		const struct mnode *m = &nodes[i];
		const struct ring_node *n;
		size_t held, offered;

		if (!m->known)
			continue;
		n = keyset_node(k, m->index);
		keyset_list(k, RING_VIEW_OWNED, m->index, &held);
		keyset_list(k, RING_VIEW_RECOVER, m->index, &offered);
		check_int(n->up, m->up);
		check_int(n->boot, m->boot);
		check_int(n->epoch, m->epoch);
		check_int(n->n_keys, held + offered);
		check_int(n->n_vnodes, shares[m->index]);
	}
}

static void compare(const struct keyset *k, bool lists)
{
	check_int(n_got, n_want);
	for (int i = 0; i < N_NAMES; i++)
		compare_key(k, i);
	if (!lists)
		return;
	compare_nodes(k);
	for (enum ring_view view = 0; view < RING_N_VIEWS; view++)
		for (uint32_t node = 0; node < n_known; node++)
			compare_view(k, view, node);
}

/* Write what changed, as a store would, sometimes failing at first; then take
 * what it loads for the replica. */
static void reload(struct keyset *k, struct keyset **replica,
		   struct mem_store *store)
{
	struct store_batch batch = {0};

	keyset_collect(k, &batch);
	if (below(3) == 0) {
		keyset_dirty_again(k, &batch);
		mem_batch_finish(&batch);
		keyset_collect(k, &batch);
	}
	mem_store_write(store, &batch);
	mem_batch_finish(&batch);
	keyset_destroy(*replica);
	*replica = mem_store_load(store, &deaf);
	check(*replica != NULL, "what was collected can be loaded");
}

static void reset(enum ring_claims mode)
{
	memset(keys, 0, sizeof(keys));
	memset(nodes, 0, sizeof(nodes));
	memset(shadow, 0, sizeof(shadow));
	claims = mode;
	counter = index_now = n_known = 0;
	wall = 1000;
	for (int i = 0; i < N_NODES; i++) {
		nodes[i].id.byte[0] = (uint8_t)(i + 1);
		nodes[i].floor = nodes[i].next_seq = 1;
	}
	for (int v = 0; v < N_VNODES; v++)
		owners[v] = RING_NONE;
	for (int i = 0; i < N_NAMES; i++) {
		snprintf(names[i], sizeof(names[i]), "key-%d", i);
		vnode_of[i] = place_vnode(names[i], strlen(names[i]), N_VNODES);
	}
}

static void begin(struct keyset *k, struct keyset *replica, struct buf *e)
{
	struct ring_settings settings = {.vnodes = N_VNODES,
					 .claims = claims,
					 .max_attempts = MAX_ATTEMPTS};
	struct ring_id cluster = {{42}};

	e->len = 0;
	keyset_entry_begin(e, wall, wall);
	keyset_put_settings(e, &cluster, &settings);
	index_now = 1;
	check_int(keyset_apply(k, 1, e->base, e->len), 0);
	check_int(keyset_apply(replica, 1, e->base, e->len), 0);
}

static void run(enum ring_claims mode, size_t n_ops)
{
	struct keyset *k = keyset_create(&watching);
	struct keyset *replica = keyset_create(&deaf);
	struct mem_store store = {0};
	struct buf e = {0};
	size_t done = 0, n_entries = 0, n_loads = 0;

	reset(mode);
	begin(k, replica, &e);
	while (done < n_ops) {
		random_entry(&e, &done);
		check_int(keyset_apply(k, index_now, e.base, e.len), 0);
		check_int(keyset_apply(replica, index_now, e.base, e.len), 0);
		compare(k, n_entries % 4 == 0);
		check(keyset_hash(k) == keyset_hash(replica),
		      "after entry %zu both hashes are equal", n_entries);
		n_entries++;
		if (below(500) == 0) {
			reload(k, &replica, &store);
			check(keyset_hash(k) == keyset_hash(replica),
			      "loaded: equal hashes");
			n_loads++;
		}
	}
	ok("claims=%s: %zu random operations in %zu entries, %zu loads: as "
	   "the model says",
	   mode == RING_CLAIMS_ANY ? "any" : "owner", done, n_entries, n_loads);
	keyset_destroy(k);
	keyset_destroy(replica);
	mem_store_finish(&store);
	free(e.base);
}

int main(int argc, char **argv)
{
	size_t n_ops = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000000;

	seed = check_seed(argc, argv);
	run(RING_CLAIMS_OWNER, n_ops / 2);
	run(RING_CLAIMS_ANY, n_ops / 2);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* The key machine against a plain model of it: random entries, several nodes,
 * both claims modes, nodes going up and down. Every answer, every event, every
 * list and every field of every key is compared after each entry; a replica
 * that applies the same entries, and is now and then replaced by one loaded
 * from the store, must have the same hash.
 *
 * keyset_model_test [SEED [OPERATIONS]] */

#include "tests/unit/keyset_model.h"

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
	up.is_client = below(8) == 0;
	up.is_draining = below(8) == 0;
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

static void random_share(struct buf *e)
{
	struct mnode *n = &nodes[below(N_NODES)];
	struct keyset_share s = {.id = n->id,
				 .boot = n->boot + (below(20) == 0),
				 .epoch = n->epoch - (below(20) == 0),
				 .weight = (uint32_t)below(3),
				 .is_draining = below(3) == 0};

	keyset_put_share(e, &s);
	if (!n->known || !n->up || s.boot != n->boot || s.epoch != n->epoch ||
	    (n->weight == s.weight && n->draining == s.is_draining))
		return;
	n->weight = s.weight;
	n->draining = s.is_draining;
	n_shares++;
	model_settle(NULL, RING_MOVED);
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
		else if (what < 5)
			random_share(e);
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

	check_int(keyset_most_up(k), most_up);
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
		check_int(n->weight, m->weight);
		check_int(n->is_client, m->client);
		check_int(n->is_draining, m->draining);
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
	counter = index_now = n_known = most_up = 0;
	n_shares = 0;
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
	check(n_shares > 0, "there were some");
	ok("claims=%s: %zu random operations in %zu entries, %zu shares, %zu "
	   "loads: as the model says",
	   mode == RING_CLAIMS_ANY ? "any" : "owner", done, n_entries, n_shares,
	   n_loads);
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

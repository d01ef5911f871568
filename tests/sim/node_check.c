/* SPDX-License-Identifier: MIT */
/* What must hold, whatever happens. After every event of a node:
 *
 * - what it shows as held or offered nobody else shows, at this instant;
 * - who shows anything is up, in that very life, in every machine that has come
 *   as far: a lease never overlaps a down.
 *
 * At every entry that any machine applies:
 *
 * - it has the same bytes as what anyone applied at that index, and leaves the
 *   same machine behind: so nothing that was committed is ever lost or changed;
 * - a request takes effect once, not if it was refused, and behind all that had
 *   been acknowledged when it was asked;
 * - a token only rises, and does whenever the holder is another;
 * - a key ends by a finish that a caller asked for; or by the ring itself, if no
 *   caller was told of it, and it never was shown.
 *
 * When a caller is answered: it is what the machine said at that index. */
#include "tests/sim/node.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define INDEXES	  (1u << 20)
#define EFFECTS	  65536u
#define LIVES	  65536u
#define KEYSETS	  32
#define KEYS_SEEN 4096

struct keyset *__real_keyset_create(const struct keyset_events *events);
struct keyset *__wrap_keyset_create(const struct keyset_events *events);
void __real_keyset_destroy(struct keyset *k);
void __wrap_keyset_destroy(struct keyset *k);
int __real_keyset_apply(struct keyset *k, uint64_t index, const void *entry,
			size_t len);
int __wrap_keyset_apply(struct keyset *k, uint64_t index, const void *entry,
			size_t len);
bool __real_lease_is_held(const struct lease *l, uint64_t now_ms);
bool __wrap_lease_is_held(const struct lease *l, uint64_t now_ms);

struct life {
	uint64_t id, token;
	bool is_over, was_shown, was_told;
	struct life *next;
};

/* A machine of a ring, with what the ring wants to hear of it. */
struct machine {
	struct keyset *keys;
	struct keyset_events events;
	struct node *node;
};

static struct {
	uint64_t *entries, *hashes; /* by index; 0: none yet */
	uint64_t top, top_told;
	struct effect *effects[EFFECTS];
	struct life *lives[LIVES];
	struct machine *machines[KEYSETS];
	/* While an entry is applied. */
	uint64_t index;
	bool is_first; /* anywhere */
	bool by_request;
	struct effect *request; /* that is carried out, of a caller or not */
	unsigned long n_instants;
} history;

void broken(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "seed %llu: broken at %.3f ms: ",
		(unsigned long long)world.seed,
		(double)world.sim.now_us / 1000);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr,
		"\nseed %llu: again with its log: sim nodes --log %llu\n",
		(unsigned long long)world.seed, (unsigned long long)world.seed);
	exit(1);
}

void check_init(void)
{
	memset(&history, 0, sizeof(history));
	history.entries = calloc(INDEXES, sizeof(*history.entries));
	history.hashes = calloc(INDEXES, sizeof(*history.hashes));
}

void check_finish(void)
{
	for (size_t i = 0; i < EFFECTS; i++)
		while (history.effects[i] != NULL) {
			struct effect *e = history.effects[i];

			history.effects[i] = e->next;
			free(e->answers);
			free(e);
		}
	for (size_t i = 0; i < LIVES; i++)
		while (history.lives[i] != NULL) {
			struct life *l = history.lives[i];

			history.lives[i] = l->next;
			free(l);
		}
	free(history.entries);
	free(history.hashes);
}

uint64_t check_top(void)
{
	return history.top;
}

struct effect *check_effect(uint32_t node, uint64_t boot, uint64_t seq)
{
	/* A node whose state is made anew begins again: boots with it. */
	uint64_t words[4] = {node, boot, seq, world.nodes[node].identity};
	struct effect **at =
		&history.effects[XXH3_64bits(words, sizeof(words)) % EFFECTS];

	for (struct effect *e = *at; e != NULL; e = e->next)
		if (e->node == node && e->boot == boot && e->seq == seq &&
		    e->state == words[3])
			return e;
	struct effect *e = calloc(1, sizeof(*e));

	*e = (struct effect){.node = node,
			     .boot = boot,
			     .seq = seq,
			     .state = (uint32_t)words[3],
			     .next = *at};
	*at = e;
	return e;
}

static struct life *find_life(uint64_t id)
{
	struct life **at = &history.lives[id % LIVES];

	for (struct life *l = *at; l != NULL; l = l->next)
		if (l->id == id)
			return l;
	struct life *l = calloc(1, sizeof(*l));

	l->id = id;
	l->next = *at;
	*at = l;
	return l;
}

/* ---- At each entry ---- */

static struct machine *find_machine(const struct keyset *k)
{
	for (size_t i = 0; i < KEYSETS; i++)
		if (history.machines[i] != NULL &&
		    history.machines[i]->keys == k)
			return history.machines[i];
	return NULL;
}

static void check_key(const struct ring_key *key, const struct keyset_was *was,
		      bool removed)
{
	struct life *l = find_life(key->id);
	const struct effect *e = history.request;

	say("at %llu, by %u.%llu.%llu: %s (life %llu, token %llu): %s%s, of "
	    "node %u",
	    (unsigned long long)history.index, e != NULL ? e->node : 0,
	    e != NULL ? (unsigned long long)e->boot : 0,
	    e != NULL ? (unsigned long long)e->seq : 0, key->name,
	    (unsigned long long)key->id, (unsigned long long)key->token,
	    removed ? "over, was " : "",
	    ring_state_name((enum ring_state)key->state), key->holder);
	if (l->is_over)
		broken("%s (life %llu) is back", key->name,
		       (unsigned long long)key->id);
	if (key->token < l->token)
		broken("%s: token %llu after %llu", key->name,
		       (unsigned long long)key->token,
		       (unsigned long long)l->token);
	if (was->existed && was->holder != key->holder &&
	    key->holder != RING_NONE && key->token == was->token)
		broken("%s changes hands with one token", key->name);
	l->token = key->token;
	l->is_over = removed;
	if (!removed)
		return;
	if (e == NULL && history.by_request)
		return; /* by one whose state is gone */
	if (e == NULL)
		broken("%s ends without a request", key->name);
	if (e->is_asked && !e->has_finish)
		broken("%s ends by a request that is no finish", key->name);
	if (!e->is_asked && (l->was_shown || l->was_told))
		broken("%s was %s, and ends by %u.%llu.%llu, of no caller",
		       key->name, l->was_shown ? "shown" : "told of", e->node,
		       (unsigned long long)e->boot, (unsigned long long)e->seq);
}

static void on_key(void *data, struct ring_key *key,
		   const struct keyset_was *was, bool note, bool removed)
{
	struct machine *m = data;

	if (history.is_first)
		check_key(key, was, removed);
	m->events.on_key(m->events.data, key, was, note, removed);
}

static struct effect *effect_of(const struct keyset_origin *o)
{
	uint32_t node = number_of(&o->id);

	/* Of a state that is gone no more is known. */
	return node != 0 ? check_effect(node, o->boot, o->seq) : NULL;
}

static void on_request(void *data, const struct keyset_origin *o)
{
	struct machine *m = data;
	struct effect *e = effect_of(o);

	if (e != NULL && history.is_first) {
		if (e->index != 0)
			broken("request %u.%llu.%llu takes effect at %llu and "
			       "at %llu",
			       e->node, (unsigned long long)e->boot,
			       (unsigned long long)e->seq,
			       (unsigned long long)e->index,
			       (unsigned long long)history.index);
		if (e->is_refused)
			broken("request %u.%llu.%llu was refused, and takes "
			       "effect at %llu",
			       e->node, (unsigned long long)e->boot,
			       (unsigned long long)e->seq,
			       (unsigned long long)history.index);
		if (!e->is_adopted && e->after >= history.index)
			broken("request %u.%llu.%llu takes effect at %llu, "
			       "before it was asked",
			       e->node, (unsigned long long)e->boot,
			       (unsigned long long)e->seq,
			       (unsigned long long)history.index);
		e->index = history.index;
	}
	history.request = e;
	history.by_request = true;
	m->events.on_request(m->events.data, o);
}

static void on_answer(void *data, const struct keyset_origin *o, int rc,
		      const struct keyset_answer *answers, size_t n)
{
	struct machine *m = data;
	struct effect *e = o->seq != 0 ? effect_of(o) : NULL;

	if (e != NULL && history.is_first && e->index == history.index) {
		e->rc = rc;
		e->n = (uint32_t)n;
		free(e->answers);
		e->answers = calloc(n + 1, sizeof(*e->answers));
		if (n > 0)
			memcpy(e->answers, answers, n * sizeof(*answers));
	}
	history.request = NULL;
	history.by_request = false;
	m->events.on_answer(m->events.data, o, rc, answers, n);
}

static void on_node(void *data, uint32_t node)
{
	struct machine *m = data;

	m->events.on_node(m->events.data, node);
}

static void on_share(void *data, uint32_t node)
{
	struct machine *m = data;

	m->events.on_share(m->events.data, node);
}

struct keyset *__wrap_keyset_create(const struct keyset_events *events)
{
	struct keyset_events ours = {.on_key = on_key,
				     .on_request = on_request,
				     .on_answer = on_answer,
				     .on_node = on_node,
				     .on_share = on_share};
	size_t i = 0;

	if (world.now == NULL || events->data == NULL)
		return __real_keyset_create(events);
	while (history.machines[i] != NULL)
		if (++i == KEYSETS)
			broken("too many machines");
	struct machine *m = calloc(1, sizeof(*m));

	ours.data = m;
	m->events = *events;
	m->node = world.now;
	m->keys = __real_keyset_create(&ours);
	history.machines[i] = m;
	return m->keys;
}

void __wrap_keyset_destroy(struct keyset *k)
{
	for (size_t i = 0; i < KEYSETS; i++)
		if (history.machines[i] != NULL &&
		    history.machines[i]->keys == k) {
			free(history.machines[i]);
			history.machines[i] = NULL;
		}
	__real_keyset_destroy(k);
}

static void note_entry(struct machine *m, uint64_t index, uint64_t sum)
{
	if (index >= INDEXES)
		broken("too many entries");
	if (history.entries[index] != 0 && history.entries[index] != sum)
		broken("%s applies another entry at %llu", m->node->name,
		       (unsigned long long)index);
	history.is_first = index > history.top;
	history.entries[index] = sum;
	history.index = index;
	if (history.is_first)
		history.top = index;
}

int __wrap_keyset_apply(struct keyset *k, uint64_t index, const void *entry,
			size_t len)
{
	struct machine *m = find_machine(k);

	if (m == NULL)
		return __real_keyset_apply(k, index, entry, len);
	note_entry(m, index, XXH3_64bits(entry, len) | 1);
	if (world.planted == PLANTED_SKIP && m->node->number == 2 &&
	    index % 100 == 99)
		return 0;
	history.request = NULL;
	history.by_request = false;
	int rc = __real_keyset_apply(k, index, entry, len);
	uint64_t hash = keyset_hash(k) | 1;

	if (rc != 0)
		broken("%s does not understand entry %llu", m->node->name,
		       (unsigned long long)index);
	if (history.hashes[index] != 0 && history.hashes[index] != hash)
		broken("%s has another machine at %llu", m->node->name,
		       (unsigned long long)index);
	history.hashes[index] = hash;
	history.is_first = false;
	history.index = 0;
	return rc;
}

bool __wrap_lease_is_held(const struct lease *l, uint64_t now_ms)
{
	uint64_t more = world.planted == PLANTED_LEASE ? l->lease_ms : 0;

	return __real_lease_is_held(l, now_ms > more ? now_ms - more : 0);
}

/* ---- After each event of a node ---- */

/* Would who looks now see anything? As ring_check() says, which is called now and
 * then only: a ring must not need readers to notice the time. All else of what it
 * says changes in events. */
static bool shows(struct node *n)
{
	const struct ring *r = n->ring;

	if (!world.plan.is_calm || one_in(64))
		return ring_check(n->ring, node_ms(n));
	return r->shows &&
	       (r->is_alone || __wrap_lease_is_held(r->lease, node_ms(n)));
}

static bool shows_key(struct node *n, const struct ring_key *key)
{
	return key->holder == n->ring->self &&
	       (ring_shows(n->ring, key, RING_VIEW_OWNED) ||
		ring_shows(n->ring, key, RING_VIEW_RECOVER) ||
		ring_shows(n->ring, key, RING_VIEW_RELEASE));
}

static void check_others(struct node *n, const struct ring_key *key)
{
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		struct node *o = &world.nodes[i];

		if (o == n || o->state != NODE_UP || o->ring == NULL ||
		    !o->ring->shows)
			continue;
		const struct ring_key *k =
			keyset_find(o->ring->keys, key->name, key->name_len);

		if (k != NULL && shows_key(o, k) && shows(o))
			broken("%s is shown by %s and by %s", key->name,
			       n->name, o->name);
	}
}

static void check_view(struct node *n, enum ring_view view)
{
	size_t count;
	const uint64_t *ids =
		keyset_list(n->ring->keys, view, n->ring->self, &count);

	for (size_t i = 0; i < count; i++) {
		const struct ring_key *key =
			keyset_find_id(n->ring->keys, ids[i]);

		if (!shows_key(n, key))
			continue;
		find_life(key->id)->was_shown = true;
		check_others(n, key);
	}
}

/* Is n up in its life, for o, if o has come as far? */
static void check_life(const struct node *n, const struct node *o)
{
	const struct ring *r = o->ring;

	if (o->state == NODE_OFF || r == NULL ||
	    keyset_index(r->keys) < n->ring->epoch)
		return;
	const struct ring_node *node = keyset_node(
		r->keys, keyset_find_node(r->keys, &n->ring->config.id));

	if (node == NULL || !node->up || node->epoch != n->ring->epoch)
		broken("%s is shown in its life of %llu, which for %s is over",
		       n->name, (unsigned long long)n->ring->epoch, o->name);
}

/* n has changed: what others show has not, but that time has passed. */
void check_node(struct node *n)
{
	if (n->ring == NULL || n->state != NODE_UP)
		return;
	history.n_instants++;
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		struct node *o = &world.nodes[i];

		if (o->state == NODE_UP && o->ring != NULL && o->ring->shows &&
		    shows(o)) {
			check_life(o, n);
			if (o == n)
				for (uint32_t j = 1; j <= world.plan.n_nodes;
				     j++)
					check_life(n, &world.nodes[j]);
		}
	}
	if (!n->ring->shows || !shows(n))
		return;
	check_view(n, RING_VIEW_OWNED);
	check_view(n, RING_VIEW_RECOVER);
}

uint64_t check_top_told(void)
{
	return history.top_told;
}

void check_answered(uint64_t index)
{
	if (index > history.top_told)
		history.top_told = index;
}

void check_told(uint64_t life)
{
	find_life(life)->was_told = true;
}

unsigned long check_instants(void)
{
	return history.n_instants;
}

/* ---- At the end ---- */

static const char *key_waits(struct node *n, const struct ring_key *key)
{
	const struct ring_node *holder =
		keyset_node(n->ring->keys, key->holder);

	if (key->state == RING_PARKED)
		return NULL;
	if (holder == NULL || !holder->up)
		return "a key has no holder";
	if (number_of(&holder->id) == 0)
		return "a key's holder is gone";
	if (key->hidden & (HIDDEN_ABANDONED | HIDDEN_DOUBT))
		return "an abandoned key is not finished";
	if (key->holder != n->ring->self)
		return NULL;
	if (key->hidden & HIDDEN_LEAVING)
		return "a key is leaving for ever";
	return key->hidden & HIDDEN_BACKOFF || key->submitting ||
			       shows_key(n, key)
		       ? NULL
		       : "a key is not shown";
}

unsigned check_shown(const struct node *n, enum ring_view view)
{
	unsigned shown = 0;
	size_t count;
	const uint64_t *ids =
		keyset_list(n->ring->keys, view, n->ring->self, &count);

	for (size_t i = 0; i < count; i++)
		shown += ring_shows(
			n->ring, keyset_find_id(n->ring->keys, ids[i]), view);
	return shown;
}

/* Some entries are not the machine's. */
static uint64_t highest(void)
{
	uint64_t top = history.top;

	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		struct ring_status s = {0};

		if (world.nodes[i].ring != NULL)
			ring_status(world.nodes[i].ring, &s);
		if (s.index > top)
			top = s.index;
	}
	return top;
}

static const char *told_wrong(const struct node *n, int view)
{
	static char text[100];

	snprintf(text, sizeof(text),
		 "in view %d it shows %u keys, and has told of %u", view,
		 check_shown(n, (enum ring_view)view), n->shown[view]);
	return text;
}

static const char *node_waits(struct node *n)
{
	struct ring_status s;
	size_t count;

	if (n->state != NODE_UP)
		return "it does not run";
	ring_status(n->ring, &s);
	if (s.health != RING_READY)
		return "it is not ready";
	if (s.index < highest())
		return "it lags behind";
	for (int v = 0; v < RING_N_VIEWS; v++)
		if (n->shown[v] != check_shown(n, (enum ring_view)v))
			return told_wrong(n, v);
	const uint64_t *ids =
		keyset_list(n->ring->keys, RING_VIEW_KEYS, RING_NONE, &count);

	for (size_t i = 0; i < count; i++) {
		const char *why =
			key_waits(n, keyset_find_id(n->ring->keys, ids[i]));

		if (why != NULL)
			return why;
	}
	return NULL;
}

bool check_is_quiet(const char **why)
{
	static char text[RING_ERRMSG_SIZE + 200];
	struct ring_status s;

	*why = text;
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		struct node *n = &world.nodes[i];
		const char *what = n->has_left ? NULL : node_waits(n);

		if (what == NULL)
			continue;
		s.reason[0] = '\0';
		s.index = 0;
		if (n->ring != NULL)
			ring_status(n->ring, &s);
		snprintf(text, sizeof(text), "%s: %s (%s; at %llu of %llu)",
			 n->name, what, s.reason, (unsigned long long)s.index,
			 (unsigned long long)history.top);
		return false;
	}
	if (calls_pending() == 0)
		return true;
	*why = "callers wait";
	return false;
}

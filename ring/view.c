/* SPDX-License-Identifier: MIT */
/* What this node shows of the machine's keys. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "ring/mem.h"
#include "ring/ring_impl.h"

#define BIT(view)  (1u << (view))
#define TELL_SLICE 4096 /* keys looked at in one turn of the loop */

/* The views that are this node's, and are empty outside its lease. */
#define VIEWS_OURS                                                             \
	(BIT(RING_VIEW_OWNED) | BIT(RING_VIEW_RECOVER) | BIT(RING_VIEW_RELEASE))

static unsigned shown_now(const struct ring *r, const struct ring_key *key)
{
	unsigned shown = BIT(RING_VIEW_KEYS);
	bool ours = r->shows && key->holder == r->self;

	if (key->hidden & (HIDDEN_ABANDONED | HIDDEN_DOUBT))
		return 0;
	if (key->state == RING_PARKED)
		return shown | BIT(RING_VIEW_PARKED);
	if (!ours || key->submitting)
		return shown;
	if (key->state == RING_OFFERED)
		return key->hidden & HIDDEN_BACKOFF
			       ? shown
			       : shown | BIT(RING_VIEW_RECOVER);
	shown |= BIT(RING_VIEW_OWNED);
	if (key->state == RING_RELEASING)
		shown |= BIT(RING_VIEW_RELEASE);
	return shown;
}

/* Whatever changed: the difference to what was told last. */
static void tell(struct ring *r, struct ring_key *key, bool note, bool removed)
{
	struct ring_change change = {
		.key = key,
		.before = key->told,
		.after = removed ? 0 : shown_now(r, key),
		.note = note,
		.removed = removed,
	};

	key->told = (uint8_t)change.after;
	if (r->is_open && (change.before != change.after || note))
		r->config.on_change(r->config.data, &change);
}

/* ---- The lease comes and goes ---- */

/* What waits to be told, from its end. What changes meanwhile is told at once,
 * and then there is nothing left to say. */
static void queue(struct ring *r, enum ring_view view, uint32_t node)
{
	size_t n;
	const uint64_t *ids = keyset_list(r->keys, view, node, &n);

	if (n == 0)
		return;
	r->to_tell =
		xrealloc(r->to_tell, (r->n_to_tell + n) * sizeof(*r->to_tell));
	memcpy(r->to_tell + r->n_to_tell, ids, n * sizeof(*ids));
	r->n_to_tell += n;
}

void view_show(struct ring *r, bool on)
{
	if (r->shows == on)
		return;
	r->shows = on;
	r->has_shown |= on;
	queue(r, RING_VIEW_RECOVER, r->self);
	queue(r, RING_VIEW_OWNED, r->self);
}

static void tell_slice(struct ring *r)
{
	for (int i = 0; i < TELL_SLICE && r->n_to_tell > 0; i++) {
		struct ring_key *key =
			keyset_find_id(r->keys, r->to_tell[--r->n_to_tell]);

		if (key != NULL)
			tell(r, key, false, false);
	}
	if (r->n_to_tell == 0) {
		free(r->to_tell);
		r->to_tell = NULL;
	}
}

void view_open(struct ring *r)
{
	size_t n;
	const uint64_t *ids =
		keyset_list(r->keys, RING_VIEW_KEYS, RING_NONE, &n);

	for (size_t i = 0; i < n; i++)
		tell(r, keyset_find_id(r->keys, ids[i]), false, false);
	r->is_open = true;
}

/* What was shown must not be finished as an abandoned claim (holes.md 24). */
static void hide_doubtful(struct ring *r, const struct keyset *old)
{
	size_t n;
	const uint64_t *ids =
		keyset_list(r->keys, RING_VIEW_KEYS, RING_NONE, &n);

	for (size_t i = 0; i < n; i++) {
		struct ring_key *key = keyset_find_id(r->keys, ids[i]);

		if (keyset_find_id(old, ids[i]) == NULL &&
		    request_may_have_made(r, key))
			key->hidden |= HIDDEN_DOUBT;
	}
}

void view_settle(struct ring *r, const char *name, bool is_abandoned)
{
	struct ring_key *key = keyset_find(r->keys, name, strlen(name));

	if (key == NULL || !(key->hidden & HIDDEN_DOUBT))
		return;
	key->hidden &= (uint8_t)~HIDDEN_DOUBT;
	if (is_abandoned)
		key->hidden |= HIDDEN_ABANDONED;
	else
		tell(r, key, false, false);
}

/* The old machine is replaced by one that has gone on meanwhile. */
void view_replace(struct ring *r, struct keyset *old)
{
	size_t n;
	const uint64_t *ids = keyset_list(old, RING_VIEW_KEYS, RING_NONE, &n);

	for (size_t i = 0; i < n; i++) {
		struct ring_key *was = keyset_find_id(old, ids[i]);
		struct ring_key *key = keyset_find_id(r->keys, ids[i]);

		if (key == NULL) {
			tell(r, was, false, true);
			continue;
		}
		key->told = was->told;
		if (key->token == was->token)
			key->hidden =
				was->hidden & (HIDDEN_ABANDONED | HIDDEN_DOUBT);
		if (key->holder == r->self)
			key->hidden |= was->hidden & HIDDEN_LEAVING;
		if (key->note_us != was->note_us)
			tell(r, key, true, false);
	}
	hide_doubtful(r, old);
	r->n_reveals = r->n_backoff = r->n_to_tell = 0;
	view_start_backoffs(r);
	handover_start(r);
	queue(r, RING_VIEW_KEYS, RING_NONE);
}

/* ---- Back-offs ---- */

static void reveal_swap(struct reveal *a, struct reveal *b)
{
	struct reveal t = *a;

	*a = *b;
	*b = t;
}

static void reveal_push(struct ring *r, struct reveal item)
{
	if (r->n_reveals == r->cap_reveals) {
		r->cap_reveals = r->cap_reveals ? 2 * r->cap_reveals : 16;
		r->reveals = xrealloc(r->reveals,
				      r->cap_reveals * sizeof(*r->reveals));
	}
	size_t i = r->n_reveals++;
	struct reveal *heap = r->reveals;

	heap[i] = item;
	while (i > 0 && heap[i].at_ms < heap[(i - 1) / 2].at_ms) {
		reveal_swap(&heap[i], &heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
}

static struct reveal reveal_pop(struct ring *r)
{
	struct reveal *heap = r->reveals, first = heap[0];
	size_t i = 0, n = --r->n_reveals;

	heap[0] = heap[n];
	for (;;) {
		size_t least = i, left = 2 * i + 1;

		for (size_t c = left; c < n && c <= left + 1; c++)
			if (heap[c].at_ms < heap[least].at_ms)
				least = c;
		if (least == i)
			return first;
		reveal_swap(&heap[i], &heap[least]);
		i = least;
	}
}

/* Offered here, and not shown before its back-off is over. */
static void set_backoff(struct ring *r, struct ring_key *key, bool on)
{
	bool was = key->hidden & HIDDEN_BACKOFF;

	if (on)
		key->hidden |= HIDDEN_BACKOFF;
	else
		key->hidden &= (uint8_t)~HIDDEN_BACKOFF;
	r->n_backoff += (size_t)on - (size_t)was;
}

static void start_backoff(struct ring *r, struct ring_key *key)
{
	set_backoff(r, key, true);
	reveal_push(r, (struct reveal){.at_ms = r->now_ms + key->backoff_ms,
				       .id = key->id,
				       .token = key->token});
}

static bool is_backing_off(const struct ring *r, const struct ring_key *key)
{
	return key->state == RING_OFFERED && key->holder == r->self &&
	       key->backoff_ms > 0;
}

/* A back-off is counted by the holder, from when it learned of it: nothing in
 * the log waits for it (holes.md 23). After a restart it is counted anew. */
void view_start_backoffs(struct ring *r)
{
	size_t n;
	const uint64_t *id =
		keyset_list(r->keys, RING_VIEW_RECOVER, r->self, &n);

	for (size_t i = 0; i < n; i++) {
		struct ring_key *key = keyset_find_id(r->keys, id[i]);

		if (is_backing_off(r, key))
			start_backoff(r, key);
	}
}

void view_tick(struct ring *r)
{
	while (r->n_reveals > 0 && r->reveals[0].at_ms <= r->now_ms) {
		struct reveal due = reveal_pop(r);
		struct ring_key *key = keyset_find_id(r->keys, due.id);

		if (key == NULL || key->token != due.token ||
		    !is_backing_off(r, key))
			continue;
		set_backoff(r, key, false);
		tell(r, key, false, false);
	}
	tell_slice(r);
}

uint64_t view_next_ms(const struct ring *r)
{
	if (r->n_to_tell > 0)
		return r->now_ms;
	return r->n_reveals > 0 ? r->reveals[0].at_ms : UINT64_MAX;
}

/* ---- Changes ---- */

void view_on_key(void *ring, struct ring_key *key, const struct keyset_was *was,
		 bool note, bool removed)
{
	struct ring *r = ring;

	if (!was->existed && request_is_abandoned(r, key))
		key->hidden |= HIDDEN_ABANDONED;
	if (was->existed && was->token != key->token) /* no finish means it */
		key->hidden &= (uint8_t) ~(HIDDEN_ABANDONED | HIDDEN_DOUBT);
	if (!removed && is_backing_off(r, key)) {
		if (was->state != RING_OFFERED || was->token != key->token)
			start_backoff(r, key);
	} else {
		set_backoff(r, key, false);
	}
	if (key->holder != r->self)
		key->hidden &= (uint8_t)~HIDDEN_LEAVING;
	else if (!removed)
		request_hide(r, key);
	if (!removed && was->state != key->state)
		handover_on_key(r, key);
	tell(r, key, note, removed);
}

/* ---- Reading ---- */

const struct ring_key *ring_find(const struct ring *r, const char *name)
{
	const struct ring_key *key = keyset_find(r->keys, name, strlen(name));

	return key != NULL && shown_now(r, key) != 0 ? key : NULL;
}

const struct ring_key *ring_find_id(const struct ring *r, uint64_t id)
{
	return keyset_find_id(r->keys, id);
}

bool ring_shows(const struct ring *r, const struct ring_key *key,
		enum ring_view view)
{
	if (key->hidden & HIDDEN_LEAVING && view != RING_VIEW_KEYS)
		return false;
	return shown_now(r, key) & BIT(view);
}

uint64_t *ring_list(const struct ring *r, enum ring_view view, size_t *n)
{
	const uint64_t *ids = keyset_list(r->keys, view, r->self, n);

	if (!r->shows && BIT(view) & VIEWS_OURS)
		*n = 0;
	uint64_t *copy = xmalloc((*n + 1) * sizeof(*copy));

	if (*n > 0)
		memcpy(copy, ids, *n * sizeof(*copy));
	return copy;
}

size_t ring_count(const struct ring *r, enum ring_view view)
{
	size_t n;

	keyset_list(r->keys, view, r->self, &n);
	if (!r->shows && BIT(view) & VIEWS_OURS)
		return 0;
	return view == RING_VIEW_RECOVER ? n - r->n_backoff : n;
}

const struct ring_node *ring_node(const struct ring *r, uint32_t index)
{
	return keyset_node(r->keys, index);
}

uint32_t ring_self(const struct ring *r)
{
	return r->self;
}

uint32_t ring_vnode_owner(const struct ring *r, uint32_t vnode)
{
	return keyset_vnode_owner(r->keys, vnode);
}

const char *ring_state_name(enum ring_state state)
{
	static const char *const names[] = {[RING_HELD] = "held",
					    [RING_OFFERED] = "offered",
					    [RING_RELEASING] = "releasing",
					    [RING_PARKED] = "parked"};

	return names[state];
}

const char *ring_reason_name(enum ring_reason reason)
{
	static const char *const names[] = {[RING_CLAIMED] = "claimed",
					    [RING_SUBMITTED] = "submitted",
					    [RING_DEAD] = "dead",
					    [RING_LEFT] = "left",
					    [RING_MOVED] = "moved",
					    [RING_RESTART] = "restart",
					    [RING_GIVEN_BACK] = "given-back",
					    [RING_RETRIED] = "retried"};

	return names[reason];
}

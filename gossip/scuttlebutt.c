/* SPDX-License-Identifier: MIT */
#include "gossip/scuttlebutt.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "gossip/scuttlebutt_impl.h"

const struct sb_config sb_defaults = {
	.period_us = 1000000,
	.push_us = 20000,
	.answer_us = 200000,
	.repair_us = 10000000,
	.life_us = 10000000,
	.n_push = 3,
	.packet_bytes = 1300,
	.stream_bytes = 256u << 10,
	.sources_max = 4096,
	.lives_max = 16,
	.bytes_max = 256u << 20,
	.flow = {.least = 10, .most = 20000, .step = 200, .burst = 1000},
};

/* ---- Hashes ---- */

static uint64_t hash_source_id(const struct gossip_id *id, uint64_t life,
			       uint64_t seed)
{
	return XXH3_64bits_withSeed(id->b, sizeof(id->b), life ^ seed);
}

/* The same on every member: what the sum of these says is compared. */
static uint64_t hash_source(const struct sb_source *src)
{
	uint64_t what[3] = {src->life, src->max, src->gc};

	return XXH3_64bits_withSeed(what, sizeof(what),
				    hash_source_id(&src->id, 0, 0));
}

/* Tombstones do not count: some have collected them, and some have not yet. */
static uint64_t hash_record(const struct sb_record *r)
{
	if (r->is_tomb)
		return 0;
	uint64_t seed = hash_source_id(&r->source->id, r->source->life,
				       r->version * 0x9e3779b97f4a7c15);
	return XXH3_64bits_withSeed(r->body, r->len, seed);
}

uint64_t sb_vector(struct sb *s)
{
	if (s->vector_is_known)
		return s->vector;
	s->vector = 0;
	size_t at = 0;
	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		if (sb_is_listed(src))
			s->vector += hash_source(src);
	s->vector_is_known = true;
	return s->vector;
}

void sb_changed(struct sb *s)
{
	s->vector_is_known = false;
	s->is_push_due = true;
	s->quarrel = (struct sb_quarrel){0};
}

/* ---- Sources ---- */

struct sb_source *sb_each(const struct sb *s, size_t *cursor)
{
	while (*cursor < s->sources.cap) {
		struct sb_source *src = s->sources.slots[(*cursor)++].item;
		if (src != NULL)
			return src;
	}
	return NULL;
}

struct sb_source *sb_find(const struct sb *s, const struct gossip_id *id,
			  uint64_t life)
{
	uint64_t hash = hash_source_id(id, life, s->seed);
	struct sb_source *src;

	for (size_t at = index_begin(&s->sources, hash);
	     (src = index_next(&s->sources, hash, &at)) != NULL;)
		if (src->life == life && gossip_id_equal(&src->id, id))
			return src;
	return NULL;
}

/* One of which nothing lives: its memory is what keeps late repetitions out, so
 * this is only done when there is no room. */
static bool evict_source(struct sb *s)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		if (sb_is_listed(src) || src == s->own)
			continue;
		index_remove(&s->sources,
			     hash_source_id(&src->id, src->life, s->seed), src);
		free(src);
		return true;
	}
	return false;
}

struct sb_source *sb_source_of(struct sb *s, const struct gossip_id *id,
			       uint64_t life)
{
	struct sb_source *src = sb_find(s, id, life);

	if (src != NULL)
		return src;
	if (s->sources.n >= s->config.sources_max && !evict_source(s)) {
		s->stats.n_full++;
		return NULL;
	}
	src = xcalloc(1, sizeof(*src));
	src->id = *id;
	src->life = life;
	index_put(&s->sources, hash_source_id(id, life, s->seed), src);
	return src;
}

/* A reset moves the cursor only: as long as it has not ended, max says how stale
 * we are, also to who loads our dump. */
void sb_set_max(struct sb *s, struct sb_source *src, uint64_t max)
{
	if (s->walk != SB_AT_REST && src->cursor < max)
		src->cursor = max;
	if (src->heard < max)
		src->heard = max;
	if (src->max >= max || (s->walk == SB_RESET && src != s->own))
		return;
	src->max = max;
	s->may_retire |= src->gc > 0;
	sb_changed(s);
}

void sb_set_gc(struct sb *s, struct sb_source *src, uint64_t gc)
{
	if (gc <= src->gc)
		return;
	src->gc = gc;
	s->may_retire = true;
	s->epoch++;
	sb_changed(s);
	for (struct sb_record *r = src->first, *next; r != NULL; r = next) {
		if (r->version > gc || src->n_tombs == 0)
			break;
		next = r->next;
		if (!r->is_tomb)
			continue;
		sb_drop(s, r);
		s->stats.n_collected++;
	}
}

/* A life that nobody has, nor will have: the boot in front makes it the newest
 * of this member, the random part makes copies of a state differ. */
static void begin_life(struct sb *s, uint64_t life)
{
	s->is_outrun = s->is_torn = false;
	while (sb_find(s, &s->id, life) != NULL)
		life++;
	s->own = sb_source_of(s, &s->id, life);
	if (s->own == NULL) { /* full of living sources: one more it must be */
		s->config.sources_max++;
		s->own = sb_source_of(s, &s->id, life);
	}
	assert(s->own != NULL && s->own->max == 0);
	sb_changed(s);
}

/* Somebody says that we are, or were, further than we know: a liar, or our state
 * was restored from an old copy. What he tells of is as good as another's now,
 * and we go on as somebody newer. Not too often, or whoever lies could fill our
 * table with lives. */
void sb_reborn(struct sb *s)
{
	uint64_t life = s->own->life;

	if (!s->is_outrun || s->now_us < s->life_at_us)
		return;
	if (life < s->outrun_life)
		life = s->outrun_life; /* its sections were refused till now */
	s->life_at_us = s->now_us + s->config.life_us;
	s->own->cursor = s->own->max;
	begin_life(s, life + 1 + random_below(&s->random, 1 << 16));
	s->stats.n_lives++;
	if (s->class->reborn != NULL)
		s->class->reborn(s->user);
}

bool sb_look_at(struct sb *s, const struct gossip_id *id, uint64_t life,
		uint64_t max)
{
	if (life > SB_LIFE_MAX) {
		s->stats.n_full++;
		return false;
	}
	if (!gossip_id_equal(id, &s->id) || life < s->own->life ||
	    (life == s->own->life && max <= s->own->max))
		return true;
	s->is_outrun = true;
	if (s->outrun_life < life)
		s->outrun_life = life;
	return s->is_loading;
}

/* ---- Records ---- */

static size_t record_bytes(const struct sb_record *r)
{
	return sizeof(*r) + r->len;
}

/* Into its source, in front of next; NULL: as the last. */
static void link_record(struct sb *s, struct sb_record *r,
			struct sb_record *next)
{
	struct sb_source *src = r->source;
	struct sb_record *prev = next != NULL ? next->prev : src->last;

	assert(prev == NULL || prev->version < r->version);
	assert(next == NULL || next->version > r->version);
	r->next = next;
	r->prev = prev;
	*(next != NULL ? &next->prev : &src->last) = r;
	*(prev != NULL ? &prev->next : &src->first) = r;
	src->is_retired = false;
	src->n_records++;
	src->n_tombs += r->is_tomb;
	s->n_records++;
	s->n_tombs += r->is_tomb;
	s->n_bytes += record_bytes(r);
	s->content += hash_record(r);
}

static void free_record(struct sb *s, struct sb_record *r)
{
	struct sb_source *src = r->source;

	*(r->next != NULL ? &r->next->prev : &src->last) = r->prev;
	*(r->prev != NULL ? &r->prev->next : &src->first) = r->next;
	src->n_records--;
	src->n_tombs -= r->is_tomb;
	s->n_records--;
	s->n_tombs -= r->is_tomb;
	s->n_bytes -= record_bytes(r);
	s->content -= hash_record(r);
	s->vector_is_known = false; /* it may be listed no more */
	s->may_retire |= src->n_records == 0;
	free(r);
}

void sb_drop(struct sb *s, struct sb_record *r)
{
	if (s->judged != NULL && (r->source == s->own || r->is_heir))
		s->judged->is_heir = true;
	s->class->drop(s->user, r);
	free_record(s, r);
}

void sb_outlives(const struct sb *s, struct sb_record *r)
{
	r->is_proven |= s->walk == SB_RESET;
}

static struct sb_record *make_record(struct sb_source *src,
				     const struct sb_item *item)
{
	struct sb_record *r = xmalloc(sizeof(*r) + item->len);

	*r = (struct sb_record){.source = src,
				.version = item->version,
				.is_tomb = item->is_tomb,
				.len = item->len};
	if (item->len > 0)
		memcpy(r->body, item->body, item->len);
	return r;
}

/* Apply a new record; what follows it, whether it was kept or not. */
struct sb_record *sb_add(struct sb *s, struct sb_source *src,
			 const struct sb_item *item, struct sb_record *next)
{
	struct sb_record *r = make_record(src, item);

	link_record(s, r, next);
	s->judged = r;
	bool is_collected = r->is_tomb && r->version <= src->gc;
	bool keep = !is_collected &&
		    s->class->apply(s->user, r,
				    !s->is_loading && r->version > src->heard);
	s->judged = NULL;
	next = r->next; /* only now: apply may have dropped some */
	if (!keep)
		free_record(s, r);
	return next;
}

/* ---- Members, and the collection of tombstones ---- */

struct sb_member *sb_member_of(struct sb *s, const struct gossip_id *id)
{
	for (size_t i = 0; i < s->n_members; i++)
		if (gossip_id_equal(&s->members[i].id, id))
			return &s->members[i];
	return NULL;
}

void sb_member(struct sb *s, const struct gossip_id *id, bool is_reachable)
{
	struct sb_member *m = sb_member_of(s, id);

	if (gossip_id_equal(id, &s->id))
		return;
	if (m == NULL) {
		if (s->n_members == s->cap_members) {
			s->cap_members += s->cap_members + 8;
			s->members = xrealloc(s->members,
					      s->cap_members * sizeof(*m));
		}
		m = &s->members[s->n_members++];
		*m = (struct sb_member){.id = *id};
	}
	m->is_reachable = is_reachable;
}

void sb_forget(struct sb *s, const struct gossip_id *id)
{
	struct sb_member *m = sb_member_of(s, id);

	if (m != NULL)
		*m = s->members[--s->n_members];
}

void sb_collect(struct sb *s)
{
	size_t at = 0;

	for (size_t i = 0; i < s->n_members; i++)
		if (!s->members[i].has_confirmed)
			return;
	s->has_snap = false;
	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		struct sb_record *r = src->snap > 0 ? src->last : NULL;
		while (r != NULL && (!r->is_tomb || r->version > src->snap))
			r = r->prev;
		if (r != NULL)
			sb_set_gc(s, src, r->version);
	}
}

static void begin_collection(struct sb *s)
{
	size_t at = 0;

	s->has_snap = true;
	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		src->snap = src->n_tombs > 0 ? src->max : 0;
	for (size_t i = 0; i < s->n_members; i++)
		s->members[i].has_confirmed = false;
}

/* ---- Rounds ---- */

/* n different reachable members, each once; fewer if there are no more. */
static void greet_some(struct sb *s, size_t n)
{
	for (size_t i = 0; i < s->n_members && n > 0; i++) {
		uint32_t left = (uint32_t)(s->n_members - i);
		size_t j = i + random_below(&s->random, left);
		struct sb_member m = s->members[j];
		s->members[j] = s->members[i];
		s->members[i] = m;
		if (!m.is_reachable)
			continue;
		sb_greet(s, &m.id);
		n--;
	}
}

uint64_t sb_wake_us(const struct sb *s)
{
	uint64_t at_us = s->round_at_us;

	if (s->is_push_due && s->push_at_us < at_us)
		at_us = s->push_at_us;
	if (s->has_again && s->asked_until_us < at_us)
		at_us = s->asked_until_us;
	return at_us;
}

void sb_tick(struct sb *s, uint64_t now_us, struct sb_out *out)
{
	s->now_us = now_us;
	s->out = out;
	sb_reborn(s);
	if (s->n_tombs > 0 && s->walk == SB_AT_REST) {
		if (!s->has_snap)
			begin_collection(s);
		sb_collect(s);
	}
	if (s->is_push_due && now_us >= s->push_at_us) {
		s->is_push_due = false;
		s->push_at_us = now_us + s->config.push_us;
		greet_some(s, s->config.n_push);
	}
	if (s->has_again && now_us >= s->asked_until_us) {
		s->has_again = false;
		sb_greet(s, &s->again);
	}
	if (now_us >= s->round_at_us) {
		s->round_at_us = now_us + s->config.period_us;
		sb_give_up_waiting(s);
		flow_round(&s->flow, s->has_overflowed);
		s->has_overflowed = false;
		greet_some(s, 1);
	}
	sb_retire(s);
	out->wake_us = sb_wake_us(s);
	s->out = NULL;
}

void sb_out_clear(struct sb_out *out)
{
	out->n_sends = out->n_bytes = 0;
}

void sb_out_finish(struct sb_out *out)
{
	free(out->sends);
	free(out->bytes);
	*out = (struct sb_out){0};
}

/* ---- Life ---- */

struct sb *sb_create(const struct sb_config *config,
		     const struct sb_class *class, void *user,
		     const struct sb_self *self)
{
	struct sb *s = xcalloc(1, sizeof(*s));

	assert(config->stream_bytes >= SB_STREAM_MIN);
	assert(config->packet_bytes >= SB_HEADER_BYTES);
	assert(config->sources_max > 0 && config->period_us > 0);
	assert(config->lives_max > 0);
	s->config = *config;
	s->class = class;
	s->user = user;
	s->id = self->id;
	s->random.state = self->seed;
	s->seed = random_next(&s->random);
	s->epoch = (uint32_t)random_next(&s->random);
	flow_init(&s->flow, &config->flow);
	begin_life(s, (uint64_t)self->boot << 32 |
			      random_below(&s->random, UINT32_MAX >> 1));
	s->is_push_due = false;
	return s;
}

static void free_source(struct sb_source *src)
{
	for (struct sb_record *r = src->first, *next; r != NULL; r = next) {
		next = r->next;
		free(r);
	}
	free(src);
}

void sb_destroy(struct sb *s)
{
	size_t at = 0;

	if (s == NULL)
		return;
	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		free_source(src);
	index_finish(&s->sources);
	free(s->members);
	free(s);
}

/* ---- Writing ---- */

int sb_write(struct sb *s, const void *body, size_t len, bool is_tomb)
{
	struct sb_item item = {.version = s->own->max + 1,
			       .is_tomb = is_tomb,
			       .len = (uint32_t)len,
			       .body = body};

	if (len > SB_BODY_MAX)
		return -E2BIG;
	if (s->n_bytes + sizeof(struct sb_record) + len >
	    s->config.bytes_max / 4 * 3)
		return -ENOSPC;
	sb_add(s, s->own, &item, NULL);
	assert(s->own->last != NULL && s->own->last->version == item.version);
	sb_set_max(s, s->own, item.version);
	flow_spend(&s->flow);
	return 0;
}

uint64_t sb_wait_us(struct sb *s, uint64_t now_us)
{
	return flow_wait_us(&s->flow, now_us);
}

/* ---- Asking ---- */

const struct sb_source *sb_own(const struct sb *s)
{
	return s->own;
}

const struct sb_source *sb_next(const struct sb *s, size_t *cursor)
{
	return sb_each(s, cursor);
}

void sb_stats(const struct sb *s, struct sb_stats *stats)
{
	size_t at = 0;

	*stats = s->stats;
	stats->n_sources = (uint32_t)s->sources.n;
	stats->n_members = (uint32_t)s->n_members;
	stats->n_records = s->n_records;
	stats->n_tombs = s->n_tombs;
	stats->n_bytes = s->n_bytes;
	stats->content = s->content;
	stats->vector = 0;
	stats->is_walking = s->walk != SB_AT_REST;
	stats->is_resetting = s->walk == SB_RESET;
	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		stats->n_listed += sb_is_listed(src);
		stats->vector += sb_is_listed(src) ? hash_source(src) : 0;
	}
}

/* ---- Keeping ---- */

/* Add a section: sec says of what, and up to where; what did not fit is left off
 * at the end (S3), and sec->to says so. Did all fit? */
static bool put_section(struct bytes_out *out, const struct sb_source *src,
			struct sb_section *sec)
{
	size_t at = out->len;
	uint64_t last = sec->from, wanted = sec->to;

	sec->id = src->id;
	sec->life = src->life;
	sec->n = 0;
	if (bytes_room(out) < SB_SECTION_BYTES) {
		sec->to = sec->from;
		return false;
	}
	sb_wire_put_section(out, sec);
	for (struct sb_record *r = sb_first_after(src, sec->from);
	     r != NULL && r->version <= wanted; r = r->next) {
		if (!sb_wire_put_record(out, r)) {
			sec->to = last;
			break;
		}
		last = r->version;
		sec->n++;
	}
	if (sec->n == 0 && sec->to != wanted)
		out->len = at;
	else
		sb_wire_patch_section(out, at, sec);
	return sec->to == wanted;
}

bool sb_put_source(const struct sb *s, struct bytes_out *out,
		   const struct sb_source *src, uint64_t from)
{
	struct sb_section sec = {
		.gc = sb_told_gc(src), .from = from, .to = sb_vouched(s, src)};

	return put_section(out, src, &sec);
}

/* While we reset, the state before it is dumped, less what is known to be dead,
 * and without gc versions: who loads it is as stale as we were, and resets. */
size_t sb_dump(const struct sb *s, struct sb_dump *cursor, uint8_t *bytes,
	       size_t cap)
{
	struct bytes_out out = bytes_out_of(bytes, cap);

	assert(cap >= SB_STREAM_MIN);
	while (cursor->source < s->sources.cap) {
		const struct sb_source *src =
			s->sources.slots[cursor->source].item;
		if (src != NULL && (src->heard > 0 || src->gc > 0)) {
			struct sb_section sec = {
				.gc = s->walk == SB_RESET ? 0 : src->gc,
				.from = cursor->version,
				.to = src->max,
				.heard = src->heard};
			bool is_whole = put_section(&out, src, &sec);
			cursor->version = sec.to;
			if (!is_whole)
				break;
		}
		cursor->source++;
		cursor->version = 0;
	}
	return out.len;
}

int sb_load(struct sb *s, const uint8_t *bytes, size_t len)
{
	struct bytes_in in = bytes_in_of(bytes, len);

	if (!sb_wire_is_dump(in))
		return -EBADMSG;
	s->is_loading = true;
	sb_take(s, &in);
	s->is_loading = false;
	if (s->is_outrun) /* the boot counter was set back: above all lives */
		begin_life(s, s->outrun_life + 1);
	s->is_push_due = false;
	return 0;
}

/* ---- For tests ---- */

static void check_source(const struct sb *s, const struct sb_source *src,
			 uint64_t *content)
{
	const struct sb_record *prev = NULL;
	uint32_t n = 0, n_tombs = 0;

	for (const struct sb_record *r = src->first; r != NULL; r = r->next) {
		assert(r->source == src && r->prev == prev);
		assert(prev == NULL || prev->version < r->version);
		assert(r->version <= src->max || s->walk == SB_RESET);
		assert(r->len <= SB_BODY_MAX);
		assert(!r->is_tomb || r->version > src->gc);
		assert(!src->is_retired);
		*content += hash_record(r);
		n_tombs += r->is_tomb;
		n++;
		prev = r;
	}
	assert(src->last == prev && src->n_records == n);
	assert(src->n_tombs == n_tombs);
	assert(sb_find(s, &src->id, src->life) == src);
}

void sb_check(const struct sb *s)
{
	uint64_t content = 0, n = 0, n_bytes = 0;
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		check_source(s, src, &content);
		n += src->n_records;
		for (struct sb_record *r = src->first; r != NULL; r = r->next)
			n_bytes += record_bytes(r);
	}
	assert(content == s->content && n == s->n_records);
	assert(n_bytes == s->n_bytes && n_bytes <= s->config.bytes_max);
	assert(s->out == NULL && s->own != NULL);
	assert(s->sources.n <= s->config.sources_max);
}

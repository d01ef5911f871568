/* SPDX-License-Identifier: MIT */
/* What is said, and what follows from it.
 *
 *	A: hello                     we agree on <vector, content>?
 *	B: digest                    no: this is what I have
 *	A: delta, digest + ANSWER    you lack this; and this is what I have
 *	B: delta (+ MORE)            you lack this
 *	A: digest + ANSWER           after MORE, until there is no more
 *	B: hello                     to a digest: yes, we do agree
 *
 * So A's pushes are pulls by B: nothing is sent to who has it. Each message can
 * be lost, doubled, or late; the next round begins anew.
 *
 * Why a delta does not bring back what is dead: it is sent only as the answer to
 * a whole digest, after the answerer has found himself not stale by it, and the
 * asker takes it only if his gc versions are still those of that digest (epoch).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/scuttlebutt_impl.h"

/* ---- Out ---- */

static struct bytes_out message_begin(struct sb *s, enum sb_kind kind,
				      uint8_t flags, size_t cap)
{
	struct sb_out *out = s->out;

	assert(out != NULL);
	if (out->cap_bytes - out->n_bytes < cap) {
		out->cap_bytes = 2 * out->n_bytes + cap;
		out->bytes = xrealloc(out->bytes, out->cap_bytes);
	}
	struct bytes_out message = bytes_out_of(out->bytes + out->n_bytes, cap);
	struct sb_header h = {.kind = (uint8_t)kind,
			      .channel = s->class->channel,
			      .flags = flags,
			      .epoch = s->epoch,
			      .vector = sb_vector(s),
			      .content = s->content};
	sb_wire_put_header(&message, &h);
	return message;
}

static void message_end(struct sb *s, const struct bytes_out *message,
			const struct gossip_id *to)
{
	struct sb_out *out = s->out;

	assert(!message->full && message->base == out->bytes + out->n_bytes);
	if (out->n_sends == out->cap_sends) {
		out->cap_sends += out->cap_sends + 8;
		out->sends = xrealloc(out->sends,
				      out->cap_sends * sizeof(*out->sends));
	}
	out->sends[out->n_sends++] = (struct sb_send){
		.to = *to,
		.at = (uint32_t)out->n_bytes,
		.len = (uint32_t)message->len,
		.on_stream = message->len > s->config.packet_bytes};
	out->n_bytes += message->len;
}

static bool is_busy(const struct sb *s)
{
	return s->now_us < s->asked_until_us;
}

/* Sources that others list are listed, even if nothing of them lives here: then
 * they need not send them. */
static bool is_spoken_of(const struct sb *s, const struct sb_source *src)
{
	return sb_is_listed(src) || src->is_told || src->mark == s->mark;
}

/* Tell it what we have. */
static void ask(struct sb *s, const struct gossip_id *to, uint8_t flags)
{
	size_t cap = SB_HEADER_BYTES + s->sources.n * SB_ENTRY_BYTES;
	size_t at = 0;

	if (s->walk != SB_AT_REST)
		flags |= SB_WALKS;
	if (s->walk == SB_RESET)
		flags |= SB_RESETS;
	struct bytes_out message = message_begin(s, SB_DIGEST, flags, cap);
	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		struct sb_entry e = {.id = src->id,
				     .life = src->life,
				     .gc = sb_told_gc(src),
				     .max = sb_wanted(s, src)};
		if (is_spoken_of(s, src))
			sb_wire_put_entry(&message, &e);
	}
	message_end(s, &message, to);
	s->asked = *to;
	s->asked_until_us = s->now_us + s->config.answer_us;
}

/* Ask, but one at a time: what several know, one shall tell. */
static void ask_when_free(struct sb *s, const struct gossip_id *to,
			  uint8_t flags)
{
	if (!is_busy(s)) {
		ask(s, to, flags);
		return;
	}
	s->again = *to;
	s->has_again = true;
}

void sb_greet(struct sb *s, const struct gossip_id *to)
{
	if (s->walk != SB_AT_REST) {
		if (!is_busy(s))
			ask(s, to, 0);
		return;
	}
	struct bytes_out message =
		message_begin(s, SB_HELLO, 0, SB_HEADER_BYTES);
	message_end(s, &message, to);
}

/* What src's max is in the digest at hand. */
static uint64_t theirs(const struct sb *s, const struct sb_source *src)
{
	return src->mark == s->mark ? src->theirs : 0;
}

static uint64_t theirs_gc(const struct sb *s, const struct sb_source *src)
{
	return src->mark == s->mark ? src->theirs_gc : 0;
}

struct lag {
	struct sb_source *src;
	uint64_t from, behind;
};

/* Unknown sources first, then the farthest behind (S2; the paper's "depth"). */
static int by_lag(const void *a, const void *b)
{
	const struct lag *x = a, *y = b;

	if ((x->from == 0) != (y->from == 0))
		return x->from == 0 ? -1 : 1;
	if (x->behind != y->behind)
		return x->behind > y->behind ? -1 : 1;
	return memcmp(&x->src->id, &y->src->id, sizeof(x->src->id));
}

/* What they lack, by the digest at hand. The caller frees it. */
static struct lag *find_lags(const struct sb *s, size_t *n)
{
	struct lag *lags = xmalloc((s->sources.n + 1) * sizeof(*lags));
	size_t at = 0;

	*n = 0;
	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		uint64_t from = theirs(s, src), to = sb_vouched(s, src);
		if (to <= from || !is_spoken_of(s, src))
			continue;
		lags[(*n)++] = (struct lag){
			.src = src, .from = from, .behind = to - from};
	}
	qsort(lags, *n, sizeof(*lags), by_lag);
	return lags;
}

/* Answer the digest at hand, of this epoch; was there something to say? */
static bool tell(struct sb *s, const struct gossip_id *to, uint32_t epoch)
{
	size_t n, i = 0;
	struct lag *lags = find_lags(s, &n);

	if (n == 0) {
		free(lags);
		return false;
	}
	uint32_t ours = s->epoch;
	s->epoch = epoch; /* of the header only */
	struct bytes_out message =
		message_begin(s, SB_DELTA, 0, s->config.stream_bytes);
	s->epoch = ours;
	while (i < n && sb_put_source(s, &message, lags[i].src, lags[i].from))
		i++;
	if (i < n) {
		sb_wire_patch_flags(&message, SB_MORE);
		/* New ones have much to catch up with; that is not our doing */
		s->has_overflowed |= theirs(s, s->own) > 0;
	}
	message_end(s, &message, to);
	free(lags);
	return true;
}

/* ---- In ---- */

static void confirm(struct sb *s, const struct gossip_id *from)
{
	struct sb_member *m = sb_member_of(s, from);

	if (m == NULL || !s->has_snap || m->has_confirmed)
		return;
	m->has_confirmed = true;
	sb_collect(s);
}

static bool do_agree(struct sb *s, const struct sb_header *h)
{
	return s->walk != SB_RESET && h->vector == sb_vector(s) &&
	       h->content == s->content;
}

static void on_hello(struct sb *s, const struct gossip_id *from,
		     const struct sb_header *h)
{
	if (!do_agree(s, h)) {
		ask_when_free(s, from, 0);
		return;
	}
	if (s->walk == SB_REPAIR)
		sb_walk_end(s);
	confirm(s, from);
}

struct reading {
	bool is_stale;	 /* we are */
	bool lack;	 /* they have what we do not */
	uint64_t weight; /* sum of their gc versions */
};

/* We have nothing of this life, which would be retired here: nobody is stale by
 * it, but who lists it shall hear that we know its gc. */
static bool is_nothing_left(const struct sb *s, const struct sb_source *src,
			    uint64_t gc)
{
	return gc > sb_wanted(s, src) && src->n_records == 0 &&
	       sb_is_past(s, &src->id, src->life);
}

/* Note what a digest lists. */
static struct reading read_digest(struct sb *s, struct bytes_in in)
{
	struct reading is = {0};
	struct sb_entry e;

	s->mark++;
	while (sb_wire_entry(&in, &e)) {
		bool is_good = sb_look_at(s, &e.id, e.life,
					  e.max > e.gc ? e.max : e.gc);
		struct sb_source *src = sb_find(s, &e.id, e.life);
		if (!is_good && src != s->own)
			continue;
		is.weight += e.gc < UINT64_MAX - is.weight ? e.gc : 0;
		if (src == NULL && e.gc > 0)
			src = sb_source_of(s, &e.id, e.life);
		if (src == NULL) {
			is.lack |= e.max > 0;
			continue;
		}
		src->mark = s->mark;
		src->theirs = e.max;
		src->theirs_gc = e.gc;
		is.is_stale |= src != s->own && e.gc <= e.max &&
			       e.gc > sb_wanted(s, src) && e.gc > src->gc &&
			       !is_nothing_left(s, src, e.gc);
	}
	return is;
}

/* By our gc versions they are stale, and must hear so first. But not by those
 * that we only heard of: who is about to reset, or new, makes nobody stale. */
static bool are_they_stale(const struct sb *s)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		if (!sb_is_unmet(s, src) && sb_told_gc(src) > theirs(s, src) &&
		    sb_told_gc(src) > theirs_gc(s, src))
			return true;
	return false;
}

/* They have heard of a gc version that we have not: what we say may be dead. */
static bool are_we_doubted(const struct sb *s)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		if (src != s->own && theirs_gc(s, src) > sb_wanted(s, src) &&
		    theirs_gc(s, src) > src->gc)
			return true;
	return false;
}

/* Have they what we wait for, that is, all up to the gc versions that we heard
 * of? */
static bool can_they_help(const struct sb *s, const struct sb_header *h)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		if (sb_is_unmet(s, src) && theirs(s, src) < src->gc)
			return false;
	return !(h->flags & SB_RESETS);
}

/* After a long cut both sides may have forgotten each other, collected, and be
 * stale to each other. Then one side's word must stand, and every pair has to
 * find the same: that which has collected more. */
static bool is_ours_the_word(const struct sb *s, const struct gossip_id *from,
			     uint64_t weight)
{
	uint64_t ours = 0;
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		ours += sb_told_gc(src) < UINT64_MAX - ours ? sb_told_gc(src)
							    : 0;
	if (ours != weight)
		return ours > weight;
	return memcmp(&s->id, from, sizeof(s->id)) > 0;
}

/* Take over what they have collected: all of it that we have had. Who has
 * nothing yet may believe the rest too. */
static void adopt_gc(struct sb *s, bool is_empty)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		uint64_t gc = theirs_gc(s, src);
		bool is_met = gc <= theirs(s, src) && src != s->own;
		if (gc <= sb_wanted(s, src) ||
		    (is_met && (is_empty || is_nothing_left(s, src, gc))))
			sb_set_gc(s, src, gc);
	}
}

/* Reset, to their word: what our side had collected counts no more, so that we
 * are as far as they are, and neither they nor who follows them is stale to us.
 */
static void reset(struct sb *s)
{
	size_t at = 0;

	s->stats.n_yielded += are_they_stale(s);
	sb_walk_begin(s, SB_RESET);
	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;) {
		uint64_t gc = theirs_gc(s, src);
		uint64_t most = src == s->own ? src->max : theirs(s, src);
		src->gc = 0;
		sb_set_gc(s, src, gc <= most ? gc : 0);
	}
	sb_changed(s);
}

static void learn_gc(struct sb *s, const struct gossip_id *from,
		     const struct reading *is)
{
	bool has_some = s->n_records > s->own->n_records;
	bool is_mutual = is->is_stale && are_they_stale(s);
	bool must =
		is_mutual ? !is_ours_the_word(s, from, is->weight) : has_some;

	if (is->is_stale && (must || s->walk == SB_RESET))
		reset(s);
	else
		adopt_gc(s, !has_some && !is_mutual);
}

static bool do_we_lack(const struct sb *s)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		if (src != s->own && theirs(s, src) > sb_wanted(s, src))
			return true;
	return false;
}

static bool have_they_all(const struct sb *s)
{
	size_t at = 0;

	for (struct sb_source *src; (src = sb_each(s, &at)) != NULL;)
		if (src->snap > 0 && src->n_tombs > 0 &&
		    theirs(s, src) < src->snap)
			return false;
	return true;
}

/* Neither lacks anything, and yet we differ. It passes by itself, as what lives
 * here and is dead there will die here; if it does not, compare everything. */
static void quarrel(struct sb *s, const struct gossip_id *from,
		    const struct sb_header *h)
{
	uint64_t ours = sb_vector(s) ^ (s->content * 31);
	uint64_t of_them = h->vector ^ (h->content * 31);

	if (s->quarrel.ours != ours || s->quarrel.theirs != of_them) {
		s->quarrel.ours = ours;
		s->quarrel.theirs = of_them;
		s->quarrel.since_us = s->now_us;
	} else if (s->now_us - s->quarrel.since_us >= s->config.repair_us) {
		/* Of our present life we believe nobody, so a walk would not
		 * bring back what was dropped of it: let it be a former one. */
		s->is_outrun |= s->is_torn && s->own->max > 0;
		sb_reborn(s);
		sb_walk_begin(s, SB_REPAIR);
		ask(s, from, 0);
	}
}

static void end_walk(struct sb *s, const struct gossip_id *from)
{
	sb_walk_end(s);
	if (s->walk != SB_AT_REST)
		ask_when_free(s, from, 0);
}

static void on_digest(struct sb *s, const struct gossip_id *from,
		      const struct sb_header *h, struct bytes_in in)
{
	uint32_t epoch = s->epoch;
	struct reading is = read_digest(s, in);

	/* Who resets himself makes nobody stale before he is through: two who
	 * wait for a third, who is gone, would do so in turn, for ever. */
	is.is_stale = is.is_stale && !(h->flags & SB_RESETS);
	learn_gc(s, from, &is);
	if (are_they_stale(s)) {
		/* By the digest of a walk they would not see it, so a repair
		 * has to wait. An answer: else they know, and are full. */
		bool is_known = s->walk != SB_REPAIR && h->flags & SB_ANSWER;
		if (s->walk == SB_REPAIR)
			sb_walk_end(s);
		if (!is_known)
			ask(s, from, 0);
		return;
	}
	if (can_they_help(s, h))
		s->hope_us = s->now_us;
	bool said = !are_we_doubted(s) && tell(s, from, h->epoch);
	bool lack = is.lack || do_we_lack(s);
	/* Of what a reset has walked, some may have to be told again. */
	if (s->has_snap && have_they_all(s) && !(h->flags & SB_RESETS))
		confirm(s, from);
	if (lack) { /* an answer: our delta comes, but in another epoch */
		if (!(h->flags & SB_ANSWER) || s->epoch != epoch)
			ask_when_free(s, from, SB_ANSWER);
	} else if (h->flags & SB_WALKS) {
		if (!said && !(h->flags & SB_ANSWER)) /* it is through */
			ask_when_free(s, from, SB_ANSWER);
		if (s->walk != SB_AT_REST && can_they_help(s, h))
			end_walk(s, from);
	} else if (s->walk != SB_AT_REST) {
		if (can_they_help(s, h))
			end_walk(s, from);
	} else if (do_agree(s, h)) {
		sb_greet(s, from); /* so that it does not wait for more */
	} else if (!said) {
		quarrel(s, from, h);
	}
}

static int on_delta(struct sb *s, const struct gossip_id *from,
		    const struct sb_header *h, struct bytes_in in)
{
	if (h->epoch != s->epoch) {
		s->stats.n_stale++;
		return -ESTALE;
	}
	if (!sb_take(s, &in))
		return 0; /* asking again would lead to the same again */
	if (h->flags & SB_MORE)
		ask_when_free(s, from, SB_ANSWER);
	else if (s->walk != SB_AT_REST)
		ask_when_free(s, from, 0); /* are we through? */
	return 0;
}

/* Whoever was put off while we waited for an answer. */
static void greet_again(struct sb *s)
{
	if (!s->has_again || is_busy(s))
		return;
	s->has_again = false;
	sb_greet(s, &s->again);
}

int sb_recv(struct sb *s, uint64_t now_us, const struct sb_msg *msg,
	    struct sb_out *out)
{
	struct bytes_in in = bytes_in_of(msg->bytes, msg->len);
	struct sb_header h;
	int rc = sb_wire_decode(&in, &h);

	if (rc == 0 && h.channel != s->class->channel)
		rc = -EPROTONOSUPPORT;
	if (rc != 0) {
		*(rc == -EBADMSG ? &s->stats.n_bad : &s->stats.n_foreign) += 1;
		return rc;
	}
	s->now_us = now_us;
	s->out = out;
	if (gossip_id_equal(&s->asked, &msg->from))
		s->asked_until_us = 0;
	if (h.kind == SB_HELLO)
		on_hello(s, &msg->from, &h);
	else if (h.kind == SB_DIGEST)
		on_digest(s, &msg->from, &h, in);
	else
		rc = on_delta(s, &msg->from, &h, in);
	sb_reborn(s);
	greet_again(s);
	sb_retire(s);
	out->wake_us = sb_wake_us(s);
	s->out = NULL;
	return rc;
}

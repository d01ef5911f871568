/* SPDX-License-Identifier: MIT */
/* Connections. What is read passes through stages, each of a known length, so
 * the buffer never holds more than one of them:
 *
 *	hello 84 -> header 24 (sealed) -> length 4 -> frame -> length 4 -> ...
 *
 *	caller                              called
 *	hello                        ->     is it one of us, do we have its key?
 *	is it whom we called?        <-     hello, header, empty frame
 *	header, empty frame          ->
 *	peer proved itself                  peer proved itself
 *
 * The key of each direction is a hash under the sender's key of the cluster's id
 * and both hellos: ids, boots, and challenges. An authentic empty frame proves
 * that its sender has the key, and now; until then frames of more than that are
 * refused. Ways to fail: each has a reason, and ends the stream. */
#include <assert.h>
#include <errno.h>
#include <xxhash.h>

#include "gossip/seal_impl.h"

#define CLEAR_EXTRA 9 /* checksum, last */
#define BIND_BYTES  (16 + 2 * SEAL_HELLO_BYTES + 1)

enum stage {
	STAGE_HELLO,
	STAGE_HEADER,
	STAGE_LENGTH,
	STAGE_FRAME,
	STAGE_END, /* the last frame was read */
	STAGE_FAILED,
};

struct buffer {
	uint8_t *bytes;
	size_t len, cap;
};

struct seal_stream {
	struct seal *s; /* borrowed */
	bool is_caller;
	bool is_sealed;
	bool has_proof; /* the peer's */
	bool has_said_last;
	enum stage stage;
	enum seal_reason reason;
	struct gossip_id expect; /* zero: whoever it is */
	struct seal_head peer;
	uint64_t key; /* id of what we seal with */
	uint8_t mine[SEAL_HELLO_BYTES], theirs[SEAL_HELLO_BYTES];
	struct seal_flow *tx, *rx;
	struct buffer in, out;
	size_t need; /* bytes of this stage */
	uint8_t length[4];
};

/* Room for n more bytes. */
static uint8_t *buffer_more(struct buffer *b, size_t n)
{
	if (b->cap - b->len < n) {
		b->cap = b->len + n > 2 * b->cap ? b->len + n : 2 * b->cap;
		b->bytes = xrealloc(b->bytes, b->cap);
	}
	return b->bytes + b->len;
}

static int fail(struct seal_stream *st, enum seal_reason reason)
{
	st->stage = STAGE_FAILED;
	st->reason = seal_count(st->s, reason);
	return -EPROTO;
}

static void enter(struct seal_stream *st, enum stage stage, size_t need)
{
	st->stage = stage;
	st->need = need;
	st->in.len = 0;
}

/* ---- Frames out ---- */

static void put_length(uint8_t length[4], size_t n)
{
	struct bytes_out out = bytes_out_of(length, 4);

	bytes_put_u32(&out, (uint32_t)n);
}

static uint64_t checksum(const struct seal_stream *st, const uint8_t *body,
			 size_t len, bool is_last)
{
	uint64_t seed = XXH3_64bits(&st->s->config.cluster,
				    sizeof(st->s->config.cluster));

	return XXH3_64bits_withSeed(body, len, seed + is_last);
}

static void put_frame(struct seal_stream *st, const uint8_t *body, size_t len,
		      bool is_last)
{
	size_t n = len + (st->is_sealed ? SEAL_SS_EXTRA : CLEAR_EXTRA);
	uint8_t *to = buffer_more(&st->out, 4 + n);

	put_length(to, n);
	if (st->is_sealed) {
		seal_flow_push(st->tx, to + 4, body, len, to, is_last);
	} else {
		struct bytes_out out = bytes_out_of(to + 4, n);
		bytes_put_u64(&out, checksum(st, body, len, is_last));
		bytes_put_u8(&out, is_last);
		bytes_put(&out, body, len);
		assert(!out.full);
	}
	st->out.len += 4 + n;
}

/* ---- The handshake ---- */

static void put_hello(struct seal_stream *st, const struct gossip_id *receiver)
{
	struct seal *s = st->s;
	struct bytes_out out = bytes_out_of(st->mine, sizeof(st->mine));
	uint8_t challenge[SEAL_CHALLENGE_BYTES];

	st->key = st->is_sealed ? s->slots[s->used].id : 0;
	seal_random(challenge, sizeof(challenge));
	seal_put_head(s, &out,
		      st->is_sealed ? SEAL_STREAM_SEALED : SEAL_STREAM_IN_CLEAR,
		      st->key);
	bytes_put(&out, receiver->b, sizeof(receiver->b));
	bytes_put(&out, challenge, sizeof(challenge));
	assert(!out.full && out.len == sizeof(st->mine));
	memcpy(buffer_more(&st->out, out.len), st->mine, out.len);
	st->out.len += out.len;
}

/* What the key of one direction is made of, besides the key. */
static struct seal_flow *make_flow(const struct seal_stream *st, int slot,
				   uint8_t *header, bool is_sending)
{
	uint8_t bind[BIND_BYTES];
	struct bytes_out out = bytes_out_of(bind, sizeof(bind));
	const uint8_t *first = st->is_caller ? st->mine : st->theirs;
	const uint8_t *second = st->is_caller ? st->theirs : st->mine;

	bytes_put(&out, st->s->config.cluster.b, 16);
	bytes_put(&out, first, SEAL_HELLO_BYTES);
	bytes_put(&out, second, SEAL_HELLO_BYTES);
	bytes_put_u8(&out, st->is_caller == is_sending);
	assert(!out.full && out.len == sizeof(bind));
	return seal_flow_create(st->s->slots[slot].stream, bind, sizeof(bind),
				header, is_sending);
}

static enum seal_reason check_hello(struct seal_stream *st)
{
	struct bytes_in in = bytes_in_of(st->in.bytes, SEAL_HELLO_BYTES);
	enum seal_reason reason = seal_get_head(st->s, &in, &st->peer);
	struct gossip_id receiver;

	if (reason != SEAL_OK)
		return reason;
	if (st->peer.form < SEAL_STREAM_SEALED)
		return SEAL_ALIEN; /* a packet */
	bool is_sealed = st->peer.form == SEAL_STREAM_SEALED;
	if (st->is_caller && is_sealed != st->is_sealed)
		return is_sealed ? SEAL_ALIEN : SEAL_CLEAR;
	bytes_copy(&in, receiver.b, sizeof(receiver.b));
	if (!gossip_id_equal(&receiver, &st->s->config.self) &&
	    (st->is_caller || !gossip_id_is_zero(&receiver)))
		return SEAL_NOT_THEM;
	if (!gossip_id_is_zero(&st->expect) &&
	    !gossip_id_equal(&st->expect, &st->peer.sender))
		return SEAL_NOT_THEM;
	const struct seal_peer *p = seal_find_peer(st->s, &st->peer.sender);
	if (p != NULL && st->peer.boot < p->boot)
		return SEAL_TOO_OLD;
	st->is_sealed = is_sealed;
	return SEAL_OK;
}

static int on_hello(struct seal_stream *st)
{
	enum seal_reason reason = check_hello(st);

	if (reason != SEAL_OK)
		return fail(st, reason);
	memcpy(st->theirs, st->in.bytes, sizeof(st->theirs));
	if (!st->is_caller)
		put_hello(st, &st->peer.sender);
	if (st->is_sealed) {
		int slot = seal_slot_of(st->s, st->key);
		if (slot < 0) /* removed meanwhile */
			return fail(st, SEAL_NO_KEY);
		uint8_t *header = buffer_more(&st->out, SEAL_SS_HEADER_BYTES);
		st->tx = make_flow(st, slot, header, true);
		assert(st->tx != NULL); /* sending cannot fail */
		st->out.len += SEAL_SS_HEADER_BYTES;
		enter(st, STAGE_HEADER, SEAL_SS_HEADER_BYTES);
	} else {
		enter(st, STAGE_LENGTH, 4);
	}
	put_frame(st, NULL, 0, false);
	return 0;
}

static int on_header(struct seal_stream *st)
{
	int slot = seal_slot_of(st->s, st->peer.key);

	if (slot < 0)
		return fail(st, SEAL_NO_KEY);
	st->rx = make_flow(st, slot, st->in.bytes, false);
	if (st->rx == NULL)
		return fail(st, SEAL_FORGED);
	enter(st, STAGE_LENGTH, 4);
	return 0;
}

/* ---- Frames in ---- */

static int on_length(struct seal_stream *st)
{
	struct bytes_in in = bytes_in_of(st->in.bytes, 4);
	size_t n = bytes_u32(&in);
	size_t extra = st->is_sealed ? SEAL_SS_EXTRA : CLEAR_EXTRA;

	if (n < extra)
		return fail(st, SEAL_SHORT);
	if (n > extra + (st->has_proof ? SEAL_FRAME_MAX : 0))
		return fail(st, SEAL_TOO_LONG);
	memcpy(st->length, st->in.bytes, 4);
	enter(st, STAGE_FRAME, n);
	return 0;
}

static enum seal_reason open_frame(struct seal_stream *st,
				   struct seal_frame *frame)
{
	if (st->is_sealed) {
		frame->len = st->need - SEAL_SS_EXTRA;
		frame->body = seal_flow_pull(st->rx, st->in.bytes, st->need,
					     st->length, &frame->is_last);
		return frame->body != NULL ? SEAL_OK : SEAL_FORGED;
	}
	struct bytes_in in = bytes_in_of(st->in.bytes, st->need);
	uint64_t sum = bytes_u64(&in);
	frame->is_last = bytes_u8(&in) != 0;
	frame->len = bytes_left(&in);
	frame->body = in.at;
	return sum == checksum(st, frame->body, frame->len, frame->is_last)
		       ? SEAL_OK
		       : SEAL_DAMAGED;
}

/* 1: a frame for the user; 0: it was the proof. */
static int on_frame(struct seal_stream *st, struct seal_frame *frame)
{
	enum seal_reason reason = open_frame(st, frame);

	if (reason != SEAL_OK)
		return fail(st, reason);
	bool is_proof = !st->has_proof;
	if (is_proof) {
		int slot =
			st->is_sealed ? seal_slot_of(st->s, st->peer.key) : -1;
		reason = seal_heard(st->s, &st->peer.sender, slot);
		if (reason != SEAL_OK)
			return fail(st, reason);
		seal_count(st->s, SEAL_OK);
		st->has_proof = true;
	}
	enter(st, frame->is_last ? STAGE_END : STAGE_LENGTH,
	      frame->is_last ? 0 : 4);
	return is_proof && !frame->is_last ? 0 : 1;
}

int seal_stream_next(struct seal_stream *st, struct seal_frame *frame)
{
	int rc = 0;

	*frame = (struct seal_frame){0};
	while (rc == 0 && st->in.len == st->need) {
		switch (st->stage) {
		case STAGE_HELLO:
			rc = on_hello(st);
			break;
		case STAGE_HEADER:
			rc = on_header(st);
			break;
		case STAGE_LENGTH:
			rc = on_length(st);
			break;
		case STAGE_FRAME:
			rc = on_frame(st, frame);
			break;
		case STAGE_END:
			return 0;
		case STAGE_FAILED:
			return -EPROTO;
		}
	}
	return st->stage == STAGE_FAILED ? -EPROTO : rc;
}

size_t seal_stream_put(struct seal_stream *st, const uint8_t *bytes, size_t n)
{
	if (st->stage == STAGE_FAILED || st->stage == STAGE_END)
		return 0;
	if (n > st->need - st->in.len)
		n = st->need - st->in.len;
	if (n == 0)
		return 0;
	/* Grows with what came, not with what was announced. */
	memcpy(buffer_more(&st->in, n), bytes, n);
	st->in.len += n;
	return n;
}

/* ---- The rest ---- */

struct seal_stream *seal_stream_create(struct seal *s, bool is_caller,
				       const struct gossip_id *expect)
{
	bool is_sealed = s->config.mode != SEAL_OFF;

	if (is_caller && is_sealed && s->used < 0)
		return NULL;
	struct seal_stream *st = xcalloc(1, sizeof(*st));
	st->s = s;
	st->is_caller = is_caller;
	st->is_sealed = is_sealed;
	if (expect != NULL)
		st->expect = *expect;
	enter(st, STAGE_HELLO, SEAL_HELLO_BYTES);
	if (is_caller)
		put_hello(st, &st->expect);
	return st;
}

static void buffer_free(struct buffer *b)
{
	if (b->bytes != NULL)
		seal_wipe(b->bytes, b->cap);
	free(b->bytes);
}

void seal_stream_destroy(struct seal_stream *st)
{
	if (st == NULL)
		return;
	seal_flow_destroy(st->tx);
	seal_flow_destroy(st->rx);
	buffer_free(&st->in);
	buffer_free(&st->out);
	free(st);
}

bool seal_stream_is_for(const struct seal *s,
			const uint8_t bytes[SEAL_PEEK_BYTES])
{
	struct bytes_in in = bytes_in_of(bytes, SEAL_PEEK_BYTES);

	bytes_take(&in, 4);
	return bytes_u32(&in) == s->cluster;
}

enum seal_reason seal_stream_reason(const struct seal_stream *st)
{
	return st->reason;
}

int seal_stream_send(struct seal_stream *st, const void *body, size_t len,
		     bool is_last)
{
	if (st->stage == STAGE_FAILED || st->has_said_last)
		return -EPIPE;
	if (!st->has_proof)
		return -EAGAIN;
	if (len > SEAL_FRAME_MAX)
		return -EMSGSIZE;
	put_frame(st, body, len, is_last);
	st->has_said_last = is_last;
	return 0;
}

const uint8_t *seal_stream_out(const struct seal_stream *st, size_t *n)
{
	*n = st->out.len;
	return st->out.bytes;
}

void seal_stream_sent(struct seal_stream *st, size_t n)
{
	assert(n <= st->out.len);
	if (n > 0)
		memmove(st->out.bytes, st->out.bytes + n, st->out.len - n);
	st->out.len -= n;
}

bool seal_stream_peer(const struct seal_stream *st, struct gossip_id *id,
		      uint32_t *boot, bool *is_sealed)
{
	if (!st->has_proof)
		return false;
	*id = st->peer.sender;
	*boot = st->peer.boot;
	*is_sealed = st->is_sealed;
	return true;
}

/* SPDX-License-Identifier: MIT */
/* The bytes of a log entry. Integers are little-endian. An entry is a header,
 * then items up to its end; the log keeps its length and a checksum.
 *
 *   header    version u8 = 1 | now_ms u64 | wall_us u64
 *
 *   SETTINGS  1 u8 | cluster 16 | vnodes u32 | claims u8 | lease_ms u32
 *             | calm_ms u32 | max_attempts u32 | handover_timeout_ms u32
 *   UP        2 u8 | node 16 | life 16 | boot u64 | weight u32
 *             | grace_ms u32 | flags u8 | host 32 | name
 *   DOWN      3 u8 | node 16 | boot u64 | epoch u64 | reason u8
 *   REQUEST   4 u8 | node 16 | boot u64 | epoch u64 | seq u64 | floor u64
 *             | n_ops u32 | n_ops operations
 *   SHARE     5 u8 | node 16 | boot u64 | epoch u64 | weight u32 | flags u8
 *
 *   flags     1: a client (UP only); 2: draining
 *   operation type u8 | name | id u64 | token u64
 *             CLAIM, SUBMIT, TAKE: | uid u32 | gid u32
 *             CLAIM, SUBMIT, NOTE: | note_len u32 | note
 *   name      len u16 | bytes
 *
 * The shape is checked here, and a wrong one makes the whole entry bad. What is
 * well-formed but not allowed (a name with a slash, a note that is too long) is
 * the operation's answer, not the entry's end. */
#include "ring/keyset_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define ENTRY_VERSION 1
#define GRACE_MAX     3600000

enum {
	FLAG_CLIENT = 1,
	FLAG_DRAINING = 2,
};

static void put_name(struct buf *b, const char *name)
{
	/* One byte too many is enough to be refused for it. */
	size_t len = strnlen(name, RING_NAME_MAX + 1);

	buf_u16(b, (uint16_t)len);
	buf_put(b, name, len);
}

static void put_id(struct buf *b, const struct ring_id *id)
{
	buf_put(b, id->byte, sizeof(id->byte));
}

static bool has_note(enum ring_op_type type)
{
	return type == RING_CLAIM || type == RING_SUBMIT || type == RING_NOTE;
}

static bool has_owner(enum ring_op_type type)
{
	return type == RING_CLAIM || type == RING_SUBMIT || type == RING_TAKE;
}

static void put_op(struct buf *b, const struct ring_op *op)
{
	buf_u8(b, (uint8_t)op->type);
	put_name(b, op->name);
	buf_u64(b, op->id);
	buf_u64(b, op->token);
	if (has_owner(op->type)) {
		buf_u32(b, op->uid);
		buf_u32(b, op->gid);
	}
	if (has_note(op->type)) {
		buf_u32(b, op->note_len);
		buf_put(b, op->note, op->note_len);
	}
}

void keyset_entry_begin(struct buf *b, uint64_t now_ms, uint64_t wall_us)
{
	buf_u8(b, ENTRY_VERSION);
	buf_u64(b, now_ms);
	buf_u64(b, wall_us);
}

void keyset_put_settings(struct buf *b, const struct ring_id *cluster,
			 const struct ring_settings *settings)
{
	buf_u8(b, ITEM_SETTINGS);
	put_id(b, cluster);
	buf_u32(b, settings->vnodes);
	buf_u8(b, (uint8_t)settings->claims);
	buf_u32(b, settings->lease_ms);
	buf_u32(b, settings->calm_ms);
	buf_u32(b, settings->max_attempts);
	buf_u32(b, settings->handover_timeout_ms);
}

void keyset_put_up(struct buf *b, const struct keyset_up *up)
{
	buf_u8(b, ITEM_UP);
	put_id(b, &up->id);
	put_id(b, &up->life);
	buf_u64(b, up->boot);
	buf_u32(b, up->weight);
	buf_u32(b, up->grace_ms);
	buf_u8(b, (uint8_t)((up->is_client ? FLAG_CLIENT : 0) |
			    (up->is_draining ? FLAG_DRAINING : 0)));
	buf_put(b, up->host, sizeof(up->host));
	put_name(b, up->name);
}

void keyset_put_down(struct buf *b, const struct ring_id *id, uint64_t boot,
		     uint64_t epoch, enum ring_reason reason)
{
	buf_u8(b, ITEM_DOWN);
	put_id(b, id);
	buf_u64(b, boot);
	buf_u64(b, epoch);
	buf_u8(b, (uint8_t)reason);
}

void keyset_put_share(struct buf *b, const struct keyset_share *share)
{
	buf_u8(b, ITEM_SHARE);
	put_id(b, &share->id);
	buf_u64(b, share->boot);
	buf_u64(b, share->epoch);
	buf_u32(b, share->weight);
	buf_u8(b, share->is_draining ? FLAG_DRAINING : 0);
}

void keyset_put_request(struct buf *b, const struct keyset_origin *origin,
			const struct ring_op *ops, size_t n_ops)
{
	assert(n_ops >= 1 && n_ops <= RING_OPS_MAX);
	buf_u8(b, ITEM_REQUEST);
	put_id(b, &origin->id);
	buf_u64(b, origin->boot);
	buf_u64(b, origin->epoch);
	buf_u64(b, origin->seq);
	buf_u64(b, origin->floor);
	buf_u32(b, (uint32_t)n_ops);
	for (size_t i = 0; i < n_ops; i++)
		put_op(b, &ops[i]);
}

static void expect(struct reader *r, bool cond)
{
	if (!cond)
		r->bad = true;
}

static void get_id(struct reader *r, struct ring_id *id)
{
	const uint8_t *at = reader_bytes(r, sizeof(id->byte));

	if (at != NULL)
		memcpy(id->byte, at, sizeof(id->byte));
}

static const char *get_name(struct reader *r, size_t *len)
{
	*len = reader_u16(r);
	return (const char *)reader_bytes(r, *len);
}

static void get_settings(struct reader *r, struct item *item)
{
	struct ring_settings *s = &item->settings;

	get_id(r, &item->cluster);
	s->vnodes = reader_u32(r);
	s->claims = reader_u8(r);
	s->lease_ms = reader_u32(r);
	s->calm_ms = reader_u32(r);
	s->max_attempts = reader_u32(r);
	s->handover_timeout_ms = reader_u32(r);
	expect(r, entry_settings_valid(s));
}

static void get_flags(struct reader *r, struct item *item, unsigned allowed)
{
	unsigned flags = reader_u8(r);

	expect(r, (flags & ~allowed) == 0);
	item->is_client = flags & FLAG_CLIENT;
	item->is_draining = flags & FLAG_DRAINING;
}

static void get_up(struct reader *r, struct item *item)
{
	get_id(r, &item->origin.id);
	get_id(r, &item->life);
	item->origin.boot = reader_u64(r);
	item->weight = reader_u32(r);
	item->grace_ms = reader_u32(r);
	get_flags(r, item, FLAG_CLIENT | FLAG_DRAINING);
	item->host = reader_bytes(r, RING_HOST_SIZE);
	item->name = get_name(r, &item->name_len);
	expect(r,
	       item->weight <= RING_WEIGHT_MAX && item->grace_ms <= GRACE_MAX);
}

static void get_down(struct reader *r, struct item *item)
{
	get_id(r, &item->origin.id);
	item->origin.boot = reader_u64(r);
	item->origin.epoch = reader_u64(r);
	item->reason = reader_u8(r);
	expect(r, item->reason == RING_DEAD || item->reason == RING_LEFT);
}

static void get_share(struct reader *r, struct item *item)
{
	get_id(r, &item->origin.id);
	item->origin.boot = reader_u64(r);
	item->origin.epoch = reader_u64(r);
	item->weight = reader_u32(r);
	get_flags(r, item, FLAG_DRAINING);
	expect(r, item->weight <= RING_WEIGHT_MAX);
}

static void get_request(struct reader *r, struct item *item)
{
	struct keyset_origin *o = &item->origin;

	get_id(r, &o->id);
	o->boot = reader_u64(r);
	o->epoch = reader_u64(r);
	o->seq = reader_u64(r);
	o->floor = reader_u64(r);
	item->n_ops = reader_u32(r);
	expect(r, o->seq > 0 && o->floor <= o->seq);
	expect(r, item->n_ops >= 1 && item->n_ops <= RING_OPS_MAX);
}

void entry_head(struct reader *r, struct entry_head *head)
{
	expect(r, reader_u8(r) == ENTRY_VERSION);
	head->now_ms = reader_u64(r);
	head->wall_us = reader_u64(r);
}

bool entry_next(struct reader *r, struct item *item)
{
	if (r->bad || reader_left(r) == 0)
		return false;
	*item = (struct item){.type = reader_u8(r)};
	switch (item->type) {
	case ITEM_SETTINGS:
		get_settings(r, item);
		break;
	case ITEM_UP:
		get_up(r, item);
		break;
	case ITEM_DOWN:
		get_down(r, item);
		break;
	case ITEM_REQUEST:
		get_request(r, item);
		break;
	case ITEM_SHARE:
		get_share(r, item);
		break;
	default:
		r->bad = true;
	}
	return !r->bad;
}

void entry_op(struct reader *r, struct entry_op *op)
{
	*op = (struct entry_op){.type = reader_u8(r)};
	expect(r, op->type >= RING_CLAIM && op->type < RING_N_OPS);
	op->name = get_name(r, &op->name_len);
	op->id = reader_u64(r);
	op->token = reader_u64(r);
	if (has_owner(op->type)) {
		op->uid = reader_u32(r);
		op->gid = reader_u32(r);
	}
	if (has_note(op->type)) {
		op->note_len = reader_u32(r);
		op->note = reader_bytes(r, op->note_len);
	}
}

int entry_name_check(const char *name, size_t len)
{
	if (len > RING_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || name[0] == '.' || memchr(name, '/', len) != NULL ||
	    memchr(name, '\0', len) != NULL)
		return -EINVAL;
	return 0;
}

bool entry_settings_valid(const struct ring_settings *s)
{
	return s->vnodes >= 16 && s->vnodes <= 65536 &&
	       (s->vnodes & (s->vnodes - 1)) == 0 &&
	       s->claims <= RING_CLAIMS_ANY && s->max_attempts >= 1 &&
	       s->max_attempts <= 65535;
}

int keyset_check(const void *entry, size_t len)
{
	struct reader r = reader_of(entry, len);
	struct entry_head head;
	struct entry_op op;
	struct item item;
	bool first = true;

	entry_head(&r, &head);
	while (entry_next(&r, &item)) {
		expect(&r, first || item.type != ITEM_SETTINGS);
		first = false;
		for (uint32_t i = 0; i < item.n_ops && !r.bad; i++)
			entry_op(&r, &op);
	}
	return r.bad ? -EBADMSG : 0;
}

/* SPDX-License-Identifier: MIT */
/* Messages between nodes. Integers are little-endian.
 *
 *   message   kind u8 | body | generation u32
 *
 *   GROUP     1 u8 | as group.c has it
 *   LEASE     2 u8 | as lease_wire.c draws it
 *   ITEMS     3 u8 | items, as entry.c draws them: UP, SHARE, REQUEST
 *   JOIN      4 u8 | hops u8 | node 16 | cluster 16 | server u64 | settings
 *             | name_len u8 | name
 *   REFUSAL   5 u8 | whom u64 | why u8 | settings
 *   FAREWELL  6 u8 | number u64 | is_over u8, 0 or 1
 *   FINISH    7 u8 | n times: id u64 | token u64
 *   LEAVE     8 u8 | hops u8 | node 16 | number u64 | boot u64 | epoch u64
 *             | wish u8
 *
 *   settings  vnodes u32 | claims u32 | lease_ms u32 | calm_ms u32
 *             | max_attempts u32 | handover_timeout_ms u32
 *
 * A JOIN, REFUSAL, FAREWELL or LEAVE that is longer or shorter is malformed. */
#include "ring/peer.h"

#include <errno.h>
#include <string.h>

#include "ring/keyset_impl.h"

enum peer_kind peer_kind(const void *bytes, size_t len, struct reader *body)
{
	*body = reader_of(bytes, len);
	uint8_t kind = reader_u8(body);

	return body->bad || kind >= PEER_N_KINDS ? 0 : kind;
}

void peer_put_generation(struct buf *b, uint32_t generation)
{
	buf_u32(b, generation);
}

bool peer_cut_generation(const void *bytes, size_t *len, uint32_t *out)
{
	const size_t size = sizeof(*out);

	if (*len < size)
		return false;
	*len -= size;
	struct reader r = reader_of((const uint8_t *)bytes + *len, size);

	*out = reader_u32(&r);
	return true;
}

void peer_put_kind(struct buf *b, enum peer_kind kind)
{
	buf_u8(b, (uint8_t)kind);
}

static void put_settings(struct buf *b, const struct ring_settings *s)
{
	buf_u32(b, s->vnodes);
	buf_u32(b, s->claims);
	buf_u32(b, s->lease_ms);
	buf_u32(b, s->calm_ms);
	buf_u32(b, s->max_attempts);
	buf_u32(b, s->handover_timeout_ms);
}

static void get_settings(struct reader *r, struct ring_settings *s)
{
	s->vnodes = reader_u32(r);
	s->claims = reader_u32(r);
	s->lease_ms = reader_u32(r);
	s->calm_ms = reader_u32(r);
	s->max_attempts = reader_u32(r);
	s->handover_timeout_ms = reader_u32(r);
}

static void get_id(struct reader *r, struct ring_id *id)
{
	const uint8_t *at = reader_bytes(r, sizeof(id->byte));

	if (at != NULL)
		memcpy(id->byte, at, sizeof(id->byte));
}

/* All was read, and there was no more. */
static int end(const struct reader *r)
{
	return r->bad || reader_left(r) > 0 ? -EBADMSG : 0;
}

void peer_put_join(struct buf *b, const struct peer_join *join)
{
	size_t len = strlen(join->name);

	peer_put_kind(b, PEER_JOIN);
	buf_u8(b, join->hops);
	buf_put(b, join->node.byte, sizeof(join->node.byte));
	buf_put(b, join->cluster.byte, sizeof(join->cluster.byte));
	buf_u64(b, join->server);
	put_settings(b, &join->settings);
	buf_u8(b, (uint8_t)len);
	buf_put(b, join->name, len);
}

int peer_get_join(struct reader *body, struct peer_join *out)
{
	*out = (struct peer_join){.hops = reader_u8(body)};
	get_id(body, &out->node);
	get_id(body, &out->cluster);
	out->server = reader_u64(body);
	get_settings(body, &out->settings);
	size_t len = reader_u8(body);
	const char *name = (const char *)reader_bytes(body, len);

	if (end(body) != 0 || out->hops > 1 || out->server == 0 ||
	    entry_name_check(name, len) != 0)
		return -EBADMSG;
	memcpy(out->name, name, len);
	return 0;
}

void peer_put_refusal(struct buf *b, const struct peer_refusal *refusal)
{
	peer_put_kind(b, PEER_REFUSAL);
	buf_u64(b, refusal->whom);
	buf_u8(b, (uint8_t)refusal->why);
	put_settings(b, &refusal->settings);
}

int peer_get_refusal(struct reader *body, struct peer_refusal *out)
{
	*out = (struct peer_refusal){.whom = reader_u64(body)};
	uint8_t why = reader_u8(body);

	out->why = why;
	get_settings(body, &out->settings);
	return why == 0 || why >= PEER_N_WHY ? -EBADMSG : end(body);
}

void peer_put_leave(struct buf *b, const struct peer_leave *leave)
{
	peer_put_kind(b, PEER_LEAVE);
	buf_u8(b, leave->hops);
	buf_put(b, leave->node.byte, sizeof(leave->node.byte));
	buf_u64(b, leave->number);
	buf_u64(b, leave->boot);
	buf_u64(b, leave->epoch);
	buf_u8(b, (uint8_t)leave->wish);
}

int peer_get_leave(struct reader *body, struct peer_leave *out)
{
	*out = (struct peer_leave){.hops = reader_u8(body)};
	get_id(body, &out->node);
	out->number = reader_u64(body);
	out->boot = reader_u64(body);
	out->epoch = reader_u64(body);
	uint8_t wish = reader_u8(body);

	out->wish = wish;
	return out->hops > 1 || wish == 0 || wish >= PEER_N_WISHES ? -EBADMSG
								   : end(body);
}

void peer_put_farewell(struct buf *b, const struct peer_farewell *farewell)
{
	peer_put_kind(b, PEER_FAREWELL);
	buf_u64(b, farewell->number);
	buf_u8(b, farewell->is_over);
}

int peer_get_farewell(struct reader *body, struct peer_farewell *out)
{
	*out = (struct peer_farewell){.number = reader_u64(body)};
	uint8_t is_over = reader_u8(body);

	out->is_over = is_over;
	return is_over > 1 ? -EBADMSG : end(body);
}

void peer_put_life(struct buf *b, uint64_t id, uint64_t token)
{
	buf_u64(b, id);
	buf_u64(b, token);
}

bool peer_next_life(struct reader *body, uint64_t *id, uint64_t *token)
{
	if (body->bad || reader_left(body) == 0)
		return false;
	*id = reader_u64(body);
	*token = reader_u64(body);
	return !body->bad;
}

static void take_up(const struct item *item, struct peer_item *out)
{
	out->is_up = true;
	out->up = (struct keyset_up){.id = item->origin.id,
				     .life = item->life,
				     .boot = item->origin.boot,
				     .weight = item->weight,
				     .grace_ms = item->grace_ms,
				     .is_client = item->is_client,
				     .is_draining = item->is_draining};
	memcpy(out->up.host, item->host, sizeof(out->up.host));
	memcpy(out->name, item->name, item->name_len);
	out->up.name = out->name;
}

static void take_share(const struct item *item, struct peer_item *out)
{
	out->is_share = true;
	out->share = (struct keyset_share){.id = item->origin.id,
					   .boot = item->origin.boot,
					   .epoch = item->origin.epoch,
					   .weight = item->weight,
					   .is_draining = item->is_draining};
}

static bool may_ask(const struct item *item, const struct ring_id *from)
{
	if (memcmp(&item->origin.id, from, sizeof(*from)) != 0)
		return false;
	switch (item->type) {
	case ITEM_UP:
		return entry_name_check(item->name, item->name_len) == 0;
	case ITEM_REQUEST:
	case ITEM_SHARE:
		return true;
	default:
		return false;
	}
}

int peer_next_item(struct reader *body, const struct ring_id *from,
		   struct peer_item *out)
{
	struct entry_op op;
	struct item item;

	*out = (struct peer_item){.bytes = body->at};
	if (!body->bad && reader_left(body) == 0)
		return 0;
	if (!entry_next(body, &item) || !may_ask(&item, from))
		return -EBADMSG;
	for (uint32_t i = 0; i < item.n_ops && !body->bad; i++)
		entry_op(body, &op);
	if (body->bad)
		return -EBADMSG;
	out->origin = item.origin;
	out->n_ops = item.n_ops;
	out->len = (size_t)(body->at - out->bytes);
	if (item.type == ITEM_UP)
		take_up(&item, out);
	if (item.type == ITEM_SHARE)
		take_share(&item, out);
	return 1;
}

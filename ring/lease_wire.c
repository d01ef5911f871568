/* SPDX-License-Identifier: MIT */
/* The messages of the leases. Integers are little-endian; a message that is
 * shorter or longer than its kind is malformed.
 *
 *   RENEWAL    1 u8 | hops u8 | node 16 | boot u64 | epoch u64 | number u64
 *   GRANT      2 u8 | hops u8 | node 16 | boot u64 | epoch u64 | number u64
 *              | duration_ms u32
 *   REFUSAL    3 u8 | hops u8 | node 16 | boot u64 | epoch u64 | number u64
 *              | why u8
 *   CONFIRM    4 u8 | term u64 | nonce u64
 *   CONFIRMED  5 u8 | term u64 | nonce u64 | server u64
 *   OBITUARY   6 u8 | node 16 | boot u64 | epoch u64 | number u64
 *
 * node    whose lease it is, whoever carries the message
 * boot    and epoch: its life (11)
 * epoch   1 and up: the index of the entry that brought it up, as applied there
 * number  1, 2, 3, ... within a boot, one for each message sent
 * hops    0: from node, or to a relay; 1: it was relayed, and is not again (7)
 * server  the raft id of the voter that answers (21)
 *
 * They travel on sealed streams between members, the obituary also alone, in a
 * packet that the daemon sealed for its herald. */
#include "ring/lease_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static bool is_of_a_life(enum lease_kind kind)
{
	return kind != LEASE_CONFIRM && kind != LEASE_CONFIRMED;
}

static bool has_hops(enum lease_kind kind)
{
	return is_of_a_life(kind) && kind != LEASE_OBITUARY;
}

void lease_encode(struct buf *b, const struct lease_packet *packet)
{
	buf_u8(b, (uint8_t)packet->kind);
	if (has_hops(packet->kind))
		buf_u8(b, packet->hops);
	if (is_of_a_life(packet->kind)) {
		buf_put(b, packet->id.byte, sizeof(packet->id.byte));
		buf_u64(b, packet->boot);
		buf_u64(b, packet->epoch);
		buf_u64(b, packet->number);
	} else {
		buf_u64(b, packet->term);
		buf_u64(b, packet->nonce);
	}
	if (packet->kind == LEASE_GRANT)
		buf_u32(b, packet->duration_ms);
	if (packet->kind == LEASE_REFUSAL)
		buf_u8(b, packet->why);
	if (packet->kind == LEASE_CONFIRMED)
		buf_u64(b, packet->server);
}

static void expect(struct reader *r, bool cond)
{
	if (!cond)
		r->bad = true;
}

static void get_life(struct reader *r, struct lease_packet *p)
{
	const uint8_t *id = reader_bytes(r, sizeof(p->id.byte));

	if (id != NULL)
		memcpy(p->id.byte, id, sizeof(p->id.byte));
	p->boot = reader_u64(r);
	p->epoch = reader_u64(r);
	p->number = reader_u64(r);
	expect(r, p->epoch > 0 && p->number > 0);
}

static void get_rest(struct reader *r, struct lease_packet *p)
{
	if (p->kind == LEASE_GRANT) {
		p->duration_ms = reader_u32(r);
		expect(r, p->duration_ms > 0 && p->duration_ms <= LEASE_MS_MAX);
	}
	if (p->kind == LEASE_REFUSAL) {
		p->why = reader_u8(r);
		expect(r, p->why > 0 && p->why < LEASE_N_WHY);
	}
	if (p->kind == LEASE_CONFIRMED)
		p->server = reader_u64(r);
}

int lease_decode(const void *bytes, size_t len, struct lease_packet *out)
{
	struct reader r = reader_of(bytes, len);
	uint8_t kind = reader_u8(&r);

	if (kind == 0 || kind >= LEASE_N_KINDS)
		return -EBADMSG;
	*out = (struct lease_packet){.kind = (enum lease_kind)kind};
	if (has_hops(out->kind)) {
		out->hops = reader_u8(&r);
		expect(&r, out->hops <= 1);
	}
	if (is_of_a_life(out->kind)) {
		get_life(&r, out);
	} else {
		out->term = reader_u64(&r);
		out->nonce = reader_u64(&r);
	}
	get_rest(&r, out);
	return r.bad || reader_left(&r) > 0 ? -EBADMSG : 0;
}

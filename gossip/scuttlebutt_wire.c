/* SPDX-License-Identifier: MIT */
#include "gossip/scuttlebutt_wire.h"

#include <errno.h>

static void get_item(struct bytes_in *in, struct sb_item *item, uint8_t *flags)
{
	item->version = bytes_u64(in);
	*flags = bytes_u8(in);
	item->is_tomb = *flags == 1;
	item->len = bytes_u32(in);
	if (item->len > SB_BODY_MAX)
		in->bad = true;
	item->body = bytes_take(in, item->len);
}

void sb_wire_item(struct bytes_in *in, struct sb_item *item)
{
	uint8_t flags;

	get_item(in, item, &flags);
}

bool sb_wire_section(struct bytes_in *in, struct sb_section *s)
{
	if (bytes_left(in) == 0)
		return false;
	bytes_copy(in, s->id.b, sizeof(s->id.b));
	s->life = bytes_u64(in);
	s->gc = bytes_u64(in);
	s->from = bytes_u64(in);
	s->to = bytes_u64(in);
	s->heard = bytes_u64(in);
	s->n = bytes_u32(in);
	return !in->bad;
}

bool sb_wire_entry(struct bytes_in *in, struct sb_entry *e)
{
	if (bytes_left(in) == 0)
		return false;
	bytes_copy(in, e->id.b, sizeof(e->id.b));
	e->life = bytes_u64(in);
	e->gc = bytes_u64(in);
	e->max = bytes_u64(in);
	return !in->bad;
}

/* n needs no limit of its own: each of the n takes bytes, which run out. */
static bool section_is_good(struct bytes_in *in, const struct sb_section *s)
{
	uint64_t last = s->from;
	struct sb_item item;
	uint8_t flags;

	if (s->from > s->to)
		return false;
	for (uint32_t i = 0; i < s->n; i++) {
		get_item(in, &item, &flags);
		if (in->bad || flags > 1 || item.version <= last ||
		    item.version > s->to)
			return false;
		last = item.version;
	}
	return true;
}

bool sb_wire_is_dump(struct bytes_in in)
{
	struct sb_section s;

	while (sb_wire_section(&in, &s))
		if (!section_is_good(&in, &s))
			return false;
	return !in.bad;
}

int sb_wire_decode(struct bytes_in *in, struct sb_header *h)
{
	uint8_t version = bytes_u8(in);

	*h = (struct sb_header){.kind = bytes_u8(in)};
	h->channel = bytes_u8(in);
	h->flags = bytes_u8(in);
	h->epoch = bytes_u32(in);
	h->vector = bytes_u64(in);
	h->content = bytes_u64(in);
	if (in->bad)
		return -EBADMSG;
	if (version != SB_VERSION)
		return -EPROTONOSUPPORT;
	switch (h->kind) {
	case SB_HELLO:
		return bytes_left(in) == 0 ? 0 : -EBADMSG;
	case SB_DIGEST:
		return bytes_left(in) % SB_ENTRY_BYTES == 0 ? 0 : -EBADMSG;
	case SB_DELTA:
		return sb_wire_is_dump(*in) ? 0 : -EBADMSG;
	default:
		return -EBADMSG;
	}
}

void sb_wire_put_header(struct bytes_out *out, const struct sb_header *h)
{
	bytes_put_u8(out, SB_VERSION);
	bytes_put_u8(out, h->kind);
	bytes_put_u8(out, h->channel);
	bytes_put_u8(out, h->flags);
	bytes_put_u32(out, h->epoch);
	bytes_put_u64(out, h->vector);
	bytes_put_u64(out, h->content);
}

void sb_wire_patch_flags(struct bytes_out *message, uint8_t flags)
{
	if (!message->full)
		message->base[3] = flags;
}

void sb_wire_put_entry(struct bytes_out *out, const struct sb_entry *e)
{
	bytes_put(out, e->id.b, sizeof(e->id.b));
	bytes_put_u64(out, e->life);
	bytes_put_u64(out, e->gc);
	bytes_put_u64(out, e->max);
}

void sb_wire_put_section(struct bytes_out *out, const struct sb_section *s)
{
	bytes_put(out, s->id.b, sizeof(s->id.b));
	bytes_put_u64(out, s->life);
	bytes_put_u64(out, s->gc);
	bytes_put_u64(out, s->from);
	bytes_put_u64(out, s->to);
	bytes_put_u64(out, s->heard);
	bytes_put_u32(out, s->n);
}

void sb_wire_patch_section(struct bytes_out *out, size_t at,
			   const struct sb_section *s)
{
	struct bytes_out head = bytes_out_of(out->base + at, SB_SECTION_BYTES);

	sb_wire_put_section(&head, s);
}

bool sb_wire_put_record(struct bytes_out *out, const struct sb_record *r)
{
	if (bytes_room(out) < SB_RECORD_BYTES + (size_t)r->len)
		return false;
	bytes_put_u64(out, r->version);
	bytes_put_u8(out, r->is_tomb);
	bytes_put_u32(out, r->len);
	bytes_put(out, r->body, r->len);
	return true;
}

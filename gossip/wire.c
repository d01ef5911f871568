/* SPDX-License-Identifier: MIT */
#include "gossip/wire.h"

#include <assert.h>
#include <errno.h>

/* A packet, before it is sealed:
 *
 *	 0  version      1   of this packet
 *	 1  kind         1   enum wire_kind; others are dropped
 *	 2  flags        1   unknown bits mean nothing
 *	 3  seq          4   the sender's, an answer repeats it
 *	 7  from        16   the sender
 *	23  incarnation  8   the sender's own
 *	31  digest       8   of the sender's table, see members.h
 *	39  subject     16   who is meant; zero: whoever gets this
 *	55  boot         4   which life of it; zero: any
 *	59  sections         until the end
 *
 * A section is: type 1, length 2, body. Unknown types are skipped.
 *
 *	1  records     one after the other
 *	2  digests     8 x 256: digests of the table's buckets
 *	3  differing   32: a bit per bucket, lowest bit first
 *
 * A record:
 *
 *	 0  length       2   of what follows
 *	 2  id          16
 *	18  incarnation  8
 *	26  status       1   enum wire_status, or a later one
 *	27  accusers     1   how many, at most 4; then 16 each
 *	..  age          4   if status is 2 or above: seconds since then
 *	..  version      8   of the facts, 0: none
 *	..  attributes       until the end of the record: facts.c
 *
 * So an accusation takes 52 bytes, a member with name and address about 75. */
enum {
	SECTION_RECORDS = 1,
	SECTION_DIGESTS = 2,
	SECTION_DIFFERING = 3
};

static void read_header(struct bytes_in *in, struct wire_header *h)
{
	h->version = bytes_u8(in);
	h->kind = bytes_u8(in);
	h->flags = bytes_u8(in);
	h->seq = bytes_u32(in);
	bytes_copy(in, &h->from, sizeof(h->from));
	h->incarnation = bytes_u64(in);
	h->digest = bytes_u64(in);
	bytes_copy(in, &h->subject, sizeof(h->subject));
	h->subject_boot = bytes_u32(in);
}

/* An incarnation with no successor in its boot could not be refuted. */
static bool is_incarnation(uint64_t incarnation)
{
	return incarnation_boot(incarnation) != 0 &&
	       incarnation_boot(incarnation) != UINT32_MAX &&
	       incarnation_change(incarnation) != UINT32_MAX;
}

static bool read_record(struct bytes_in *in, struct wire_record *r)
{
	struct bytes_in body = bytes_part(in, bytes_u16(in));

	*r = (struct wire_record){0};
	bytes_copy(&body, &r->id, sizeof(r->id));
	r->incarnation = bytes_u64(&body);
	r->status = bytes_u8(&body);
	r->n_accusers = bytes_u8(&body);
	if (r->n_accusers > WIRE_ACCUSERS_MAX)
		return false;
	for (unsigned i = 0; i < r->n_accusers; i++)
		bytes_copy(&body, &r->accusers[i], sizeof(r->accusers[i]));
	if (r->status >= WIRE_DEAD)
		r->age_s = bytes_u32(&body);
	r->facts_version = bytes_u64(&body);
	if (body.bad || gossip_id_is_zero(&r->id) ||
	    !is_incarnation(r->incarnation))
		return false;
	if (r->facts_version == 0)
		return true;
	if (bytes_left(&body) > FACTS_BYTES_MAX)
		return false;
	r->attrs_len = (uint16_t)bytes_left(&body);
	r->attrs = bytes_take(&body, r->attrs_len);
	return r->facts_version <= r->incarnation &&
	       facts_check(r->attrs, r->attrs_len) == 0;
}

static bool records_are_good(struct bytes_in records)
{
	struct wire_record r;

	while (bytes_left(&records) > 0)
		if (!read_record(&records, &r))
			return false;
	return !records.bad;
}

static bool read_section(struct wire_packet *p, unsigned type,
			 struct bytes_in body)
{
	switch (type) {
	case SECTION_RECORDS:
		p->records = body;
		return records_are_good(body);
	case SECTION_DIGESTS:
		p->digests = body;
		return bytes_left(&body) == WIRE_BUCKETS * sizeof(uint64_t);
	case SECTION_DIFFERING:
		p->differing = body;
		return bytes_left(&body) == WIRE_BUCKETS / 8;
	default:
		return true;
	}
}

int wire_decode(struct wire_packet *p, const void *bytes, size_t len)
{
	struct bytes_in in = bytes_in_of(bytes, len);

	*p = (struct wire_packet){0};
	if (len < WIRE_HEADER_BYTES || len > WIRE_MESSAGE_BYTES)
		return -EBADMSG;
	read_header(&in, &p->header);
	if (p->header.version < WIRE_OLDEST || p->header.version > WIRE_NEWEST)
		return -EPROTONOSUPPORT;
	if (gossip_id_is_zero(&p->header.from) ||
	    !is_incarnation(p->header.incarnation))
		return -EBADMSG;
	while (bytes_left(&in) > 0) {
		unsigned type = bytes_u8(&in);
		struct bytes_in body = bytes_part(&in, bytes_u16(&in));

		if (in.bad || !read_section(p, type, body))
			return -EBADMSG;
	}
	return 0;
}

bool wire_next(struct bytes_in *records, struct wire_record *record)
{
	if (bytes_left(records) == 0)
		return false;
	bool good = read_record(records, record);
	assert(good); /* wire_decode() has seen it */
	return good;
}

void wire_put_header(struct bytes_out *out, const struct wire_header *h)
{
	size_t begin = out->len;

	bytes_put_u8(out, h->version);
	bytes_put_u8(out, h->kind);
	bytes_put_u8(out, h->flags);
	bytes_put_u32(out, h->seq);
	bytes_put(out, &h->from, sizeof(h->from));
	bytes_put_u64(out, h->incarnation);
	bytes_put_u64(out, h->digest);
	bytes_put(out, &h->subject, sizeof(h->subject));
	bytes_put_u32(out, h->subject_boot);
	assert(out->full || out->len - begin == WIRE_HEADER_BYTES);
}

static size_t begin_section(struct bytes_out *out, unsigned type)
{
	size_t begin = out->len;

	bytes_put_u8(out, (uint8_t)type);
	bytes_put_u16(out, 0);
	return begin;
}

static void end_section(struct bytes_out *out, size_t begin)
{
	size_t body = out->len - begin - 3;

	assert(body <= UINT16_MAX);
	bytes_patch_u16(out, begin + 1, (uint16_t)body);
}

size_t wire_begin_records(struct bytes_out *out)
{
	return begin_section(out, SECTION_RECORDS);
}

void wire_end_records(struct bytes_out *out, size_t begin)
{
	end_section(out, begin);
}

void wire_put_digests(struct bytes_out *out, const uint64_t *digests)
{
	size_t begin = begin_section(out, SECTION_DIGESTS);

	for (unsigned i = 0; i < WIRE_BUCKETS; i++)
		bytes_put_u64(out, digests[i]);
	end_section(out, begin);
}

void wire_put_differing(struct bytes_out *out, const uint8_t *bits)
{
	size_t begin = begin_section(out, SECTION_DIFFERING);

	bytes_put(out, bits, WIRE_BUCKETS / 8);
	end_section(out, begin);
}

static size_t record_bytes(const struct wire_record *r)
{
	return 2 + 16 + 8 + 1 + 1 + 16 * (size_t)r->n_accusers +
	       (r->status >= WIRE_DEAD ? 4 : 0) + 8 +
	       (r->facts_version != 0 ? r->attrs_len : 0);
}

bool wire_put_record(struct bytes_out *out, const struct wire_record *r)
{
	size_t size = record_bytes(r);

	assert(r->n_accusers <= WIRE_ACCUSERS_MAX);
	if (size > bytes_room(out))
		return false;
	bytes_put_u16(out, (uint16_t)(size - 2));
	bytes_put(out, &r->id, sizeof(r->id));
	bytes_put_u64(out, r->incarnation);
	bytes_put_u8(out, r->status);
	bytes_put_u8(out, r->n_accusers);
	bytes_put(out, r->accusers, 16 * (size_t)r->n_accusers);
	if (r->status >= WIRE_DEAD)
		bytes_put_u32(out, r->age_s);
	bytes_put_u64(out, r->facts_version);
	if (r->facts_version != 0)
		bytes_put(out, r->attrs, r->attrs_len);
	assert(!out->full);
	return true;
}

unsigned wire_common_version(unsigned oldest, unsigned newest)
{
	unsigned top = newest < WIRE_NEWEST ? newest : WIRE_NEWEST;

	return top >= oldest && top >= WIRE_OLDEST ? top : 0;
}

/* SPDX-License-Identifier: MIT */
/* The bytes of scuttlebutt. A message is checked whole before any of it is acted
 * on: a bad one changes nothing (D9). Integers are little-endian.
 *
 *	header, of every message: SB_HEADER_BYTES
 *	 0  version   1   SB_VERSION
 *	 1  kind      1   enum sb_kind
 *	 2  channel   1   which instance: struct sb_class
 *	 3  flags     1   enum sb_flag; unknown ones are ignored
 *	 4  epoch     4   of a digest: to be repeated in the answer
 *	                  of a delta: of the digest that it answers
 *	 8  vector    8   hash of the sender's versions
 *	16  content   8   hash of the sender's records
 *
 *	hello: the header alone
 *
 *	digest: header, then as many as there are
 *	 0  id       16   source
 *	16  life      8
 *	24  gc        8
 *	32  max       8
 *
 *	delta: header, then sections, each
 *	 0  id       16   source
 *	16  life      8
 *	24  gc        8
 *	32  from      8   the sender's living records in (from, to]
 *	40  to        8
 *	48  heard     8   of a dump: what is told no more; of a message: 0
 *	56  n         4   of them
 *	    and n records, versions rising
 *	 0  version   8
 *	 8  flags     1   1: tombstone; other bits: a bad message
 *	 9  length    4   at most SB_BODY_MAX
 *	13  body */
#ifndef GOSSIP_SCUTTLEBUTT_WIRE_H
#define GOSSIP_SCUTTLEBUTT_WIRE_H

#include "gossip/bytes.h"
#include "gossip/scuttlebutt.h"

#define SB_VERSION	 1
#define SB_ENTRY_BYTES	 40
#define SB_SECTION_BYTES 60
#define SB_RECORD_BYTES	 13

enum sb_kind {
	SB_HELLO = 1, /* do we agree? */
	SB_DIGEST,    /* this is what I have */
	SB_DELTA,     /* and this is what you lack */
};

enum sb_flag {
	SB_ANSWER = 1, /* of a digest: you have told me what you have */
	SB_MORE = 2,   /* of a delta: ask again, there is more */
	SB_WALKS = 4, /* of a digest: tell me what you have when I am through */
	SB_RESETS = 8, /* of a digest: the sender vouches for little, yet */
};

struct sb_header {
	uint8_t kind, channel, flags;
	uint32_t epoch;
	uint64_t vector, content;
};

struct sb_entry {
	struct gossip_id id;
	uint64_t life, gc, max;
};

struct sb_section {
	struct gossip_id id;
	uint64_t life, gc, from, to, heard;
	uint32_t n;
};

struct sb_item {
	uint64_t version;
	bool is_tomb;
	uint32_t len;
	const uint8_t *body; /* borrowed */
};

/* Decode the header and check the whole message; in is left at what follows.
 *
 * 0; -EPROTONOSUPPORT: a version we do not read; -EBADMSG. */
int sb_wire_decode(struct bytes_in *in, struct sb_header *header);
/* Of checked messages: the next, false at the end. */
bool sb_wire_entry(struct bytes_in *in, struct sb_entry *entry);
bool sb_wire_section(struct bytes_in *in, struct sb_section *section);
void sb_wire_item(struct bytes_in *in, struct sb_item *item);
/* Sections without a header, as in a dump. */
bool sb_wire_is_dump(struct bytes_in in);

void sb_wire_put_header(struct bytes_out *out, const struct sb_header *h);
void sb_wire_patch_flags(struct bytes_out *message, uint8_t flags);
void sb_wire_put_entry(struct bytes_out *out, const struct sb_entry *e);
void sb_wire_put_section(struct bytes_out *out, const struct sb_section *s);
void sb_wire_patch_section(struct bytes_out *out, size_t at,
			   const struct sb_section *s);
/* Puts it whole, or nothing: false if there is no room. */
bool sb_wire_put_record(struct bytes_out *out, const struct sb_record *r);

#endif

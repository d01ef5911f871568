/* SPDX-License-Identifier: MIT */
/* The bytes of SWIM: what a packet and a record look like. Knows the format and
 * nothing of the protocol: who sends what, and what follows, is swim's matter.
 *
 * Everything from outside is read through bytes.h. A packet is checked whole
 * before any of it is acted on: a bad one changes nothing (D9). */
#ifndef GOSSIP_WIRE_H
#define GOSSIP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/bytes.h"
#include "gossip/facts.h"
#include "gossip/id.h"

#define WIRE_OLDEST	   1 /* the versions that we can read */
#define WIRE_NEWEST	   1
#define WIRE_ACCUSERS_MAX  4
#define WIRE_BUCKETS	   256
#define WIRE_HEADER_BYTES  59
#define WIRE_MESSAGE_BYTES 65535 /* the longest, on a stream */

enum wire_kind {
	WIRE_PING = 1, /* are you there? */
	WIRE_ACK,      /* I am; or a relay: the subject is */
	WIRE_HELP,     /* probe the subject for me */
	WIRE_NACK,     /* I tried; the subject does not answer */
	WIRE_NOT_ME,   /* the one you probe does not live here */
	WIRE_NEWS,     /* nothing but what it carries */
	WIRE_COMPARE,  /* on streams: here are the digests of my table */
	WIRE_DIFFER,   /* my records where they differ, and where that is */
	WIRE_RECORDS,  /* then mine */
};

/* Of two statements on one incarnation of a member the higher status wins. A
 * status from a later version is kept and passed on, and counts as gone. */
enum wire_status {
	WIRE_ALIVE = 0,
	WIRE_SUSPECT = 1,
	WIRE_DEAD = 2,
	WIRE_LEFT = 3,
	WIRE_FORGOTTEN = 4, /* dead or left, and to be shown no more */
};

enum wire_flag {
	WIRE_TELL_ME = 1,  /* I do not know you, send me your record */
	WIRE_HAS_LEFT = 2, /* the sender has left, or is about to */
};

struct wire_header {
	uint8_t version;
	uint8_t kind;
	uint8_t flags;
	uint32_t seq;
	struct gossip_id from;
	uint64_t incarnation; /* the sender's own */
	uint64_t digest;      /* of the sender's table */
	struct gossip_id subject;
	uint32_t subject_boot; /* 0: any life of it */
};

/* A statement about one member. What is borrowed lives as long as the packet. */
struct wire_record {
	struct gossip_id id;
	uint64_t incarnation;
	uint8_t status;
	uint8_t n_accusers;
	struct gossip_id accusers[WIRE_ACCUSERS_MAX];
	uint32_t age_s;		/* of a dead: how long it has been so */
	uint64_t facts_version; /* 0: without facts */
	const uint8_t *attrs;	/* borrowed */
	uint16_t attrs_len;
};

struct wire_packet {
	struct wire_header header;
	struct bytes_in records;   /* for wire_next() */
	struct bytes_in digests;   /* WIRE_BUCKETS of 8 bytes, or empty */
	struct bytes_in differing; /* WIRE_BUCKETS bits, or empty */
};

/* Decode and check a whole packet; p borrows bytes.
 *
 * 0; -EPROTONOSUPPORT: a version we do not read; -EBADMSG: no packet. */
int wire_decode(struct wire_packet *p, const void *bytes, size_t len);

/* The next record; false at the end. Take it from a copy of p->records. */
bool wire_next(struct bytes_in *records, struct wire_record *record);

void wire_put_header(struct bytes_out *out, const struct wire_header *h);
/* Sections. Begin gives the offset that end wants. */
size_t wire_begin_records(struct bytes_out *out);
void wire_end_records(struct bytes_out *out, size_t begin);
void wire_put_digests(struct bytes_out *out, const uint64_t *digests);
void wire_put_differing(struct bytes_out *out, const uint8_t *bits);
/* Puts the record whole, or nothing: false if there is no room. */
bool wire_put_record(struct bytes_out *out, const struct wire_record *r);

/* The newest version that both speak, 0 if there is none. */
unsigned wire_common_version(unsigned oldest, unsigned newest);

#endif

/* SPDX-License-Identifier: MIT */
/* What servers say to each other, as bytes: the library's messages, and those
 * that carry a snapshot's content. Private to ring/group*.c. */
#ifndef RING_GROUP_WIRE_H
#define RING_GROUP_WIRE_H

#include <raft.h>

#include "ring/buf.h"

/* The library's own types are below. */
enum {
	WIRE_CHUNK = 7,
	WIRE_ACK = 8
};

enum wire_part {
	WIRE_RECORDS = 1, /* records, as in struct store_batch */
	WIRE_END = 2	  /* the census and the machine's meta */
};

enum wire_state {
	WIRE_RECEIVING = 0,
	WIRE_DONE = 1, /* it is here, or no longer wanted */
	WIRE_LOST = 2  /* unknown here: begin again */
};

struct wire_chunk {
	uint64_t copy;
	uint32_t seq; /* from 1; 0 is the InstallSnapshot that begins a copy */
	enum wire_part part;
	const uint8_t *bytes; /* borrowed from the message */
	size_t len;
};

struct wire_ack {
	uint64_t copy;
	uint32_t next; /* all below are on disk */
	enum wire_state state;
};

struct wire_message {
	uint64_t from, to; /* raft ids */
	int kind;	   /* a raft_message_type, or one of the above */
	bool by_all;	   /* RequestVote: see group_moved.c */
	union {
		struct raft_message raft; /* without server_id and _address */
		struct wire_chunk chunk;
		struct wire_ack ack;
	};
};

/* Append m to out. */
void group_wire_encode(const struct wire_message *m, struct buf *out);

/* Read one message. What the library is to own is in its memory; chunks borrow
 * from bytes. An InstallSnapshot's data are the 8 bytes of the copy's number, a
 * configuration is one the library can read. group_wire_finish releases it,
 * unless it was given to the library. 0 or -EBADMSG. */
int group_wire_decode(struct wire_message *m, const void *bytes, size_t len);
void group_wire_finish(struct wire_message *m);

/* Split an AppendEntries: the entries from k on go to tail, in memory of their
 * own. */
void group_wire_cut(struct raft_append_entries *m, unsigned k,
		    struct raft_append_entries *tail);

/* Bytes of an entry in a message. */
size_t group_wire_entry_bytes(const struct raft_entry *e);

#endif

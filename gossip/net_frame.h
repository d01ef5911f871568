/* SPDX-License-Identifier: MIT */
/* Messages in pieces: what is in the frames of a stream, and how a message is
 * put together again.
 *
 *	a piece: the body of one of seal's frames
 *	0  flags  1   1: the first of its message; 2: the last
 *	1  topic  1   the same in all pieces of a message
 *	2  bytes  n   0 to NET_PIECE_MAX
 *
 * A stream has one message under way at a time. What is held of it grows with
 * what has come, at most to its double, never with what was announced; and all
 * streams together hold no more than a common purse allows.
 *
 *	the first message of every stream: where its sender listens
 *	0  address 16   IPv4 mapped; a wildcard: as the socket sees it
 *	16 port     2   0: nowhere
 *
 * Knows no sockets and no time. Thread: any. Private to gossip/. */
#ifndef GOSSIP_NET_FRAME_H
#define GOSSIP_NET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/id.h"

#define NET_PIECE_MAX	  (64u << 10)
#define NET_PIECE_HEADER  2
#define NET_ADDRESS_BYTES 18

enum net_piece_flag {
	NET_PIECE_FIRST = 1,
	NET_PIECE_LAST = 2
};

/* Of all that are put together at a time. */
struct net_purse {
	size_t used, max;
};

struct net_parts {
	uint8_t *bytes; /* as far as it has come */
	size_t len, cap;
	uint8_t topic;
	bool is_open;
	struct net_purse *purse; /* borrowed */
};

struct net_message {
	uint8_t topic;
	const uint8_t *bytes; /* borrowed: of the frame, or of the parts */
	size_t len;
};

/* Write a piece. to has room for NET_PIECE_HEADER + len. Its length. */
size_t net_piece_put(uint8_t *to, uint8_t topic, unsigned flags,
		     const void *bytes, size_t len);

/* A zero net_parts with a purse is ready for use. Take the next piece; a message
 * of more than max bytes is refused.
 *
 * 1, message is complete, and good until net_parts_finish(), which is due then;
 * 0, there is more to come; else it is over: -EPROTO, no piece, or not the next
 * one; -EMSGSIZE, more than max; -ENOBUFS, the purse; -ENOMEM. */
int net_parts_take(struct net_parts *p, const uint8_t *piece, size_t len,
		   size_t max, struct net_message *message);
/* Release what is held, and be ready for the next message. */
void net_parts_finish(struct net_parts *p);

void net_address_put(uint8_t to[NET_ADDRESS_BYTES],
		     const struct gossip_addr *addr);
/* 0 or -EPROTO. */
int net_address_get(const uint8_t *bytes, size_t len, struct gossip_addr *addr);

#endif

/* SPDX-License-Identifier: MIT */
/* The sockets: one port, UDP and TCP, IPv4 or IPv6, everything sealed.
 *
 * A datagram is one packet; a stream is one direction of messages, opened by who
 * has something to say and closed when it has been silent for long. So between
 * two members that talk there are two connections a lane, and nobody needs to
 * agree on who calls whom.
 *
 * A message is a *topic* and bytes; long ones travel in pieces. Before the first
 * one a stream says at which address its sender listens.
 *
 * Nothing here is believed of a sender but what its seal proves. What stands in
 * a queue is bounded, and so is what a stranger can make us hold: connections in
 * all, and per address; the time to prove itself; bytes before it has.
 *
 * A stream that is not taken is told why, in 8 bytes that are not sealed: a hint
 * for people, and believed no more than a connection that is closed.
 *
 *	net.c        this: life, and the two ways out
 *	net_udp.c    packets
 *	net_conn.c   a connection: its seal, its buffers, its end
 *	net_link.c   streams to others: their queues
 *	net_in.c     streams from others: listening, strangers
 *	net_ask.c    questions in the lobby
 *	net_frame.c  messages in pieces
 *	net_addr.c   addresses
 *
 * Thread: loop, of a process that ignores SIGPIPE. Private to gossip/. The only
 * user of uv.h but gossip.c. */
#ifndef GOSSIP_NET_H
#define GOSSIP_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/gossip.h"
#include "gossip/seal.h"

/* What a packet or a message is about: its first byte. */
enum net_topic {
	NET_SWIM = 1,
	NET_RECORDS, /* scuttlebutt, whose messages name their channel */
	NET_LAYER,   /* gossip_send() */
	NET_KEYS,
	NET_LOBBY,    /* to and from who is no member yet */
	NET_OBITUARY, /* sealed beforehand, sent when its sender is gone */
};

#define NET_PACKET_MAX (SEAL_PACKET_MAX - SEAL_PACKET_EXTRA - 1) /* bytes */
#define NET_ASK_MAX    4096 /* bytes of a question in the lobby, and its answer */

struct net;

struct net_from {
	struct gossip_id id;
	uint32_t boot;
	struct gossip_addr addr; /* packet: as the socket says; stream: where
				  * the sender listens */
	bool is_sealed;
};

struct net_config {
	struct uv_loop_s *loop;
	int udp_fd, tcp_fd; /* taken by net_start */
	struct seal *seal;  /* of the cluster; borrowed. NULL: not known yet */
	struct seal *lobby; /* of no cluster; borrowed */

	/* bytes are borrowed for the call, which may call net_send() and
	 * net_packet(), but not net_close(). */
	void (*on_packet)(void *data, const struct net_from *from,
			  enum net_topic topic, const uint8_t *bytes,
			  size_t len);
	void (*on_message)(void *data, const struct net_from *from,
			   enum net_topic topic, const uint8_t *bytes,
			   size_t len);
	/* A packet of a life that is over, though it need not be new: whoever
	 * had it before may have sent it again. May be NULL. */
	void (*on_former)(void *data, const struct net_from *from);
	/* Somebody asks in the lobby: fill answer, up to cap bytes, and return
	 * its length; the connection ends after it. */
	size_t (*on_ask)(void *data, const struct net_from *from,
			 const uint8_t *bytes, size_t len, uint8_t *answer,
			 size_t cap);
	/* Later on the loop: a datagram could not be sent, for a reason other than EAGAIN and
	 * ENOBUFS, or its port is closed (F3). */
	void (*on_send_failed)(void *data, const struct gossip_addr *to);
	/* The stream to this address broke, or was not taken. May be NULL. */
	void (*on_stream_failed)(void *data, const struct gossip_addr *to);
	void (*on_log)(void *data, int level, const char *line);
	void *data;
};

/* Make an idle one. Never NULL. config is copied. */
struct net *net_create(const struct net_config *config);
/* Take the descriptors (on an error too) and listen. 0 or a negative errno. */
int net_start(struct net *n);
/* The cluster has become known. */
void net_set_seal(struct net *n, struct seal *seal);
/* Where we listen, said at the beginning of each stream from now on. */
void net_set_self(struct net *n, const struct gossip_addr *addr);
/* The seal's keys or its mode have changed, and with them who may speak here.
 * What is open was opened under the former ones: our streams end after the
 * message that is under way, and what waits goes over new ones; those of others
 * are cut if they have not done the same within 5 s. */
void net_reseal(struct net *n);
/* Close everything and release n; cb on a later turn, and nothing but it and the
 * answers that are owed before it (-ECANCELED). Queued messages are given at most
 * 100 ms to leave. */
void net_close(struct net *n, void (*cb)(void *data), void *data);

/* Send a datagram; may be lost. len is at most NET_PACKET_MAX. */
void net_packet(struct net *n, const struct gossip_addr *to,
		enum net_topic topic, const void *bytes, size_t len);
/* Seal a datagram as net_packet() does, for others to send later: its length, or
 * -EMSGSIZE, -ENOKEY, -ENOTCONN (no cluster is known). */
int net_seal(struct net *n, enum net_topic topic, const void *bytes, size_t len,
	     uint8_t *packet, size_t cap);
/* Send a datagram as it is, unsealed: to who cannot open any. May be lost. */
void net_plain(struct net *n, const struct gossip_addr *to, const void *bytes,
	       size_t len);
/* Queue a message on the stream to addr, which is opened if there is none; copied.
 * It is lost, and counted, if the stream breaks, if the cluster is not known yet,
 * or if addr did not answer a moment ago (100 ms, doubling to 2 s; being heard
 * from ends it).
 * expect  who must live there, else the message is dropped; NULL: whoever does
 *
 * 0; -EAGAIN, it would be more than 4 MiB on this lane, which is not empty, or
 * 256 MiB on all; -ENOBUFS, too many streams; -EMSGSIZE, more than
 * GOSSIP_MESSAGE_MAX */
int net_send(struct net *n, const struct gossip_addr *to,
	     const struct gossip_id *expect, enum gossip_lane lane,
	     enum net_topic topic, const void *bytes, size_t len);

/* Ask in the lobby of whoever is at addr; bytes are copied, at most NET_ASK_MAX.
 * cb once, within 2 s, and it may do anything: rc 0 and an answer (borrowed for
 * the call), or -ETIMEDOUT, -ECONNREFUSED, -ECONNRESET, -EPROTO with the reason
 * why the stream was not taken (by us, or as it says by the other), -ENOKEY,
 * -ENOBUFS, ...; -ECANCELED when the net closes first. */
typedef void (*net_answer_cb)(void *data, int rc, enum seal_reason reason,
			      const uint8_t *answer, size_t len);
void net_ask(struct net *n, const struct gossip_addr *to, const void *bytes,
	     size_t len, net_answer_cb cb, void *data);

struct net_stats {
	/* What came and what was taken by the kernel, refused ones included. */
	uint64_t n_packets_in, n_packets_out, bytes_in, bytes_out;
	uint64_t n_streams_in, n_streams_out, stream_bytes_in, stream_bytes_out;
	uint64_t n_send_errors; /* as on_send_failed */
	uint64_t
		n_dropped; /* messages and packets that found no room, nobody, or
			     * no meaning */
};
void net_stats(const struct net *n, struct net_stats *out);

#endif

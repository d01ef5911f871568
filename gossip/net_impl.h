/* SPDX-License-Identifier: MIT */
/* What the files of net share, and nobody else sees.
 *
 * A connection (net_conn) belongs to one of three kinds, which is told what
 * happens: a link's (net_link.c), one that was accepted (net_in.c), a question's
 * (net_ask.c). A link is a queue to one address, lane, and member; it has a
 * connection while there is something to say, and for a minute after. */
#ifndef GOSSIP_NET_IMPL_H
#define GOSSIP_NET_IMPL_H

#include <uv.h>

#include "gossip/net.h"
#include "gossip/net_addr.h"
#include "gossip/net_frame.h"

#define NET_ADDRESS 0 /* topic of a stream's first message; no enum net_topic */

#define NET_DATAGRAM_ROOM (64u << 10) /* as libuv cuts a buffer for a batch */
#define NET_BATCH	  16	      /* packets read by one system call */
#define NET_READ_BYTES	  (64u << 10) /* of a stream, at a time */
#define NET_FAILED_MAX	  64	      /* addresses that wait to be reported */

/* Defaults are in net.c; tests have others. */
struct net_limits {
	unsigned connect_ms; /* until somebody accepts, */
	unsigned proof_ms;   /* then until it has proved itself */
	unsigned idle_ms;    /* nothing to say: a stream ends */
	unsigned hear_ms;    /* nothing heard: the sender has died silently */
	unsigned last_ms;    /* after the last frame, for the other to close */
	unsigned former_ms;  /* under the keys before net_reseal() */
	unsigned ask_ms;     /* a question, in all */
	unsigned linger_ms;  /* of net_close() */
	unsigned pause_min_ms, pause_max_ms; /* after nobody answered */
	unsigned accept_ms;   /* without descriptors: until the next try */
	unsigned user_ms;     /* TCP_USER_TIMEOUT: sent and not acknowledged */
	unsigned n_strangers; /* accepted, and not proved yet */
	unsigned n_strangers_per_host;
	unsigned n_in;	    /* accepted, in all */
	unsigned n_links;   /* to others */
	unsigned n_asks;    /* at a time */
	size_t lane_bytes;  /* queued on a link */
	size_t queue_bytes; /* on all links */
	size_t parts_bytes; /* messages of all that are not complete */
};

struct net_conn;

/* What a kind of connection does. None is called once it is closing, but on_end. */
struct net_kind {
	const char *name; /* for logs */
	bool is_caller;
	void (*on_proof)(struct net_conn *c);
	/* 0, or a negative errno with which the connection ends. */
	int (*on_message)(struct net_conn *c, const struct net_message *m);
	/* The peer has nothing more to say. */
	void (*on_last)(struct net_conn *c);
	/* Say more, while net_conn_has_room(). */
	void (*fill)(struct net_conn *c);
	/* All that was said is with the kernel. */
	void (*on_flushed)(struct net_conn *c);
	/* The time of net_conn_wait() is over. */
	void (*on_time)(struct net_conn *c);
	/* From now on it does not count; its memory may be in use further up. */
	void (*on_closing)(struct net_conn *c);
	/* Later, the last that is heard of it: it is out of the list, and freed by
	 * who called this, which touches nothing else afterwards. */
	void (*on_end)(struct net_conn *c);
};

struct net_link;
struct net_ask;

struct net_conn {
	struct net *n;
	const struct net_kind *kind;
	struct net_conn *next, **prev; /* of net.conns */
	uv_tcp_t tcp;
	uv_timer_t timer;
	uv_connect_t connect;
	unsigned n_open;
	struct seal *s;		  /* whose stream it is */
	struct seal_stream *seal; /* NULL: it has not said for which */
	uint8_t head[SEAL_PEEK_BYTES];
	size_t head_len;
	struct net_parts parts;
	struct gossip_addr peer; /* the socket's other end */
	unsigned quiet_ms; /* the time begins again with each word; 0: not */
	uint64_t since_ms; /* when it was made */
	bool is_connected, is_writing, has_written, is_closing;
	bool has_proof;
	bool has_said_last;
	bool is_timed;	  /* one time for it all, set by who made it */
	bool is_former;	  /* from before net_reseal() */
	bool has_address; /* in: the peer has said where it listens */
	bool has_asked;	  /* in the lobby */
	int rc;		  /* why it ends; 0: all was said */
	enum seal_reason reason;
	struct net_from from; /* once it has proved itself */
	union {
		struct net_link *link;
		struct net_ask *ask;
	};
};

struct net {
	struct net_config config;
	struct net_limits limits;
	struct net_stats stats;
	struct gossip_addr self;
	uv_udp_t udp;
	uv_poll_t door;	  /* accepts */
	uv_timer_t late;  /* on_send_failed, from the loop */
	uv_timer_t again; /* accepting; then, closing, the end of patience */
	int family, tcp_fd;
	unsigned n_open; /* handles, and connections */
	bool has_udp, has_door, is_door_open, is_closing;
	struct net_conn *conns;
	unsigned n_in, n_strangers, n_links, n_asks;
	struct net_link *links;
	bool has_pause; /* maybe some link has */
	size_t queued;	/* bytes, on all links */
	struct net_purse purse;
	struct gossip_addr failed[NET_FAILED_MAX];
	size_t n_failed;
	uint64_t log_from_ms; /* lines of these ten seconds */
	unsigned n_logged;
	void (*close_cb)(void *data);
	void *close_data;
	/* Scratch: nothing in it outlives a call. */
	uint8_t in[NET_BATCH * NET_DATAGRAM_ROOM];
	uint8_t body[NET_PIECE_HEADER + NET_PIECE_MAX];
	uint8_t packet[SEAL_PACKET_MAX];
};

/* ---- net.c ---- */

/* A line for the log; strangers can make us write no more than some of them. */
__attribute__((format(printf, 3, 4))) void net_log(struct net *n, int level,
						   const char *format, ...);
/* One of n_open is gone; with the last one so is n. */
void net_gone(struct net *n);

/* ---- net_udp.c ---- */

/* Take fd. 0 or a negative errno. */
int net_udp_start(struct net *n, int fd);
void net_udp_on_late(uv_timer_t *timer);

/* ---- net_conn.c ---- */

struct net_conn *net_conn_create(struct net *n, const struct net_kind *kind);
/* Connect to c->peer, sealed by s, to whoever or to expect. What goes wrong is
 * the connection's end. */
void net_conn_call(struct net_conn *c, struct seal *s,
		   const struct gossip_id *expect);
/* Take fd, which was accepted. */
void net_conn_take(struct net_conn *c, int fd);
/* Call on_time after so long. */
void net_conn_wait(struct net_conn *c, unsigned ms);
bool net_conn_has_room(const struct net_conn *c);
/* A piece of a message; is_last: nothing comes after it. */
void net_conn_say(struct net_conn *c, const struct net_message *m,
		  unsigned flags, bool is_last);
/* There is nothing more to say. */
void net_conn_say_last(struct net_conn *c);
/* Where we listen: before all else. */
void net_conn_say_address(struct net_conn *c);
/* Write what there is to write. */
void net_conn_pump(struct net_conn *c);
/* End it, if it is not ending yet. */
void net_conn_close(struct net_conn *c, int rc);

/* ---- net_link.c ---- */

/* Somebody is there again: links to it need not wait. */
void net_link_heard(struct net *n, const struct gossip_addr *addr);
/* The net closes: end the connection when its queue is empty. */
void net_link_leave(struct net_conn *c);
void net_link_free_all(struct net *n);
extern const struct net_kind net_link_kind;

/* ---- net_in.c ---- */

/* Take fd and listen. 0 or a negative errno. */
int net_in_start(struct net *n, int fd);
/* It is former: give it time to end by itself, and no more. */
void net_in_leave(struct net_conn *c);
extern const struct net_kind net_in_kind;

/* ---- net_ask.c ---- */

extern const struct net_kind net_ask_kind;

#endif

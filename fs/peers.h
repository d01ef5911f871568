/* SPDX-License-Identifier: MIT */
/* The members by the names of their files: peers/NAME.
 *
 * A member is its id; its name is what it says of itself, and two may say the
 * same (one lobby hears of one only, but two lobbies may be asked at once, and
 * what was apart may meet). A file needs one owner for ever, so
 *
 *	who has NAME keeps it as long as it lives, and afterwards until somebody
 *	who lives says NAME; everybody else shows as NAME~XXXXXXXX, 8 hex digits
 *	of its id
 *
 * and what cannot be a file's name shows as ~XXXXXXXX. A name of a former life
 * is given up when the next one says another.
 *
 * The table is filled as a whole, from whatever knows of members; what differs
 * from the last time is told, in the words of inotify. Knows nothing of gossip,
 * ring and files. Thread: the loop. */
#ifndef FS_PEERS_H
#define FS_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/ring.h" /* struct ring_id */

#define PEER_ADDR_SIZE	  96
#define PEER_VERSION_SIZE 64
#define PEER_ROLE_SIZE	  16
#define PEER_UNKNOWN	  UINT64_MAX

enum peer_state {
	PEER_ALIVE,
	PEER_SUSPECT,
	PEER_DEAD,
	PEER_LEFT
};

/* What is known of a member at one instant. */
struct peer {
	struct ring_id id;
	const char *name;  /* as it says; borrowed until the loop's next turn */
	const char *shown; /* its file's; borrowed alike, NULL outside of the
			    * table */
	enum peer_state state;
	char address[PEER_ADDR_SIZE]; /* "": not known */
	uint64_t incarnation; /* 0: nobody has heard of it but the ring */
	uint64_t boot;
	uint64_t since_us;		   /* wall clock, of the state */
	uint32_t rtt_us;		   /* 0: not known */
	uint64_t weight, n_vnodes, n_keys; /* or PEER_UNKNOWN */
	char version[PEER_VERSION_SIZE];   /* "": not known */
	char role[PEER_ROLE_SIZE];	   /* voter, standby, client, or "" */
	char accuser[RING_NAME_MAX + 1];   /* who suspects it, or "" */
	uint32_t node; /* its index in the ring, or RING_NONE */
	bool is_self;
	bool is_draining;
};

/* Why name cannot be a node's: the rest of a sentence that begins with it; NULL
 * if it can. It becomes a file name, a word in flat-keyed files and a part of
 * sentences. */
const char *peers_flaw(const char *name);

/* alive, suspect, dead, left */
const char *peers_state_name(enum peer_state state);

/* voter, standby, or "" while it has no copy of the log */
const char *peers_role_name(enum ring_role role);

enum peers_event {
	PEERS_CREATE,
	PEERS_DELETE,
	PEERS_MODIFY
};

struct peers;

struct peers *peers_create(void);
void peers_destroy(struct peers *p); /* accepts NULL */

/* Fill it anew: begin, each member, end. peer is copied as far as it is needed,
 * and of one id the first counts. on_event hears of what is different, in an
 * order that can be announced as it is. */
void peers_begin(struct peers *p);
void peers_put(struct peers *p, const struct peer *peer);
void peers_end(struct peers *p,
	       void (*on_event)(void *data, const char *shown,
				enum peers_event event),
	       void *data);

/* A line of the table. number is its own: no other member gets it. */
struct peers_line {
	uint64_t number;
	struct ring_id id;
	uint32_t node;	   /* its index in the ring, or RING_NONE */
	uint64_t since_us; /* as it was first told of this state: no clock that
			    * is set moves it */
	const char *shown; /* borrowed until the table is filled again */
};

/* The next line, in the order of their coming; from cursor 0 until false. */
bool peers_next(const struct peers *p, uint64_t *cursor,
		struct peers_line *out);
bool peers_by_name(const struct peers *p, const char *shown,
		   struct peers_line *out);
bool peers_by_number(const struct peers *p, uint64_t number,
		     struct peers_line *out);
bool peers_by_id(const struct peers *p, const struct ring_id *id,
		 struct peers_line *out);

#endif

/* SPDX-License-Identifier: MIT */
/* Who is in the cluster, and what its members say: SWIM membership, replicated
 * records, and sealed streams between members, on one port of UDP and TCP.
 *
 * This is all that others see of gossip/. It knows members, not keys or files;
 * what the layers above say to each other travels as bytes that it does not
 * read. Works in any minority, and merges afterwards.
 *
 *	gossip.c           this: life, and the cores on the loop
 *	gossip_make.c      what an instance is made of
 *	gossip_members.c   what is shown of the members
 *	gossip_join.c      names and addresses, the lobby
 *	gossip_keys.c      the cluster's keys, everywhere
 *	gossip_keep.c      what is kept on disk
 *	net.c       sockets            keyring.c   the key file
 *	swim.c      membership         traits.c    what each says of itself
 *	records.c   LMDB               address.c   addresses as text
 *
 * Joining. A node that has no cluster yet asks a member in the *lobby*: a
 * stream sealed with the cluster's key, but for no cluster. It says what it is
 * and wants (bytes of the layer above), and is given the cluster's id and an
 * answer, or a sentence why not. Then it starts as every member does.
 *
 * Peers. The addresses of all members are kept, and tried at the next start, so
 * that a node that was restarted finds its cluster without being told.
 *
 * Our own address, when the bound one is a wildcard and none is given: the one
 * that packets to the first member to be tried leave from; without one, or when
 * it has no way there, the address of the default route; else 127.0.0.1. It is
 * looked at again when a name was resolved.
 *
 * Thread: every function on the loop thread; every callback arrives there,
 * never from inside a call (but on_log, which comes from anywhere and must not
 * call back). Callbacks may call everything, gossip_close too. Times are
 * microseconds unless they say otherwise. */
#ifndef GOSSIP_GOSSIP_H
#define GOSSIP_GOSSIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/id.h"

#define GOSSIP_ERRMSG_SIZE  512
#define GOSSIP_ADDR_SIZE    96 /* "ADDR:PORT" or "[IPv6]:PORT", NUL included */
#define GOSSIP_NAME_SIZE    256
#define GOSSIP_HELLO_MAX    1024 /* bytes of config.hello and its answer */
#define GOSSIP_MESSAGE_MAX  (64u << 20) /* of gossip_send */
#define GOSSIP_KEYFILE_SIZE 1024

struct uv_loop_s;
struct gossip;

enum gossip_state {
	GOSSIP_ALIVE,
	GOSSIP_SUSPECT,
	GOSSIP_DEAD,
	GOSSIP_LEFT
};

/* The words of peers/NAME. */
const char *gossip_state_name(enum gossip_state state);

/* A member as this one sees it. Pointers are borrowed until the loop's next
 * turn; in on_member until it returns. */
struct gossip_member {
	struct gossip_id id;
	const char *name;
	char address[GOSSIP_ADDR_SIZE]; /* that it advertises */
	struct gossip_addr addr;	/* the same */
	enum gossip_state state;
	uint64_t incarnation;
	uint32_t boot;
	uint64_t since_us; /* wall clock, of the state */
	uint32_t rtt_us;   /* of the last direct probe; 0: none yet */
	bool is_self;
	bool is_accused; /* and by whom: of one that is not alive */
	struct gossip_id accuser;
};

enum gossip_preset {
	GOSSIP_LAN,
	GOSSIP_WAN,
	GOSSIP_LOCAL
};

enum gossip_seal {
	GOSSIP_SEALED, /* send and take sealed packets and streams only */
	GOSSIP_BOTH,  /* send sealed, take both: on the way from one to other */
	GOSSIP_CLEAR, /* send in the clear, take both */
};

/* Streams to a member have two lanes, so that what is long does not delay what
 * is urgent. Within a lane messages keep their order. */
enum gossip_lane {
	GOSSIP_URGENT,
	GOSSIP_BULK,
	GOSSIP_N_LANES
};

struct gossip_config {
	struct uv_loop_s *loop; /* borrowed; outlives the instance */
	int udp_fd, tcp_fd;	/* bound, non-blocking; taken by gossip_start */
	const char *bound;	/* as ADDR:PORT, numeric; copied */
	const char *advertise;	/* where others reach us, numeric; NULL: bound,
				 * or, when that is a wildcard, what is said
				 * above; copied */
	const char *dir;	/* DIR/gossip is ours; copied */
	const char *key_file;	/* of the cluster's keys; copied; may be missing
				 * when seal is GOSSIP_CLEAR */
	enum gossip_seal seal;
	enum gossip_preset preset;
	struct gossip_id cluster; /* zero: not known, join to learn it */
	struct gossip_id self;
	uint32_t boot; /* above all former ones; on disk */
	const char *name;
	const char *version;	  /* of the program; copied, said as trait
			      * "version" */
	const char *const *joins; /* ADDR:PORT, n_joins; copied */
	size_t n_joins;
	const void *hello; /* what the layer above says in the lobby; copied */
	size_t hello_len;

	/* Each callback may be NULL: who asks is taken then, with no answer.
	 *
	 * Somebody asks in our lobby. Fill answer, and return its length; or
	 * fill why with a sentence, and return a negative errno; or -EAGAIN:
	 * he may ask again, and why may say what is waited for. */
	int (*on_asked)(void *data, const void *hello, size_t len,
			uint8_t answer[GOSSIP_HELLO_MAX],
			char why[GOSSIP_ERRMSG_SIZE]);
	/* The cluster that we asked has answered: it is known from here on, and
	 * membership has begun. */
	void (*on_joined)(void *data, const struct gossip_id *cluster,
			  const void *answer, size_t len);
	/* It will never take us: why, and the way out, in a sentence. Nothing
	 * is tried any more, until gossip_join(). */
	void (*on_refused)(void *data, const char *why);
	/* A member came, changed, or went; was is NULL for one that came, is is
	 * NULL for one that was forgotten. Traits included: then was and is may
	 * be the same. Ourselves too, first of all. Changes within one turn of
	 * the loop may come as one. */
	void (*on_member)(void *data, const struct gossip_member *was,
			  const struct gossip_member *is);
	/* Most of our probes fail, and nobody helps: it is we who are cut off;
	 * or no longer. */
	void (*on_isolated)(void *data, bool is_isolated);
	/* Somebody is a newer life of our id: this state was copied. */
	void (*on_copied)(void *data);
	/* That we leave was told. */
	void (*on_left)(void *data);
	/* From a member's gossip_send(). bytes are borrowed for the call. */
	void (*on_message)(void *data, const struct gossip_id *from,
			   const void *bytes, size_t len);
	/* The obituary of a member's life: its process is gone (see
	 * gossip_seal_obituary). Whether it is one is for the layer above to
	 * say: true, and the herald is told that it was heard. */
	bool (*on_obituary)(void *data, const struct gossip_id *id,
			    uint32_t boot, const void *bytes, size_t len);
	/* One line for the log. level: 3 error .. 7 debug. */
	void (*on_log)(void *data, int level, const char *line);
	void *data;
};

/* Make an idle instance: reads the key file and DIR/gossip (a damaged store is
 * set aside, and said). Blocks while it reads. config is copied as it says.
 *
 * 0; else errmsg says in one sentence what is wrong and the way out, and the
 * descriptors are still the caller's: -ENOKEY, -EACCES (a key file that others
 * can read), -EINVAL, -ENOSPC, ... */
int gossip_create(const struct gossip_config *config, struct gossip **out,
		  char errmsg[GOSSIP_ERRMSG_SIZE]);
/* Listen and begin; takes the descriptors, on an error too. Names in joins are
 * resolved, and tried, for ever. 0 or a negative errno: then close it. */
int gossip_start(struct gossip *g);
/* The state's cluster was made by this node itself: it is its first member. For
 * a config without cluster; before gossip_start. */
void gossip_found(struct gossip *g, const struct gossip_id *cluster);
/* Stop, without telling the others, write what is to be kept, and release g:
 * nothing else may be called. cb runs once, on a later turn, when g is gone; no
 * other callback comes, but on_log. A name that is being resolved is waited
 * for. */
void gossip_close(struct gossip *g, void (*cb)(void *data), void *data);

/* Also get to know whoever is at addr (HOST:PORT). After gossip_leave(): come
 * back. 0; -EINVAL; -ENOSPC, too many different ones. */
int gossip_join(struct gossip *g, const char *addr);
/* What a member that was asked to take us waits for, in a sentence; "" if none
 * has said so. Borrowed until the loop's next turn. */
const char *gossip_join_waits(const struct gossip *g);
/* Tell all that we go: on_left follows. */
void gossip_leave(struct gossip *g);
/* Forget a dead or left member, everywhere. 0, -ENOENT, -EBUSY: it is
 * neither. */
int gossip_forget(struct gossip *g, const struct gossip_id *id);
/* There is proof that the process that was life `boot` of id is gone. */
void gossip_obituary(struct gossip *g, const struct gossip_id *id,
		     uint32_t boot);

/* Make the datagram that says of this process that it is gone, to be sent by
 * somebody who outlives it and holds no key; whoever hears it answers with the
 * receipt, plain. bytes are the layer's above.
 *
 * The length; -EMSGSIZE, -ENOKEY, -ENOTCONN (no cluster is known). */
#define GOSSIP_RECEIPT_SIZE 16
int gossip_seal_obituary(struct gossip *g,
			 const uint8_t receipt[GOSSIP_RECEIPT_SIZE],
			 const void *bytes, size_t len, uint8_t *packet,
			 size_t cap);

/* Send such a datagram ourselves to every member that is not dead, twice: what
 * is lost costs only the time until SWIM finds out. */
void gossip_send_obituary(struct gossip *g, const void *bytes, size_t len);

/* The next member, self first; from cursor 0 until false. Only those that were
 * heard directly. */
bool gossip_next(const struct gossip *g, uint32_t *cursor,
		 struct gossip_member *out);
bool gossip_find(const struct gossip *g, const struct gossip_id *id,
		 struct gossip_member *out);
/* Where this member is reached. */
const char *gossip_address(const struct gossip *g);

/* Say a trait of ourselves: a word, as a file's name, and at most 1024 bytes;
 * all members get it. Nothing happens if that is what we say already.
 *
 * 0; -EINVAL, the word, or one that is ours ("version", "key-ids"); -EFBIG;
 * -ENOSPC */
int gossip_say(struct gossip *g, const char *word, const void *value,
	       size_t len);
/* What a member said. NULL: nothing; borrowed until the next call, or until the
 * loop goes on. */
const void *gossip_said(const struct gossip *g, const struct gossip_id *id,
			const char *word, size_t *len);

/* Send to a member: in order within a lane, reliable until the connection is
 * lost. Copied. A lane that holds 4 MiB takes no more, an empty one takes any.
 *
 * 0; -EAGAIN, the lane is full; -EHOSTUNREACH, no such member, or it is we;
 * -EMSGSIZE */
int gossip_send(struct gossip *g, const struct gossip_id *to,
		enum gossip_lane lane, const void *bytes, size_t len);

struct gossip_stats {
	uint32_t n_members, n_alive, n_suspect, n_dead, n_left;
	unsigned health; /* Lifeguard's score; 0 is well */
	bool is_isolated;
	uint64_t n_packets_in, n_packets_out, bytes_in, bytes_out;
	uint64_t n_streams_in, n_streams_out, stream_bytes_in, stream_bytes_out;
	uint64_t n_refused;   /* packets and streams that were not taken, */
	uint64_t refused[16]; /* and why, by enum seal_reason */
	uint64_t n_send_errors;
	uint64_t n_records, record_bytes;
};
void gossip_stats(const struct gossip *g, struct gossip_stats *out);
/* The word for refused[i], or NULL past the last. */
const char *gossip_refused_name(unsigned i);

/* ---- Keys (K1 to K5): spoken of by ids of 16 hex digits ----
 *
 * The way from one key to another: add the new one, wait until no member lacks
 * it, use it, wait until every member does, remove the old one. A member that
 * is away is waited for, until it is back or forgotten. Keys travel over sealed
 * streams only: with GOSSIP_CLEAR they stay here. */

struct gossip_key {
	uint64_t id;
	bool is_used;
	uint32_t n_lack; /* known members that have not confirmed it */
};
/* The next key, from cursor 0 until false. */
bool gossip_key_next(const struct gossip *g, size_t *cursor,
		     struct gossip_key *out);
/* Each is carried out here, written to the key file (blocks for that), and
 * passed on to all the members there are, and to those that come, until they
 * have done the same: as long as this process lives, or says otherwise. Doing
 * one again does no harm.
 *
 * text  a key file's line, or NULL to draw a new key; gives the id
 *
 * 0; -EEXIST, it is here already, and is passed on nevertheless; -ENOSPC, eight
 * are enough; -EINVAL, no key; -ENOENT, nobody has it; -EBUSY: to use it,
 * members lack it; to remove it, it is in use here, or was last heard to be
 * elsewhere; else from the file system, and nothing has changed */
int gossip_key_add(struct gossip *g, const char *text, uint64_t *id);
int gossip_key_use(struct gossip *g, uint64_t id);
int gossip_key_remove(struct gossip *g, uint64_t id);

/* Draw a key and make a key file's text of it. 0 or -EIO. */
int gossip_keygen(char text[GOSSIP_KEYFILE_SIZE]);
/* Make the key file if there is none: mode 0600, synced. 0; else errmsg:
 * -EEXIST, -EACCES, -ENOSPC, ... */
int gossip_keygen_file(const char *path, char errmsg[GOSSIP_ERRMSG_SIZE]);

#endif

/* SPDX-License-Identifier: MIT */
/* Who may speak here: what leaves for another member is sealed with the
 * cluster's key, what comes from one is opened, or dropped for a reason.
 *
 * A packet is XChaCha20-Poly1305 under a random nonce of 24 bytes: a nonce made
 * from boot and counter would come twice when a state is copied or restored, and
 * then both packets lie open. A stream is libsodium's secretstream, a key for
 * each direction, made from the cluster's key, both members' ids, the cluster's
 * id, and a challenge of each side; so it can be neither replayed, reflected,
 * nor spliced, and a cut is told from an end.
 *
 * Boot and counter, in the clear but authentic, keep repetitions out: per sender
 * the newest boot and a window of SEAL_WINDOW counters. A receiver that has just
 * started knows no counters yet: a packet from before may come once more, and
 * must do no harm (swim's and scuttlebutt's do none).
 *
 * Before a packet is known to be authentic it costs a look at its header, one
 * look-up, and one pass over its bytes; it allocates nothing and changes nothing
 * but a counter. A stream's buffer stays small until its peer has proved that it
 * has the key.
 *
 * The key ring holds up to SEAL_KEYS_MAX keys: all open, one seals. Changing the
 * key (K1): add the new one everywhere; use it when every known member, dead or
 * alive, has confirmed it; remove the old one when every known member has
 * confirmed the one in use. A key works before it is written to disk (K2:
 * has_opened); keys are spoken of by ids of 8 bytes (K3); one thread owns it all
 * (K4).
 *
 * Sealing can be switched on in a running cluster (K5), in two steps, the second
 * when the first is done everywhere:
 *
 *	SEAL_OFF       send in the clear; take both, what is sealed if we can
 *	SEAL_BOTH      send sealed; take both
 *	SEAL_REQUIRED  send sealed; take sealed only
 *
 * What is sent in the clear has a checksum, against accidents and no more.
 *
 * Not hidden: who talks to whom, how much, and when. Who holds a key can speak
 * as any member. There is no forward secrecy: who gets the key can read what he
 * has recorded.
 *
 *	seal.c         packets, and all that is libsodium's
 *	seal_ring.c    keys, members, windows
 *	seal_stream.c  connections
 *	seal_file.c    the key file
 *
 * Thread: all on the loop. Private to gossip/. */
#ifndef GOSSIP_SEAL_H
#define GOSSIP_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/id.h"

#define SEAL_KEY_BYTES	  32
#define SEAL_KEYS_MAX	  8
#define SEAL_WINDOW	  1024
#define SEAL_PACKET_EXTRA 84	     /* bytes around what is in a packet */
#define SEAL_PACKET_MAX	  65507	     /* of UDP */
#define SEAL_FRAME_MAX	  (1u << 20) /* of what is in a frame */

struct seal;

struct seal_key {
	uint8_t b[SEAL_KEY_BYTES];
};

enum seal_mode {
	SEAL_OFF,
	SEAL_BOTH,
	SEAL_REQUIRED
};

/* Why something was not taken. Each is counted. */
enum seal_reason {
	SEAL_OK,
	SEAL_SHORT,    /* cut off, or no packet at all */
	SEAL_ALIEN,    /* not ours: some other program's */
	SEAL_NEWER,    /* a version that we do not read */
	SEAL_CLEAR,    /* not sealed, and it must be */
	SEAL_CLUSTER,  /* of another cluster */
	SEAL_NO_KEY,   /* sealed with a key that we do not have */
	SEAL_FORGED,   /* not what was sealed: changed, or another key */
	SEAL_DAMAGED,  /* in the clear, and its checksum is wrong */
	SEAL_REPLAYED, /* had it already */
	SEAL_TOO_OLD,  /* before the window, or of a former boot */
	SEAL_SELF,     /* our own: reflected, or our state was copied */
	SEAL_TOO_LONG, /* a frame */
	SEAL_NOT_THEM, /* a stream: another member than was called */
	SEAL_TOO_MANY, /* senders: config.peers_max */
	SEAL_N_REASONS,
};

/* A word for logs and metrics: "replayed". */
const char *seal_reason_name(enum seal_reason reason);

struct seal_config {
	struct gossip_id cluster;
	struct gossip_id self;
	uint32_t boot; /* above all former ones */
	enum seal_mode mode;
	uint32_t peers_max; /* members, and other senders that were authentic */
};

/* Make one without keys. NULL if libsodium cannot be started. config is
 * copied. */
struct seal *seal_create(const struct seal_config *config);
/* Wipes all keys. NULL is nothing; no stream may be left. */
void seal_destroy(struct seal *s);

/* ---- Packets ---- */

/* Make a packet of a body: sealed, or in the clear, as the mode says.
 *
 * The packet's length; -EMSGSIZE, cap; -ENOKEY, it must be sealed and there is
 * no key in use. */
int seal_packet(struct seal *s, const void *body, size_t len, uint8_t *packet,
		size_t cap);

struct seal_opened {
	struct gossip_id from;
	uint32_t boot;
	bool is_sealed;
	bool is_former; /* with SEAL_TOO_OLD: it is authentic, and its sender
			 * is a life that is over. Then only from and boot are
			 * known */
	const uint8_t *body; /* in the packet's memory */
	size_t len;
};
/* Open a packet in its place. What follows from it is up to SEAL_OK. */
enum seal_reason seal_open(struct seal *s, uint8_t *packet, size_t len,
			   struct seal_opened *opened);

/* ---- Keys ---- */

/* A key drawn at random. 0 or -EIO: libsodium cannot be started. */
int seal_key_make(struct seal_key *key);
uint64_t seal_key_id(const struct seal_key *key);
void seal_key_wipe(struct seal_key *key);

/* 0; -EEXIST; -ENOSPC. The first one is in use at once. */
int seal_add(struct seal *s, const struct seal_key *key);
/* Seal with it from now on. 0; -ENOENT; -EBUSY, not all members have it. */
int seal_use(struct seal *s, uint64_t id);
/* 0; -ENOENT; -EBUSY, it is in use, or not all members have the one that is. */
int seal_remove(struct seal *s, uint64_t id);
/* The same without asking who has what: members may be locked out. */
int seal_use_by_force(struct seal *s, uint64_t id);

struct seal_key_view {
	uint64_t id;
	bool is_used;
	bool has_opened; /* something authentic: it is worth writing down */
	uint32_t n_lack; /* known members that have not confirmed it */
};
/* The next key, from cursor 0 until false. */
bool seal_key_next(const struct seal *s, size_t *cursor,
		   struct seal_key_view *view);
/* Copy a key out, for the key file; wipe it. 0 or -ENOENT. */
int seal_key_get(const struct seal *s, uint64_t id, struct seal_key *key);

/* A member that counts: until it is forgotten no key goes that it needs. boot,
 * if known: what is older will be refused. */
void seal_member(struct seal *s, const struct gossip_id *id, uint32_t boot);
void seal_forget(struct seal *s, const struct gossip_id *id);
/* It says that it has these keys, and no others. What it seals with, it has:
 * that is confirmed without this. */
void seal_confirm(struct seal *s, const struct gossip_id *id,
		  const uint64_t *ids, size_t n);
/* The next member that lacks a key, from cursor 0 until false. */
bool seal_lacks_next(const struct seal *s, uint64_t id, size_t *cursor,
		     struct gossip_id *member);

struct seal_stats {
	uint64_t n[SEAL_N_REASONS]; /* packets and streams by outcome */
	uint32_t n_peers;
};
void seal_stats(const struct seal *s, struct seal_stats *stats);

/* ---- The key file: text, the key in use first ----
 *
 *	# comment
 *	ringfs-key-1 BASE64-OF-32-BYTES CHECK
 *
 * CHECK is 8 hex digits of the key's id. */

#define SEAL_FILE_MAX (SEAL_KEYS_MAX * 80 + 256)

/* 0, with *n at most SEAL_KEYS_MAX and at least 1; *line is where it went wrong:
 * -EINVAL, not such a file; -EBADMSG, the check is wrong; -EPROTONOSUPPORT, a
 * newer kind; -E2BIG. */
int seal_file_parse(const char *text, size_t len,
		    struct seal_key keys[SEAL_KEYS_MAX], size_t *n,
		    unsigned *line);
/* The length; wipe the text when it is written. */
size_t seal_file_make(const struct seal_key *keys, size_t n,
		      char text[SEAL_FILE_MAX]);
void seal_wipe(void *bytes, size_t n);

/* ---- Streams ---- */

struct seal_stream;

/* One end of a connection. Never NULL, but NULL if who calls must seal and has
 * no key.
 *
 * s       borrowed; outlives it
 * is_caller  who opened the connection: it says whether it is sealed
 * expect  whom we call; NULL: whoever answers */
struct seal_stream *seal_stream_create(struct seal *s, bool is_caller,
				       const struct gossip_id *expect);
void seal_stream_destroy(struct seal_stream *st);
/* Who listens for several clusters looks here first: do a connection's first
 * SEAL_PEEK_BYTES call this one? */
#define SEAL_PEEK_BYTES 8
bool seal_stream_is_for(const struct seal *s,
			const uint8_t bytes[SEAL_PEEK_BYTES]);

/* Bytes came. They are copied as far as there is room: how many were taken. Then
 * seal_stream_next() until it gives nothing, and again with the rest. */
size_t seal_stream_put(struct seal_stream *st, const uint8_t *bytes, size_t n);

struct seal_frame {
	const uint8_t *body; /* until the next call */
	size_t len;
	bool is_last; /* the peer has nothing more to say: no cut */
};
/* The next frame. 1; 0, there is none yet; -EPROTO: it is over, close the
 * connection; seal_stream_reason() says why. */
int seal_stream_next(struct seal_stream *st, struct seal_frame *frame);
enum seal_reason seal_stream_reason(const struct seal_stream *st);

/* Queue a frame. 0; -EAGAIN, we do not know yet who is there; -EMSGSIZE;
 * -EPIPE, after the last one, or an error. */
int seal_stream_send(struct seal_stream *st, const void *body, size_t len,
		     bool is_last);
/* What is to be sent; then say how much of it was. */
const uint8_t *seal_stream_out(const struct seal_stream *st, size_t *n);
void seal_stream_sent(struct seal_stream *st, size_t n);

/* Whether the peer has proved itself, and who it is. */
bool seal_stream_peer(const struct seal_stream *st, struct gossip_id *id,
		      uint32_t *boot, bool *is_sealed);

#endif

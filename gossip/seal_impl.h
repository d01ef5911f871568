/* SPDX-License-Identifier: MIT */
/* What the files of seal share, and nobody else sees.
 *
 *	a packet
 *	 0  magic     2   "rf"
 *	 2  version   1   SEAL_VERSION
 *	 3  form      1   enum seal_form
 *	 4  cluster   4   of the hash of the cluster's id
 *	 8  key       8   id; in the clear: 0
 *	16  sender   16
 *	32  boot      4
 *	36  counter   8
 *	44  sealed: nonce 24, then the body, encrypted, then tag 16
 *	    clear:  XXH3 8, of all but itself, seeded; then the body
 *	Associated data: the first 44 bytes, and the cluster's id.
 *
 *	a stream, each way: a hello
 *	 0  magic     2   "rf"
 *	 2  version   1
 *	 3  form      1   the caller's, repeated by the called
 *	 4  cluster   4
 *	 8  key       8   that the sender seals with
 *	16  sender   16
 *	32  boot      4
 *	36  receiver 16   0: whoever it is
 *	52  challenge 32
 *	then, when the other's hello is here: sealed: a secretstream header of 24;
 *	then frames, the first of them empty
 *	 0  length    4   of what follows; associated data
 *	 4  sealed: secretstream message: body + 17; tag FINAL: the last
 *	    clear:  XXH3 8, last 1 (0 or 1), body */
#ifndef GOSSIP_SEAL_IMPL_H
#define GOSSIP_SEAL_IMPL_H

#include "gossip/bytes.h"
#include "gossip/index.h"
#include "gossip/seal.h"

#define SEAL_VERSION	     1
#define SEAL_HEADER_BYTES    44
#define SEAL_NONCE_BYTES     24
#define SEAL_TAG_BYTES	     16
#define SEAL_CLEAR_BYTES     (SEAL_HEADER_BYTES + 8)
#define SEAL_CHALLENGE_BYTES 32
#define SEAL_HELLO_BYTES     84
#define SEAL_SS_HEADER_BYTES 24
#define SEAL_SS_EXTRA	     17

enum seal_form {
	SEAL_SEALED = 1,
	SEAL_IN_CLEAR = 2,
	SEAL_STREAM_SEALED = 3,
	SEAL_STREAM_IN_CLEAR = 4,
};

/* A key and what is derived from it. Lives in guarded memory. */
struct seal_slot {
	struct seal_key key;
	uint8_t packet[SEAL_KEY_BYTES];
	uint8_t stream[SEAL_KEY_BYTES];
	uint64_t id;
	bool is_here;
	bool has_opened;
};

/* Somebody that was authentic once, or a member that we were told of. */
struct seal_peer {
	struct gossip_id id;
	bool is_member;
	uint8_t has; /* bit i: slot i */
	uint32_t boot;
	uint64_t highest;		   /* counter; 0: none yet */
	uint64_t window[SEAL_WINDOW / 64]; /* bit c % SEAL_WINDOW: had c */
};

struct seal {
	struct seal_config config;
	uint32_t cluster; /* as in headers */
	uint64_t counter;
	uint64_t seed;		 /* of the index */
	struct seal_slot *slots; /* SEAL_KEYS_MAX */
	int used;		 /* -1: none */
	struct index peers;
	struct seal_stats stats;
};

/* Of packets and hellos alike: what the first 36 bytes say. */
struct seal_head {
	uint8_t form;
	uint64_t key;
	struct gossip_id sender;
	uint32_t boot;
};

static inline enum seal_reason seal_count(struct seal *s,
					  enum seal_reason reason)
{
	s->stats.n[reason]++;
	return reason;
}

/* ---- seal.c ---- */

void seal_put_head(const struct seal *s, struct bytes_out *out,
		   enum seal_form form, uint64_t key);
/* Read and judge: everything that can be said without a key. */
enum seal_reason seal_get_head(const struct seal *s, struct bytes_in *in,
			       struct seal_head *head);
void seal_random(void *bytes, size_t n);
void seal_fill_slot(struct seal_slot *slot, const struct seal_key *key);
/* base64 of a key, constant in time; false if it is not. */
#define SEAL_BASE64_BYTES 44
void seal_key_to_text(const struct seal_key *key,
		      char text[SEAL_BASE64_BYTES + 1]);
bool seal_key_from_text(struct seal_key *key, const char *text, size_t len);

/* One direction of a stream. */
struct seal_flow;
/* bind: all that both ends agree upon. Sending, header is written; receiving, it
 * is read; NULL if it is none. */
struct seal_flow *seal_flow_create(const uint8_t key[SEAL_KEY_BYTES],
				   const uint8_t *bind, size_t n,
				   uint8_t header[SEAL_SS_HEADER_BYTES],
				   bool is_sending);
void seal_flow_destroy(struct seal_flow *f);
/* to has room for n + SEAL_SS_EXTRA. */
void seal_flow_push(struct seal_flow *f, uint8_t *to, const uint8_t *body,
		    size_t n, const uint8_t ad[4], bool is_last);
/* In place: the body, n - SEAL_SS_EXTRA bytes somewhere in message; NULL if it is
 * not authentic, or not the next. */
const uint8_t *seal_flow_pull(struct seal_flow *f, uint8_t *message, size_t n,
			      const uint8_t ad[4], bool *is_last);

/* ---- seal_ring.c ---- */

/* The slot of a key, -1 if it is not here. */
int seal_slot_of(const struct seal *s, uint64_t id);
struct seal_peer *seal_find_peer(const struct seal *s,
				 const struct gossip_id *id);
/* Would it be taken? Changes nothing. */
enum seal_reason seal_window_look(const struct seal_peer *p, uint32_t boot,
				  uint64_t counter);
/* It was authentic: note it, and that its sender has the key of that slot (-1:
 * it was in the clear). */
enum seal_reason seal_window_take(struct seal *s, const struct seal_head *head,
				  uint64_t counter, int slot);
/* The same for a stream: no counter. */
enum seal_reason seal_heard(struct seal *s, const struct gossip_id *id,
			    int slot);

#endif

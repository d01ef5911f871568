/* SPDX-License-Identifier: MIT */
/* The state of an instance, shared by the files gossip*.c and by nobody else.
 *
 *	IDLE --start--> LOBBY --answered--> MEMBER
 *	        |                            ^
 *	        +-- the cluster is known ----+     and from each: closing
 *
 * Whatever calls a core, calls the function that carries out what it asks for
 * next: gossip_swim_done(), gossip_channel_done(). What others shall hear of it
 * waits for the idle handle: callbacks come from the loop, never from inside a
 * call. */
#ifndef GOSSIP_GOSSIP_IMPL_H
#define GOSSIP_GOSSIP_IMPL_H

#include <uv.h>

#include "gossip/address.h"
#include "gossip/gossip.h"
#include "gossip/index.h"
#include "gossip/keyring.h"
#include "gossip/mem.h"
#include "gossip/net.h"
#include "gossip/net_addr.h"
#include "gossip/records.h"
#include "gossip/swim.h"
#include "gossip/traits.h"

#define NEVER	     UINT64_MAX
#define SECOND	     UINT64_C(1000000)
#define JOINS_MAX    64	  /* addresses and names that were asked for */
#define RESOLVED_MAX 8	  /* addresses of one name */
#define FAILED_MAX   64	  /* addresses that could not be sent to, in a turn */
#define FORMER_MAX   16	  /* addresses to warn, in a turn */
#define KEPT_MAX     1024 /* addresses of members on disk */
#define WISHES_MAX   (2 * SEAL_KEYS_MAX + 1)

/* Trait words that are ours. */
#define WORD_VERSION "version"
#define WORD_KEYS    "key-ids"

enum phase {
	PHASE_IDLE,
	PHASE_LOBBY,
	PHASE_MEMBER,
};

/* Replicated records: one instance of scuttlebutt each. Model and events are
 * further lines of this, of gossip_create(), and of nothing else. */
enum channel_index {
	CHANNEL_TRAITS,
	N_CHANNELS
};

struct channel {
	struct sb *sb;
	uint8_t number; /* in messages, and on disk: the class's */
	uint64_t wake_us;
	uint64_t kept_vector, kept_content; /* of what is on disk */
	void (*forget)(struct gossip *g, const struct gossip_id *id);
};

/* Somebody who is shown, or about to be. */
struct peer {
	struct gossip_id id;
	char *name;
	struct gossip_member shown; /* as on_member said; its name is name */
	bool is_shown;
	bool is_dirty;	 /* in the queue */
	bool is_changed; /* in what shown does not say: traits */
	struct peer *next;
};

/* A string that somebody may still look at in this turn. */
struct garbage {
	struct garbage *next;
	char *text;
};

struct join {
	char *text; /* as it was asked for */
	char host[ADDRESS_HOST_SIZE];
	uint16_t port;
	bool is_name;
	struct gossip_addr addrs[RESOLVED_MAX];
	unsigned n_addrs;
	uint64_t next_us; /* a name: resolve it then */
	uint64_t wait_us;
};

struct lobby {
	unsigned join, addr; /* whom to ask next */
	bool is_asking;
	struct gossip_addr asked;
	uint64_t next_us, wait_us;
	bool has_refusal; /* in this round: the first one */
	char why[GOSSIP_ERRMSG_SIZE];
	char waits[GOSSIP_ERRMSG_SIZE]; /* what the last one waits for */
	bool is_answered;		/* to be told to the layer above: */
	size_t answer_len;
	uint8_t answer[GOSSIP_HELLO_MAX];
};

struct kept_peer {
	struct gossip_id id;
	struct gossip_addr addr;
	uint64_t seen_s; /* wall clock: only their order counts */
};

/* Where the former life of a member was. */
struct former {
	struct gossip_id id;
	struct gossip_addr addr;
};

struct wish {
	uint8_t verb; /* enum key_verb */
	uint64_t id;
};

struct gossip {
	struct gossip_config config; /* its strings are ours */
	enum phase phase;
	bool has_left; /* was told to leave, and not to join since */
	struct gossip_addr self;
	bool is_self_guessed; /* to be looked at again */
	char address[GOSSIP_ADDR_SIZE];

	struct net *net;
	struct seal *lobby_seal, *seal; /* seal: of the cluster, or NULL */
	struct facts_pool pool;
	struct swim *swim;
	struct swim_out swim_out;
	struct sb_out sb_out;
	uint64_t swim_wake_us, chores_us, wishes_us;
	struct traits *traits;
	struct channel channels[N_CHANNELS];
	uint64_t swept_digest; /* of the table that was swept last */
	bool has_swept;

	uv_timer_t timer;
	uv_idle_t later; /* runs while there is something to tell */
	struct gossip_addr failed[FAILED_MAX];
	unsigned n_failed;

	/* gossip_members.c */
	struct index *peers; /* struct peer by id */
	uint64_t seed;
	struct peer *first_dirty, *last_dirty;
	struct garbage *garbage;
	struct former former[FORMER_MAX];
	unsigned n_former;
	bool is_copied, has_told_left, is_isolated, was_isolated;

	/* gossip_join.c */
	struct join joins[JOINS_MAX];
	unsigned n_joins;
	struct lobby lobby;
	uv_getaddrinfo_t resolve;
	struct join *resolving; /* NULL: nothing is */

	/* gossip_keys.c */
	struct wish wishes[WISHES_MAX];
	unsigned n_wishes;

	/* gossip_keep.c */
	struct records *records;
	struct records_batch *batch; /* under way */
	int batch_rc;
	uv_work_t work;
	uint64_t keep_us; /* not before */
	bool has_kept_all, is_full;
	struct kept_peer *kept;
	size_t n_kept;
	bool is_kept_changed;

	/* Closing, in this order. */
	bool is_closing, is_last_kept, is_net_closing, is_net_closed;
	unsigned n_open; /* handles */
	void (*close_cb)(void *data);
	void *close_data;
};

/* ---- gossip.c ---- */

uint64_t gossip_now_us(void); /* a clock that goes on while we are suspended */
__attribute__((format(printf, 3, 4))) void
gossip_log(struct gossip *g, int level, const char *format, ...);
void gossip_swim_done(struct gossip *g);
void gossip_channel_done(struct gossip *g, struct channel *c);
/* Traits were written: say so. */
void gossip_traits_done(struct gossip *g);
/* There is something to tell. */
void gossip_later(struct gossip *g);
/* The timer, for what is due first. */
void gossip_arm(struct gossip *g);
void gossip_set_address(struct gossip *g, const struct gossip_addr *addr);
/* We are one of them. */
void gossip_become_member(struct gossip *g);
/* Something that closing waits for is over. */
void gossip_close_step(struct gossip *g);

/* Sockets and handles; from here on it is closed in turns of the loop. */
void gossip_open(struct gossip *g);

/* ---- gossip_make.c ---- */

/* The seal of the cluster, with the keys of the lobby's. */
void gossip_make_seal(struct gossip *g, const struct gossip_id *cluster);
void gossip_release(struct gossip *g);

/* ---- gossip_members.c ---- */

void gossip_members_init(struct gossip *g);
void gossip_members_finish(struct gossip *g);
/* It may have changed. */
void gossip_members_touch(struct gossip *g, const struct gossip_id *id,
			  bool is_certain);
void gossip_members_event(struct gossip *g, const struct swim_event *e);
/* A former life of it is at addr: tell that one so, later. */
void gossip_members_warn(struct gossip *g, const struct gossip_id *id,
			 const struct gossip_addr *addr);
/* Tell what is to be told: members, and the rest. False: g is closing. */
bool gossip_members_tell(struct gossip *g);
/* Records and keys wait for all members, also for those that were never
 * heard. */
void gossip_members_sweep(struct gossip *g);
void gossip_members_trait(void *data, const struct trait *trait);

/* ---- gossip_join.c ---- */

int gossip_join_add(struct gossip *g, const char *text, struct join **out);
void gossip_join_start(struct gossip *g);
/* All addresses that are known, to swim. */
void gossip_join_all(struct gossip *g);
void gossip_join_tick(struct gossip *g, uint64_t now_us);
uint64_t gossip_join_wake(const struct gossip *g);
void gossip_join_finish(struct gossip *g);
/* Tell how the lobby went. False: g is closing. */
bool gossip_join_tell(struct gossip *g);
size_t gossip_join_on_ask(void *data, const struct net_from *from,
			  const uint8_t *bytes, size_t len, uint8_t *answer,
			  size_t cap);
/* Find out our address, if it is for us to find out. */
void gossip_join_look_around(struct gossip *g);

/* ---- gossip_keys.c ---- */

/* Read the key file into the lobby's seal. */
int gossip_keys_load(struct gossip *g, char errmsg[GOSSIP_ERRMSG_SIZE]);
/* Say which ones we have. */
void gossip_keys_say(struct gossip *g);
/* A member says which ones it has. */
void gossip_keys_heard(struct gossip *g, const struct trait *trait);
/* One is known now: what it has said of its keys counts. */
void gossip_keys_meet(struct gossip *g, const struct gossip_id *id);
void gossip_keys_recv(struct gossip *g, const struct net_from *from,
		      struct bytes_in in);
/* Repeat what members have not done yet. */
void gossip_keys_repeat(struct gossip *g);

/* ---- gossip_keep.c ---- */

int gossip_keep_load(struct gossip *g, char errmsg[GOSSIP_ERRMSG_SIZE]);
/* The addresses that were kept, to swim. */
void gossip_keep_join(struct gossip *g);
void gossip_keep_peer(struct gossip *g, const struct facts *facts);
void gossip_keep_forget(struct gossip *g, const struct gossip_id *id);
/* Write what has changed, if it is time. */
void gossip_keep_tick(struct gossip *g, uint64_t now_us);
/* Write all now: true, then gossip_close_step() follows; false: no need. */
bool gossip_keep_last(struct gossip *g);
void gossip_keep_finish(struct gossip *g);

#endif

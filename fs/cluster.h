/* SPDX-License-Identifier: MIT */
/* The cluster, as the daemon sees it: joining, the members, the keys.
 *
 * The one place of fs/, beside node.c, that knows gossip/gossip.h: it owns the
 * gossip, turns its members into peers, says this node's own traits, answers who
 * asks in our lobby (fs/hello.h) and asks in another's. Nothing here knows of
 * files; the tree asks it, and is told by on_change that peers/ may differ.
 *
 * A node is one of
 *
 *	founder   its state has a new cluster: it is the first member
 *	member    its state says which cluster
 *	joiner    its state says none: on_joined gives it, or on_refused the
 *		  reason
 *
 * What a member says of itself, besides name, address and version (gossip's):
 *
 *	weight, vnodes, keys   decimal digits
 *	role                   voter, standby or client
 *
 * Thread: the loop. */
#ifndef FS_CLUSTER_H
#define FS_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/peers.h"
#include "ring/ring.h"

struct cluster;
struct options;
struct port;
struct state;
struct uv_loop_s;

struct cluster_config {
	struct uv_loop_s *loop; /* all borrowed; they outlive it */
	const struct options *options;
	const struct state *state;
	struct port *port; /* its sockets are taken by cluster_start() */

	/* None is called from inside a call. */

	/* Of a joiner, once. settings: what is in force; borrowed. */
	void (*on_joined)(void *data, const struct ring_id *cluster,
			  const struct ring_settings *settings,
			  uint32_t generation);
	/* Of a joiner: it will never be taken. why is a sentence. */
	void (*on_refused)(void *data, const char *why);
	/* Members, or what they say. */
	void (*on_change)(void *data);
	/* SWIM's word of another member. */
	void (*on_member)(void *data, const struct ring_id *id,
			  enum ring_member_state state);
	/* From another's cluster_send(); bytes are borrowed. */
	void (*on_message)(void *data, const struct ring_id *from,
			   const void *bytes, size_t len);
	/* A herald's: 0 if it is one. Borrowed. */
	int (*on_obituary)(void *data, const void *bytes, size_t len);
	/* There is a newer life of this node: its state was copied. */
	void (*on_copied)(void *data);
	/* The others were told that we leave. */
	void (*on_left)(void *data);
	void *data;
};

/* Make it, idle. A founder's key is made, if there is none. Blocks while it
 * reads.
 *
 * 0; else errmsg says what is wrong and the way out: -ENOKEY, -EACCES, ... */
int cluster_create(const struct cluster_config *config, struct cluster **out,
		   char errmsg[RING_ERRMSG_SIZE]);
int cluster_start(struct cluster *c, char errmsg[RING_ERRMSG_SIZE]);
/* Without telling anybody. cb runs once, later, when c is gone; no other
 * callback does. */
void cluster_close(struct cluster *c, void (*cb)(void *data), void *data);

/* Where this node is reached; borrowed until the loop's next turn. */
const char *cluster_address(const struct cluster *c);

/* The settings in force: from now on others may be let in. Copied. */
void cluster_set_settings(struct cluster *c,
			  const struct ring_settings *settings,
			  uint32_t generation);

/* What this node says of itself. */
struct cluster_self {
	uint32_t weight, n_vnodes, n_keys;
	const char *role; /* borrowed; lives as long as the program */
};
/* Say it, if it is new, and not more often than once a second: gives the
 * milliseconds until it is due again, or UINT32_MAX. */
uint32_t cluster_say(struct cluster *c, uint64_t now_ms,
		     const struct cluster_self *self);

/* ---- The ring's messages ---- */

/* Send to another member; may be lost. Copied. bulk: it may be long, and goes
 * beside what is urgent. */
void cluster_send(struct cluster *c, const struct ring_id *to, bool bulk,
		  const void *bytes, size_t len);
/* Tell on_member of all that there are, from here on of all changes. */
void cluster_watch(struct cluster *c);
/* Seal bytes as the last word of this node, for herald_entrust(), to first (if
 * it is known) and as many others as there is room for. packet holds
 * HERALD_OBITUARY_MAX bytes, which out borrows. False: it cannot be sealed now.
 */
struct herald_obituary;
bool cluster_seal_obituary(struct cluster *c, const struct ring_id *first,
			   const void *bytes, size_t len,
			   struct herald_obituary *out, uint8_t *packet);
/* Send it ourselves: this node's tree is gone, and its process goes. */
void cluster_send_obituary(struct cluster *c, const void *bytes, size_t len);

/* ---- Members ---- */

/* The next that was heard, self first; from cursor 0 until false. */
bool cluster_next(const struct cluster *c, uint32_t *cursor, struct peer *out);
bool cluster_find(const struct cluster *c, const struct ring_id *id,
		  struct peer *out);
/* Does another member that lives have that name? */
bool cluster_has_name(const struct cluster *c, const char *name,
		      const struct ring_id *self);

/* Also get to know whoever is at addr. 0; -EINVAL. */
int cluster_join(struct cluster *c, const char *addr);
/* What the member that was asked to let us in waits for, or "". Borrowed until
 * the loop's next turn. */
const char *cluster_waits(const struct cluster *c);
/* on_left follows. */
void cluster_leave(struct cluster *c);
/* Forget a dead or left member, everywhere. 0; -ENOENT; -EBUSY, it lives. */
int cluster_forget(struct cluster *c, const struct ring_id *id);

/* ---- The secret ---- */

/* 0; -EEXIST; -ENOSPC; -EINVAL; -ENOENT; -EBUSY: members lack the key, or it is
 * in use; else from the file system. line: of a key file; NULL: draw one. */
int cluster_key_add(struct cluster *c, const char *line);
int cluster_key_use(struct cluster *c, uint64_t id);
int cluster_key_remove(struct cluster *c, uint64_t id);

struct cluster_key {
	uint64_t id;
	bool is_used;
	uint32_t n_lack; /* known members that have not confirmed it */
};

/* Draw a key and write it to path, which must not exist: mode 0600, synced; to
 * stdout for NULL. 0; else errmsg says why. Needs no cluster. */
int cluster_keygen(const char *path, char errmsg[RING_ERRMSG_SIZE]);

/* ---- Numbers ---- */

enum {
	CLUSTER_REFUSALS = 16
};

struct cluster_stats {
	struct ring_id cluster; /* zeros: not known yet */
	const char *seal;	/* sealed, both or clear */
	uint32_t n_members, n_alive, n_suspect, n_dead, n_left;
	unsigned health; /* Lifeguard's score; 0 is well */
	bool is_isolated;
	uint64_t n_packets_in, n_packets_out, bytes_in, bytes_out;
	uint64_t n_streams_in, n_streams_out, stream_bytes_in, stream_bytes_out;
	uint64_t n_send_errors, n_records, record_bytes;
	/* Packets and streams that were not taken, by reason; the last reason
	 * has the name NULL. */
	struct {
		const char *reason;
		uint64_t n;
	} refused[CLUSTER_REFUSALS + 1];
	struct cluster_key *keys; /* n_keys; ours */
	size_t n_keys;
};

/* cluster_stats_finish() releases it. */
void cluster_stats(const struct cluster *c, struct cluster_stats *out);
void cluster_stats_finish(struct cluster_stats *s);

#endif

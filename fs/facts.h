/* SPDX-License-Identifier: MIT */
/* What status/ and peers/ say, as texts.
 *
 * A struct facts is what is known at one instant: filled from the ring by
 * facts_gather(), or by a test; the renderers see nothing else, so a text never
 * mixes two instants. One value stands alone on its line; several stand in a
 * flat-keyed file, `key value` per line, read by key. What is not known is left
 * out, never invented.
 *
 * Names of nodes may be any bytes but / and NUL. A name that is not UTF-8, or
 * holds control characters, is shown percent-encoded; every other is shown as it
 * is, '%' included. Documents that can say which (json) do.
 *
 * Knows nothing of FUSE. Thread: the loop, for facts_gather(); else any. */
#ifndef FS_FACTS_H
#define FS_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/cluster.h"
#include "fs/herald.h"
#include "fs/peers.h"
#include "fs/text.h"
#include "ring/ring.h"

/* What happened to keys while this daemon ran, as seen here. */
struct facts_events {
	uint64_t claims, submits, finishes; /* of the whole cluster's keys */
	uint64_t offers, takes, gives;	    /* of this node's */
	uint64_t parks, retries;	    /* of the whole cluster's */
	uint64_t notes;
	uint64_t changes; /* all of them, those without a word here included */
	uint64_t status;  /* changes of health, leader or nodes */
};

/* Count one change. */
void facts_count(struct facts_events *e, const struct ring_change *change);

struct facts {
	/* Set by the caller; borrowed. */
	const char *version, *mountpoint, *address;
	pid_t pid;
	struct facts_events events;
	uint32_t expect; /* nodes to be seen together; 0: nobody said */

	/* Given by the caller; facts_finish() releases them. */
	struct peer *peers; /* n_peers, in the order of their coming */
	size_t n_peers;
	struct cluster_stats gossip;
	bool has_gossip; /* gossip is filled */

	/* Filled by facts_gather(); pointers are borrowed from the ring until
	 * the loop's next turn. */
	struct ring_status status;
	struct ring_settings settings;
	struct herald_stats herald;
	const struct ring_node **nodes; /* n_nodes, by node index; ours */
	uint32_t n_nodes;
	uint32_t self;	  /* index or RING_NONE */
	uint32_t *owners; /* settings.vnodes node indexes, ours; may be NULL */
	size_t counts[RING_N_VIEWS];
};

/* Fill the last part from r and h (NULL: no herald); with owners, the table of
 * vnodes too. facts_finish() releases it. */
void facts_gather(struct facts *f, const struct ring *r, const struct herald *h,
		  bool owners);
void facts_finish(struct facts *f);

/* ---- The files of status/ ---- */

enum {
	FACTS_OWNERS = 1, /* render reads f->owners */
	FACTS_PEERS = 2,  /* ... f->peers */
};

struct facts_file {
	const char *name;
	void (*render)(const struct facts *f, struct text *out);
	unsigned needs; /* FACTS_... */
};

/* Ended by one without a name. */
extern const struct facts_file facts_files[];

/* The facts of one member, for peers/NAME. */
void facts_peer(const struct peer *p, struct text *out);

/* ---- Shared by the renderers ---- */

/* The one word of status/state. */
const char *facts_state(const struct facts *f);
bool facts_writable(const struct facts *f);
/* Voters that must agree. */
uint32_t facts_needed(const struct facts *f);
/* Our own node is: it answers. */
bool facts_is_alive(const struct facts *f, uint32_t index);
/* The node's name, or "" for RING_NONE. */
const char *facts_node_name(const struct facts *f, uint32_t index);
/* 32 hex digits. */
void facts_put_id(struct text *out, const struct ring_id *id);

/* UTF-8 without control characters or what XML 1.0 forbids? */
bool facts_is_clean(const char *s);
/* s, or its percent-encoded form when it is not clean. */
void facts_put_name(struct text *out, const char *s);

/* Each numbers file: word and value, in order. Ended by one without a word. */
struct facts_number {
	const char *word;
	uint64_t value;
};
enum {
	FACTS_MAX_NUMBERS = 16
};
void facts_list_events(const struct facts *f,
		       struct facts_number out[FACTS_MAX_NUMBERS]);
/* Without handover_timeout_ms, whose 0 is `never`. */
void facts_list_limits(const struct facts *f,
		       struct facts_number out[FACTS_MAX_NUMBERS]);
void facts_list_counts(const struct facts *f,
		       struct facts_number out[FACTS_MAX_NUMBERS]);

/* One document with all of it (facts_json.c). */
void facts_json(const struct facts *f, struct text *out);
/* Prometheus text format 0.0.4 (facts_metrics.c). */
void facts_metrics(const struct facts *f, struct text *out);
/* A picture of who owns how much of the ring (facts_svg.c). */
void facts_svg(const struct facts *f, struct text *out);

#endif

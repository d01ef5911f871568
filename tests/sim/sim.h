/* SPDX-License-Identifier: MIT */
/* A cluster in one process, in virtual time: the real cores, and between them
 * links that delay, lose, repeat, reorder and refuse.
 *
 * Time is integer microseconds from 0; events of one instant come in the order
 * in which they were made. All randomness is from one seed, so a run is repeated
 * by its seed, and proven to be by the hash of all that was delivered. What goes
 * over a link is bytes, encoded by one core and decoded by another (D11); a codec
 * may seal and open them on the way. After each event what must hold is checked.
 *
 * Addresses: ip ::N for node N, counted from 1; its port is N until it changes. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "gossip/random.h"
#include "gossip/swim.h"

#define SIM_KINDS	(WIRE_RECORDS + 1)
#define SIM_RULES_MAX	64
#define SIM_INBOX_MAX	512 /* datagrams kept for a stopped node */
#define SIM_CHECKED_MAX 40  /* up to so many nodes all invariants are checked */

#define SIM_TRACE_EVENTS 128 /* a topic: what the layer above is told */

/* Nodes by number, from 1. */
struct sim_set {
	struct {
		uint32_t first, last;
	} ranges[16];
	unsigned n;
};

bool sim_set_has(const struct sim_set *set, uint32_t node);

/* What a link does to a packet; shares in millionths. */
struct sim_link {
	uint32_t delay_us, jitter_us; /* evenly from [delay, delay + jitter] */
	uint32_t loss, duplicate, reorder; /* the last: 10 x the delay */
	uint32_t mtu;			   /* longer datagrams are lost */
	bool is_cut;			   /* all are lost, streams too */
	bool fails;			   /* sending is an error (F3) */
};

enum sim_link_field {
	SIM_DELAY,
	SIM_JITTER,
	SIM_LOSS,
	SIM_DUPLICATE,
	SIM_REORDER,
	SIM_MTU,
	SIM_CUT,
	SIM_FAILS
};

struct sim_rule {
	struct sim_set from, to;
	enum sim_link_field field;
	uint32_t value;
};

enum sim_state {
	SIM_OFF,
	SIM_RUNNING,
	SIM_STOPPED,
	SIM_DOWN
};

struct sim_packet;

struct sim_node {
	struct sim *sim;
	uint32_t number;
	struct swim *swim; /* NULL: no process */
	enum sim_state state;
	struct gossip_id id; /* on disk */
	uint32_t boot;	     /* on disk */
	uint16_t port;
	int32_t rate_ppm;	   /* of its clock */
	uint64_t clock_base;	   /* its clock at time 0 */
	uint64_t wake_us;	   /* of an event in the heap, in true time */
	uint64_t tx_free_us;	   /* bandwidth: busy until then */
	struct sim_packet **inbox; /* while it is stopped */
	uint32_t n_inbox;
	unsigned topics; /* traced */
	uint64_t n_sent[SIM_KINDS];
	uint64_t n_bytes; /* sent, with headers of UDP and IP and the seal */
};

struct sim_event {
	uint64_t at_us, id;
	uint32_t node;
	uint32_t process;	   /* that it is for; it may have ended */
	struct sim_packet *packet; /* NULL: time to wake */
};

/* Optional: what happens to bytes on the way. Each returns the new length; open
 * gives 0 for bytes that are not to be taken. */
struct sim_codec {
	size_t (*seal)(void *data, uint32_t from, const uint8_t *in, size_t len,
		       uint8_t *out);
	size_t (*open)(void *data, uint32_t to, const uint8_t *in, size_t len,
		       uint8_t *out);
	void *data;
	size_t overhead;	    /* bytes that seal adds at most */
	void (*finish)(void *data); /* NULL: nothing to do */
};

struct sim {
	struct swim_config config;
	uint64_t seed, now_us, hash;
	struct random random;
	struct facts_pool pool;
	struct sim_node **nodes; /* number 1 is nodes[0] */
	uint32_t n_nodes;
	struct sim_link link; /* all links, but for the rules */
	struct sim_rule rules[SIM_RULES_MAX];
	unsigned n_rules;
	uint32_t bandwidth; /* of each node, bytes per second; 0: no limit */
	bool refuses;	    /* a host without process says so (ICMP) */
	const struct sim_codec *codec;
	struct sim_event *heap;
	size_t n_heap, cap_heap;
	uint64_t n_events;
	struct swim_out out;
	FILE *trace;
	/* Called for each event of a core, and each packet sent: hook_data. */
	void (*on_event)(void *data, uint32_t node, const struct swim_event *e);
	void (*on_send)(void *data, uint32_t from, uint32_t to, unsigned kind);
	void *hook_data;
	struct sim_shadow *shadow; /* see sim_check.c */
};

void sim_init(struct sim *sim, uint64_t seed, const struct swim_config *config);
void sim_finish(struct sim *sim);

/* Make n nodes more, not started. */
void sim_add(struct sim *sim, uint32_t n);
/* Start one, with a boot counter raised. Life ends with kill, without a word. */
void sim_start(struct sim *sim, uint32_t node);
void sim_kill(struct sim *sim, uint32_t node);
void sim_stop(struct sim *sim, uint32_t node); /* as SIGSTOP */
void sim_continue(struct sim *sim, uint32_t node);
void sim_wipe(struct sim *sim, uint32_t node); /* a new disk: a new id */
void sim_join(struct sim *sim, uint32_t node, uint32_t by);
void sim_leave(struct sim *sim, uint32_t node);
int sim_forget(struct sim *sim, uint32_t node, uint32_t other);
int sim_obituary(struct sim *sim, uint32_t node, uint32_t other, uint32_t boot);
void sim_meta(struct sim *sim, uint32_t node, const char *meta);
void sim_trace(struct sim *sim, uint32_t node, unsigned topics);
/* Bytes from nowhere, as if node had got them from an address of number from. */
void sim_inject(struct sim *sim, uint32_t node, uint32_t from,
		const uint8_t *bytes, size_t len);
/* All running nodes know all others from now on. */
void sim_acquaint(struct sim *sim);
void sim_rule(struct sim *sim, const struct sim_rule *rule);

/* Carry out the next event, if it is not after until. */
bool sim_step(struct sim *sim, uint64_t until_us);
void sim_run(struct sim *sim, uint64_t us);

struct sim_node *sim_node(struct sim *sim, uint32_t node);
/* The clock of a node, and the true time of what it says: rounded up, so that
 * nobody wakes too early. */
uint64_t sim_local_us(const struct sim *sim, const struct sim_node *n);
uint64_t sim_true_us(const struct sim *sim, const struct sim_node *n,
		     uint64_t local);
/* The number of the node with this id; 0: none. */
uint32_t sim_number(const struct sim *sim, const struct gossip_id *id);
/* What node believes of other; SWIM_UNKNOWN, also of an unverified one. */
unsigned sim_sees(struct sim *sim, uint32_t node, uint32_t other);
/* All running nodes have the same table. */
bool sim_agree(struct sim *sim);

/* sim_check.c: what must hold after every event. */
void sim_check_init(struct sim *sim);
void sim_check_finish(struct sim *sim);
void sim_check_node(struct sim *sim, uint32_t node);
void sim_check_reset(struct sim *sim, uint32_t node); /* its memory is gone */

/* codec.c: gossip/seal.h in earnest, each node with a state of its own: what is
 * sent twice arrives once, what a former life sent not at all. Given away: it is
 * released by sim_finish(). */
const struct sim_codec *sim_codec_seal(struct sim *sim);

/* script.c: 0, or the exit status of a failed script. */
int script_run(struct sim *sim, FILE *in);

/* measure.c, measure_faults.c: `sim measure NAME [ARG...]`; false: no such. */
bool measure(uint64_t seed, int argc, char **argv);

#endif

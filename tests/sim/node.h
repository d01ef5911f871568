/* SPDX-License-Identifier: MIT */
/* Whole nodes in one process, in virtual time: each the ring as it is (machine,
 * leases, roles, the log over C-Raft, wal and store on a real folder) and SWIM
 * as sim.h runs it, with between them what fs/cluster.c and fs/node.c do.
 *
 *	node.c        a node: its loop, its life, what it is told and tells
 *	node_net.c    streams between nodes, and the heralds' datagrams
 *	node_group.c  the little that must be known of a group's inside
 *	node_disk.c   files: what was not flushed is lost when the power fails
 *	node_check.c  what must hold after every event
 *	node_call.c   callers: what they ask, and what they were answered
 *	node_fault.c  what goes wrong, and when
 *	node_main.c   seeds: `sim nodes ...`
 *
 * Time is true microseconds from 0; each node has a clock of its own, with
 * another offset and rate. All randomness comes from the seed, the library's and
 * the kernel's (getrandom) included, and the wall clock is the virtual one: a
 * run is repeated by its seed, and the hash of all its events proves it.
 *
 * How the program gets hold of the product: it is linked with --wrap for the
 * system calls of ring/, and a few functions of ring/ that the daemon has no
 * setting for (the Makefile lists them). The product's code is not touched.
 *
 * One world at a time; everything is on one thread. */
#ifndef TESTS_SIM_NODE_H
#define TESTS_SIM_NODE_H

#include "gossip/random.h"
#include "ring/disk.h"
#include "ring/lease_impl.h"
#include "ring/ring_impl.h"
#include "tests/sim/node_group.h"
#include "tests/sim/sim.h"

#define NODES_MAX    7
#define DISKS	     2 /* the log's, the store's */
#define OBITUARY_MAX 256
#define NEVER_US     UINT64_MAX

/* ---- Files that are not flushed (node_disk.c) ---- */

struct disk_file { /* by inode, while something of it is not on disk */
	uint64_t inode;
	int fd;
	unsigned n_writes;
	struct disk_file *next;
};

struct disk_write {
	struct disk_file *file;
	uint64_t offset, len;
	uint64_t old_size; /* of the file */
	uint8_t *old;
};

enum disk_change_kind {
	DISK_MADE,
	DISK_RENAMED,
	DISK_REMOVED
};

/* Of the log's folder. What was removed, or renamed over, is kept aside. */
struct disk_change {
	enum disk_change_kind kind;
	char name[64], to[64], aside[64];
};

struct files {
	struct disk_file *list;
	struct disk_write *writes;
	size_t n_writes, cap_writes;
	struct disk_change *changes;
	size_t n_changes, cap_changes;
	uint64_t wal_inode; /* of the folder; 0: there is none yet */
	uint64_t serial;    /* of names aside */
	uint64_t n_steps;   /* writes, flushes, ... that were counted */
	uint64_t fail_at;   /* at this step the power fails; NEVER_US */
	uint64_t eio_at;    /* at this one the disk does; NEVER_US */
	bool is_off;	    /* it has: nothing has an effect any more */
	bool is_full;
};

/* ---- A node ---- */

enum node_state {
	NODE_OFF,
	NODE_UP,
	NODE_STOPPED
};

struct node {
	uint32_t number; /* as in struct sim */
	enum node_state state;
	bool is_dark;	 /* its host is off: nobody answers for it */
	bool is_leaving; /* ring_leave() was called */
	bool told_leave; /* swim_leave() was */
	bool has_left;	 /* and it has ended; its state is worth nothing */
	bool is_ending;	 /* its process is being ended */
	bool has_joined; /* ring_config.join */
	bool is_client, is_drained;
	uint32_t weight;
	uint32_t serial;   /* of its process: events of another are void */
	uint32_t index;	   /* how often its folder was made anew */
	uint32_t identity; /* and its identity */
	char dir[256], name[16];
	struct ring *ring;
	struct group *group;
	struct disk *disks[DISKS];
	bool disk_busy[DISKS];
	uint32_t disk_us[DISKS];     /* a batch takes about that long */
	uint64_t disk_hangs[DISKS];  /* until then */
	uint64_t bytes_seen, n_seen; /* of the log, at its last batch */
	bool is_woken, flush_posted;
	uint64_t due_us;
	uint64_t continued_us;	     /* it was stopped until then */
	uint8_t said[NODES_MAX + 1]; /* of each other: state + 1; 0: nothing */
	struct ring_id said_id[NODES_MAX + 1];
	struct files files;
	struct {
		uint8_t bytes[OBITUARY_MAX];
		size_t len;
		uint32_t boot, to[NODES_MAX], n_to;
	} obituary; /* what its herald has */
	bool has_no_herald;
	bool host_known;
	uint64_t seed;			 /* of its group */
	struct event *held, **held_tail; /* while it is stopped */
	unsigned shown[RING_N_VIEWS];	 /* by on_change */
	uint64_t checked_index;
};

/* ---- Events ---- */

enum event_kind {
	EVENT_TICK,
	EVENT_FLUSH,
	EVENT_WAKE,
	EVENT_DISK,	/* a: which */
	EVENT_LANE,	/* node: to; a: from; b: bulk */
	EVENT_MEMBER,	/* SWIM has said something */
	EVENT_TOLD,	/* SWIM: that we leave is told */
	EVENT_TELL,	/* a herald's turn: data is it */
	EVENT_OBITUARY, /* a herald's datagram; data as well */
	EVENT_HINT,	/* a: of whom */
	EVENT_CALL,
	EVENT_ABANDON, /* data: the call */
	EVENT_FAULT,
	EVENT_START,
	EVENT_CONTINUE,
	EVENT_POWER, /* off, if it is not yet */
	EVENT_END,   /* of a fault; a: which */
	EVENT_N
};

struct event {
	uint64_t at_us, order;
	enum event_kind kind;
	uint32_t node, serial; /* 0: of the world */
	uint32_t a, b;
	void *data;
	struct event *next; /* while held */
};

/* ---- The world ---- */

struct parcel {
	struct parcel *next;
	uint64_t due_us;
	uint32_t boot; /* of the sender */
	struct ring_id from, to;
	size_t len;
	uint8_t bytes[];
};

struct lane {
	struct parcel *first, **last;
	uint64_t last_us, used_us, paused_us, stalled_us;
	uint32_t pause_ms;
	struct ring_id from; /* whose newest boot was delivered: */
	uint32_t boot;
};

/* What a run is made of; drawn from the seed. */
struct plan {
	uint32_t n_nodes;
	uint64_t faults_us; /* so long */
	unsigned families;  /* bits of enum family */
	bool is_calm;	    /* no reader at every instant */
	uint32_t op_timeout_ms, snapshot_entries, trailing_entries;
	uint32_t segment_bytes;
	struct ring_settings settings;
	uint32_t n_names, n_callers, think_us, fault_us;
};

enum family {
	FAMILY_KILL,  /* processes end, with and without their heralds */
	FAMILY_POWER, /* hosts lose their power, and what is not flushed */
	FAMILY_STOP,  /* SIGSTOP, SIGCONT; suspended hosts */
	FAMILY_CUT,   /* one way, two ways, partitions */
	FAMILY_LINK,  /* loss, delay, jitter */
	FAMILY_DISK,  /* slow, hanging, full, failing */
	FAMILY_WIPE,  /* states and logs are lost */
	FAMILY_MOVE,  /* joins, leaves, drains, weights */
	FAMILY_ALL,   /* all nodes at once */
	FAMILY_N
};

/* What a run is broken with on purpose, to see it caught. */
enum planted {
	PLANTED_NONE,
	PLANTED_NOSYNC, /* a flush does nothing */
	PLANTED_LEASE,	/* a node holds its lease for longer than it has it */
	PLANTED_LIAR,	/* a herald speaks though its daemon only stopped */
	PLANTED_SKIP,	/* a machine skips an entry */
	PLANTED_N
};

struct world {
	uint64_t seed;
	struct sim sim;
	struct random random; /* of the world; the calls' and faults' */
	struct random kernel; /* getrandom() */
	struct plan plan;
	enum planted planted;
	bool log;
	char dir[256];
	struct ring_id cluster;
	struct node nodes[NODES_MAX + 1]; /* from 1 */
	struct node *now;		  /* whose code runs, or NULL */
	struct event *heap;
	size_t n_heap, cap_heap;
	uint64_t n_events, n_run, hash;
	struct lane lanes[NODES_MAX + 1][NODES_MAX + 1][2];
	bool cut[NODES_MAX + 1][NODES_MAX + 1]; /* from, to */
	uint32_t delay_us, jitter_us, loss;	/* the last in millionths */
	bool is_over;				/* no more faults */
	uint64_t counts[EVENT_N];
};

extern struct world world;

static inline uint32_t below(uint32_t n)
{
	return random_below(&world.random, n);
}

static inline bool one_in(uint32_t n)
{
	return below(n) == 0;
}

/* ---- node.c ---- */

void world_init(uint64_t seed);
void world_finish(void);
void world_run(uint64_t until_us);
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
void post(struct event e, uint64_t in_us);
/* For the process that node is now. */
void post_node(enum event_kind kind, const struct node *n, uint64_t in_us);
uint64_t node_us(const struct node *n); /* its clock */
static inline uint64_t node_ms(const struct node *n)
{
	return node_us(n) / 1000;
}
uint32_t number_of(const struct ring_id *id); /* 0: of no node as it is now */
struct ring_id id_of(uint32_t node);
void node_start(struct node *n);
enum end {
	END_TERM, /* it is asked to end */
	END_KILL, /* SIGKILL; its herald speaks */
	END_BOTH, /* SIGKILL to the herald, too */
	END_POWER,
};
void node_end(struct node *n, enum end how);
void node_wipe(struct node *n, bool all); /* or the log only */
void node_stop(struct node *n);
void node_continue(struct node *n);
/* After anything of its ring was called: the loop sleeps. */
void node_turn(struct node *n);
void node_run_disk(struct node *n, uint32_t which);

/* ---- node_net.c ---- */

void net_set(void); /* sim's links as the world's */
void net_finish(void);
void net_deliver(uint32_t from, uint32_t to, bool bulk);
void net_on_end(uint32_t node, enum end how);
void net_on_continue(uint32_t node);
void net_entrust(struct node *n, const void *bytes, size_t len);
void net_herald(struct node *n, bool once);
void net_tell(struct event *e);
void net_obituary(struct event *e);
void net_release(void *herald); /* one event of it is over */
bool net_is_cut(uint32_t from, uint32_t to);
void net_on_send(void *data, const struct ring_id *to, bool bulk,
		 const void *bytes, size_t len);

/* ---- node_disk.c ---- */

/* Take from the files what a power failure takes. */
void files_lose(struct node *n);
void files_forget(struct node *n); /* all is on disk, or gone */
void remove_tree(const char *path);
/* The log's worker would wait for room. */
bool files_must_wait(struct node *n);

/* ---- node_check.c ---- */

void check_init(void);
void check_finish(void);
__attribute__((format(printf, 1, 2), noreturn)) void broken(const char *format,
							    ...);
void check_node(struct node *n); /* after an event of it */
void check_end(void);		 /* when all has become quiet */
bool check_is_quiet(const char **why);
uint64_t check_top(void); /* the highest index that was applied anywhere */
/* What is asked from now on takes effect behind this index: the highest of what
 * was answered. */
uint64_t check_top_told(void);

/* What became of a request, by node, boot and number. */
struct effect {
	uint32_t node, state; /* which of the node's states */
	uint64_t boot, seq;
	uint64_t index; /* where it took effect; 0: it has not */
	bool is_asked, is_refused, is_adopted, has_finish;
	uint64_t after; /* it must take effect behind this index */
	int rc;		/* of it as a whole */
	uint32_t n;
	struct keyset_answer *answers;
	struct effect *next;
};
struct effect *check_effect(uint32_t node, uint64_t boot, uint64_t seq);
/* A caller was told that he has claimed it. */
void check_told(uint64_t life);
void check_answered(uint64_t index);
unsigned long check_instants(void);
unsigned check_shown(const struct node *n, enum ring_view view);

/* ---- node_call.c ---- */

void calls_init(void);
void calls_finish(void);
void calls_run(void);		/* EVENT_CALL */
void calls_abandon(void *call); /* EVENT_ABANDON */
void calls_check(void);		/* nobody waits for too long */
unsigned calls_pending(void);
/* Ask node for a name of its own, to see that it serves; then it is finished. */
void calls_probe(struct node *n);
bool calls_probed(const char **why);
void calls_print(void);

/* ---- node_fault.c ---- */

void faults_plan(void);
void faults_begin(void);
void faults_run(struct event *e);
void faults_heal(void);

/* ---- node_main.c ---- */

int nodes_main(int argc, char **argv);

#endif

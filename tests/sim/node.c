/* SPDX-License-Identifier: MIT */
/* A node and its loop. What fs/cluster.c and fs/node.c do with the ring is done
 * here in the same order: ring_check() before anything is read, ring_flush()
 * once per turn, SWIM's word told as a difference, of all members after the ring
 * was opened; leaving: first the ring, then SWIM, then the process ends. */
#include "tests/sim/node.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define LOOP_US 200 /* a busy loop takes up to so long for a turn */

struct world world;

int __real_group_open(const struct group_config *config, uint64_t now_ms,
		      int (*peek)(void *data, const void *bytes, size_t len),
		      struct group **out, char *errmsg);
int __wrap_group_open(const struct group_config *config, uint64_t now_ms,
		      int (*peek)(void *data, const void *bytes, size_t len),
		      struct group **out, char *errmsg);
void __real_group_close(struct group *g);
void __wrap_group_close(struct group *g);
struct disk *__real_disk_create(const struct disk_config *config);
struct disk *__wrap_disk_create(const struct disk_config *config);
void __real_disk_post(struct disk *d, struct disk_job *job);
void __wrap_disk_post(struct disk *d, struct disk_job *job);

/* ---- Events ---- */

static bool is_before(const struct event *a, const struct event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void push(struct event e)
{
	if (world.n_heap == world.cap_heap) {
		world.cap_heap = world.cap_heap > 0 ? 2 * world.cap_heap : 256;
		world.heap = realloc(world.heap,
				     world.cap_heap * sizeof(*world.heap));
	}
	size_t i = world.n_heap++;

	for (; i > 0 && is_before(&e, &world.heap[(i - 1) / 2]);
	     i = (i - 1) / 2)
		world.heap[i] = world.heap[(i - 1) / 2];
	world.heap[i] = e;
}

static struct event pop(void)
{
	struct event first = world.heap[0], last = world.heap[--world.n_heap];
	size_t i = 0;

	for (size_t child; (child = 2 * i + 1) < world.n_heap; i = child) {
		if (child + 1 < world.n_heap &&
		    is_before(&world.heap[child + 1], &world.heap[child]))
			child++;
		if (!is_before(&world.heap[child], &last))
			break;
		world.heap[i] = world.heap[child];
	}
	world.heap[i] = last;
	return first;
}

void post(struct event e, uint64_t in_us)
{
	e.at_us = world.sim.now_us + in_us;
	e.order = world.n_events++;
	push(e);
}

void post_node(enum event_kind kind, const struct node *n, uint64_t in_us)
{
	post((struct event){.kind = kind,
			    .node = n->number,
			    .serial = n->serial},
	     in_us);
}

void say(const char *format, ...)
{
	va_list args;

	if (!world.log)
		return;
	printf("[%10.3f] ", (double)world.sim.now_us / 1000);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

/* ---- Who is who, and when ---- */

uint64_t node_us(const struct node *n)
{
	return sim_local_us(&world.sim, sim_node(&world.sim, n->number));
}

static struct ring_id ring_id_of(const struct gossip_id *id)
{
	struct ring_id out;

	memcpy(out.byte, id->b, sizeof(out.byte));
	return out;
}

uint32_t number_of(const struct ring_id *id)
{
	struct gossip_id g;

	memcpy(g.b, id->byte, sizeof(g.b));
	return sim_number(&world.sim, &g);
}

struct ring_id id_of(uint32_t node)
{
	return ring_id_of(&sim_node(&world.sim, node)->id);
}

/* ---- The ring's callbacks ---- */

static void on_change(void *data, const struct ring_change *c)
{
	struct node *n = data;

	for (int v = 0; v < RING_N_VIEWS; v++)
		n->shown[v] += ((c->after >> v) & 1) - ((c->before >> v) & 1);
}

static void on_status(void *data)
{
	(void)data;
}

static void on_log(void *data, int level, const char *line)
{
	const struct node *n = data;

	say("%s %d: %s", n->name, level, line);
}

static void on_wake(void *data)
{
	struct node *n = data;

	if (n->is_woken)
		return;
	n->is_woken = true;
	post_node(EVENT_WAKE, n, 5 + below(20));
}

static int on_obituary(void *data, const void *bytes, size_t len)
{
	net_entrust(data, bytes, len);
	return 0;
}

/* ---- What the daemon has no setting for ---- */

int __wrap_group_open(const struct group_config *config, uint64_t now_ms,
		      int (*peek)(void *data, const void *bytes, size_t len),
		      struct group **out, char *errmsg)
{
	struct group_config c = *config;

	c.seed = random_next(&world.kernel) | 1;
	c.inline_jobs = true;
	c.snapshot_entries = world.plan.snapshot_entries;
	c.trailing_entries = world.plan.trailing_entries;
	int rc = __real_group_open(&c, now_ms, peek, out, errmsg);

	if (rc == 0)
		world.now->group = *out;
	return rc;
}

/* A process that is killed finishes nothing. */
void __wrap_group_close(struct group *g)
{
	if (world.now->is_ending)
		group_abandon(g);
	else
		__real_group_close(g);
	world.now->group = NULL;
}

struct disk *__wrap_disk_create(const struct disk_config *config)
{
	struct disk *d = __real_disk_create(config);

	world.now->disks[strcmp(config->name, "ringfs-log") != 0] = d;
	return d;
}

static uint64_t disk_takes(struct node *n, uint32_t which)
{
	uint64_t now = world.sim.now_us;
	uint64_t us = n->disk_us[which] / 2 + below(n->disk_us[which]);

	return n->disk_hangs[which] > now ? n->disk_hangs[which] - now + us
					  : us;
}

static void start_disk(struct node *n, uint32_t which)
{
	if (n->disk_busy[which])
		return;
	n->disk_busy[which] = true;
	post((struct event){.kind = EVENT_DISK,
			    .node = n->number,
			    .serial = n->serial,
			    .a = which},
	     disk_takes(n, which));
}

void __wrap_disk_post(struct disk *d, struct disk_job *job)
{
	struct node *n = world.now;

	__real_disk_post(d, job);
	for (uint32_t i = 0; i < DISKS; i++)
		if (n->disks[i] == d && !n->is_ending)
			start_disk(n, i);
}

/* Everything that was posted by now. Should the power fail on the way, then it
 * fails there. */
void node_run_disk(struct node *n, uint32_t which)
{
	n->disk_busy[which] = false;
	if (n->disk_hangs[which] > world.sim.now_us) {
		start_disk(n, which);
		return;
	}
	if (which == 0 && files_must_wait(n)) {
		if (group_set_waiting(n->group, true))
			on_wake(n);
		n->disk_busy[which] = true;
		post((struct event){.kind = EVENT_DISK,
				    .node = n->number,
				    .serial = n->serial,
				    .a = which},
		     100000);
		return;
	}
	if (which == 0 && group_set_waiting(n->group, false))
		on_wake(n);
	group_disk_step(n->group, which == 0);
	if (n->files.is_off)
		node_end(n, END_POWER);
}

/* ---- SWIM's word ---- */

static enum ring_member_state member_state(unsigned status)
{
	static const enum ring_member_state states[] = {
		[WIRE_ALIVE] = RING_MEMBER_ALIVE,
		[WIRE_SUSPECT] = RING_MEMBER_SUSPECT,
		[WIRE_DEAD] = RING_MEMBER_DEAD,
		[WIRE_LEFT] = RING_MEMBER_LEFT,
	};

	return states[status];
}

static void tell(struct node *n, uint32_t other, const struct ring_id *id,
		 enum ring_member_state state)
{
	static const char *const names[] = {"alive", "suspect", "dead", "left",
					    "forgotten"};

	n->said[other] = state == RING_MEMBER_FORGOTTEN ? 0 : state + 1u;
	n->said_id[other] = *id;
	say("%s SWIM: %u is %s", n->name, other, names[state]);
	ring_member(n->ring, node_ms(n), id, state);
}

/* What is believed now against what was told. */
static void tell_members(struct node *n)
{
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		unsigned is = i != n->number
				      ? sim_sees(&world.sim, n->number, i)
				      : SWIM_UNKNOWN;
		struct ring_id id = id_of(i);
		bool same = ring_same(&id, &n->said_id[i]);

		if (n->said[i] != 0 && !same && is != SWIM_UNKNOWN) {
			/* Its state is new: the old one stays as it was. */
			n->said[i] = 0;
		}
		if (is != SWIM_UNKNOWN && n->said[i] != member_state(is) + 1u)
			tell(n, i, &id, member_state(is));
	}
}

static void on_swim(void *data, uint32_t node, const struct swim_event *e)
{
	struct node *n = &world.nodes[node];

	(void)data;
	if (n->ring == NULL)
		return;
	if (e->kind == SWIM_MEMBER || e->kind == SWIM_GONE)
		post_node(EVENT_MEMBER, n, 0);
	else if (e->kind == SWIM_LEFT)
		post_node(EVENT_TOLD, n, 0);
}

/* ---- The loop ---- */

static void flush(struct node *n)
{
	struct ring_status s;
	uint64_t now_ms = node_ms(n);

	n->flush_posted = false;
	if (n->is_leaving && !n->told_leave) {
		ring_status(n->ring, &s);
		n->told_leave = s.has_left;
		if (n->told_leave) {
			say("%s has left the ring", n->name);
			sim_leave(&world.sim, n->number);
		}
	}
	uint64_t due_ms = now_ms + ring_flush(n->ring, now_ms);
	uint64_t due = sim_true_us(&world.sim, sim_node(&world.sim, n->number),
				   due_ms * 1000);

	if (due <= world.sim.now_us)
		due = world.sim.now_us + 1;
	n->due_us = due;
	post_node(EVENT_TICK, n, due - world.sim.now_us);
}

/* Mostly the loop sleeps at once; now and then it has more to do before. */
void node_turn(struct node *n)
{
	if (n->flush_posted)
		return;
	if (!one_in(8)) {
		flush(n);
		return;
	}
	n->flush_posted = true;
	post_node(EVENT_FLUSH, n, 1 + below(LOOP_US));
}

/* ---- A life ---- */

static void make_dir(struct node *n)
{
	snprintf(n->dir, sizeof(n->dir), "%.200s/%u-%u", world.dir, n->number,
		 n->index++);
	if (mkdir(n->dir, 0700) != 0)
		broken("%s: %s", n->dir, strerror(errno));
	files_forget(n);
	n->files.wal_inode = 0;
}

static int open_ring(struct node *n, char *errmsg)
{
	static const struct ring_settings unset = {RING_UNSET, RING_UNSET,
						   RING_UNSET, RING_UNSET,
						   RING_UNSET, RING_UNSET};
	struct sim_node *s = sim_node(&world.sim, n->number);
	struct ring_config config = {
		.dir = n->dir,
		.cluster = world.cluster,
		.id = id_of(n->number),
		.boot = s->boot,
		.name = n->name,
		.weight = n->weight,
		.is_client = n->is_client,
		.settings = n->has_joined ? unset : world.plan.settings,
		.op_timeout_ms = world.plan.op_timeout_ms,
		.join = n->has_joined,
		.on_change = on_change,
		.on_status = on_status,
		.on_log = on_log,
		.wake = on_wake,
		.send = net_on_send,
		.obituary = on_obituary,
		.data = n};

	if (n->host_known)
		config.host[0] = (uint8_t)n->number;
	return ring_open(&config, node_ms(n), &n->ring, errmsg);
}

void node_start(struct node *n)
{
	char errmsg[RING_ERRMSG_SIZE] = "";

	assert(n->state == NODE_OFF);
	if (n->dir[0] == '\0')
		make_dir(n);
	n->serial++;
	n->is_dark = n->is_leaving = n->told_leave = n->has_left = false;
	n->is_drained = n->is_ending = n->flush_posted = n->is_woken = false;
	n->bytes_seen = n->n_seen = 0;
	n->obituary.len = 0;
	memset(n->said, 0, sizeof(n->said));
	memset(n->shown, 0, sizeof(n->shown));
	memset(n->disk_busy, 0, sizeof(n->disk_busy));
	n->held = NULL;
	n->held_tail = &n->held;
	n->state = NODE_UP;
	sim_start(&world.sim, n->number);
	say("%s starts, boot %u", n->name,
	    sim_node(&world.sim, n->number)->boot);
	world.now = n;
	n->continued_us = world.sim.now_us;
	int rc = open_ring(n, errmsg);

	if (rc != 0) {
		if (!n->files.is_off)
			broken("%s does not start: %d %s", n->name, rc, errmsg);
		n->ring = NULL;
		node_end(n, END_POWER);
		return;
	}
	if (n->files.is_off) {
		node_end(n, END_POWER);
		return;
	}
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++)
		if (i != n->number && world.nodes[i].serial > 0)
			sim_join(&world.sim, n->number, i);
	for (int v = 0; v < RING_N_VIEWS; v++) /* of these it has not told */
		n->shown[v] = check_shown(n, (enum ring_view)v);
	tell_members(n);
	post_node(EVENT_TICK, n, 1);
	n->due_us = world.sim.now_us + 1;
	world.now = NULL;
}

static void drop_held(struct node *n)
{
	while (n->held != NULL) {
		struct event *e = n->held;

		n->held = e->next;
		if (e->kind == EVENT_OBITUARY)
			net_release(e->data);
		free(e);
	}
}

void node_end(struct node *n, enum end how)
{
	static const char *const words[] = {"is asked to end", "is killed",
					    "is killed with its herald",
					    "loses its power"};

	assert(n->state != NODE_OFF);
	say("%s %s", n->name, words[how]);
	world.now = n;
	n->is_ending = how != END_TERM;
	n->state = NODE_OFF;
	n->is_dark = how == END_POWER;
	if (how == END_POWER)
		n->files.is_off = true;
	if (n->ring != NULL)
		ring_close(n->ring);
	n->ring = NULL;
	n->group = NULL;
	n->serial++;
	drop_held(n);
	sim_kill(&world.sim, n->number);
	net_on_end(n->number, how);
	if (how == END_POWER)
		files_lose(n);
	else if ((how == END_KILL && !n->has_no_herald) || how == END_TERM)
		net_herald(n, how == END_TERM);
	n->files.fail_at = n->files.eio_at = NEVER_US;
	n->files.is_off = false;
	world.now = NULL;
}

void node_wipe(struct node *n, bool all)
{
	assert(n->state == NODE_OFF);
	say("%s loses its %s", n->name, all ? "state" : "log");
	remove_tree(n->dir);
	make_dir(n);
	n->has_joined = true;
	if (!all)
		return;
	n->identity++;
	sim_wipe(&world.sim, n->number);
}

void node_stop(struct node *n)
{
	assert(n->state == NODE_UP);
	say("%s stops", n->name);
	n->state = NODE_STOPPED;
	sim_stop(&world.sim, n->number);
}

static void run(struct event *e);

/* Who reads from it has waited: that is answered first, then what is due, then
 * what has come. */
void node_continue(struct node *n)
{
	assert(n->state == NODE_STOPPED);
	say("%s goes on", n->name);
	n->state = NODE_UP;
	n->continued_us = world.sim.now_us;
	world.now = n;
	check_node(n);
	ring_check(n->ring, node_ms(n));
	ring_tick(n->ring, node_ms(n));
	node_turn(n);
	check_node(n);
	sim_continue(&world.sim, n->number);
	for (struct event *e = n->held, *next; e != NULL; e = next) {
		next = e->next;
		n->held = next;
		post(*e, 0);
		free(e);
	}
	n->held_tail = &n->held;
	net_on_continue(n->number);
	world.now = NULL;
}

/* ---- Running ---- */

static void run_node(struct node *n, struct event *e)
{
	world.now = n;
	switch (e->kind) {
	case EVENT_TICK:
		if (e->at_us == n->due_us) { /* else there is a later one */
			ring_tick(n->ring, node_ms(n));
			node_turn(n);
		}
		break;
	case EVENT_FLUSH:
		if (n->flush_posted)
			flush(n);
		break;
	case EVENT_WAKE:
		n->is_woken = false;
		ring_wake(n->ring, node_ms(n));
		node_turn(n);
		break;
	case EVENT_DISK:
		node_run_disk(n, e->a);
		break;
	case EVENT_MEMBER:
		tell_members(n);
		node_turn(n);
		break;
	case EVENT_TOLD:
		if (n->told_leave) {
			node_end(n, END_TERM);
			n->has_left = true;
		}
		break;
	case EVENT_HINT:
		swim_hint(sim_node(&world.sim, n->number)->swim,
			  &sim_node(&world.sim, e->a)->id);
		break;
	case EVENT_OBITUARY:
		net_obituary(e);
		break;
	case EVENT_POWER:
		node_end(n, END_POWER);
		break;
	default:
		break;
	}
	if (n->ring != NULL)
		check_node(n);
	world.now = NULL;
}

static bool is_of_process(enum event_kind kind)
{
	switch (kind) {
	case EVENT_TICK:
	case EVENT_FLUSH:
	case EVENT_WAKE:
	case EVENT_DISK:
	case EVENT_MEMBER:
	case EVENT_TOLD:
	case EVENT_HINT:
	case EVENT_POWER:
		return true;
	default:
		return false;
	}
}

static void hold(struct node *n, const struct event *e)
{
	struct event *copy = malloc(sizeof(*copy));

	*copy = *e;
	copy->next = NULL;
	*n->held_tail = copy;
	n->held_tail = &copy->next;
}

static void hash_in(const struct event *e)
{
	const struct node *n = &world.nodes[e->node];
	uint64_t words[6] = {e->at_us, e->kind, e->node, e->a, e->serial};

	if (n->ring != NULL)
		words[5] = keyset_hash(n->ring->keys);
	world.hash = XXH3_64bits_withSeed(words, sizeof(words), world.hash);
}

static void run(struct event *e)
{
	struct node *n = &world.nodes[e->node];

	hash_in(e);
	world.counts[e->kind]++;
	if (is_of_process(e->kind)) {
		if (e->serial != n->serial || n->state == NODE_OFF)
			return;
		if (n->state == NODE_STOPPED && e->kind != EVENT_POWER)
			hold(n, e);
		else
			run_node(n, e);
		return;
	}
	switch (e->kind) {
	case EVENT_LANE:
		net_deliver(e->a, e->node, e->b);
		break;
	case EVENT_TELL:
		net_tell(e);
		break;
	case EVENT_OBITUARY:
		if (n->state == NODE_STOPPED)
			hold(n, e);
		else if (n->state == NODE_UP)
			run_node(n, e);
		else
			net_obituary(e); /* it is released */
		break;
	case EVENT_CALL:
		calls_run();
		break;
	case EVENT_ABANDON:
		calls_abandon(e->data);
		break;
	default:
		faults_run(e);
		break;
	}
}

void world_run(uint64_t until_us)
{
	struct sim *sim = &world.sim;

	for (;;) {
		uint64_t mine =
			world.n_heap > 0 ? world.heap[0].at_us : NEVER_US;
		uint64_t swims =
			sim->n_heap > 0 ? sim->heap[0].at_us : NEVER_US;
		uint64_t next = mine < swims ? mine : swims;

		if (next > until_us)
			break;
		world.n_run++;
		if (swims <= mine) {
			sim_step(sim, swims);
			continue;
		}
		struct event e = pop();

		sim->now_us = e.at_us;
		run(&e);
	}
	sim->now_us = until_us;
}

void world_init(uint64_t seed)
{
	enum planted planted = world.planted;
	bool log = world.log;
	char dir[sizeof(world.dir)];

	memcpy(dir, world.dir, sizeof(dir));
	memset(&world, 0, sizeof(world));
	memcpy(world.dir, dir, sizeof(dir));
	world.planted = planted;
	world.log = log;
	world.seed = seed;
	world.random.state = seed * 2 + 1;
	world.kernel.state = seed ^ 0x6b65726e656c;
	sim_init(&world.sim, seed, &swim_lan);
	world.sim.on_event = on_swim;
	world.sim.refuses = true;
	for (size_t i = 0; i < sizeof(world.cluster.byte); i++)
		world.cluster.byte[i] = (uint8_t)below(256);
	faults_plan();
	sim_add(&world.sim, world.plan.n_nodes);
	sim_check_init(&world.sim);
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		struct node *n = &world.nodes[i];

		n->number = i;
		n->weight = 100;
		n->has_joined = i > 1;
		n->files.fail_at = n->files.eio_at = NEVER_US;
		snprintf(n->name, sizeof(n->name), "n%u", i);
	}
	check_init();
	calls_init();
}

void world_finish(void)
{
	for (uint32_t i = 1; i <= world.plan.n_nodes; i++) {
		struct node *n = &world.nodes[i];

		if (n->state != NODE_OFF)
			node_end(n, END_BOTH);
		files_forget(n);
		remove_tree(n->dir);
	}
	net_finish();
	calls_finish();
	check_finish();
	while (world.n_heap > 0) {
		struct event e = pop();

		if (e.kind == EVENT_TELL || e.kind == EVENT_OBITUARY)
			net_release(e.data);
	}
	free(world.heap);
	sim_finish(&world.sim);
}

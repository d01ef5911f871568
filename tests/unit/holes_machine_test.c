/* SPDX-License-Identifier: MIT */
/* Sequences of holes.md, by number, that the machine must bear: tokens, time,
 * requests that come late and twice, keys without heirs. */
#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>

#include "ring/ring_impl.h"
#include "tests/unit/keyset_rig.h"
#include "tests/unit/scratch.h"

/* ---- 9: what protects where time does not ---- */

static void hole_9(void)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 2);
	struct ring_op stale = {.name = "k"};

	/* Its machine is paused; the key goes to another, who works on it. */
	check_int(op(g, 0, RING_CLAIM, "k"), 0);
	stale.token = find(g, "k")->token;
	down(g, 0, RING_DEAD);
	uint32_t heir = find(g, "k")->holder;

	check_int(op(g, (int)heir, RING_TAKE, "k"), 0);
	/* It goes on, comes up again, and is even given the key back. */
	struct keyset_up u = up_of(g, 0);

	check_int(up(g, 0, &u), 0);
	down(g, (int)heir, RING_DEAD);
	check_int(op(g, 0, RING_TAKE, "k"), 0);
	stale.type = RING_NOTE;
	check_int(ask(g, 0, &stale), -ENOENT);
	stale.type = RING_GIVE;
	check_int(ask(g, 0, &stale), -ENOENT);
	stale.type = RING_FINISH;
	check_int(ask(g, 0, &stale), -ENOENT);
	check(find(g, "k") != NULL, "finished by one who was paused");
	ok("holes 9: a token of before the pause finishes nothing after it");
	rig_free(g);
}

/* ---- 23: time ---- */

static int64_t wall_s; /* added to the clock on the wall */

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int rc = (int)syscall(SYS_clock_gettime, id, ts);

	if (rc == 0 && id == CLOCK_REALTIME)
		ts->tv_sec += wall_s;
	return rc;
}

static void ignore_change(void *data, const struct ring_change *change)
{
	(void)data;
	(void)change;
}

static void ignore(void *data)
{
	(void)data;
}

static void ignore_log(void *data, int level, const char *line)
{
	(void)data;
	(void)level;
	(void)line;
}

static uint64_t now; /* since boot, of whatever machine it is just now */

static struct ring *open_ring(void)
{
	static uint64_t boot;
	struct ring_config config = {
		.dir = scratch_dir,
		.cluster.byte = {7},
		.id.byte = {1},
		.boot = ++boot,
		.name = "a",
		.weight = 100,
		.settings = {.vnodes = RING_UNSET,
			     .claims = RING_UNSET,
			     .lease_ms = RING_UNSET,
			     .calm_ms = RING_UNSET,
			     .max_attempts = RING_UNSET,
			     .handover_timeout_ms = RING_UNSET},
		.op_timeout_ms = 60000,
		.on_change = ignore_change,
		.on_status = ignore,
		.on_log = ignore_log,
		.wake = ignore};
	char errmsg[RING_ERRMSG_SIZE];
	struct ring *r;
	int rc = ring_open(&config, now, &r, errmsg);

	check(rc == 0, "%s", errmsg);
	return r;
}

/* A turn of the loop, which takes a millisecond of that machine. */
static void turn(struct ring *r)
{
	now++;
	ring_wake(r, now);
	ring_tick(r, now);
	ring_flush(r, now);
}

static void on_done(struct ring_request *req)
{
	*(bool *)req->data = true;
}

static int ask_ring(struct ring *r, enum ring_op_type type, const char *name)
{
	struct ring_op o = {.type = type, .name = name};
	bool done = false;
	struct ring_request req = {
		.ops = &o, .n_ops = 1, .cb = on_done, .data = &done};

	ring_submit(r, now, &req);
	for (int i = 0; i < 5000 && !done; i++) {
		poll(NULL, 0, 1); /* the disk is real */
		turn(r);
	}
	check(done && req.rc == 0, "%d", req.rc);
	return o.rc;
}

static void wait_ready(struct ring *r)
{
	struct ring_status s;

	for (int i = 0; i < 5000; i++) {
		ring_status(r, &s);
		if (s.health == RING_READY)
			return;
		poll(NULL, 0, 1);
		turn(r);
	}
	check(false, "%s", s.reason);
}

static void hole_23(uint64_t seed)
{
	static const uint64_t boots[] = {100, 5000000000000, 7};
	static const int64_t walls[] = {0, 73 * 365 * 86400ll, -86400};
	uint64_t machine = 0;

	(void)seed;
	for (size_t i = 0; i < 3; i++) {
		char name[8];

		now = boots[i]; /* it leads on another machine, or rebooted */
		wall_s = walls[i];
		snprintf(name, sizeof(name), "t%zu", i);
		struct ring *r = open_ring();
		uint64_t began = now;

		wait_ready(r);
		check_int(ask_ring(r, RING_CLAIM, name), 0);
		uint64_t then = keyset_now_ms(r->keys);

		check(then >= machine && then <= machine + (now - began),
		      "machine time went from %" PRIu64 " to %" PRIu64
		      " in %" PRIu64 " ms",
		      machine, then, now - began);
		machine = then;

		/* A back-off is a duration of the holder's. */
		check_int(ask_ring(r, RING_GIVE, name), 0);
		began = now;
		wall_s = -walls[i];
		const struct ring_key *key = ring_find(r, name);

		for (int j = 0; j < 1000 && now - began < 980; j++)
			turn(r);
		check(!ring_shows(r, key, RING_VIEW_RECOVER), "too early");
		for (int j = 0; j < 100; j++)
			turn(r);
		check(ring_shows(r, key, RING_VIEW_RECOVER), "too late");
		machine = keyset_now_ms(r->keys);
		wall_s = 0; /* closing waits by it */
		ring_close(r);
	}
	ok("holes 23: no clock on a wall, and no leader's boot, moves the "
	   "machine's time, or a back-off");
}

/* ---- 25: late duplicates ---- */

static void hole_25(void)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 2);
	struct ring_op claim = {.type = RING_CLAIM, .name = "job"};
	struct ring_op finish = {.type = RING_FINISH, .name = "job"};
	struct keyset_origin late = g->me[0], o = late;

	/* A claim is given up by its caller, is done all the same, and
	 * finished; then the network delivers its copy. */
	check_int(ask_all(g, &late, &claim, 1), 0);
	o.seq++;
	check_int(ask_all(g, &o, &finish, 1), 0);
	check_int(ask_all(g, &late, &claim, 1), 0);
	check_int(g->answer.rc, 0);
	check_int(g->n_keys, 0);
	check(find(g, "job") == NULL, "it runs twice");
	o.seq++;
	o.floor = o.seq; /* all before are answered, or given up */
	check_int(ask_all(g, &o,
			  &(struct ring_op){.type = RING_TAKE, .name = "none"},
			  1),
		  0);
	check_int(ask_all(g, &late, &claim, 1), -ESTALE);
	late.floor = 0; /* nothing lowers it */
	check_int(ask_all(g, &late, &claim, 1), -ESTALE);
	check(find(g, "job") == NULL, "it runs twice");
	ok("holes 25: a copy of a request that was given up runs nothing "
	   "again");

	/* A request that was never seen, below the floor: refused for ever. */
	late.seq = late.floor = 5;
	o.seq = o.floor = 6;
	check_int(ask_all(g, &o, &claim, 1), 0);
	check_int(ask_all(g, &late, &finish, 1), -ESTALE);
	late.seq = 6 + KEYSET_WINDOW;
	check_int(ask_all(g, &late, &finish, 1), -EAGAIN);
	check(find(g, "job") != NULL, "finished");
	ok("holes 25: below the floor and above its window nothing is done");

	/* The life is over, and another one begins. */
	late = o;
	late.seq = 7;
	restart(g, 0, 100);
	check_int(ask_all(g, &late, &finish, 1), -ESTALE);
	down(g, 0, RING_DEAD);
	check_int(ask_all(g, &g->me[0], &claim, 1), -ENOTCONN);
	struct keyset_up u = up_of(g, 0);
	struct keyset_origin before = g->me[0];

	check_int(up(g, 0, &u), 0);
	check_int(ask_all(g, &before, &finish, 1), -ENOTCONN);
	check(find(g, "job") != NULL, "finished");
	ok("holes 25, 11: what a life asked for that is over has no effect");
	rig_free(g);
}

/* A batch is one number, and its answers are kept as one. */
static void hole_25_batch(void)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 1);
	struct ring_op ops[] = {{.type = RING_CLAIM, .name = "a"},
				{.type = RING_CLAIM, .name = "a"},
				{.type = RING_FINISH, .name = "a"},
				{.type = RING_CLAIM, .name = "b"}};
	struct keyset_origin o = g->me[0];

	for (int i = 0; i < 3; i++) {
		check_int(ask_all(g, &o, ops, 4), 0);
		check_int(g->n_ops, 4);
		check_int(g->answer.rc, 0);
		check_int(g->n_keys, i == 0 ? 3 : 0);
	}
	check(find(g, "a") == NULL && find(g, "b") != NULL, "once");
	ok("holes 25: a batch that comes again is answered as one, as before");
	rig_free(g);
}

/* ---- 27: no heir ---- */

static void hole_27(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 2);

	/* One is asked to let go of a key, another was given back, a third is
	 * offered: all are the dead node's, and find the heir of that entry. */
	check_int(op(g, 0, RING_CLAIM, g->mine), 0);
	check_int(op(g, 1, RING_CLAIM, g->his), 0);
	check_int(op(g, 0, RING_GIVE, g->mine), 0);
	share(g, 1, 0, false);
	check_int(find(g, g->his)->state, RING_RELEASING);
	check_int(find(g, g->mine)->state, RING_OFFERED);
	down(g, 1, RING_DEAD);
	check_int(find(g, g->his)->state, RING_OFFERED);
	check_int(find(g, g->his)->holder, 0);
	check_int(op(g, 0, RING_CLAIM, "parked"), 0);
	check_int(op(g, 0, RING_PARK, "parked"), 0);
	check_int(find(g, "parked")->holder, RING_NONE);
	down(g, 0, RING_DEAD);
	for (int i = 0; i < 2; i++) {
		const struct ring_key *key = find(g, i ? g->mine : g->his);

		check_int(key->state, RING_OFFERED);
		check_int(key->holder, RING_NONE);
	}
	check_int(find(g, "parked")->state, RING_PARKED);
	ok("holes 27: a down hands on what is offered and releasing, too");

	/* Only one who owns nothing comes up; then one who drains; then one. */
	restart(g, 2, 0);
	check_int(find(g, g->mine)->holder, RING_NONE);
	check_int(op(g, 2, RING_TAKE, g->mine), -ENOENT);
	check_int(op(g, 2, RING_CLAIM, "new"), -EREMOTE);
	share(g, 2, 100, true);
	check_int(find(g, g->mine)->holder, RING_NONE);
	share(g, 2, 100, false);
	check_int(find(g, g->mine)->holder, 2);
	check_int(find(g, g->his)->holder, 2);
	check_int(find(g, "parked")->holder, RING_NONE);
	ok("holes 27: keys without heir wait for the first that may own");

	/* claims=owner is judged by the table of the claim's own entry. */
	char name[16];
	unsigned i = 0;

	restart(g, 0, 100);
	do
		snprintf(name, sizeof(name), "x%u", i++);
	while (keyset_vnode_owner(
		       g->k, place_vnode(name, strlen(name), N_VNODES)) != 2);
	entry(g);
	struct keyset_share all = {.id = g->me[2].id,
				   .boot = g->me[2].boot,
				   .epoch = g->me[2].epoch,
				   .weight = 0};

	keyset_put_share(&g->e, &all);
	keyset_put_request(&g->e, &g->me[2],
			   &(struct ring_op){.type = RING_CLAIM, .name = name},
			   1);
	check_int(apply(g), 0);
	check_int(g->rc, 0);
	check_int(g->answer.rc, -EREMOTE);
	ok("holes 27: who owned a name until this entry may not claim it");
	rig_free(g);
}

static void hole_27_client(void)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 2);
	struct keyset_up u;

	g->me[2].boot = 1;
	u = up_of(g, 2);
	u.is_client = true;
	check_int(up(g, 2, &u), 0);
	check_int(keyset_node(g->k, 2)->n_vnodes, 0);
	check_int(op(g, 2, RING_CLAIM, "c"), 0);
	check_int(find(g, "c")->holder, 2);
	down(g, 2, RING_DEAD);
	check_int(find(g, "c")->state, RING_OFFERED);
	check(find(g, "c")->holder < 2, "an heir");
	ok("holes 27: a client holds what it claims until its down, too");
	rig_free(g);
}

int main(void)
{
	hole_9();
	int rc = scratch_run(hole_23, 1);
	if (rc != 0)
		return rc;
	hole_25();
	hole_25_batch();
	hole_27();
	hole_27_client();
	return 0;
}

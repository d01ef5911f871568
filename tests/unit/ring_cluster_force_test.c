/* SPDX-License-Identifier: MIT */
/* Several rings: a node finishes what another holds, whatever becomes of the
 * holder, the leader or the cable meanwhile (holes.md 4). That no key is shown
 * by two nodes is checked by the rig, at every instant.
 *
 * ring_cluster_force_test [SEED]; ONLY=N runs one of them. */
#include "tests/unit/cluster_rig.h"

enum {
	FINISH = 7, /* peer.h's */
};

/* Begin to force name, as host sees it. */
static void begin_force(int host, struct asked *a, const char *name,
			uint64_t token)
{
	const struct ring_key *key = ring_find(hosts[host].ring, name);

	check(key != NULL, "%s is there", name);
	*a = (struct asked){.began_ms = now_ms()};
	snprintf(a->name, sizeof(a->name), "%s", name);
	a->op = (struct ring_op){.type = RING_FINISH,
				 .name = a->name,
				 .id = key->id,
				 .token = token};
	a->req = (struct ring_request){
		.ops = &a->op, .n_ops = 1, .cb = on_asked, .data = a};
	ring_force(hosts[host].ring, now_ms(), &a->req);
	hosts[host].due_ms = 0;
}

static int force(int host, const char *name, uint64_t token)
{
	struct asked a;

	begin_force(host, &a, name, token);
	wait_until(5, a.done, "an answer");
	if (a.rc == 0)
		check(ring_find(hosts[host].ring, name) == NULL,
		      "it is gone here, too");
	return a.rc;
}

/* A busy machine may let a lease of the rig run out. */
static void claim(int host, const char *name)
{
	int rc = -EROFS;

	wait_until(10, (rc = ask(host, RING_CLAIM, name)) == 0 || rc == -EEXIST,
		   "%s: %d", name, rc);
}

static void settle(void)
{
	wait_until(5, all_even(), "nodes at the same index");
}

static void cut_off(int host, bool on)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		cut[host][i] = cut[i][host] = on && i != host;
}

static void cluster(void)
{
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(20, status_of(0).n_voters == 3, "three voters");
}

/* By each, of each: leader and followers. */
static void test_held(void)
{
	cluster();
	for (int holder = 0; holder < 3; holder++)
		for (int by = 0; by < 3; by++) {
			claim(holder, "h");
			settle();
			uint64_t at = now_ms();

			check_int(force(by, "h", 0), 0);
			check(now_ms() - at < 500 + LATE_MS, "%d ms",
			      (int)(now_ms() - at));
			wait_until(2,
				   ring_find(hosts[holder].ring, "h") == NULL,
				   "gone");
		}
	ok("4: what another holds is finished by its holder");

	claim(1, "t");
	settle();
	uint64_t token = ring_find(hosts[0].ring, "t")->token;

	check_int(force(0, "t", token + 1), -ENOENT);
	check(shows(1, "t", RING_VIEW_OWNED), "still there");
	check_int(force(0, "t", token), 0);
	ok("with a token, only in the life that has it");

	claim(1, "o");
	check_int(ask(1, RING_GIVE, "o"), 0);
	wait_until(5, shows(1, "o", RING_VIEW_RECOVER), "offered");
	settle();
	check_int(force(2, "o", 0), 0);
	claim(1, "p");
	check_int(ask(1, RING_PARK, "p"), 0);
	settle();
	check_int(force(2, "p", 0), 0);
	check_int(ask(1, RING_SUBMIT, "s"), 0);
	settle();
	check_int(force(2, "s", 0), 0);
	ok("what is offered, parked or being submitted likewise");
	end_cluster();
}

/* Draining, all of them: keys without holder are anybody's. */
static void test_orphan(void)
{
	cluster();
	int one = follower(), other = (one + 1) % 3;

	claim(one, "o");
	for (int i = 0; i < 3; i++)
		ring_drain(hosts[i].ring, now_ms(), true);
	wait_until(5, ring_vnode_owner(hosts[other].ring, 0) == RING_NONE,
		   "nobody owns");
	kill_host(one);
	wait_until(10, ring_find(hosts[other].ring, "o")->holder == RING_NONE,
		   "nobody's");
	check_int(force(other, "o", 0), 0);
	ok("27: what nobody holds is anybody's to finish");
	end_cluster();
}

static void test_many(void)
{
	enum {
		N = 90
	};
	static struct ring_op ops[N];
	static char names[N][16];
	struct asked a = {.began_ms = now_ms()};

	cluster();
	for (int i = 0; i < N; i++) {
		char name[16];

		snprintf(name, sizeof(name), "m%d", i);
		claim(i % 3, name);
		memcpy(names[i], name, sizeof(name));
	}
	settle();
	for (int i = 0; i < N; i++)
		ops[i] = (struct ring_op){
			.type = RING_FINISH,
			.name = names[i],
			.id = ring_find(hosts[0].ring, names[i])->id};
	a.req = (struct ring_request){
		.ops = ops, .n_ops = N, .cb = on_asked, .data = &a};
	ring_force(hosts[0].ring, now_ms(), &a.req);
	wait_until(5, a.done, "an answer");
	for (int i = 0; i < N; i++)
		check_int(ops[i].rc, 0);
	check_int(ring_count(hosts[0].ring, RING_VIEW_KEYS), 0);
	ok("many keys of several holders are finished at once");
	end_cluster();
}

/* ---- What goes wrong ---- */

static void test_stopped(void)
{
	cluster();
	int holder = follower(), by = (holder + 1) % 3;
	struct asked a;

	for (int i = 0; i < 3; i++)
		hosts[i].held_swim = true;
	claim(holder, "s");
	settle();
	hosts[holder].stopped = true;
	begin_force(by, &a, "s", 0);
	run_for(LEASE_MS / 2);
	check(!a.done, "it waits");
	hosts[holder].stopped = false;
	wait_until(5, a.done, "an answer");
	check_int(a.rc, 0);
	ok("a holder that was stopped does it when it goes on");

	claim(holder, "u");
	settle();
	hosts[holder].stopped = true;
	check_int(force(by, "u", 0), -ETIMEDOUT);
	hosts[holder].stopped = false;
	wait_until(5,
		   ring_find(hosts[by].ring, "u") == NULL ||
			   !shows(holder, "u", RING_VIEW_OWNED),
		   "done, or not its own");
	ok("one that does not answer leaves the outcome unknown");
	end_cluster();
}

static void test_unreachable(void)
{
	cluster();
	int holder = follower(), by = (holder + 1) % 3;
	uint64_t life;

	claim(holder, "c");
	settle();
	life = ring_find(hosts[by].ring, "c")->id;
	/* To us alone it is dead. */
	cut[by][holder] = cut[holder][by] = true;
	wait_until(5, hosts[by].said_dead[holder], "dead by SWIM");
	hosts[by].held_swim = true;
	if (leader() != by) { /* else it has declared it down */
		check_int(force(by, "c", 0), -EHOSTUNREACH);
		check(ring_find_id(hosts[by].ring, life) != NULL, "it is held");
		check(shows(holder, "c", RING_VIEW_OWNED), "there");
	}
	ok("a holder that is not reached: nothing was done, and it is said");
	end_cluster();
}

static void test_dies(void)
{
	cluster();
	int holder = follower(), by = (holder + 1) % 3;
	struct asked a;

	claim(holder, "d");
	settle();
	hosts[by].deaf_kind = FINISH; /* it was not heard */
	begin_force(by, &a, "d", 0);
	run_for(100);
	kill_host(holder);
	hosts[by].deaf_kind = 0;
	wait_until(5, a.done, "an answer");
	check(a.rc == 0 || a.rc == -ETIMEDOUT, "%d", a.rc);
	if (a.rc == 0)
		check(ring_find(hosts[by].ring, "d") == NULL, "gone");
	ok("when the holder dies, its heir is asked");
	end_cluster();
}

static void test_leader_dies(void)
{
	cluster();
	int l = leader(), holder = follower(), by = 3 - l - holder;
	struct asked a;

	claim(holder, "l");
	settle();
	begin_force(by, &a, "l", 0);
	turn();
	kill_host(l);
	wait_until(5, a.done, "an answer");
	check_int(a.rc, 0);
	wait_until(5, ring_find(hosts[holder].ring, "l") == NULL, "gone");
	claim(holder, "l");
	run_for(1000);
	check(shows(holder, "l", RING_VIEW_OWNED), "the next life is whole");
	ok("another leader, and it is done once");
	end_cluster();
}

static void test_cut(void)
{
	cluster();
	int holder = follower(), by = (holder + 1) % 3;

	claim(holder, "c");
	settle();
	cut_off(by, true);
	wait_until(5, status_of(by).health == RING_ISOLATED, "isolated");
	check_int(force(by, "c", 0), -EROFS);
	check(shows(holder, "c", RING_VIEW_OWNED), "it is held");
	ok("who is isolated is refused at once");
	cut_off(by, false);
	wait_until(10, is_ready(by), "%s", status_of(by).reason);

	struct asked a;

	begin_force(by, &a, "c", 0);
	ring_abandon(hosts[by].ring, &a.req);
	wait_until(1, a.done, "an answer");
	check_int(a.rc, -EINTR);
	ok("an interrupted caller is let go at once");
	end_cluster();
}

static void test_bad_net(void)
{
	cluster();
	lose_percent = 20;
	double_percent = 30;
	delay_most_ms = 30;
	for (int i = 0; i < 12; i++) {
		char name[8];

		snprintf(name, sizeof(name), "b%d", i);
		int rc = ask(i % 3, RING_CLAIM, name);

		if (rc != 0)
			continue;
		wait_until(5, ring_find(hosts[(i + 1) % 3].ring, name) != NULL,
			   "seen");
		rc = force((i + 1) % 3, name, 0);
		check(rc == 0 || rc == -ETIMEDOUT || rc == -EROFS, "%d", rc);
	}
	ok("what is lost, late or doubled finishes no other life");
	end_cluster();
}

static void all(uint64_t seed)
{
	static void (*const tests[])(void) = {
		test_held,	  test_orphan,	    test_many,
		test_stopped,	  test_unreachable, test_dies,
		test_leader_dies, test_cut,	    test_bad_net};

	run_tests(seed, tests, sizeof(tests) / sizeof(*tests));
}

int main(int argc, char **argv)
{
	return scratch_run(all, check_seed(argc, argv));
}

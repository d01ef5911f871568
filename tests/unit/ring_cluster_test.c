/* SPDX-License-Identifier: MIT */
/* Several rings as one cluster: joining, requests from any node, logs that are
 * lost, leaving. cluster_rig.h says what is checked all the while.
 *
 * ring_cluster_test [SEED]; ONLY=N runs one of them, VERBOSE=1 shows the logs. */
#include "tests/unit/cluster_rig.h"

static size_t count(int host, enum ring_view view)
{
	return ring_count(hosts[host].ring, view);
}

static void settle(void)
{
	wait_until(5, all_even(), "nodes at the same index");
}

/* ---- Joining ---- */

static void test_join(void)
{
	new_cluster(1, RING_CLAIMS_ANY);
	check_int(ask(0, RING_CLAIM, "first"), 0);
	start_host(1);
	start_host(2);
	wait_until(20, all_ready(3), "%s", status_of(1).reason);
	settle();
	for (int i = 0; i < 3; i++)
		for (uint32_t n = 0; n < 3; n++)
			check(ring_node(hosts[i].ring, n) != NULL &&
				      ring_node(hosts[i].ring, n)->up,
			      "%d sees %u", i, n);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	check_int(ring_settings(hosts[2].ring)->lease_ms, LEASE_MS);
	check_int(ring_node_role(hosts[1].ring, ring_self(hosts[1].ring)),
		  RING_ROLE_VOTER);
	check_int(ring_node_role(hosts[1].ring, 99), RING_ROLE_NONE);
	run_for(2 * LEASE_MS);
	check_int(hosts[0].n_hidden, 0);
	check(shows(0, "first", RING_VIEW_OWNED), "held all along");
	ok("nodes that join through a member are up everywhere, and voters");
	end_cluster();
}

/* All who join within calm are one entry, so one placement. */
static void test_calm(void)
{
	new_cluster(1, RING_CLAIMS_ANY);
	for (int i = 1; i < 5; i++)
		start_host(i);
	wait_until(20, all_ready(5), "%s", status_of(4).reason);
	uint64_t epochs[5], different = 0;

	for (int i = 0; i < 5; i++) {
		epochs[i] = ring_node(hosts[0].ring, ring_self(hosts[i].ring))
				    ->epoch;
		bool new = true;

		for (int j = 0; j < i; j++)
			new = new &&epochs[j] != epochs[i];
		different += new;
	}
	/* Two of them, at the least: where the machine is busy, calm is short. */
	check(different <= 4, "%d entries", (int)different);
	ok("nodes that join together are one entry: %d for 5", (int)different);
	end_cluster();
}

static void refused(int i, int error, const char *a, const char *b)
{
	start_host(i);
	wait_until(5, status_of(i).health == RING_FAILED, "refused");
	const char *reason = status_of(i).reason;

	check(strstr(reason, a) != NULL && strstr(reason, b) != NULL, "%s",
	      reason);
	check_int(status_of(i).error, error);
	kill_host(i);
}

static void test_refused(void)
{
	new_cluster(2, RING_CLAIMS_ANY);
	wait_until(5, strstr(status_of(0).reason, "add a third") != NULL, "%s",
		   status_of(0).reason);
	ok("two nodes are told to be joined by a third");
	hosts[2].settings.claims = RING_CLAIMS_OWNER;
	refused(2, -EINVAL, "owner", "any");
	hosts[2].settings = unset;
	hosts[2].settings.vnodes = 4096;
	refused(2, -EINVAL, "4096", "64");
	hosts[2].settings = unset;
	strcpy(hosts[2].name, "n1"); /* it may be free soon: asked for on */
	start_host(2);
	wait_until(5, status_of(2).error == -EEXIST, "name");
	check(strstr(status_of(2).reason, "has the name n1; wait") != NULL,
	      "%s", status_of(2).reason);
	check_int(status_of(2).health, RING_JOINING);
	kill_host(2);
	strcpy(hosts[2].name, "n2");
	scratch_remove(hosts[2].dir); /* it says whose it is */
	check_int(mkdir(hosts[2].dir, 0700), 0);
	hosts[2].cluster = 43;
	refused(2, -EXDEV, "cluster", "state");
	scratch_remove(hosts[2].dir);
	check_int(mkdir(hosts[2].dir, 0700), 0);
	hosts[2].cluster = 42;
	check_int(status_of(0).n_voters + status_of(0).n_standbys, 2);
	ok("holes 5: who joins with other settings or a name in use is told "
	   "so");
	start_host(2);
	wait_until(10, is_ready(2), "%s", status_of(2).reason);
	ok("and joins when that is mended");
	end_cluster();
}

/* The state of a node that is up, started a second time elsewhere. */
static void test_copy(void)
{
	char command[1200];

	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int of = follower();

	kill_host(of);
	snprintf(command, sizeof(command), "rm -r %s && cp -r %s %s",
		 hosts[5].dir, hosts[of].dir, hosts[5].dir);
	check_int(system(command), 0);
	start_host(of);
	wait_until(10, is_ready(of), "%s", status_of(of).reason);
	settle();
	kill_host(of);
	hosts[of].boot--; /* the copy counts the same start again */
	snprintf(hosts[of].dir, sizeof(hosts[of].dir), "%s", hosts[5].dir);
	start_host(of);
	wait_until(10, status_of(of).health == RING_FAILED, "%s",
		   status_of(of).reason);
	check_int(status_of(of).error, -ESTALE);
	check(strstr(status_of(of).reason, "copied") != NULL, "%s",
	      status_of(of).reason);
	ok("holes 12: a copied state is refused, and says so");
	end_cluster();
}

/* ---- Requests ---- */

static void test_claim(void)
{
	struct asked a[3];
	uint64_t most = 0, sum = 0;
	int wins = 0;

	new_cluster(3, RING_CLAIMS_ANY);
	for (int i = 0; i < 3; i++) {
		char name[8] = {'k', (char)('0' + i), 0};

		check_int(ask(i, RING_CLAIM, name), 0);
		check(shows(i, name, RING_VIEW_OWNED), "owned");
		check_int(ask_note(i, name, "page 3"), 0);
	}
	settle();
	for (int i = 0; i < 3; i++) {
		check_int(count(i, RING_VIEW_KEYS), 3);
		check_int(count(i, RING_VIEW_OWNED), 1);
		check(memcmp(ring_find(hosts[i].ring, "k1")->note, "page 3",
			     6) == 0,
		      "note");
	}
	ok("a claim on any node is seen on all, with its note");

	for (int i = 0; i < 3; i++)
		begin(i, &a[i], RING_CLAIM, "same");
	for (int i = 0; i < 3; i++)
		wait_until(5, a[i].done, "answer");
	for (int i = 0; i < 3; i++) {
		wins += a[i].rc == 0;
		check(a[i].rc == 0 || a[i].rc == -EEXIST, "%d", a[i].rc);
	}
	check_int(wins, 1);
	ok("of all who claim a key at once, one has it");

	int f = follower();

	for (int i = 0; i < 50; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		begin(f, &a[0], RING_CLAIM, name);
		wait_until(5, a[0].done, "answer");
		check_int(a[0].rc, 0);
		sum += a[0].took_ms;
		if (a[0].took_ms > most)
			most = a[0].took_ms;
	}
	printf("# a claim on a follower: mean %" PRIu64 " ms, most %" PRIu64
	       " ms\n",
	       sum / 50, most);
	check_int(ask(follower(), RING_FINISH, "none"), -ENOENT);
	end_cluster();
}

static void test_bad_net(void)
{
	enum {
		N = 60
	};
	static struct asked a[N];

	new_cluster(3, RING_CLAIMS_ANY);
	lose_percent = 10;
	double_percent = 20;
	delay_most_ms = 10;
	for (int i = 0; i < N; i++) {
		char name[16];

		snprintf(name, sizeof(name), "b%d", i);
		begin(i % 3, &a[i], RING_CLAIM, name);
		run_for(5);
	}
	for (int i = 0; i < N; i++)
		wait_until(5, a[i].done, "answer");
	lose_percent = double_percent = 0;
	wait_until(5, all_ready(3), "ready");
	settle();
	size_t held = 0;

	for (int i = 0; i < N; i++) {
		/* EEXIST would be a claim that was carried out twice. */
		check(a[i].rc == 0 || a[i].rc == -EROFS ||
			      a[i].rc == -ETIMEDOUT,
		      "%s: %d", a[i].name, a[i].rc);
		held += a[i].rc == 0;
		if (a[i].rc == 0)
			check_int(who_shows(a[i].name, RING_VIEW_OWNED), i % 3);
	}
	check(held > N / 2, "only %zu", held);
	ok("holes 25: messages lost, late and doubled: %zu of %d claims, each "
	   "once",
	   held, N);
	end_cluster();
}

enum {
	KIND_ITEMS = 3 /* peer.c */
};

/* Its requests are lost, all else arrives. */
static void test_lost_items(void)
{
	struct asked a;

	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int f = follower();

	hosts[f].deaf_kind = KIND_ITEMS;
	begin(f, &a, RING_CLAIM, "again");
	run_for(100);
	check(!a.done, "it waits");
	hosts[f].deaf_kind = 0;
	wait_until(5, a.done, "answer");
	check_int(a.rc, 0);
	check(a.took_ms >= 290 && a.took_ms < 300 + LATE_MS, "%d ms",
	      (int)a.took_ms);
	ok("a request that was lost is sent again");

	hosts[f].deaf_kind = KIND_ITEMS;
	check_int(ask(f, RING_CLAIM, "late"), -ETIMEDOUT);
	check(shows(f, "again", RING_VIEW_OWNED), "its lease is good");
	begin(f, &a, RING_CLAIM, "next");
	turn();
	check(a.done && a.rc == -EROFS, "at once");
	check(strstr(status_of(f).reason, "not answered") != NULL, "%s",
	      status_of(f).reason);
	hosts[f].deaf_kind = 0;
	wait_until(5, is_ready(f), "%s", status_of(f).reason);
	check_int(ask(f, RING_CLAIM, "next"), 0);
	wait_until(5, ring_find(hosts[leader()].ring, "late") == NULL,
		   "finished");
	ok("after a time-out all are refused at once, until one is answered");

	hosts[f].deaf_kind = KIND_ITEMS;
	begin(f, &a, RING_CLAIM, "never");
	turn();
	hosts[f].deaf_kind = 0;
	for (int i = 0; i < 3; i++)
		cut[f][i] = cut[i][f] = i != f;
	wait_until(5, who_shows("again", RING_VIEW_RECOVER) >= 0, "an heir");
	memset(cut, 0, sizeof(cut));
	wait_until(5, a.done, "answer");
	check_int(a.rc, -EROFS);
	check(a.took_ms < 1900, "%d ms", (int)a.took_ms);
	check(ring_find(hosts[f].ring, "never") == NULL, "done");
	ok("what a life that is over had not done, is known to be not done");
	end_cluster();
}

/* ---- Logs lost ---- */

static void test_lost_log(void)
{
	char command[1200];

	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	check_int(ask(2, RING_CLAIM, "mine"), 0);
	kill_host(2);
	snprintf(command, sizeof(command), "rm -r %s/wal %s/store",
		 hosts[2].dir, hosts[2].dir);
	check_int(system(command), 0);
	start_host(2);
	wait_until(20, is_ready(2), "%s", status_of(2).reason);
	check(ring_find(hosts[2].ring, "mine") != NULL, "its keys");
	wait_until(10, status_of(0).n_voters == 3, "three voters");
	ok("holes 21: a node that lost its log comes back as a new server");
	end_cluster();
}

static void test_forgotten(void)
{
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int gone = follower(), l = leader();

	kill_host(gone);
	ring_member(hosts[l].ring, now_ms(), &hosts[gone].id,
		    RING_MEMBER_FORGOTTEN);
	hosts[l].said[gone] = hosts[l].said_dead[gone] = true;
	wait_until(10, status_of(l).n_voters == 2, "removed");
	ok("the server of a node that is forgotten is removed");
	hosts[gone].join = false;
	start_host(gone);
	wait_until(20, is_ready(gone), "%s", status_of(gone).reason);
	wait_until(10, status_of(l).n_voters == 3, "three voters");
	ok("and is added again when the node comes back after all");
	end_cluster();
}

static void all(uint64_t seed)
{
	static void (*const tests[])(void) = {
		test_join,	 test_calm,	test_refused,
		test_copy,	 test_claim,	test_bad_net,
		test_lost_items, test_lost_log, test_forgotten};

	run_tests(seed, tests, sizeof(tests) / sizeof(*tests));
}

int main(int argc, char **argv)
{
	return scratch_run(all, check_seed(argc, argv));
}

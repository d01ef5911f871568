/* SPDX-License-Identifier: MIT */
/* Several rings: nodes that leave, one or all, in any order, with whoever leads
 * lost in between; and those that change their mind (holes.md 28). That no key
 * is shown by two nodes is checked by the rig, at every instant.
 *
 * ring_cluster_leave_test [SEED]; ONLY=N runs one of them. */
#include "tests/unit/cluster_rig.h"

static void cluster(int n)
{
	unsigned voters = n < 4 ? (unsigned)n : n == 4 ? 3 : 5;

	new_cluster(n, RING_CLAIMS_ANY);
	wait_until(20, status_of(0).n_voters == voters, "%u voters", voters);
}

enum {
	FAREWELL = 6, /* peer.h's */
};

static void leave(int host)
{
	check_int(ring_leave(hosts[host].ring, now_ms(), false), 0);
	hosts[host].due_ms = 0;
}

static void stay(int host)
{
	check_int(ring_stay(hosts[host].ring, now_ms()), 0);
	hosts[host].due_ms = 0;
}

static void cut_off(int host, bool on)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		cut[host][i] = cut[i][host] = on && i != host;
}

static bool has_left(int host)
{
	return status_of(host).has_left;
}

/* It ends, and the others are told. */
static void end(int host)
{
	kill_host(host);
	for (int i = 0; i < HOSTS_MAX; i++)
		if (hosts[i].ring != NULL)
			ring_member(hosts[i].ring, now_ms(), &hosts[host].id,
				    RING_MEMBER_LEFT);
	for (int i = 0; i < HOSTS_MAX; i++)
		hosts[i].said[host] = hosts[i].said_dead[host] = true;
}

static bool have_left(int n, int but)
{
	for (int i = 0; i < n; i++)
		if (i != but && !has_left(i))
			return false;
	return true;
}

static void claim_each(int n)
{
	for (int i = 0; i < n; i++) {
		char name[8];

		snprintf(name, sizeof(name), "k%d", i);
		check_int(ask(i, RING_CLAIM, name), 0);
	}
}

/* Each that may, goes, while the rest are still at it. */
static void all_go(int n, int but)
{
	uint64_t until = now_ms() + 30000;

	while (!have_left(n, but) && now_ms() < until) {
		turn();
		for (int i = 0; i < n; i++)
			if (has_left(i) && hosts[i].ring != NULL && i != but) {
				end(i);
				return;
			}
	}
	check(false, "nobody has left: %s", status_of(but).reason);
}

/* Through a network that loses, delays and doubles. */
static void test_follower(void)
{
	cluster(3);
	int gone = follower();

	claim_each(3);
	lose_percent = 10;
	double_percent = 20;
	delay_most_ms = 20;
	leave(gone);
	check(status_of(gone).is_leaving, "leaving");
	check_int(ask(gone, RING_CLAIM, "no"), -EROFS);
	wait_until(10, has_left(gone), "left: %s", status_of(gone).reason);
	end(gone);
	lose_percent = double_percent = delay_most_ms = 0;
	int other = (gone + 1) % 3;

	wait_until(5, leader() >= 0 && is_ready(other), "a leader");
	check_int(status_of(leader()).n_voters, 2);
	check_int(ask(other, RING_CLAIM, "on"), 0);
	check_int(ring_count(hosts[other].ring, RING_VIEW_KEYS), 4);
	ok("who leaves goes when its vote is not needed, and its keys to "
	   "heirs");
	end_cluster();
}

static void finish_all(int host, int n)
{
	for (int i = 0; i < n; i++) {
		char name[8];

		snprintf(name, sizeof(name), "k%d", i);
		check_int(ask(host, RING_FINISH, name), 0);
	}
}

/* The leader, then those that are left, at once. */
static void test_all(void)
{
	cluster(3);
	int gone = leader(), a = (gone + 1) % 3, b = (gone + 2) % 3;
	char name[8];

	claim_each(3);
	snprintf(name, sizeof(name), "k%d", gone);
	leave(gone);
	run_for(50);
	check(shows(gone, name, RING_VIEW_OWNED), "it works on");
	wait_until(10, who_shows(name, RING_VIEW_RECOVER) >= 0, "an heir");
	wait_until(10, has_left(gone), "left: %s", status_of(gone).reason);
	end(gone);
	wait_until(5, leader() >= 0, "a leader");
	check_int(ring_find(hosts[leader()].ring, name)->reason, RING_LEFT);
	check_int(status_of(leader()).n_voters, 2);
	ok("a leader that leaves hands over first");

	leave(a);
	leave(b);
	wait_until(15, has_left(a) || has_left(b), "one of two");
	int last = has_left(a) ? b : a;

	end(has_left(a) ? a : b);
	wait_until(10, is_ready(last), "%s", status_of(last).reason);
	check(!status_of(last).is_leaving, "it stays");
	check(strstr(status_of(last).reason, "3 unfinished keys") != NULL, "%s",
	      status_of(last).reason);
	wait_until(5,
		   ring_leave(hosts[last].ring, now_ms(), false) == -EBUSY &&
			   !status_of(last).is_leaving,
		   "refused");
	wait_until(5, ring_count(hosts[last].ring, RING_VIEW_RECOVER) == 2,
		   "the keys of the others");
	ok("all leave, but the last stays with the unfinished keys");

	finish_all(last, 3);
	leave(last);
	wait_until(5, has_left(last), "%s", status_of(last).reason);
	check(!status_of(last).is_unconfirmed, "by itself");
	ok("and without keys it leaves");
	end_cluster();
}

static void test_all_but_one(void)
{
	cluster(4);
	int stays = check_random(&net_seed) % 2 ? leader() : follower();

	claim_each(4);
	for (int i = 0; i < 4; i++)
		if (i != stays)
			leave(i);
	for (int i = 0; i < 3; i++)
		all_go(4, stays);
	wait_until(10, is_ready(stays), "%s", status_of(stays).reason);
	check_int(status_of(stays).n_voters, 1);
	check_int(ask(stays, RING_CLAIM, "after"), 0);
	check_int(ring_count(hosts[stays].ring, RING_VIEW_KEYS), 5);
	check_int(ring_count(hosts[stays].ring, RING_VIEW_RECOVER), 3);
	ok("28: all but one leave at once, and one goes on with all keys");
	end_cluster();
}

static void test_last_forced(void)
{
	cluster(1);
	check_int(ask(0, RING_CLAIM, "k"), 0);
	check_int(ring_leave(hosts[0].ring, now_ms(), true), 0);
	wait_until(5, has_left(0), "%s", status_of(0).reason);
	check(!status_of(0).is_unconfirmed, "it is the majority");
	kill_host(0);
	start_host(0);
	wait_until(5, is_ready(0), "%s", status_of(0).reason);
	check(shows(0, "k", RING_VIEW_RECOVER), "its key");
	ok("the last one, forced, leaves, and its state has the keys");
	end_cluster();
}

/* ---- No majority ---- */

static void test_two(void)
{
	cluster(2);
	int one = follower(), other = 1 - one;

	check_int(ask(one, RING_CLAIM, "c"), 0);
	kill_host(other);
	leave(one);
	run_for(1000);
	check(!has_left(one) && status_of(one).is_leaving, "it waits");
	start_host(other);
	wait_until(10, has_left(one), "%s", status_of(one).reason);
	end(one);
	wait_until(10, who_shows("c", RING_VIEW_RECOVER) == other, "an heir");
	check_int(ask(other, RING_CLAIM, "d"), 0);
	ok("a leave waits for the majority");
	end_cluster();

	cluster(2);
	one = follower();
	kill_host(1 - one);
	check_int(ring_leave(hosts[one].ring, now_ms(), true), 0);
	run_for(4000);
	check(!has_left(one), "too early");
	wait_until(3, has_left(one), "forced");
	check(status_of(one).is_unconfirmed, "and nobody knows");
	check_int(ring_stay(hosts[one].ring, now_ms()), -EBUSY);
	ok("by force it goes without one, and says so");
	end_cluster();
}

/* ---- Second thoughts ---- */
static void set_deaf(uint8_t kind)
{
	for (int i = 0; i < 3; i++)
		hosts[i].deaf_kind = kind;
}

static void stays_whole(int one)
{
	char name[8];

	snprintf(name, sizeof(name), "s%d", one);
	check_int(ask(one, RING_CLAIM, name), 0);
	set_deaf(FAREWELL);
	leave(one);
	run_for(800);
	check(!has_left(one), "no farewell");
	stay(one);
	set_deaf(0);
	wait_until(10, is_ready(one), "%s", status_of(one).reason);
	check(shows(one, name, RING_VIEW_OWNED), "it has its key");
	check_int(ask(one, RING_FINISH, name), 0);
	wait_until(15, status_of(one).n_voters == 3, "it votes again");
	const struct ring *r = hosts[one].ring;

	wait_until(10, ring_node(r, ring_self(r))->n_vnodes > 0, "its part");
}

static void stays_in_minority(int one)
{
	check_int(ask(one, RING_CLAIM, "c"), 0);
	cut_off(one, true);
	leave(one);
	wait_until(10, who_shows("c", RING_VIEW_RECOVER) >= 0, "dead");
	check(!has_left(one), "nobody heard of it");
	stay(one);
	cut_off(one, false);
	wait_until(10, is_ready(one), "%s", status_of(one).reason);
	check_int(ask(one, RING_CLAIM, "again"), 0);
	wait_until(15, status_of(one).n_voters == 3, "it votes");
}

/* Its keys are given up, and nothing is heard of it just then. */
static void stays_too_late(int one)
{
	check_int(ask(one, RING_CLAIM, "g"), 0);
	leave(one);
	wait_until(10, !shows(one, "g", RING_VIEW_OWNED), "it gives");
	for (int i = 0; i < 3; i++)
		cut[one][i] = i != one;
	stay(one);
	run_for(300);
	check(!shows(one, "g", RING_VIEW_OWNED), "not shown again");
	cut_off(one, false);
	wait_until(15, is_ready(one), "%s", status_of(one).reason);
	wait_until(10, who_shows("g", RING_VIEW_RECOVER) >= 0, "an heir");
	check_int(ask(one, RING_CLAIM, "h"), 0);
	wait_until(15, status_of(one).n_voters == 3, "it votes again");
}

static void test_stay(void)
{
	cluster(3);
	stays_whole(leader());
	stays_whole(follower());
	ok("who stays has lost nothing, and votes again");
	stays_in_minority(follower());
	ok("who leaves in a minority stays, and comes back when it may");
	stays_too_late(follower());
	ok("who changes its mind too late comes back without its keys");
	end_cluster();
}

static void test_farewell_lost(void)
{
	cluster(4);
	int l = leader(), one = follower();

	check_int(ask(one, RING_CLAIM, "f"), 0);
	hosts[l].deaf_kind = FAREWELL; /* its farewells are lost */
	leave(one);
	run_for(1500);
	check(!has_left(one), "it was not told");
	kill_host(l);
	hosts[l].deaf_kind = 0;
	wait_until(15, has_left(one), "%s", status_of(one).reason);
	end(one);
	wait_until(10, who_shows("f", RING_VIEW_RECOVER) >= 0, "an heir");
	ok("with farewell and leader lost, the next leader says it");
	end_cluster();
}

static void all(uint64_t seed)
{
	static void (*const tests[])(void) = {
		test_follower, test_all,  test_all_but_one,  test_last_forced,
		test_two,      test_stay, test_farewell_lost};

	run_tests(seed, tests, sizeof(tests) / sizeof(*tests));
}

int main(int argc, char **argv)
{
	return scratch_run(all, check_seed(argc, argv));
}

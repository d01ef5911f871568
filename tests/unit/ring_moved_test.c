/* SPDX-License-Identifier: MIT */
/* Logs that are found in another place than they were left in: which votes, which
 * waits, which is given up (ring/group_moved.c; holes.md 21). */
#include "tests/unit/check.h"
#include "tests/unit/cluster_rig.h"

static const char *saved(int i)
{
	static char path[600];

	snprintf(path, sizeof(path), "%s.saved", hosts[i].dir);
	return path;
}

/* A copy, as of now. */
static void save(int i)
{
	char command[2048];

	kill_host(i);
	snprintf(command, sizeof(command), "cp -r '%s' '%s'", hosts[i].dir,
		 saved(i));
	check_int(system(command), 0);
	start_host(i);
}

static void put_back(int i)
{
	char command[2048];

	snprintf(command, sizeof(command), "rm -r '%s' && mv '%s' '%s'",
		 hosts[i].dir, saved(i), hosts[i].dir);
	check_int(system(command), 0);
}

static void start_moved(int i)
{
	hosts[i].is_moved = true;
	start_host(i);
}

/* What the daemon does with one that is refuted. */
static void give_up(int i)
{
	kill_host(i);
	check_int(ring_remove_log(hosts[i].dir), 0);
	hosts[i].is_moved = false;
	hosts[i].join = true;
	start_host(i);
}

static void kill_all(int n)
{
	for (int i = 0; i < n; i++)
		kill_host(i);
}

static bool votes(int of, uint32_t n)
{
	return status_of(of).n_voters == n;
}

static bool all_vote(int n)
{
	return all_ready(n) && votes(0, (uint32_t)n);
}

static void three(void)
{
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(20, all_vote(3), "three voters");
	check_int(ask(0, RING_CLAIM, "early"), 0);
}

/* It may be a copy: it is mute, and then another server. */
static void test_one_of_three(void)
{
	three();
	kill_host(2);
	check_int(ask(0, RING_CLAIM, "meanwhile"), 0);
	start_moved(2);
	run_for(500);
	check(!status_of(2).is_refuted && status_of(2).is_moved,
	      "not before the leader has been heard for long enough");
	wait_until(5, status_of(2).is_refuted, "others go on");
	check(status_of(2).health == RING_JOINING, "it has no part");
	give_up(2);
	wait_until(10, is_ready(2), "it is filled: %s", status_of(2).reason);
	wait_until(20, votes(0, 3), "it votes again");
	check(ring_find(hosts[2].ring, "meanwhile") != NULL, "it has it all");
	ok("a voter that is moved gives up its log, and votes as another");
	end_cluster();
}

static void test_the_only_one(void)
{
	new_cluster(1, RING_CLAIMS_ANY);
	check_int(ask(0, RING_CLAIM, "k"), 0);
	kill_host(0);
	start_moved(0);
	wait_until(5, is_ready(0), "ready: %s", status_of(0).reason);
	check(!status_of(0).is_moved, "it is clear");
	check(ring_find(hosts[0].ring, "k") != NULL, "k");
	ok("the only node may be moved");
	end_cluster();
}

static void move_one_of_two(int moved)
{
	new_cluster(2, RING_CLAIMS_ANY);
	wait_until(20, all_vote(2), "two voters");
	check_int(ask(0, RING_CLAIM, "k"), 0);
	kill_host(moved);
	run_for(700); /* the other leads no more */
	start_moved(moved);
	wait_until(10, all_vote(2), "ready: %s; %s", status_of(0).reason,
		   status_of(1).reason);
	check_int(ask(moved, RING_CLAIM, "more"), 0);
	end_cluster();
}

static void test_all(int n)
{
	new_cluster(n, RING_CLAIMS_ANY);
	wait_until(20, all_vote(n), "%d voters", n);
	check_int(ask(0, RING_CLAIM, "k"), 0);
	kill_all(n);
	for (int i = n; i-- > 0;) {
		if (i == 0) {
			run_for(1500);
			check_int(leader(), -1); /* while one is missing */
			check(strstr(status_of(n - 1).reason, "/place'"), "%s",
			      status_of(n - 1).reason);
		}
		start_moved(i);
	}
	wait_until(15, all_vote(n) && leader() >= 0, "ready: %s; %s",
		   status_of(0).reason, status_of(1).reason);
	for (int i = 0; i < n; i++)
		check(ring_find(hosts[i].ring, "k") != NULL, "%d has k", i);
	end_cluster();
}

static void test_one_of_two(void)
{
	move_one_of_two(0);
	move_one_of_two(1);
	ok("of two nodes one that is moved is needed, and goes on");
}

/* Two of three are set back to before a claim: they are a majority, and have
 * forgotten it. They wait for the third, and follow it. */
static void test_old_majority(void)
{
	three();
	save(1);
	save(2);
	wait_until(10, all_ready(3), "ready");
	check_int(ask(0, RING_CLAIM, "late"), 0);
	wait_until(5, all_even(), "all have it");
	kill_all(3);
	put_back(1);
	put_back(2);
	start_moved(1);
	start_moved(2);
	run_for(2500);
	check_int(leader(), -1);
	check(status_of(1).is_moved && status_of(2).is_moved, "they wait");
	check(!status_of(1).is_refuted && !status_of(2).is_refuted, "on");
	start_host(0);
	wait_until(15, is_ready(0), "ready: %s", status_of(0).reason);
	for (int i = 1; i < 3; i++) {
		wait_until(15, is_ready(i) || status_of(i).is_refuted, "%s",
			   status_of(i).reason);
		if (status_of(i).is_refuted)
			give_up(i);
	}
	wait_until(20, all_vote(3), "ready: %s; %s", status_of(1).reason,
		   status_of(2).reason);
	for (int i = 0; i < 3; i++)
		check(ring_find(hosts[i].ring, "late") != NULL, "%d", i);
	ok("what a majority has forgotten that was set back is not lost");
	end_cluster();
}

static void test_two_moved(void)
{
	test_all(2);
	ok("two nodes that are moved go on when both are there");
}

static void test_three_moved(void)
{
	test_all(3);
	ok("so do three, and not two of them");
}

static void all(uint64_t seed)
{
	static void (*const tests[])(void) = {
		test_one_of_three, test_the_only_one, test_one_of_two,
		test_two_moved,	   test_three_moved,  test_old_majority};

	run_tests(seed, tests, sizeof(tests) / sizeof(*tests));
}

int main(int argc, char **argv)
{
	return scratch_run(all, check_seed(argc, argv));
}

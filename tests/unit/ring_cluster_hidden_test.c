/* SPDX-License-Identifier: MIT */
/* What several requests have hidden stays so while one of them may take effect
 * (holes.md 4). That no key is shown by two nodes is checked by the rig, at
 * every instant. */
#include "tests/unit/cluster_rig.h"

static void deafen(int host, bool on)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		cut[i][host] = on && i != host;
}

/* One of three that does not lead, and holds name. It parks it, and does not
 * hear what became of that. */
static int parker(struct asked *park, const char *name)
{
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(10, status_of(0).n_voters == 3, "three voters");
	wait_until(5, all_even(), "nodes at the same index");
	int one = follower();

	check_int(ask(one, RING_CLAIM, name), 0);
	deafen(one, true);
	begin(one, park, RING_PARK, name);
	turn();
	return one;
}

static void test_given_up(void)
{
	struct asked a, b;
	int one = parker(&a, "k");

	begin(one, &b, RING_FINISH, "k");
	ring_abandon(hosts[one].ring, &b.req);
	check(!shows(one, "k", RING_VIEW_OWNED), "it may be parked");
	deafen(one, false);
	wait_until(5, a.done && b.done, "answers");
	check_int(a.rc, 0);
	check_int(b.rc, -EINTR);
	ok("holes 4: who gives up before it was sent shows nothing that "
	   "another hides");
	end_cluster();
}

/* It would be sent, but for a leader. */
static void test_too_late(void)
{
	struct asked a, b;
	int one = parker(&a, "k");

	while (status_of(one).has_quorum)
		turn();
	begin(one, &b, RING_FINISH, "k");
	while (!b.done) {
		check(!shows(one, "k", RING_VIEW_OWNED), "it may be parked");
		turn();
	}
	check(!shows(one, "k", RING_VIEW_OWNED), "it may be parked");
	check_int(b.rc, -EROFS);
	deafen(one, false);
	wait_until(10, a.done && is_ready(one), "answers");
	ok("holes 4: nor does one that finds no leader");
	end_cluster();
}

static void all(uint64_t seed)
{
	static void (*const tests[])(void) = {test_given_up, test_too_late};

	run_tests(seed, tests, sizeof(tests) / sizeof(*tests));
}

int main(int argc, char **argv)
{
	return scratch_run(all, check_seed(argc, argv));
}

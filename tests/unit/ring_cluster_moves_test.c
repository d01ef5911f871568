/* SPDX-License-Identifier: MIT */
/* Several rings: keys that move while their holders live. That no key is shown
 * by two nodes is checked by the rig, at every instant (holes.md 4).
 *
 * ring_cluster_moves_test [SEED] */
#include "tests/unit/cluster_rig.h"

enum {
	HANDOVER_MS = 1000,
	NAMES = 40,
};

static size_t n_in(int host, enum ring_view view)
{
	return ring_count(hosts[host].ring, view);
}

/* What host may claim of NAMES names. */
static size_t claim_own(int host)
{
	char name[16];
	size_t n = 0;

	for (int i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		int rc = ask(host, RING_CLAIM, name);

		check(rc == 0 || rc == -EREMOTE, "%s: %d", name, rc);
		n += rc == 0;
	}
	check(n > 0, "some of them");
	return n;
}

static void cut_one(int one, bool off)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		cut[i][one] = cut[one][i] = off && i != one;
}

static const struct ring_node *self_of(int host)
{
	return ring_node(hosts[host].ring, ring_self(hosts[host].ring));
}

static void test_never(void)
{
	handover_ms = 0;
	new_cluster(1, RING_CLAIMS_OWNER);
	claim_own(0);
	start_host(1);
	wait_until(5, n_in(0, RING_VIEW_RELEASE) > 0, "it is asked");
	size_t n = n_in(0, RING_VIEW_RELEASE);

	run_for(2 * HANDOVER_MS);
	check_int(n_in(0, RING_VIEW_RELEASE), n);
	check_int(n_in(0, RING_VIEW_OWNED), NAMES);
	ok("holes 4: a living holder is asked, and not interrupted");
	end_cluster();
}

static void test_handover(void)
{
	handover_ms = HANDOVER_MS;
	new_cluster(1, RING_CLAIMS_OWNER);
	claim_own(0);
	start_host(1);
	wait_until(5, n_in(0, RING_VIEW_RELEASE) > 0, "it is asked");
	size_t n = n_in(0, RING_VIEW_RELEASE);
	uint64_t begin = now_ms();

	wait_until(5, n_in(0, RING_VIEW_RELEASE) == 0, "let go");
	check(now_ms() - begin > HANDOVER_MS - 200, "after %d ms",
	      (int)(now_ms() - begin));
	wait_until(5, n_in(1, RING_VIEW_RECOVER) == n, "at the heir's");
	check_int(n_in(0, RING_VIEW_OWNED), NAMES - n);
	ok("what is asked for is let go when handover_timeout has passed");
	end_cluster();
}

/* The time passes while the node is cut off: it lets go when it may again. */
static void test_isolated(void)
{
	handover_ms = HANDOVER_MS;
	new_cluster(3, RING_CLAIMS_OWNER);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int one = follower(), other = (one + 1) % 3, third = (one + 2) % 3;
	size_t n = claim_own(one);

	for (int i = 0; i < 3; i++)
		hosts[i].held_swim = true;
	ring_drain(hosts[one].ring, now_ms(), true);
	wait_until(5, n_in(one, RING_VIEW_RELEASE) == n, "it is asked for all");
	cut_one(one, true);
	run_for(HANDOVER_MS + 500);
	check_int(n_in(one, RING_VIEW_OWNED), 0);
	check_int(n_in(other, RING_VIEW_RECOVER), 0);
	check_int(n_in(third, RING_VIEW_RECOVER), 0);
	cut_one(one, false);
	wait_until(10,
		   n_in(other, RING_VIEW_RECOVER) +
				   n_in(third, RING_VIEW_RECOVER) ==
			   n,
		   "let go: %s", status_of(one).reason);
	/* It is hidden already, and counted until the commit is known here. */
	wait_until(5, n_in(one, RING_VIEW_OWNED) == 0, "gone here");
	check_int(status_of(one).health, RING_DRAINING);
	ok("holes 4: handover_timeout is the holder's, inside its lease");
	end_cluster();
}

static void test_drain(void)
{
	handover_ms = 0;
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	for (int i = 0; i < 3; i++) { /* the leader, too */
		char name[8];

		snprintf(name, sizeof(name), "d%d", i);
		check_int(ask(i, RING_CLAIM, name), 0);
		ring_drain(hosts[i].ring, now_ms(), true);
		check_int(ask(i, RING_CLAIM, "more"), -EROFS);
		check_int(ask(i, RING_SUBMIT, "more"), -EROFS);
		check_int(status_of(i).health, RING_DRAINING);
		wait_until(5, self_of(i)->n_vnodes == 0, "nothing is owned");
		check_int(self_of(i)->weight, 100);
		check_int(ask_note(i, name, "x"), 0);
		check_int(ask(i, RING_FINISH, name), 0);
		check_int(status_of(i).n_voters, 3);
		ring_drain(hosts[i].ring, now_ms(), false);
		check_int(status_of(i).health, RING_READY);
		wait_until(5, self_of(i)->n_vnodes >= 64 / 3, "its part again");
	}
	ok("who drains owns and claims nothing, finishes, and votes");

	check_int(ring_set_weight(hosts[1].ring, now_ms(), RING_WEIGHT_MAX + 1),
		  -EINVAL);
	check_int(ring_set_weight(hosts[1].ring, now_ms(), 200), 0);
	wait_until(5, self_of(1)->n_vnodes == 32, "half of it");
	ok("a weight is changed while it runs");
	end_cluster();
}

static void all(uint64_t seed)
{
	static void (*const tests[])(void) = {test_never, test_handover,
					      test_isolated, test_drain};

	run_tests(seed, tests, sizeof(tests) / sizeof(*tests));
}

int main(int argc, char **argv)
{
	return scratch_run(all, check_seed(argc, argv));
}

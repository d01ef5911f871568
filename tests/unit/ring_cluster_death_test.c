/* SPDX-License-Identifier: MIT */
/* Several rings as one cluster: deaths, restarts, cuts, stops, proofs, and what
 * is not known. cluster_rig.h says what is checked all the while.
 *
 * ring_cluster_death_test [SEED]; ONLY=N runs one of them, VERBOSE=1 shows the
 * logs. */
#include "tests/unit/cluster_rig.h"

static size_t count(int host, enum ring_view view)
{
	return ring_count(hosts[host].ring, view);
}

static void settle(void)
{
	wait_until(5, all_even(), "nodes at the same index");
}

/* ---- Deaths ---- */

static void comes_back(int dead)
{
	hosts[dead].same_host = true;
	start_host(dead);
	wait_until(10, is_ready(dead), "%s", status_of(dead).reason);
	check_int(count(dead, RING_VIEW_RECOVER), 0);
	check_int(ask(dead, RING_CLAIM, "again"), 0);
	ok("it comes back with nothing");

	kill_host(dead);
	start_host(dead); /* its former life is up */
	wait_until(10, shows(dead, "again", RING_VIEW_RECOVER), "its own");
	check_int(ring_find(hosts[dead].ring, "again")->reason, RING_RESTART);
	check_int(ask(dead, RING_TAKE, "again"), 0);
	ok("a node that is back at once is offered its own keys again");
}

static void test_death(void)
{
	enum {
		N = 30
	};

	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int dead = follower();

	for (int i = 0; i < N; i++) {
		char name[16];

		snprintf(name, sizeof(name), "d%d", i);
		check_int(ask(dead, RING_CLAIM, name), 0);
		check_int(ask_note(dead, name, name), 0);
	}
	uint64_t killed = now_ms();

	kill_host(dead);
	wait_until(10, who_shows("d0", RING_VIEW_RECOVER) >= 0, "an heir");
	check(now_ms() - killed >= LEASE_MS - LEASE_MS / 4 - 10,
	      "before its lease was out: %d ms", (int)(now_ms() - killed));
	printf("# offered %d ms after the death\n", (int)(now_ms() - killed));
	size_t by[3] = {0};

	for (int i = 0; i < N; i++) {
		char name[16];

		snprintf(name, sizeof(name), "d%d", i);
		int heir = who_shows(name, RING_VIEW_RECOVER);

		check(heir >= 0 && heir != dead, "%s", name);
		const struct ring_key *key = ring_find(hosts[heir].ring, name);

		check_int(key->reason, RING_DEAD);
		check(key->note_len == strlen(name) &&
			      memcmp(key->note, name, key->note_len) == 0,
		      "note");
		by[heir]++;
		check_int(ask(heir, RING_TAKE, name), 0);
	}
	settle();
	for (int i = 0; i < 3; i++)
		check(i == dead || by[i] > 0, "%d is no heir", i);
	ok("the keys of a dead node are offered to its heirs, with notes");
	comes_back(dead);
	end_cluster();
}

static void test_leader_killed(void)
{
	enum {
		N = 60
	};
	static struct asked a[N];
	int from[N];

	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int l = leader();

	for (int i = 0; i < N; i++) {
		char name[16];

		snprintf(name, sizeof(name), "x%d", i);
		from[i] = (l + 1 + i % 2) % 3;
		begin(from[i], &a[i], RING_CLAIM, name);
		if (i % 4 == 0)
			turn();
		if (i == N / 2)
			kill_host(l);
	}
	for (int i = 0; i < N; i++)
		wait_until(5, a[i].done, "answer");
	settle();
	size_t done = 0;

	for (int i = 0; i < N; i++) {
		int by = who_shows(a[i].name, RING_VIEW_OWNED);

		/* EEXIST would be a claim that was carried out twice. */
		check(a[i].rc == 0 || a[i].rc == -EROFS, "%d", a[i].rc);
		check_int(by, a[i].rc == 0 ? from[i] : -1);
		done += a[i].rc == 0;
	}
	check_int(count((l + 1) % 3, RING_VIEW_KEYS), done);
	check(done > N / 2, "only %zu", done);
	ok("requests under way when the leader dies are done once each");
	end_cluster();
}

/* The whole cluster is stopped, and started in another order. */
static void test_restart_all(void)
{
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	for (int round = 0; round < 2; round++) {
		char name[3][16];

		for (int i = 0; i < 3; i++) {
			snprintf(name[i], sizeof(name[i]), "r%d-%d", round, i);
			check_int(ask(i, RING_CLAIM, name[i]), 0);
			hosts[i].same_host = round == 1;
		}
		settle();
		for (int i = 0; i < 3; i++)
			kill_host(i);
		start_host(2 - round);
		run_for(200);
		start_host(1 + round);
		run_for(200);
		start_host(0);
		wait_until(20, all_ready(3), "%s; %s; %s", status_of(0).reason,
			   status_of(1).reason, status_of(2).reason);
		for (int i = 0; i < 3; i++) {
			wait_until(5, shows(i, name[i], RING_VIEW_RECOVER),
				   "its own");
			check_int(ring_find(hosts[i].ring, name[i])->reason,
				  RING_RESTART);
		}
	}
	ok("a cluster that is started again gives each node its own keys");
	end_cluster();
}

/* ---- Cuts ---- */

static void cut_off(int host, bool on)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		cut[host][i] = cut[i][host] = on && i != host;
}

static void test_cut(bool cut_leader)
{
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int one = cut_leader ? leader() : follower();
	int two = (one + 1) % 3;

	for (int i = 0; i < 20; i++) {
		char name[16];

		snprintf(name, sizeof(name), "c%d", i);
		check_int(ask(one, RING_CLAIM, name), 0);
	}
	run_for(50);
	unsigned shown = hosts[one].shown[RING_VIEW_OWNED];

	check_int(shown, 20);
	cut_off(one, true);
	uint64_t at = now_ms();

	wait_until(5, !shows(one, "c0", RING_VIEW_OWNED), "its lease");
	check(now_ms() - at <= LEASE_MS + LATE_MS, "%d ms",
	      (int)(now_ms() - at));
	check_int(count(one, RING_VIEW_OWNED), 0);
	check_int(count(one, RING_VIEW_KEYS), 20);
	check_int(status_of(one).health, RING_ISOLATED);
	check_int(who_shows("c0", RING_VIEW_RECOVER), -1);
	run_for(20);
	check_int(hosts[one].shown[RING_VIEW_OWNED], 0);
	wait_until(5, ask(one, RING_CLAIM, "minority") == -EROFS, "EROFS");
	wait_until(5, strstr(status_of(one).reason, "2 of 3 voters") != NULL,
		   "%s", status_of(one).reason);
	ok("who is cut off%s shows nothing held, and says why",
	   cut_leader ? " and led" : "");
	wait_until(10, who_shows("c0", RING_VIEW_RECOVER) >= 0, "an heir");
	check_int(ask(two, RING_CLAIM, "majority"), 0);
	check_int(ask(who_shows("c1", RING_VIEW_RECOVER), RING_TAKE, "c1"), 0);
	ok("then its keys are offered, and the others go on");
	cut_off(one, false);
	wait_until(10, is_ready(one), "%s", status_of(one).reason);
	check_int(ask(one, RING_CLAIM, "minority"), 0);
	settle();
	ok("holes 1: healed, it comes back in a new epoch");
	end_cluster();
}

static void test_cut_follower(void)
{
	test_cut(false);
}

static void test_cut_leader(void)
{
	test_cut(true);
}

/* A short cut: the lease runs out, but nobody declared it down. */
static void test_blink(void)
{
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int one = follower();

	for (int i = 0; i < 3; i++)
		hosts[i].held_swim = true;
	check_int(ask(one, RING_CLAIM, "b"), 0);
	uint64_t epoch =
		ring_node(hosts[one].ring, ring_self(hosts[one].ring))->epoch;

	cut_off(one, true);
	wait_until(5, !shows(one, "b", RING_VIEW_OWNED), "its lease");
	run_for(100);
	check_int(hosts[one].shown[RING_VIEW_OWNED], 0);
	cut_off(one, false);
	wait_until(5, shows(one, "b", RING_VIEW_OWNED), "back: %s",
		   status_of(one).reason);
	run_for(20);
	check_int(hosts[one].shown[RING_VIEW_OWNED], 1);
	check(epoch == ring_node(hosts[one].ring, ring_self(hosts[one].ring))
			       ->epoch,
	      "the same life");
	ok("a lease that was out and is granted again shows all again");
	end_cluster();
}

/* As by SIGSTOP: it cannot empty its tree, but is asked before it shows. */
static void test_stop(void)
{
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int one = leader();
	struct asked a;

	check_int(ask(one, RING_CLAIM, "s"), 0);
	settle();
	hosts[one].stopped = true;
	wait_until(10, who_shows("s", RING_VIEW_RECOVER) >= 0, "an heir");
	check(!ring_check(hosts[one].ring, now_ms()), "its lease");
	/* Asked before it has heard anything. */
	begin(one, &a, RING_CLAIM, "t");
	hosts[one].stopped = false;
	wait_until(10, a.done, "answer");
	check_int(a.rc, -EROFS);
	wait_until(10, is_ready(one), "%s", status_of(one).reason);
	check_int(hosts[one].shown[RING_VIEW_OWNED], 0);
	check_int(who_shows("t", RING_VIEW_KEYS), -1);
	ok("holes 2, 6: a leader that was stopped for long shows nothing when "
	   "it goes on");
	end_cluster();
}

/* ---- Proof ---- */

static void test_proof(void)
{
	uint8_t bytes[256];

	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	for (int i = 0; i < 2; i++) {
		/* A follower, then the leader of what is left with it back. */
		int dead = i == 0 ? follower() : leader();
		int other = (dead + 1) % 3;
		size_t len = hosts[dead].obituary_len;

		check(len > 0, "an obituary was handed over");
		check_int(ask(dead, RING_CLAIM, "p"), 0);
		settle();
		memcpy(bytes, hosts[dead].obituary,
		       len = hosts[dead].obituary_len);
		kill_host(dead);
		uint64_t killed = now_ms();

		check_int(
			ring_obituary(hosts[other].ring, now_ms(), bytes, len),
			0);
		hosts[other].due_ms = 0;
		wait_until(5, who_shows("p", RING_VIEW_RECOVER) >= 0,
			   "an heir");
		printf("# %s: offered %d ms after the proof\n",
		       i == 0 ? "a follower" : "the leader",
		       (int)(now_ms() - killed));
		check(now_ms() - killed <
			      (i == 0 ? LEASE_MS / 4 : LEASE_MS) + LATE_MS,
		      "%d ms", (int)(now_ms() - killed));
		check_int(ask(who_shows("p", RING_VIEW_RECOVER), RING_FINISH,
			      "p"),
			  0);
		start_host(dead);
		wait_until(10, is_ready(dead), "%s", status_of(dead).reason);
		run_for(LEASE_MS);
	}
	check_int(ring_obituary(hosts[0].ring, now_ms(), "nonsense", 8),
		  -EBADMSG);
	ok("holes 30: a proven death waits neither for the lease nor for "
	   "SWIM");
	end_cluster();
}

/* ---- Another node's store ---- */

static void test_reload(void)
{
	static char note[RING_NOTE_MAX];
	struct asked a;

	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int one = follower(), two = (one + 1) % 3;

	check_int(ask(one, RING_CLAIM, "own"), 0);
	check_int(ask(two, RING_CLAIM, "ends"), 0);
	check_int(ask(two, RING_CLAIM, "stays"), 0);
	settle();
	cut_off(one, true);
	wait_until(10, who_shows("own", RING_VIEW_RECOVER) >= 0, "an heir");
	check_int(ask(two, RING_FINISH, "ends"), 0);
	check_int(ask_note(two, "stays", "new"), 0);
	check_int(ask(two, RING_CLAIM, "big"), 0);
	memset(note, 'x', sizeof(note));
	for (int i = 0; i < 400; i++) { /* more than the log keeps */
		a = (struct asked){.op = {.type = RING_NOTE,
					  .name = "big",
					  .note = note,
					  .note_len = sizeof(note)}};
		submit(two, &a);
		wait_until(5, a.done, "answer");
		check_int(a.rc, 0);
	}
	unsigned changes = hosts[one].n_changes;

	cut_off(one, false);
	wait_until(20, is_ready(one), "%s", status_of(one).reason);
	settle();
	run_for(50);
	check(hosts[one].n_changes > changes, "told");
	check(ring_find(hosts[one].ring, "ends") == NULL, "ends");
	check_int(ring_find(hosts[one].ring, "big")->note_len, sizeof(note));
	check(memcmp(ring_find(hosts[one].ring, "stays")->note, "new", 3) == 0,
	      "note");
	for (enum ring_view v = 0; v < RING_N_VIEWS; v++)
		check_int(hosts[one].shown[v], count(one, v));
	check_int(count(one, RING_VIEW_KEYS), 3);
	ok("who was away for long is sent the store, and tells the difference");
	check_int(ask(one, RING_CLAIM, "goes-on"), 0);
	end_cluster();
}

/* ---- In doubt ---- */

static void test_doubt(void)
{
	struct asked a;

	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	int l = leader(), one = (l + 1) % 3, other = (l + 2) % 3;

	/* What it asks arrives, but nothing comes back. */
	for (int i = 0; i < 3; i++)
		hosts[i].held_swim = true;
	cut[l][one] = cut[other][one] = true;
	begin(one, &a, RING_CLAIM, "doubt");
	wait_until(5, a.done, "answer");
	check(a.rc == -ETIMEDOUT, "%d", a.rc);
	check(a.took_ms >= 1990 && a.took_ms < 2000 + LATE_MS, "%d ms",
	      (int)a.took_ms);
	check(ring_find(hosts[l].ring, "doubt") != NULL, "it was done");
	begin(one, &a, RING_CLAIM, "next");
	turn();
	check(a.done && a.rc == -EROFS, "at once");
	ok("holes 24: an outcome that is not known is ETIMEDOUT, then EROFS "
	   "at once");
	memset(cut, 0, sizeof(cut));
	wait_until(5, is_ready(one), "%s", status_of(one).reason);
	wait_until(5, ring_find(hosts[l].ring, "doubt") == NULL, "finished");
	check_int(hosts[one].shown[RING_VIEW_OWNED], 0);
	ok("holes 24: a claim that nobody waited for is finished when it is "
	   "heard of");

	begin(one, &a, RING_CLAIM, "intr");
	turn();
	ring_abandon(hosts[one].ring, &a.req);
	wait_until(5, a.done, "answer");
	check_int(a.rc, -EINTR);
	check_int(ask(one, RING_CLAIM, "intr"), 0);
	check(shows(one, "intr", RING_VIEW_OWNED), "adopted or claimed anew");
	ok("holes 24: an interrupted claim on a follower can be repeated");
	end_cluster();
}

static void test_two(void)
{
	new_cluster(2, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 2, "two voters");
	check_int(ask(0, RING_CLAIM, "a"), 0);
	check_int(ask(1, RING_CLAIM, "b"), 0);
	cut_off(1, true);
	wait_until(10,
		   status_of(0).health == RING_ISOLATED &&
			   status_of(1).health == RING_ISOLATED,
		   "halted");
	run_for(3 * LEASE_MS);
	for (int i = 0; i < 2; i++) {
		check_int(ask(i, RING_CLAIM, "c"), -EROFS);
		check_int(count(i, RING_VIEW_OWNED), 0);
		check(strstr(status_of(i).reason, "1 of 2 voters") != NULL,
		      "%s", status_of(i).reason);
	}
	cut_off(1, false);
	wait_until(10, all_ready(2), "%s", status_of(1).reason);
	check(shows(0, "a", RING_VIEW_OWNED) && shows(1, "b", RING_VIEW_OWNED),
	      "as before");
	ok("two nodes that are cut halt both, and go on as they were");
	end_cluster();
}

/* SWIM has heard that both others are dead; nobody can be elected. */
static void test_no_majority(void)
{
	new_cluster(3, RING_CLAIMS_ANY);
	wait_until(5, status_of(0).n_voters == 3, "three voters");
	wait_until(5, follower() >= 0, "a follower");
	int one = follower();

	hosts[one].held_swim = true;
	for (int i = 0; i < 3; i++)
		if (i != one)
			kill_host(i);
	for (int i = 0; i < 3; i++)
		if (i != one)
			say(&hosts[one], i, true);
	check_int(status_of(one).health, RING_READY);
	wait_until(5, status_of(one).leader == RING_NONE, "no leader");
	check_int(status_of(one).health, RING_ISOLATED);
	check_int(ask(one, RING_CLAIM, "alone"), -EROFS);
	ok("with no majority alive, callers are told so at once");
	end_cluster();
}

static void all(uint64_t seed)
{
	static void (*const tests[])(void) = {
		test_death,	   test_leader_killed, test_restart_all,
		test_cut_follower, test_cut_leader,    test_blink,
		test_two,	   test_stop,	       test_proof,
		test_no_majority,  test_reload,	       test_doubt};

	run_tests(seed, tests, sizeof(tests) / sizeof(*tests));
}

int main(int argc, char **argv)
{
	return scratch_run(all, check_seed(argc, argv));
}

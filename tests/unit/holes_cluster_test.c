/* SPDX-License-Identifier: MIT */
/* Sequences of holes.md, by number, in clusters of several rings. That no key
 * is shown by two nodes is checked by the rig, at every instant.
 *
 * holes_cluster_test [SEED]; ONLY=N runs one of them, VERBOSE=1 shows the logs. */
#include "ring/peer.h"
#include "tests/unit/cluster_rig.h"

enum {
	LONG_CALM_MS = 1500,
	ELECTION_MS = 300, /* group.c's: nobody stands for election before */
};

static size_t count(int host, enum ring_view view)
{
	return ring_count(hosts[host].ring, view);
}

static void voters(int n)
{
	wait_until(10, status_of(0).n_voters == (size_t)n, "%d voters", n);
	wait_until(5, all_even(), "nodes at the same index");
}

static void cut_off(int host, bool on)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		cut[host][i] = cut[i][host] = on && i != host;
}

/* It goes on to be heard, but hears nothing. */
static void deafen(int host, bool on)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		cut[i][host] = on && i != host;
}

/* A name whose heir is another node than host. */
static const char *name_of_others(int host)
{
	static char name[16];
	struct ring *r = hosts[host].ring;

	for (int i = 0;; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		uint32_t owner =
			ring_vnode_owner(r, ring_vnode(r, name, strlen(name)));

		if (owner != ring_self(r) && ring_find(r, name) == NULL)
			return name;
	}
}

/* ---- 4: whoever gives a key away shows it no more, before it is sent ---- */

static void one_attempt(struct ring_settings *s)
{
	s->max_attempts = 1;
}

/* One hands on a key by type, and does not hear what became of it; another
 * makes it somebody's by then. */
static void give_away(enum ring_op_type type, enum ring_op_type then)
{
	int one = follower(), other = (one + 1) % 3;
	const char *name = name_of_others(one);
	enum ring_view view =
		then == RING_CLAIM ? RING_VIEW_OWNED : RING_VIEW_RECOVER;
	struct asked a, b;

	check_int(ask(one, RING_CLAIM, name), 0);
	if (type == RING_GIVE) { /* this is for the second time */
		check_int(ask(one, RING_GIVE, name), 0);
		check_int(ask(one, RING_TAKE, name), 0);
	}
	wait_until(5, all_even(), "nodes at the same index");
	deafen(one, true);
	begin(one, &a, type, name);
	check(!shows(one, name, RING_VIEW_OWNED), "before it is sent");
	wait_until(5,
		   then == RING_CLAIM
			   ? ring_find(hosts[other].ring, name) == NULL
			   : shows(other, name, RING_VIEW_PARKED),
		   "by %d", type);
	begin(other, &b, then, name);
	wait_until(5, who_shows(name, view) >= 0, "by %d", then);
	check(ring_find(hosts[one].ring, name) != NULL, "it has heard");
	check(ring_check(hosts[one].ring, now_ms()), "inside its lease");
	check(who_shows(name, view) != one, "it is another's");
	deafen(one, false);
	wait_until(5, a.done && b.done, "answers");
	check(a.rc == 0 && b.rc == 0, "%d, %d", a.rc, b.rc);
	wait_until(5, all_even(), "nodes at the same index");
}

static void hole_4(void)
{
	tune = one_attempt;
	new_cluster(3, RING_CLAIMS_ANY);
	tune = NULL;
	voters(3);
	give_away(RING_FINISH, RING_CLAIM);
	give_away(RING_PARK, RING_RETRY);
	give_away(RING_GIVE, RING_RETRY);
	ok("holes 4: who finishes, parks or gives back shows the key no more");

	/* A refusal shows it again, but not what else hides it. */
	int one = follower();
	struct asked a, b;

	check_int(ask(one, RING_CLAIM, "twice"), 0);
	check_int(ask(one, RING_LET, "twice"), -ENOENT);
	check(shows(one, "twice", RING_VIEW_OWNED), "refused");
	begin(one, &a, RING_LET, "twice");
	turn(); /* it is sent */
	hosts[one].deaf_kind = PEER_ITEMS;
	begin(one, &b, RING_FINISH, "twice");
	wait_until(5, a.done, "answer");
	check_int(a.rc, -ENOENT);
	check(!b.done, "it is lost");
	check(!shows(one, "twice", RING_VIEW_OWNED), "it is being finished");
	hosts[one].deaf_kind = 0;
	wait_until(5, b.done, "answer");
	check_int(b.rc, 0);
	ok("holes 4: of two that hide a key the refused one shows nothing");
	end_cluster();
}

/* ---- 7: neither down nor working ---- */

static void short_lease(struct ring_settings *s)
{
	s->lease_ms = 250;
}

static void hole_7(void)
{
	tune = short_lease;
	new_cluster(3, RING_CLAIMS_ANY);
	tune = NULL;
	voters(3);
	int one = follower();
	uint64_t begin;

	check_int(ask(one, RING_CLAIM, "s"), 0);
	hosts[one].deaf_kind = PEER_LEASE; /* all else arrives */
	begin = now_ms();
	wait_until(5, !shows(one, "s", RING_VIEW_OWNED), "its lease");
	wait_until(10, who_shows("s", RING_VIEW_RECOVER) >= 0, "an heir");
	check(now_ms() - begin >= 10 * 250, "after %d ms",
	      (int)(now_ms() - begin));
	check(!hosts[leader()].said_dead[one], "SWIM says alive");
	ok("holes 7: a lease that is out for ten is down, alive or not");
	hosts[one].deaf_kind = 0;
	wait_until(10, is_ready(one), "%s", status_of(one).reason);
	end_cluster();
}

/* ---- 8: the listing is empty at once, events follow ---- */

static void claim_many(int host, unsigned n)
{
	struct ring_op *ops = calloc(n, sizeof(*ops));
	char(*names)[16] = calloc(n, sizeof(*names));
	struct asked a = {0};

	for (unsigned i = 0; i < n; i++) {
		snprintf(names[i], sizeof(names[i]), "m%u", i);
		ops[i] = (struct ring_op){.type = RING_CLAIM, .name = names[i]};
	}
	a.req = (struct ring_request){
		.ops = ops, .n_ops = n, .cb = on_asked, .data = &a};
	ring_submit(hosts[host].ring, now_ms(), &a.req);
	hosts[host].due_ms = 0;
	wait_until(10, a.done, "answer");
	check_int(a.req.rc, 0);
	free(names);
	free(ops);
}

static void hole_8(void)
{
	enum {
		KEYS = 2000
	};
	size_t n;

	new_cluster(3, RING_CLAIMS_ANY);
	voters(3);
	int one = follower();

	claim_many(one, KEYS);
	run_for(50);
	check_int(hosts[one].shown[RING_VIEW_OWNED], KEYS);
	cut_off(one, true);
	hosts[one].stopped = true; /* no turn of its loop, but a request */
	wait_until(5, !ring_check(hosts[one].ring, now_ms()), "its lease");
	free(ring_list(hosts[one].ring, RING_VIEW_OWNED, &n));
	check_int(n, 0);
	check_int(count(one, RING_VIEW_OWNED), 0);
	check(!ring_shows(hosts[one].ring, ring_find(hosts[one].ring, "m7"),
			  RING_VIEW_OWNED),
	      "each of them");
	check_int(hosts[one].shown[RING_VIEW_OWNED], KEYS);
	check_int(who_shows("m7", RING_VIEW_RECOVER), -1);
	hosts[one].stopped = false;
	wait_until(5, hosts[one].shown[RING_VIEW_OWNED] == 0, "events");
	wait_until(5, who_shows("m7", RING_VIEW_RECOVER) >= 0, "an heir");
	ok("holes 8: the listing is empty before any heir's fills; events "
	   "follow");
	end_cluster();
}

/* ---- 19: the next one stands when the first has a shorter log ---- */

static void hole_19(void)
{
	uint8_t bytes[256];
	struct asked a;

	new_cluster(3, RING_CLAIMS_ANY);
	voters(3);
	int l = leader(), first = l == 0 ? 1 : 0, next = l == 2 ? 1 : 2;

	check_int(ask(l, RING_CLAIM, "held"), 0);
	wait_until(5, all_even(), "nodes at the same index");
	cut[l][first] = true;
	begin(l, &a, RING_CLAIM, "longer");
	wait_until(5, a.done, "answer");
	size_t len = hosts[l].obituary_len;
	uint64_t at = now_ms();

	memcpy(bytes, hosts[l].obituary, len);
	kill_host(l);
	for (int i = 0; i < 3; i++) {
		if (i == l)
			continue;
		check_int(ring_obituary(hosts[i].ring, now_ms(), bytes, len),
			  0);
		hosts[i].due_ms = 0;
	}
	wait_until(5, leader() >= 0, "a leader");
	printf("# leader %d ms after the proof\n", (int)(now_ms() - at));
	check_int(leader(), next);
	check(now_ms() - at < ELECTION_MS, "%d ms", (int)(now_ms() - at));
	wait_until(5, who_shows("held", RING_VIEW_RECOVER) >= 0, "an heir");
	check(ring_find(hosts[next].ring, "longer") != NULL, "it was answered");
	ok("holes 19: on proof one voter stands; when its log is too short, "
	   "the next");
	end_cluster();
}

/* ---- 29: two nodes, one dead ---- */

static void hole_29(void)
{
	new_cluster(2, RING_CLAIMS_ANY);
	voters(2);
	kill_host(1);
	wait_until(5, strstr(status_of(0).reason, "recover-quorum") != NULL,
		   "%s", status_of(0).reason);
	check_int(ask(0, RING_CLAIM, "c"), -EROFS);
	ok("holes 29: of two nodes one is dead: status says what helps");
	end_cluster();
}

/* ---- 30: a death waits for no calm, a join does ---- */

static void long_calm(struct ring_settings *s)
{
	s->calm_ms = LONG_CALM_MS;
}

static void hole_30(void)
{
	tune = long_calm;
	new_cluster(3, RING_CLAIMS_ANY);
	tune = NULL;
	voters(3);
	for (int i = 0; i < 2; i++) {
		int dead = i == 0 ? follower() : leader();
		int l = leader();

		check_int(ask(dead, RING_CLAIM, "d"), 0);
		wait_until(5, all_even(), "nodes at the same index");
		uint64_t at = now_ms();

		kill_host(dead);
		wait_until(10, who_shows("d", RING_VIEW_RECOVER) >= 0,
			   "an heir");
		int took = (int)(now_ms() - at);

		printf("# %s: offered %d ms after its death\n",
		       dead == l ? "the leader" : "a follower", took);
		check(took < LONG_CALM_MS + (i == 0 ? 0 : 4 * ELECTION_MS),
		      "%d ms", took);
		check_int(ask(who_shows("d", RING_VIEW_RECOVER), RING_FINISH,
			      "d"),
			  0);
		at = now_ms();
		start_host(dead);
		wait_until(10, is_ready(dead), "%s", status_of(dead).reason);
		check(now_ms() - at >= LONG_CALM_MS, "a join waits: %d ms",
		      (int)(now_ms() - at));
	}
	ok("holes 30: a death by lease waits for no calm, the leader's "
	   "neither");
	end_cluster();
}

static void all(uint64_t seed)
{
	static void (*const tests[])(void) = {hole_4,  hole_7,	hole_8,
					      hole_19, hole_29, hole_30};

	run_tests(seed, tests, sizeof(tests) / sizeof(*tests));
}

int main(int argc, char **argv)
{
	return scratch_run(all, check_seed(argc, argv));
}

/* SPDX-License-Identifier: MIT */
/* Who should vote: each rule by itself, then a cluster to which anything
 * happens. role_test [SEED [RUNS [verbose]]] */
#include "ring/role.h"

#include <string.h>

#include "tests/unit/check.h"

#define N 9

static struct role_node nodes[N];
static struct role_view view = {.nodes = nodes, .last = 5000};
static uint64_t now;
static unsigned n_changes;

/* "VvSNx": V voter, S standby, P spare, N in no configuration; lower case:
 * dead for an hour. The first is the leader. */
static void cluster(const char *roles)
{
	memset(nodes, 0, sizeof(nodes));
	view.n = strlen(roles);
	view.changed_ms = 0;
	view.is_changing = false;
	now = 1000000000;
	for (size_t i = 0; i < view.n; i++) {
		struct role_node *n = &nodes[i];
		bool is_dead = roles[i] >= 'a';

		n->id.byte[0] = (uint8_t)(i + 1);
		n->role = strchr("Vv", roles[i])   ? ROLE_VOTER
			  : strchr("Ss", roles[i]) ? ROLE_STANDBY
			  : strchr("Pp", roles[i]) ? ROLE_SPARE
						   : ROLE_NONE;
		n->state = is_dead ? ROLE_DEAD : ROLE_ALIVE;
		n->since_ms = n->heard_ms = now - 3600000;
		n->match = view.last;
		n->weight = 100;
		n->is_self = i == 0;
	}
}

static void hear_all(void)
{
	for (size_t i = 0; i < view.n; i++)
		if (nodes[i].state != ROLE_DEAD && nodes[i].state != ROLE_GONE)
			nodes[i].heard_ms = now;
}

static void set_state(size_t i, enum role_state state)
{
	nodes[i].state = state;
	nodes[i].since_ms = now;
}

static size_t n_voters(void)
{
	size_t n = 0;

	for (size_t i = 0; i < view.n; i++)
		n += nodes[i].role == ROLE_VOTER;
	return n;
}

/* The next change within wait_ms; time passes while there is none. */
static struct role_change next(uint64_t wait_ms)
{
	uint64_t end = now + wait_ms;

	for (;;) {
		hear_all();

		struct role_change c = role_next(&view, now);

		if (c.step != ROLE_NOTHING)
			return c;
		check(c.again_ms > now && c.again_ms <= now + 1000, "again");
		if (c.again_ms > end) {
			now = end;
			return c;
		}
		now = c.again_ms;
	}
}

static void carry_out(struct role_change c)
{
	static const enum role becomes[] = {
		[ROLE_ADD] = ROLE_SPARE,	  [ROLE_TO_SPARE] = ROLE_SPARE,
		[ROLE_TO_STANDBY] = ROLE_STANDBY, [ROLE_TO_VOTER] = ROLE_VOTER,
		[ROLE_REMOVE] = ROLE_NONE,
	};

	n_changes++;
	view.changed_ms = now;
	if (c.step != ROLE_TRANSFER) {
		nodes[c.node].role = becomes[c.step];
		return;
	}
	for (size_t i = 0; i < view.n; i++)
		nodes[i].is_self = i == c.node;
}

#define expect(wait_ms, want, i)                                               \
	do {                                                                   \
		struct role_change c_ = next(wait_ms);                         \
		check_int(c_.step, want);                                      \
		check_int(c_.node, i);                                         \
		if (c_.step != ROLE_NOTHING)                                   \
			carry_out(c_);                                         \
	} while (0)

/* "T1 D2 -": see letters; until nothing more for a minute. */
static void expect_all(const char *want)
{
	char got[256] = "";

	for (unsigned k = 0; k < 40; k++) {
		struct role_change c = next(60000);

		if (c.step == ROLE_NOTHING)
			break;
		carry_out(c);
		snprintf(got + strlen(got), sizeof(got) - strlen(got),
			 "%s%c%zu", k ? " " : "", "-APSVRT"[c.step], c.node);
	}
	check(strcmp(got, want) == 0, "got \"%s\", want \"%s\"", got, want);
}

/* ---- Each rule ---- */

static void growing(void)
{
	check_int(role_target(0), 0);
	check_int(role_target(1), 1);
	check_int(role_target(2), 2);
	check_int(role_target(3), 3);
	check_int(role_target(4), 3);
	check_int(role_target(5), 5);
	check_int(role_target(100), 5);
	cluster("V");
	expect_all("");
	cluster("VN");
	expect_all("A1 S1 V1");
	cluster("VVN");
	expect_all("A2 S2 V2");
	cluster("VVVN");
	expect_all("A3 S3");
	cluster("VVVSN");
	expect_all("A4 S4 V3 V4");
	cluster("VVVVVN");
	expect_all("A5 S5");
	cluster("VNNNNNNN");
	expect_all("A1 S1 A2 S2 A3 S3 A4 S4 A5 S5 A6 S6 A7 S7 V1 V2 V3 V4");
	ok("holes 29: 1, 2, 3, 3, 5 voters for 1 to 5 nodes, the rest standby");
}

static void ripening(void)
{
	cluster("VVVSS");
	nodes[4].since_ms = now - 1;
	expect(4998, ROLE_NOTHING, 0);
	expect(1, ROLE_TO_VOTER, 3);
	expect(0, ROLE_TO_VOTER, 4);
	ok("four is passed when the fifth is ready, and not before");

	cluster("VVVSS");
	view.changed_ms = now;
	expect(4999, ROLE_NOTHING, 0);
	expect(1, ROLE_TO_VOTER, 3);
	ok("what is not pressing comes 5 s after the last change");

	cluster("VS");
	nodes[1].since_ms = now;
	expect(999, ROLE_NOTHING, 0);
	expect(1, ROLE_TO_VOTER, 1);
	cluster("VVS");
	nodes[2].match = view.last - 1001;
	expect(60000, ROLE_NOTHING, 0);
	nodes[2].match++;
	expect(0, ROLE_TO_VOTER, 2);
	cluster("VVS");
	nodes[2].failed_ms = now;
	expect(9999, ROLE_NOTHING, 0);
	expect(1, ROLE_TO_VOTER, 2);
	cluster("VVS");
	set_state(2, ROLE_SUSPECT);
	expect(60000, ROLE_NOTHING, 0);
	ok("a new voter is alive for a while, caught up, and has not failed");

	cluster("VS");
	view.is_changing = true;
	check_int(role_next(&view, now).step, ROLE_NOTHING);
	check(role_next(&view, now).again_ms == UINT64_MAX, "never");
	ok("one change at a time");

	cluster("VVSS");
	nodes[2].weight = 10;
	nodes[3].weight = 5;
	expect(0, ROLE_TO_VOTER, 3);
	cluster("VSSSS");
	for (size_t i = 1; i < 5; i++)
		nodes[i].is_client = true;
	expect_all("");
	cluster("VVSVS");
	nodes[1].is_client = true;
	expect_all("V2 S1");
	ok("clients are never voters; who owns little is preferred");
}

static void dying(void)
{
	cluster("VVvS");
	hear_all();
	nodes[2].since_ms = now;
	expect(9999, ROLE_NOTHING, 0);
	expect(1, ROLE_TO_SPARE, 2);
	expect(0, ROLE_TO_VOTER, 3);
	expect(60000, ROLE_NOTHING, 0);
	set_state(2, ROLE_ALIVE);
	expect(0, ROLE_TO_STANDBY, 2);
	expect(60000, ROLE_NOTHING, 0);
	ok("a dead voter is replaced after 10 s; when it is back it is "
	   "standby");

	cluster("VVvS");
	nodes[2].since_ms = now - 40000;
	nodes[2].heard_ms = now - 1000; /* raft hears what SWIM does not */
	expect(8999, ROLE_NOTHING, 0);
	expect(1, ROLE_TO_SPARE, 2);
	ok("SWIM's word alone takes no vote");

	cluster("VVv");
	expect_all("");
	cluster("VVvs");
	expect_all("");
	cluster("VVVvv");
	expect_all("");
	cluster("VVVvvS");
	expect_all("P3 P4");
	cluster("VVVv");
	expect_all("P3");
	ok("a dead voter whom nobody can replace stays");

	cluster("Vv");
	expect_all("");
	cluster("VvvS");
	expect_all("");
	cluster("VVvvvSS");
	expect_all("");
	ok("holes 29: two nodes, one dead; no majority in contact: nothing is "
	   "changed");

	cluster("VVVVs");
	expect_all("S3");
	cluster("VVVVvS");
	expect_all("P4 V5");
	cluster("VVVV");
	set_state(2, ROLE_SUSPECT);
	expect_all("");
	set_state(2, ROLE_ALIVE);
	expect_all("S3");
	ok("four are not stayed at when there is no fifth, and all are well");

	cluster("VVVs");
	now += 86400000 - 3600000 - 2000;
	for (size_t i = 0; i < 3; i++)
		nodes[i].since_ms = now - 20000;
	expect(1999, ROLE_NOTHING, 0);
	expect(1, ROLE_REMOVE, 3);
	expect(60000, ROLE_NOTHING, 0);
	ok("who was dead for a day is removed");

	cluster("VVVS");
	set_state(2, ROLE_GONE);
	expect_all("R2 V3");
	cluster("VV");
	set_state(1, ROLE_GONE);
	expect_all("");
	cluster("VVV");
	set_state(2, ROLE_GONE);
	expect_all("R2");
	cluster("VVVN"); /* the last two are one node, before and after */
	set_state(2, ROLE_GONE);
	nodes[3].id = nodes[2].id;
	expect_all("R2 A3 S3 V3");
	ok("holes 21: a server whose log is lost is removed, if a majority is "
	   "left");
}

static void leaving(void)
{
	cluster("VVVS");
	set_state(1, ROLE_LEAVING);
	check(!role_may_exit(&view, &nodes[1].id), "it votes");
	expect(0, ROLE_TO_VOTER, 3);
	check(!role_may_exit(&view, &nodes[1].id), "it votes");
	expect(0, ROLE_TO_STANDBY, 1);
	view.is_changing = true;
	check(!role_may_exit(&view, &nodes[1].id), "not committed");
	view.is_changing = false;
	check(role_may_exit(&view, &nodes[1].id), "committed");
	expect(0, ROLE_REMOVE, 1);
	expect(60000, ROLE_NOTHING, 0);
	ok("holes 28: a voter that leaves is replaced, demoted, removed");

	cluster("VVV");
	set_state(0, ROLE_LEAVING);
	nodes[1].match--;
	expect_all("T2 S0 R0");
	ok("a leader that leaves hands over first, to the one with most");

	cluster("VVV");
	set_state(1, ROLE_LEAVING);
	expect_all("S1 R1");
	cluster("VVVS");
	set_state(1, ROLE_LEAVING);
	nodes[3].match = 0;
	expect(1999, ROLE_NOTHING, 0);
	expect(1, ROLE_TO_STANDBY, 1);
	cluster("VVVVV");
	set_state(4, ROLE_LEAVING);
	expect_all("S4 R4 S3");
	ok("who leaves waits 2 s for a replacement that is not ready");

	cluster("VVVVVSS");
	for (size_t i = 1; i < 7; i++)
		set_state(i, ROLE_LEAVING);
	expect_all("S1 R1 S2 R2 S3 R3 S4 R4 R5 R6");
	check(!role_may_exit(&view, &nodes[0].id) || n_voters() == 1, "last");
	cluster("VVVVV");
	for (size_t i = 0; i < 4; i++)
		set_state(i, ROLE_LEAVING);
	expect_all("T4 S0 R0 S1 R1 S2 R2 S3 R3");
	check_int(nodes[4].role, ROLE_VOTER);
	ok("holes 28: all but one leave at once: one by one, and one is left");

	cluster("VVV");
	for (size_t i = 0; i < 3; i++)
		set_state(i, ROLE_LEAVING);
	check(!role_may_exit(&view, &nodes[0].id), "others are there");
	expect_all("S1 R1 S2 R2");
	check(role_may_exit(&view, &nodes[0].id), "the last of all");
	cluster("VS");
	set_state(0, ROLE_LEAVING);
	nodes[1].since_ms = now;
	expect_all("V1 T1 S0 R0");
	ok("holes 28: all leave: the last goes when it is alone");

	cluster("VVv");
	nodes[2].since_ms = now;
	set_state(1, ROLE_LEAVING);
	expect_all("");
	check(!role_may_exit(&view, &nodes[1].id), "it stays");
	ok("holes 28: who cannot be spared does not go");
}

/* ---- Anything ---- */

static uint64_t rng;
static bool verbose;

static unsigned below(unsigned n)
{
	return (unsigned)(check_random(&rng) % n);
}

static bool answers(const struct role_node *n)
{
	return n->state != ROLE_DEAD && n->state != ROLE_GONE;
}

static size_t n_answering(void)
{
	size_t n = 0;

	for (size_t i = 0; i < view.n; i++)
		n += nodes[i].role == ROLE_VOTER && answers(&nodes[i]);
	return n;
}

static size_t n_could_vote(void)
{
	size_t n = 0;

	for (size_t i = 0; i < view.n; i++)
		n += !nodes[i].is_client && (nodes[i].state == ROLE_ALIVE ||
					     nodes[i].state == ROLE_SUSPECT ||
					     nodes[i].state == ROLE_DEAD);
	return n;
}

/* A change that the rules allow to take a voter below three. */
static bool is_excused(const struct role_node *n)
{
	return n->state != ROLE_ALIVE || n->is_client;
}

static void judge(struct role_change c)
{
	const struct role_node *n = &nodes[c.node];
	bool less = n->role == ROLE_VOTER &&
		    (c.step == ROLE_TO_SPARE || c.step == ROLE_TO_STANDBY ||
		     c.step == ROLE_REMOVE);
	size_t before = n_voters();

	check(!less || !n->is_self, "the leader is demoted");
	check(!less || before > 1, "the last voter");
	check(!less || before > 3 || n_could_vote() < 3 || is_excused(n),
	      "below three of %zu", n_could_vote());
	check(c.step != ROLE_TO_VOTER || (!n->is_client && answers(n)),
	      "node %zu votes", c.node);
	check(c.step != ROLE_TO_VOTER || before < 6, "%zu voters", before);
	check(c.step == ROLE_TRANSFER || c.step == ROLE_ADD ||
		      n->role != ROLE_NONE,
	      "no server");
	carry_out(c);
	check(2 * n_answering() > n_voters(), "no majority of %zu", n_voters());
}

/* Something becomes of somebody; a majority of the voters always answers. */
static void befall(void)
{
	struct role_node *n = &nodes[below((unsigned)view.n)], was = *n;
	static const enum role_state states[] = {
		ROLE_ALIVE, ROLE_ALIVE,	  ROLE_ALIVE, ROLE_SUSPECT,
		ROLE_DEAD,  ROLE_LEAVING, ROLE_GONE};
	enum role_state state = states[below(7)];

	if (n->is_self && state != ROLE_LEAVING)
		state = ROLE_ALIVE;
	if (n->state == ROLE_GONE && n->role != ROLE_NONE)
		return;
	if (n->state != state) {
		n->state = state;
		n->since_ms = now;
	}
	if (below(4) == 0)
		n->match = view.last - below(3000);
	if (below(20) == 0)
		n->is_client = !n->is_client;
	if (below(10) == 0)
		n->failed_ms = now;
	if (2 * n_answering() <= n_voters())
		*n = was;
}

static void settle(void)
{
	unsigned most = n_changes + 200;
	size_t voters, wanted = 0;

	for (size_t i = 0; i < view.n; i++) {
		nodes[i].match = view.last;
		if (nodes[i].state == ROLE_SUSPECT)
			set_state(i, ROLE_ALIVE);
		wanted += !nodes[i].is_client && nodes[i].state == ROLE_ALIVE;
	}
	for (;;) {
		struct role_change c = next(120000);

		if (c.step == ROLE_NOTHING)
			break;
		judge(c);
		check(n_changes < most, "it never ends");
	}
	voters = n_answering();
	if (n_could_vote() == wanted && wanted > 0)
		check_int(voters, role_target(wanted));
	check(voters <= 5, "%zu voters", voters);
	check(n_voters() != 4, "even");
}

static void any(uint64_t seed)
{
	rng = seed;
	cluster("VNNNNNNNN");
	view.n = 1 + below(N);
	for (unsigned k = 0; k < 300; k++) {
		struct role_change c;

		if (below(3) == 0)
			befall();
		c = next(below(2) ? below(3000) : below(60000));
		if (c.step == ROLE_NOTHING) {
			now += 1;
			continue;
		}
		if (verbose)
			printf("[%llu] %c%zu, %zu voters\n",
			       (unsigned long long)now, "-APSVRT"[c.step],
			       c.node, n_voters());
		if (below(10) == 0)
			nodes[c.node].failed_ms = now;
		else
			judge(c);
	}
	settle();
}

int main(int argc, char **argv)
{
	uint64_t seed;
	unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 2000;

	growing();
	ripening();
	dying();
	leaving();
	seed = check_seed(argc, argv);
	verbose = argc > 3;
	for (unsigned i = 0; i < n; i++) {
		if (verbose)
			printf("# seed %llu\n", (unsigned long long)(seed + i));
		any(seed + i);
	}
	ok("%u clusters: %u changes, each kept a majority, and they ended", n,
	   n_changes);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* Five servers, and everything that can go wrong, at random: nodes are killed,
 * stopped, cut off in one direction or both, wiped; messages are late, lost and
 * repeated; disks are slow or hang. Entries are written all the while.
 *
 * At every apply: all have the same entry at the same index. At all times: one
 * leader per term. At the end: all are equal, and nothing that was ever applied
 * anywhere, so nothing that was ever acknowledged, is missing.
 *
 * Usage: group_random_test [SEED [ROUNDS]]. */
#include "tests/unit/group_rig.h"

#define N_NODES	 5
#define N_TERMS	 100000
#define ROUND_MS 12000

static uint64_t next_id = 1;
static uint8_t leader_of[N_TERMS]; /* node + 1 */
static unsigned n_kills, n_wipes, n_terms, n_snapshots;

static void check_leaders(void)
{
	for (unsigned i = 0; i < rig.n; i++) {
		struct group_status s = rig_status(i);

		if (rig.node[i].g == NULL || !s.is_leader)
			continue;
		check(s.term < N_TERMS, "term");
		if (leader_of[s.term] == 0)
			n_terms++;
		check(leader_of[s.term] == 0 || leader_of[s.term] == i + 1,
		      "term %llu has two leaders", (unsigned long long)s.term);
		leader_of[s.term] = (uint8_t)(i + 1);
	}
}

/* Bring every node that is up into the configuration, as a voter. */
static void drive_roles(unsigned l)
{
	struct group *g = rig.node[l].g;

	for (unsigned i = 0; i < rig.n; i++) {
		struct group_server s;
		uint64_t server;

		if (rig.node[i].g == NULL)
			continue;
		server = group_server_id(rig.node[i].g);
		if (!rig_find_server(l, i, &s))
			group_change(g, rig.now_ms, GROUP_ADD, server,
				     &rig.node[i].id);
		else if (s.server != server)
			group_change(g, rig.now_ms, GROUP_REMOVE, s.server,
				     NULL);
		else if (s.role == GROUP_SPARE)
			group_change(g, rig.now_ms, GROUP_TO_STANDBY, server,
				     NULL);
		else if (s.role == GROUP_STANDBY)
			group_change(g, rig.now_ms, GROUP_TO_VOTER, server,
				     NULL);
	}
}

/* A disk may be lost when all have everything. */
static bool may_wipe(unsigned l, unsigned i)
{
	struct group_server s;
	struct group_status st = rig_status(l);

	if (i == l || rig.node[i].g == NULL || st.n_voters != N_NODES ||
	    st.is_changing)
		return false;
	for (unsigned k = 0; k < rig.n; k++)
		if (rig.node[k].g == NULL || !rig_find_server(l, k, &s) ||
		    s.server != group_server_id(rig.node[k].g) ||
		    s.match + 5 < st.applied)
			return false;
	return true;
}

static void fault(void)
{
	unsigned i = rig_random(rig.n), j = rig_random(rig.n);
	int l = rig_leader();
	struct rig_node *node = &rig.node[i];

	switch (rig_random(12)) {
	case 0:
	case 1:
		n_kills += node->g != NULL;
		rig_kill(i);
		break;
	case 2:
		if (l >= 0) {
			n_kills++;
			rig_kill((unsigned)l);
		}
		break;
	case 3:
		node->paused = true;
		break;
	case 4:
		rig.cut[i][j] = true;
		break;
	case 5:
		for (j = 0; j < rig.n; j++)
			rig.cut[i][j] = rig.cut[j][i] = true;
		break;
	case 6:
		node->log_hangs = true;
		break;
	case 7:
		node->store_hangs = true;
		break;
	case 8:
		if (l >= 0 && may_wipe((unsigned)l, i)) {
			n_wipes++;
			rig_wipe(i);
			rig_start(i, false);
		}
		break;
	case 9:
		if (l >= 0)
			group_transfer(rig.node[l].g, rig.now_ms, 0);
		break;
	case 10:
		if (node->g != NULL && !node->paused)
			group_campaign(node->g, rig.now_ms);
		break;
	default:
		rig.loss = rig_random(100);
	}
}

static void heal_one(void)
{
	unsigned i = rig_random(rig.n);
	struct rig_node *node = &rig.node[i];

	if (node->g == NULL)
		rig_start(i, false);
	node->paused = node->log_hangs = node->store_hangs = false;
	for (unsigned j = 0; j < rig.n; j++)
		rig.cut[i][j] = rig.cut[j][i] = false;
}

static void heal_all(void)
{
	memset(rig.cut, 0, sizeof(rig.cut));
	rig.loss = rig.repeats = 0;
	for (unsigned i = 0; i < rig.n; i++) {
		struct rig_node *node = &rig.node[i];

		if (node->g != NULL && rig_status(i).failed)
			check(false, "node %u: %s", i, rig_status(i).errmsg);
		if (node->g == NULL)
			rig_start(i, false);
		node->paused = node->log_hangs = node->store_hangs = false;
		node->log_delay = node->store_delay = 0;
	}
}

static void write_one(int l)
{
	size_t size = rig_random(50) == 0 ? 8 + rig_random(300000)
					  : 8 + rig_random(500);

	if (rig_propose((unsigned)l, next_id, size) == 0)
		next_id++;
}

static void turn(unsigned t)
{
	int l = rig_leader();

	rig_turn();
	check_leaders();
	if (l >= 0 && rig.node[l].g != NULL) {
		if (rig_random(3) == 0)
			write_one(l);
		if (t % 100 == 0)
			drive_roles((unsigned)l);
	}
}

static void one_round(uint64_t seed)
{
	rig_begin(seed);
	rig.is_verbose = getenv("VERBOSE") != NULL;
	memset(leader_of, 0, sizeof(leader_of));
	next_id = 1;
	rig.snapshot_entries = 40 + rig_random(200);
	rig.trailing_entries = 1 + rig_random(50);
	rig.delay_ms = 1 + rig_random(20);
	rig.bulk_bytes_per_ms = rig_random(2) ? 0 : 2000 + rig_random(20000);
	rig_make(N_NODES);
	rig.repeats = rig_random(50);
	for (unsigned i = 0; i < rig.n; i++) {
		rig.node[i].log_delay = rig_random(10);
		rig.node[i].store_delay = rig_random(100);
	}
	unsigned calm = 100 + rig_random(600);

	for (unsigned t = 0; t < ROUND_MS; t++) {
		if (rig_random(calm) == 0)
			fault();
		if (rig_random(calm) == 0)
			heal_one();
		turn(t);
	}
	heal_all();
	for (unsigned t = 0; t < 3000; t++)
		turn(t);
	rig_wait_leader(5000);
	check(rig_propose((unsigned)rig_leader(), next_id++, 64) == 0, "last");
	rig_wait_equal(60000);
	for (unsigned i = 0; i < rig.n; i++)
		n_snapshots += rig.node[i].n_resets;
	rig_end();
}

static unsigned n_rounds = 6;

static void body(uint64_t seed)
{
	for (unsigned r = 0; r < n_rounds; r++) {
		printf("# round %u: seed %llu\n", r,
		       (unsigned long long)seed + r);
		fflush(stdout);
		one_round(seed + r);
	}
	printf("# %llu entries, %u kills, %u disks wiped, %u snapshots sent, "
	       "%u leaders\n",
	       (unsigned long long)next_id, n_kills, n_wipes, n_snapshots,
	       n_terms);
	ok("five servers at random: all are equal, nothing acknowledged is "
	   "lost");
}

int main(int argc, char **argv)
{
	if (argc > 2)
		n_rounds = (unsigned)atoi(argv[2]);
	return scratch_run(body, check_seed(argc, argv));
}

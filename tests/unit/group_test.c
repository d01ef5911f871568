/* SPDX-License-Identifier: MIT */
/* A group of several servers. */
#include "ring/group_wire.h"
#include "ring/wal.h"
#include "tests/unit/group_rig.h"

#define ELECTION_PASSED 1000 /* ms after which it must have stepped down */

static uint64_t next_id = 1;

/* Propose n entries through whoever leads, and wait until they are applied. */
static void write_some(unsigned n, size_t size)
{
	uint64_t until = rig.now_ms + 60000;

	while (n > 0 && rig.now_ms < until) {
		int l = rig_leader();

		while (l >= 0 && n > 0 &&
		       rig_propose((unsigned)l, next_id, size) == 0) {
			next_id++;
			n--;
			if (n % 16 == 0)
				break;
		}
		rig_turn();
	}
	check_int(n, 0);
	rig_run(50);
}

static void test_three(void)
{
	rig_make(3);
	for (unsigned i = 0; i < 3; i++) {
		/* That the last one votes is told to all, some later. */
		for (unsigned ms = 0; ms < 5000; ms++)
			if (rig_status(i).n_voters < 3)
				rig_turn();
		struct group_status s = rig_status(i);

		check_int(s.n_voters, 3);
		check_int(s.role, GROUP_VOTER);
		check(s.in_contact && s.has_leader, "node %u", i);
	}
	write_some(100, 64);
	rig_wait_equal(1000);
	check_int(rig.node[0].m.n, 100);
	ok("three servers elect a leader and replicate");
	rig_end();
}

static void test_restart(void)
{
	rig_make(3);
	write_some(50, 64);
	unsigned old = rig_wait_leader(1000);
	uint64_t at = rig.now_ms;

	rig_kill(old);
	unsigned l = rig_wait_leader(3000);

	check(l != old, "a dead leader");
	printf("# a new leader after %llu ms\n",
	       (unsigned long long)(rig.now_ms - at));
	write_some(50, 64);
	rig_start(old, false);
	rig_wait_equal(2000);
	for (unsigned i = 0; i < 3; i++)
		rig_kill(i);
	for (unsigned i = 0; i < 3; i++)
		rig_start(i, false);
	rig_wait_leader(3000);
	write_some(10, 64);
	rig_wait_equal(1000);
	check_int(rig.node[0].m.n, 110);
	ok("the leader, or all, are killed and start again: nothing is lost");
	rig_end();
}

static unsigned follower(void)
{
	return rig_wait_leader(3000) == 2 ? 1 : 2;
}

static void cut_off(unsigned i, bool cut)
{
	for (unsigned j = 0; j < rig.n; j++)
		rig.cut[i][j] = rig.cut[j][i] = cut;
}

static void test_behind(void)
{
	rig_make(3);
	unsigned f = follower();

	cut_off(f, true);
	write_some(300, 2000);
	rig_run(400);
	check(!rig_status(f).in_contact && !rig_status(f).has_leader,
	      "a cut-off follower is in contact");
	uint64_t term = rig_status(rig_wait_leader(1)).term;

	cut_off(f, false);
	rig_wait_equal(2000);
	check_int(rig.node[f].n_resets, 0);
	check_int(rig_status(rig_wait_leader(1)).term, term);
	ok("a follower that is behind gets the log, and deposes nobody");
	rig_end();
}

/* A node so far behind that it needs the content of a snapshot. */
static void test_far_behind(void)
{
	rig.snapshot_entries = 50;
	rig.trailing_entries = 10;
	rig_make(3);
	unsigned f = follower();

	rig.node[f].store_delay = 200;
	write_some(49, 3000);
	cut_off(f, true);
	write_some(1000, 3000);
	cut_off(f, false);
	/* What is applied first makes it take a snapshot of its own. */
	rig_wait_equal(20000);
	check(rig.node[f].n_resets > 0, "no snapshot was sent");
	write_some(200, 3000);
	rig_wait_equal(5000);
	rig_kill(f);
	rig_start(f, false);
	check(rig.node[f].m.n > 300, "only %llu entries at the start",
	      (unsigned long long)rig.node[f].m.n);
	write_some(5, 64);
	rig_wait_equal(2000);
	ok("holes 17: a follower that is far behind gets a snapshot, and "
	   "starts "
	   "from it");
	rig_end();
}

/* The content takes long, while the leader writes on and takes snapshots. */
static void test_far_behind_under_load(void)
{
	rig.snapshot_entries = 50;
	rig.trailing_entries = 10;
	rig.bulk_bytes_per_ms = 500;
	rig_make(3);
	unsigned f = follower();

	cut_off(f, true);
	write_some(600, 3000);
	cut_off(f, false);
	size_t before = rig.node[rig_wait_leader(1)].sent_bulk;

	for (unsigned i = 0; i < 150; i++)
		write_some(1, 500);
	rig_wait_equal(30000);
	size_t sent = rig.node[rig_wait_leader(1)].sent_bulk - before;

	printf("# bulk bytes sent: %zu for %u of content\n", sent, 512 * 3000);
	check(sent < 6 * 512 * 3000, "sent again and again");
	/* A second time if the first was begun while it was cut off. */
	check(rig.node[f].n_resets == 1 || rig.node[f].n_resets == 2,
	      "%u times", rig.node[f].n_resets);
	ok("holes 17: a snapshot is sent once, however long it takes (B3)");
	rig_end();
}

static void test_wiped(void)
{
	rig.snapshot_entries = 50;
	rig.trailing_entries = 10;
	rig_make(3);
	write_some(200, 100);
	unsigned f = follower(), l = rig_wait_leader(1000);
	uint64_t old = group_server_id(rig.node[f].g);
	struct group_server s;

	rig_wipe(f);
	rig_start(f, false);
	uint64_t new = group_server_id(rig.node[f].g);

	check(new != old, "the same raft id");
	rig_run(2000);
	check_int(rig.node[f].m.n, 0);
	check_int(rig_status(f).role, GROUP_NONE);
	check(rig_find_server(l, f, &s) && s.server == old, "the old server");
	check_int(group_change(rig.node[l].g, rig.now_ms, GROUP_ADD, new,
			       &rig.node[f].id),
		  -EEXIST);
	rig_change(GROUP_REMOVE, f, old, GROUP_NONE);
	rig_join(f, true);
	rig_wait_equal(2000);
	check_int(rig_status(l).n_voters, 3);
	ok("holes 21: a wiped node is another server: removed, added, and as "
	   "before");
	/* Only the log is lost: the store is not believed either. */
	char wal[600];

	rig_kill(f);
	snprintf(wal, sizeof(wal), "%s/wal", rig.node[f].dir);
	scratch_remove(wal);
	rig_start(f, false);
	check(group_server_id(rig.node[f].g) != new, "the same raft id");
	check_int(rig.node[f].m.n, 0);
	ok("holes 21: a node that lost its log has a new raft id, and begins "
	   "empty");
	rig_end();
}

static void test_cut_leader(void)
{
	rig_make(3);
	write_some(20, 64);
	unsigned old = rig_wait_leader(1000);
	uint64_t applied = rig.node[old].m.applied;

	cut_off(old, true);
	/* In doubt: it may be in the log, nobody knows. */
	for (unsigned i = 0; i < 5; i++)
		check_int(rig_propose(old, next_id++, 64), 0);
	rig_run(ELECTION_PASSED);
	check(!rig_status(old).is_leader && !rig_status(old).in_contact,
	      "it leads alone");
	check_int(rig_propose(old, next_id, 64), -EAGAIN);
	check_int(rig.node[old].m.applied, applied);
	unsigned l = rig_wait_leader(3000);

	check(l != old, "no new leader");
	write_some(20, 64);
	cut_off(old, false);
	rig_wait_equal(3000);
	check_int(rig.node[old].m.n, 40);
	ok("a leader that is cut off steps down; what it had not replicated is "
	   "replaced");

	/* Replicated, but not known to be committed: it is, by the next. */
	l = rig_wait_leader(1000);
	for (unsigned i = 0; i < 3; i++)
		rig.cut[i][l] = true; /* it hears no answers */
	for (unsigned i = 0; i < 5; i++)
		check_int(rig_propose(l, next_id++, 64), 0);
	rig_run(100);
	cut_off(l, true);
	rig_run(100);
	old = l;
	rig_run(ELECTION_PASSED);
	rig_wait_leader(3000);
	cut_off(old, false);
	rig_wait_equal(3000);
	check_int(rig.node[old].m.n, 45);
	ok("what a majority has is committed by the next leader");
	rig_end();
}

static void test_roles(void)
{
	struct group_server s;
	uint64_t id = 0;

	rig_make(4);
	unsigned l = rig_wait_leader(1000);
	unsigned f = l == 0 ? 1 : 0, h = l == 3 ? 2 : 3;
	uint64_t server = group_server_id(rig.node[f].g);
	struct group *g = rig.node[l].g;

	check_int(rig_status(l).n_voters, 4);
	check_int(group_change(rig.node[f].g, rig.now_ms, GROUP_REMOVE, server,
			       NULL),
		  -EAGAIN);
	check_int(group_change(g, rig.now_ms, GROUP_TO_VOTER, server, NULL),
		  -EINVAL);
	check_int(group_change(g, rig.now_ms, GROUP_REMOVE, 4711, NULL),
		  -ENOENT);
	check_int(group_change(g, rig.now_ms, GROUP_REMOVE, group_server_id(g),
			       NULL),
		  -EINVAL);
	check_int(group_change(g, rig.now_ms, GROUP_ADD, 4711, &rig.node[f].id),
		  -EEXIST);
	check_int(group_change(g, rig.now_ms, GROUP_TO_STANDBY, server, NULL),
		  0);
	check(rig_status(l).is_changing, "nothing is on its way");
	check_int(group_change(g, rig.now_ms, GROUP_TO_SPARE, server, NULL),
		  -EBUSY);
	rig_change(GROUP_TO_STANDBY, f, server, GROUP_STANDBY);
	rig_run(200);
	check_int(rig_status(f).role, GROUP_STANDBY);
	check_int(rig_status(f).n_standbys, 1);
	check_int(group_campaign(rig.node[f].g, rig.now_ms), -EAGAIN);
	check_int(group_transfer(g, rig.now_ms, server), -ENOENT);
	rig_change(GROUP_REMOVE, f, server, GROUP_NONE);
	rig_run(2000);
	check_int(rig_wait_leader(1), l);
	check(!rig_find_server(l, f, &s), "it is in still");
	ok("one change at a time; a removed server disturbs nobody");

	check_int(group_transfer(g, rig.now_ms, 0), 0);
	check_int(rig_propose(l, next_id, 64), -EAGAIN);
	rig_run(100);
	check(rig_wait_leader(500) != l, "it leads still");
	l = rig_wait_leader(500);
	h = l == h ? (h == 3 ? 2 : 3) : h;
	if (h == f)
		h = 1;
	id = group_server_id(rig.node[h].g);
	check_int(group_transfer(rig.node[l].g, rig.now_ms, id), 0);
	rig_run(100);
	check_int(rig_wait_leader(500), h);
	ok("leadership is handed on within 100 ms, to anyone or to one");

	/* Proof that the leader is dead (rule 19). */
	l = h;
	uint64_t at = rig.now_ms;

	for (unsigned i = 0; i < 4; i++)
		if (i != l && i != f)
			h = i;
	rig_kill(l);
	check_int(group_campaign(rig.node[h].g, rig.now_ms), 0);
	rig_wait_leader(100);
	check_int(rig_wait_leader(1), h);
	printf("# leader %llu ms after the proof\n",
	       (unsigned long long)(rig.now_ms - at));
	ok("holes 19: on proof that the leader is dead, a voter stands at "
	   "once");
	rig_end();
}

/* Configurations in the middle of a message: each is noted at its own index. */
static void test_changes_in_a_batch(void)
{
	rig_make(4);
	unsigned l = rig_wait_leader(1000), f = l == 2 ? 1 : 2;
	unsigned x = l == 3 ? 0 : 3;
	uint64_t server = group_server_id(rig.node[x].g);

	cut_off(f, true);
	for (unsigned i = 0; i < 3; i++) {
		write_some(5, 64);
		rig_change(GROUP_TO_STANDBY, x, server, GROUP_STANDBY);
		write_some(5, 64);
		rig_change(GROUP_TO_VOTER, x, server, GROUP_VOTER);
	}
	write_some(5, 64);
	cut_off(f, false);
	rig_wait_equal(3000);
	l = rig_wait_leader(1000);
	check_int(group_transfer(rig.node[l].g, rig.now_ms,
				 group_server_id(rig.node[f].g)),
		  0);
	rig_run(200);
	check_int(rig_wait_leader(100), f);
	check(!rig_status(f).is_changing, "a change is on its way for ever");
	rig_change(GROUP_TO_STANDBY, x, server, GROUP_STANDBY);
	ok("who has caught up over changes of the configuration can change it");
	rig_end();
}

static void test_soon(void)
{
	unsigned worst = 0;

	rig_make(3);
	rig.delay_ms = 0;
	rig_run(500);
	for (unsigned i = 0; i < 20; i++) {
		unsigned l = rig_wait_leader(100), ms = 0;

		rig_run(50 + rig_random(200));
		check_int(rig_propose(l, next_id++, 64), 0);
		while (!(rig_are_equal() &&
			 rig.node[l].m.slot[(next_id - 1) % RIG_SLOTS] ==
				 next_id - 1) &&
		       ms < 100) {
			rig_turn();
			ms++;
		}
		worst = ms > worst ? ms : worst;
	}
	printf("# an isolated entry is applied everywhere after %u ms at "
	       "most\n",
	       worst);
	check(worst <= 12, "%u ms", worst);
	ok("followers apply an isolated entry at once (B7)");
	rig_end();
}

static void test_large_entries(void)
{
	rig.bulk_bytes_per_ms = 1000; /* 1 MB takes a second */
	rig_make(3);
	write_some(1, 64);
	uint64_t term = rig_status(rig_wait_leader(1)).term;

	write_some(12, 1 << 20);
	write_some(10, 64);
	check_int(rig_status(rig_wait_leader(1)).term, term);
	rig_wait_equal(60000);
	check_int(rig_status(rig_wait_leader(1)).term, term);
	ok("holes 20: heartbeats pass large entries on a slow line");
	rig_end();
}

static void test_stopped_peer(void)
{
	rig_make(3);
	unsigned l = rig_wait_leader(1000), f = follower();

	write_some(10, 64);
	rig.node[f].paused = true;
	size_t before = rig.sent[l][f];

	write_some(400, 100000);
	rig_run(5000);
	size_t sent = rig.sent[l][f] - before;

	printf("# sent to a stopped peer: %zu bytes of %u\n", sent,
	       400 * 100000);
	check(sent < (6u << 20), "%zu bytes", sent);
	rig.node[f].paused = false;
	rig_wait_equal(20000);
	ok("holes 20: a stopped peer costs a few MiB, and catches up");
	rig_end();
}

/* ---- Votes ---- */

static unsigned n_votes_seen;

static void copy_file(const char *from, const char *to)
{
	static char bytes[1 << 16];
	FILE *in = fopen(from, "r"), *out = fopen(to, "w");
	size_t n;

	check(in != NULL && out != NULL, "%s", from);
	while ((n = fread(bytes, 1, sizeof(bytes), in)) > 0)
		check_int(fwrite(bytes, 1, n, out), n);
	fclose(in);
	fclose(out);
}

/* What a start would find of node i's term and vote, were it killed now. */
static struct wal_found look_at_disk(unsigned i)
{
	char dir[300], from[600], to[600], errmsg[RING_ERRMSG_SIZE];
	struct wal_config config = {.dir = dir,
				    .cluster = {{9}},
				    .node = rig.node[i].id,
				    .segment_bytes = WAL_SEGMENT_BYTES};
	struct wal_found found;
	struct wal *w;

	snprintf(dir, sizeof(dir), "%s/look", scratch_dir);
	mkdir(dir, 0700);
	snprintf(to, sizeof(to), "%s/wal", dir);
	mkdir(to, 0700);
	snprintf(from, sizeof(from), "%s/wal/%016x.seg", rig.node[i].dir, 1);
	snprintf(to, sizeof(to), "%s/wal/%016x.seg", dir, 1);
	copy_file(from, to);
	int rc = wal_open(&config, false, &w, &found, errmsg);

	check(rc == 0, "%s", errmsg);
	wal_close(w);
	scratch_remove(dir);
	return found;
}

/* A vote that is asked for or given is on disk, and every term that is told. */
static bool check_vote(unsigned from, unsigned to, bool bulk,
		       const uint8_t *bytes, size_t len)
{
	struct wire_message m;
	uint64_t term = 0, vote = 0;

	(void)bulk;
	check_int(group_wire_decode(&m, bytes, len), 0);
	if (m.kind == RAFT_REQUEST_VOTE && !m.raft.request_vote.pre_vote) {
		term = m.raft.request_vote.term;
		if (m.raft.request_vote.last_log_index > 0)
			vote = m.from; /* else only the term is told */
	} else if (m.kind == RAFT_REQUEST_VOTE_RESULT &&
		   !m.raft.request_vote_result.pre_vote &&
		   m.raft.request_vote_result.vote_granted) {
		term = m.raft.request_vote_result.term;
		vote = group_server_id(rig.node[to].g);
	} else if (m.kind == RAFT_APPEND_ENTRIES_RESULT && rig_random(8) == 0) {
		term = m.raft.append_entries_result.term;
	}
	group_wire_finish(&m);
	if (term == 0)
		return true;
	struct wal_found f = look_at_disk(from);

	check(f.term >= term, "term %llu is told, %llu is on disk",
	      (unsigned long long)term, (unsigned long long)f.term);
	if (vote != 0 && f.term == term)
		check(f.vote == vote, "a vote is given that is not on disk");
	n_votes_seen += vote != 0;
	wal_found_finish(&f);
	return true;
}

/* As if node i had stood for election n times more, and nobody had heard it. */
static void stand_unheard(unsigned i, uint64_t n)
{
	char errmsg[RING_ERRMSG_SIZE];
	struct wal_config config = {.dir = rig.node[i].dir,
				    .cluster = {{9}},
				    .node = rig.node[i].id,
				    .segment_bytes = WAL_SEGMENT_BYTES};
	uint64_t self = group_server_id(rig.node[i].g);
	struct wal_found found;
	struct wal *w;

	rig_kill(i);
	int rc = wal_open(&config, false, &w, &found, errmsg);

	check(rc == 0, "%s", errmsg);
	check_int(wal_set_vote(w, found.term + n, self), 0);
	check_int(wal_sync(w), 0);
	wal_close(w);
	wal_found_finish(&found);
	rig_start(i, false);
}

static void test_unheard(void)
{
	rig_make(2);
	unsigned l = rig_wait_leader(5000), f = 1 - l;

	rig.cut[l][f] = rig.cut[f][l] = true;
	rig_propose(l, 1, 64);
	rig_run(2000);
	check(rig_leader() < 0, "a leader without a majority");
	stand_unheard(f, 3);
	rig_run(1000);
	rig.cut[l][f] = rig.cut[f][l] = false;
	check_int(rig_wait_leader(5000), l);
	rig_wait_equal(2000);
	check_int(rig.node[f].m.slot[1], 1);
	ok("one has the longer log, the other the higher term: he is elected");
	rig_end();
}

static void test_votes(void)
{
	rig_make(3);
	for (unsigned i = 0; i < 3; i++)
		rig.node[i].log_delay = 40;
	rig.on_send = check_vote;
	n_votes_seen = 0;
	for (unsigned i = 0; i < 4; i++) {
		unsigned l = rig_wait_leader(5000);

		rig.node[l].paused = true;
		rig_run(1500);
		rig.node[l].paused = false;
		rig_run(300);
	}
	check(n_votes_seen > 6, "%u votes", n_votes_seen);
	rig.on_send = NULL;
	ok("holes 15: terms and votes are on disk before anything is sent");

	/* A follower whose disk hangs votes for nobody. */
	unsigned l = rig_wait_leader(5000);

	for (unsigned i = 0; i < 3; i++)
		rig.node[i].log_hangs = i != l;
	rig_kill(l);
	rig_run(5000);
	check(rig_leader() < 0, "a leader by votes that are nowhere");
	for (unsigned i = 0; i < 3; i++)
		rig.node[i].log_hangs = false;
	rig_wait_leader(5000);
	ok("holes 15: no vote without the disk");
	rig_end();
}

static void test_slow_disk(void)
{
	rig_make(3);
	write_some(10, 64);
	unsigned old = rig_wait_leader(1000);

	rig.node[old].log_hangs = true;
	uint64_t at = rig.now_ms;

	for (unsigned i = 0; i < 3; i++)
		check_int(rig_propose(old, next_id++, 64), 0);
	while (rig_wait_leader(5000) == old && rig.now_ms - at < 5000)
		rig_turn();
	check(rig_wait_leader(1000) != old, "it leads with a disk that hangs");
	printf("# handed over after %llu ms\n",
	       (unsigned long long)(rig.now_ms - at));
	check(rig.now_ms - at < 1500, "late");
	rig_run(500);
	check(rig_status(old).stalled && !rig_status(old).in_contact, "mute");
	size_t sent = rig.node[old].sent_bytes;

	write_some(20, 64);
	rig_run(1000);
	check_int(rig.node[old].sent_bytes, sent);
	rig.node[old].log_hangs = false;
	rig_wait_equal(5000);
	check(!rig_status(old).stalled, "mute still");
	check_int(rig.node[old].m.n, 33);
	ok("holes 16: a leader whose disk hangs hands over, is mute, and comes "
	   "back");
	rig_end();
}

static void test_threads(void)
{
	rig.threads = true;
	rig.now_ms = rig_clock_ms();
	rig.snapshot_entries = 50;
	rig.trailing_entries = 10;
	rig_make(3);
	unsigned f = follower();

	/* Again where the disk is so slow that there is no snapshot yet. */
	for (unsigned i = 0; i < 10 && rig.node[f].n_resets == 0; i++) {
		cut_off(f, true);
		write_some(300, 2000);
		cut_off(f, false);
		rig_wait_equal(20000);
	}
	check(rig.node[f].n_resets > 0, "no snapshot was sent");
	write_some(100, 2000);
	rig_wait_equal(20000);
	rig_kill(f);
	rig_start(f, false);
	write_some(10, 64);
	rig_wait_equal(20000);
	ok("the same with real disks and threads, three groups in one process");
	rig_end();
}

static void run(uint64_t seed, void (*test)(void))
{
	rig_begin(seed);
	rig.is_verbose = getenv("VERBOSE") != NULL;
	test();
}

static void body(uint64_t seed)
{
	static void (*const tests[])(void) = {test_three,
					      test_restart,
					      test_behind,
					      test_far_behind,
					      test_far_behind_under_load,
					      test_wiped,
					      test_cut_leader,
					      test_roles,
					      test_changes_in_a_batch,
					      test_soon,
					      test_large_entries,
					      test_stopped_peer,
					      test_unheard,
					      test_votes,
					      test_slow_disk,
					      test_threads};
	const char *only = getenv("ONLY");

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		if (only == NULL || (size_t)atoi(only) == i)
			run(seed + i, tests[i]);
}

int main(int argc, char **argv)
{
	return scratch_run(body, check_seed(argc, argv));
}

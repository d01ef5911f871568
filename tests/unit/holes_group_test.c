/* SPDX-License-Identifier: MIT */
/* Sequences of holes.md, by number, between log, disk and library, in virtual
 * time. The system calls that write are defined here, in front of the C
 * library's: those of one node fail when a test wants it. */
#include <sys/syscall.h>
#include <sys/uio.h>

#include "ring/group_wire.h"
#include "tests/unit/group_rig.h"

static int broken = -1; /* the node whose disk fails */

static bool fails(void)
{
	if (broken < 0 || rig.in_disk != broken)
		return false;
	errno = EIO;
	return true;
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	return fails() ? -1 : syscall(SYS_pwrite64, fd, bytes, n, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
	return fails() ? -1 : syscall(SYS_pwrite64, fd, bytes, n, at);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
	return fails() ? -1 : syscall(SYS_pwritev, fd, iov, n, at, 0);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t at)
{
	return fails() ? -1 : syscall(SYS_pwritev, fd, iov, n, at, 0);
}

/* No machine stops here: what is written is there. */
int fdatasync(int fd)
{
	(void)fd;
	return fails() ? -1 : 0;
}

int fsync(int fd)
{
	return fdatasync(fd);
}

/* ---- Writing ---- */

static uint64_t next_id = 1;

/* n entries through whoever leads, until they are applied there. */
static void write_some(unsigned n, size_t size)
{
	uint64_t until = rig.now_ms + 60000;

	while (n > 0 && rig.now_ms < until) {
		int l = rig_leader();

		while (l >= 0 && n > 0 &&
		       rig_propose((unsigned)l, next_id, size) == 0) {
			next_id++;
			if (--n % 16 == 0)
				break;
		}
		rig_turn();
	}
	check_int(n, 0);
	rig_run(50);
}

static unsigned third(unsigned a, unsigned b)
{
	return 3 - a - b;
}

static void cut_off(unsigned node, bool on)
{
	for (unsigned i = 0; i < rig.n; i++)
		rig.cut[i][node] = rig.cut[node][i] = on && i != node;
}

/* ---- 14: what was not written counts nowhere ---- */

static void hole_14(void)
{
	rig_make(3);
	write_some(20, 64);
	unsigned l = rig_wait_leader(1000), f = (l + 1) % 3;
	unsigned away = third(l, f);
	uint64_t applied = rig.node[l].m.applied;

	/* The leader has it on disk, f fails to, the third is away. */
	cut_off(away, true);
	broken = (int)f;
	check_int(rig_propose(l, next_id++, 64), 0);
	rig_run(150);
	check(rig_status(f).failed, "its disk fails");
	check_int(rig.node[l].m.applied, applied);
	size_t sent = rig.node[f].sent_bytes;

	rig_run(3000);
	check_int(rig.node[l].m.applied, applied);
	check_int(rig.node[f].sent_bytes, sent);
	check(rig_leader() < 0, "there are two voters less");
	ok("holes 14: an append that failed is not counted; its server is "
	   "mute");

	/* It neither votes nor leads, whatever becomes of its disk. */
	broken = -1;
	cut_off(away, false);
	rig_wait_leader(3000);
	check(rig_leader() != (int)f, "it leads");
	write_some(10, 64);
	rig_kill((unsigned)rig_leader());
	rig_run(3000);
	check(rig_leader() < 0, "it has voted");
	check_int(rig.node[f].sent_bytes, sent);
	for (unsigned i = 0; i < 3; i++) {
		if (i != f && rig.node[i].g != NULL)
			continue;
		rig_kill(i);
		rig_start(i, false);
	}
	rig_wait_leader(3000);
	write_some(5, 64);
	rig_wait_equal(3000);
	ok("holes 14: it stays mute until it is started again, and loses "
	   "nothing");

	l = rig_wait_leader(1000);
	broken = (int)l;
	check_int(rig_propose(l, next_id++, 64), 0);
	rig_run(150);
	check(rig_status(l).failed && !rig_status(l).is_leader, "it leads");
	sent = rig.node[l].sent_bytes;
	check(rig_wait_leader(3000) != l, "nobody leads");
	broken = -1;
	write_some(5, 64);
	check_int(rig.node[l].sent_bytes, sent);
	rig_kill(l);
	rig_start(l, false);
	rig_wait_equal(3000);
	ok("holes 14: a leader whose disk fails leads no more");
	rig_end();
}

/* ---- 17: snapshots ---- */

static struct {
	unsigned flip;	  /* in so many copies a bit is still to be flipped */
	uint64_t copy;	  /* the last one that it was */
	unsigned n_lost;  /* so many were given up by who received them */
	unsigned n_heads; /* InstallSnapshots seen */
	uint64_t term[RIG_HISTORY / 16]; /* of each entry, as it was sent */
} seen;

/* Harm that the checksum of the chunk knows nothing of: on the sender's disk, or
 * in its memory. */
static void flip_chunk(unsigned from, unsigned to, const struct wire_message *m)
{
	struct wire_message bad = *m;
	uint8_t *bytes =
		memcpy(xmalloc(m->chunk.len), m->chunk.bytes, m->chunk.len);
	struct buf b = {0};

	seen.flip--;
	seen.copy = m->chunk.copy;
	bytes[m->chunk.len - m->chunk.len / 3] ^= 4;
	bad.chunk.bytes = bytes;
	group_wire_encode(&bad, &b);
	rig_enqueue(from, to, true, b.base, b.len);
	free(b.base);
	free(bytes);
}

/* False: it was flipped. */
static bool watch_copy(unsigned from, unsigned to, const struct wire_message *m)
{
	if (m->kind == WIRE_ACK && m->ack.copy == seen.copy) {
		check(m->ack.state != WIRE_DONE, "it is installed");
		seen.n_lost += m->ack.state == WIRE_LOST;
	}
	if (m->kind != WIRE_CHUNK || m->chunk.part != WIRE_RECORDS ||
	    m->chunk.copy == seen.copy || seen.flip == 0)
		return true;
	flip_chunk(from, to, m);
	return false;
}

static bool watch_snapshots(unsigned from, unsigned to, bool bulk,
			    const uint8_t *bytes, size_t len)
{
	struct wire_message m;
	bool goes = true;

	(void)bulk;
	check_int(group_wire_decode(&m, bytes, len), 0);
	const struct raft_append_entries *a = &m.raft.append_entries;
	const struct raft_install_snapshot *s = &m.raft.install_snapshot;

	if (m.kind == RAFT_APPEND_ENTRIES) {
		for (unsigned i = 0; i < a->n_entries; i++)
			seen.term[a->prev_log_index + 1 + i] =
				a->entries[i].term;
	} else if (m.kind == RAFT_INSTALL_SNAPSHOT) {
		seen.n_heads++;
		check_int(s->last_term, seen.term[s->last_index]);
	} else {
		goes = watch_copy(from, to, &m);
	}
	group_wire_finish(&m);
	return goes;
}

static void hole_17(void)
{
	rig.snapshot_entries = 50;
	rig.trailing_entries = 10;
	memset(&seen, 0, sizeof(seen));
	rig_make(3);
	rig.on_send = watch_snapshots;
	write_some(20, 64);
	unsigned l = rig_wait_leader(1000), f = (l + 1) % 3;

	/* It is behind by entries of two terms; the store moves on under the
	 * copy. */
	cut_off(f, true);
	write_some(300, 2000);
	check_int(group_transfer(rig.node[l].g, rig.now_ms,
				 group_server_id(rig.node[third(l, f)].g)),
		  0);
	rig_run(200);
	check(rig_wait_leader(1000) == third(l, f), "handed on");
	write_some(200, 2000);
	rig.bulk_bytes_per_ms = 2000;
	seen.flip = 2;
	cut_off(f, false);
	for (unsigned i = 0; i < 120; i++)
		write_some(1, 2000);
	rig_wait_equal(30000);
	check(seen.n_heads > 0 && rig.node[f].n_resets > 0, "no snapshot");
	ok("holes 17: a snapshot newer than asked for bears its own term (%u)",
	   seen.n_heads);
	check(seen.flip == 0 && seen.n_lost >= 2, "%u lost", seen.n_lost);
	ok("holes 17: content that arrives with a flipped bit is not "
	   "installed");
	rig.on_send = NULL;
	rig_end();
}

/* ---- 18: each entry once, whenever it is killed ---- */

static uint64_t entries_until(uint64_t index)
{
	uint64_t n = 0;

	for (uint64_t i = 1; i <= index; i++)
		n += rig.history[i] != 0;
	return n;
}

static void hole_18(void)
{
	static uint64_t slot[RIG_SLOTS];
	unsigned n_hung = 0;

	rig.snapshot_entries = 20;
	rig.trailing_entries = 5;
	rig_make(1);
	rig.node[0].log_delay = 3;
	for (unsigned round = 0; round < 50; round++) {
		uint64_t acked = rig.node[0].m.applied;

		rig_wait_leader(2000);
		rig.node[0].store_delay = rig_random(40);
		rig.node[0].log_delay = rig_random(6);
		for (unsigned i = rig_random(60); i > 0; i--) {
			/* Few slots, and some segments of the log. */
			rig_propose(0, next_id * RIG_SLOTS + next_id % 20,
				    rig_random(2) ? 100 : 150000);
			next_id++;
			rig_run(rig_random(3));
			acked = rig.node[0].m.applied;
			rig.node[0].store_hangs |= rig_random(50) == 0;
		}
		n_hung += rig.node[0].store_hangs;
		memcpy(slot, rig.node[0].m.slot, sizeof(slot));
		rig_kill(0);
		rig_start(0, false);
		rig_wait_leader(2000);
		check(rig.node[0].m.applied >= acked, "%llu of %llu",
		      (unsigned long long)rig.node[0].m.applied,
		      (unsigned long long)acked);
		check_int(rig.node[0].m.n,
			  entries_until(rig.node[0].m.applied));
		for (unsigned i = 0; i < RIG_SLOTS; i++)
			check(rig.node[0].m.slot[i] >= slot[i], "slot %u", i);
	}
	check(n_hung > 2, "%u", n_hung);
	ok("holes 18: killed 50 times between store and log, each entry is "
	   "applied once");
	rig_end();
}

/* ---- 19: one voter stands, then the next ---- */

static void hole_19(void)
{
	rig_make(3);
	write_some(20, 64);
	unsigned l = rig_wait_leader(1000), first = (l + 1) % 3;
	unsigned next = third(l, first);

	/* The first one's log is too short. */
	rig.cut[l][first] = true;
	check_int(rig_propose(l, next_id++, 64), 0);
	rig_run(50);
	rig_kill(l);
	uint64_t at = rig.now_ms;

	check_int(group_campaign(rig.node[first].g, rig.now_ms), 0);
	rig_run(50);
	check(rig_leader() < 0, "with a log that is too short");
	check_int(group_campaign(rig.node[next].g, rig.now_ms), 0);
	check_int(rig_wait_leader(150), next);
	check(rig.now_ms - at < 200, "%llu ms",
	      (unsigned long long)(rig.now_ms - at));
	printf("# leader %llu ms after the proof\n",
	       (unsigned long long)(rig.now_ms - at));
	ok("holes 19: when the first is refused, the next stands at once");
	rig_end();
}

/* ---- 20: large messages ---- */

static int propose_large(unsigned l, uint64_t id, size_t size)
{
	struct buf b = {0};
	uint8_t *zeros = xcalloc(1, size);

	buf_u64(&b, id);
	buf_put(&b, zeros, size - 8);
	int rc = group_propose(rig.node[l].g, rig.now_ms, &b);

	free(b.base);
	free(zeros);
	return rc;
}

static void hole_20(void)
{
	rig.bulk_bytes_per_ms = 10000;
	rig_make(3);
	write_some(10, 64);
	unsigned l = rig_wait_leader(1000);
	uint64_t term = rig_status(l).term;

	/* 256 notes of 64 KiB; the same slot again, for the rig's stores. */
	check_int(propose_large(l, 3, 256 << 16), 0);
	check_int(rig_propose(l, 3 + RIG_SLOTS, 64), 0);
	for (unsigned i = 0; i < 30000 && rig.node[l].m.n < 12; i++)
		rig_turn();
	rig_wait_equal(30000);
	check_int(rig.node[0].m.n, 12);
	check_int(rig_status(rig_wait_leader(1)).term, term);
	ok("holes 20: a message of 16 MiB passes, and no election is held");

	unsigned n = 36;

	for (unsigned i = 0; i < n; i++) {
		next_id = 3 + (i + 2) * RIG_SLOTS;
		write_some(1, 1 << 20);
	}
	for (unsigned i = 0; i < 60000 && rig.node[l].m.n < 12 + n; i++)
		rig_turn();
	rig_wait_equal(60000);
	rig_run(1000);
	for (unsigned i = 0; i < 3; i++)
		check(rig_status(i).log_bytes < 44u << 20, "node %u: %llu", i,
		      (unsigned long long)rig_status(i).log_bytes);
	ok("holes 20: a few large entries make a snapshot due, too");
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
	static void (*const tests[])(void) = {hole_14, hole_17, hole_18,
					      hole_19, hole_20};
	const char *only = getenv("ONLY");

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		if (only == NULL || (size_t)atoi(only) == i)
			run(seed + i, tests[i]);
}

int main(int argc, char **argv)
{
	return scratch_run(body, check_seed(argc, argv));
}

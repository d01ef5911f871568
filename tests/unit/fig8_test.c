/* SPDX-License-Identifier: MIT */
/* Is the raft library one that we may trust with keys?
 *
 * Figure 8 of the Raft paper ("In Search of an Understandable Consensus
 * Algorithm", USENIX ATC 2014, 5.4.2): a leader that commits an entry of an
 * older term because it counts enough copies of it can lose that entry again.
 * C-Raft 0.15 does, and fails here.
 *
 *      A B C
 *   1  A leads.
 *   2  A is cut off, writes X to its own disk only, and dies.
 *   3  B is elected by C.
 *   4  B is cut off, writes Y to its own disk only, and dies.
 *   5  A is back, elected by C, and copies X there: two of three have it. To
 *      commit X now, with nothing of its new term on both, is the fault.
 *   6  A dies, B is back: its Y is of a later term than X, so C may elect it.
 *      Whatever the two agree on, it must not contradict what A has applied.
 *   7  A is back as well: all three must end with the same entries.
 *
 * Servers, disks, network and time are the library's own test fixture, in
 * memory. A server that dies there is rather paused: it keeps what it knows,
 * but hears and says nothing. */
#include <raft.h>
#include <raft/fixture.h>

#include <stdbool.h>
#include <string.h>

#include "tests/unit/check.h"

#define OLDEST_SAFE 2201 /* 0.22.1 */
#define NOT_TRIED   2300 /* 0.23 */

#define SOON_MS 400  /* election timeouts: who shall be elected, */
#define LATE_MS 2000 /* and who shall not */

enum {
	A,
	B,
	C,
	N_SERVERS
};

/* What a client asked for: one letter. */
struct wish {
	struct raft_apply apply;
	char letter;
	bool granted; /* it was told so */
};

static struct raft_fixture fixture;
static struct raft_fsm fsms[N_SERVERS];
static char applied[N_SERVERS][16]; /* letters, in order */
static struct wish x = {.letter = 'X'};
static struct wish y = {.letter = 'Y'};
static struct wish z = {.letter = 'Z'};

/* ---- The machine: a string that grows ---- */

static int on_apply(struct raft_fsm *fsm, const struct raft_buffer *buf,
		    void **result)
{
	char *letters = fsm->data;
	size_t n = strlen(letters);

	check(n + 1 < sizeof(applied[0]), "\"%s\" grows without end", letters);
	letters[n] = *(const char *)buf->base;
	*result = NULL;
	return 0;
}

/* The test is too short for snapshots. */
static int on_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[],
		       unsigned *n_bufs)
{
	(void)fsm;
	(void)bufs;
	(void)n_bufs;
	return RAFT_NOMEM;
}

static int on_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	(void)fsm;
	(void)buf;
	return RAFT_MALFORMED;
}

static void on_answer(struct raft_apply *apply, int status, void *result)
{
	struct wish *wish = apply->data;

	(void)result;
	wish->granted = status == 0;
}

/* ---- Moves ---- */

static struct raft *server(unsigned i)
{
	return raft_fixture_get(&fixture, i);
}

static void run(unsigned ms)
{
	raft_fixture_step_until_elapsed(&fixture, ms);
}

static void cut_off(unsigned i)
{
	for (unsigned j = 0; j < N_SERVERS; j++) {
		if (j == i)
			continue;
		raft_fixture_disconnect(&fixture, i, j);
		raft_fixture_disconnect(&fixture, j, i);
	}
}

static void connect_two(unsigned i, unsigned j)
{
	raft_fixture_reconnect(&fixture, i, j);
	raft_fixture_reconnect(&fixture, j, i);
}

static void prefer(unsigned i)
{
	for (unsigned j = 0; j < N_SERVERS; j++)
		raft_set_election_timeout(server(j),
					  j == i ? SOON_MS : LATE_MS);
}

/* The last one elected, N_SERVERS if there is none. Those before it, dead or
 * cut off, may believe it of themselves. */
static unsigned leader(void)
{
	unsigned found = N_SERVERS;

	for (unsigned i = 0; i < N_SERVERS; i++)
		if (raft_state(server(i)) == RAFT_LEADER &&
		    (found == N_SERVERS ||
		     server(i)->current_term > server(found)->current_term))
			found = i;
	return found;
}

static void elect(unsigned i)
{
	prefer(i);
	for (unsigned k = 0; k < 400 && leader() != i; k++)
		run(50);
	check(leader() == i, "%c was not elected", 'A' + i);
}

static void ask(unsigned i, struct wish *wish)
{
	struct raft_buffer buf = {.len = 8, .base = raft_calloc(1, 8)};

	check(buf.base != NULL, "out of memory");
	*(char *)buf.base = wish->letter;
	wish->apply.data = wish;
	check_int(raft_apply(server(i), &wish->apply, &buf, 1, on_answer), 0);
}

/* Asks i for wish, which it can store, but nobody else. */
static void write_alone_and_die(unsigned i, struct wish *wish)
{
	raft_index last = raft_last_index(server(C));

	cut_off(i);
	ask(i, wish);
	run(60);
	check_int(raft_last_index(server(i)), last + 1);
	check_int(raft_last_index(server(C)), last);
	check(!wish->granted, "%c was granted by one of three", wish->letter);
	raft_fixture_kill(&fixture, i);
}

static void start(void)
{
	struct raft_configuration conf;

	check_int(raft_fixture_initialize(&fixture), 0);
	for (unsigned i = 0; i < N_SERVERS; i++) {
		fsms[i].version = 1;
		fsms[i].data = applied[i];
		fsms[i].apply = on_apply;
		fsms[i].snapshot = on_snapshot;
		fsms[i].restore = on_restore;
		check_int(raft_fixture_grow(&fixture, &fsms[i]), 0);
		server(i)->tracer = NULL; /* it fills standard error */
	}
	check_int(raft_fixture_configuration(&fixture, N_SERVERS, &conf), 0);
	check_int(raft_fixture_bootstrap(&fixture, &conf), 0);
	raft_configuration_close(&conf);
	check_int(raft_fixture_start(&fixture), 0);
}

/* ---- Checks ---- */

/* What one has applied must be the beginning of what the other has. */
static void check_agree(unsigned i, unsigned j)
{
	size_t n_i = strlen(applied[i]), n_j = strlen(applied[j]);

	check(memcmp(applied[i], applied[j], n_i < n_j ? n_i : n_j) == 0,
	      "unsafe library: %c has applied \"%s\", %c \"%s\"", 'A' + i,
	      applied[i], 'A' + j, applied[j]);
}

static void check_all_agree(void)
{
	check_agree(A, B);
	check_agree(B, C);
	check_agree(A, C);
}

static void check_kept(const struct wish *wish)
{
	for (unsigned i = 0; i < N_SERVERS && wish->granted; i++)
		check(strchr(applied[i], wish->letter) != NULL,
		      "%c was granted and is lost: %c has \"%s\"", wish->letter,
		      'A' + i, applied[i]);
}

/* ---- The play ---- */

/* The header's: the shared library has raft_version_number(), but hides it.
 * What the library itself is worth, the play shows. */
static void test_version(void)
{
	int version = RAFT_VERSION_NUMBER;

	check(version >= OLDEST_SAFE && version < NOT_TRIED,
	      "raft.h is of %d, tried are %d to %d", version, OLDEST_SAFE,
	      NOT_TRIED - 1);
	ok("raft.h is of a version that was tried (%d)", version);
}

static void steps_1_to_4(void)
{
	elect(A);
	write_alone_and_die(A, &x);
	elect(B);
	write_alone_and_die(B, &y);
	check(server(B)->current_term > server(A)->current_term,
	      "Y is not of a later term than X");
}

static void step_5(void)
{
	raft_fixture_revive(&fixture, A);
	connect_two(A, C);
	elect(A);
	/* One event at a time, so that A dies as soon as it has applied X, if
	 * it does: the next message could make an unsafe library safe. */
	for (unsigned k = 0; k < 20000 && applied[A][0] == '\0'; k++)
		raft_fixture_step(&fixture);
	check(raft_last_index(server(C)) >= raft_last_index(server(B)),
	      "X was not copied to C");
	cut_off(A);
	raft_fixture_kill(&fixture, A);
}

/* B first, and when it cannot win, C. */
static void step_6(void)
{
	raft_fixture_revive(&fixture, B);
	connect_two(B, C);
	prefer(B);
	for (unsigned k = 0; k < 300; k++) {
		if (k == 100)
			prefer(C);
		run(100);
		if (applied[B][0] != '\0' && applied[C][0] != '\0')
			break;
	}
	check(applied[B][0] != '\0' && applied[C][0] != '\0',
	      "B and C do not get on: \"%s\", \"%s\"", applied[B], applied[C]);
}

static void test_figure_8(void)
{
	start();
	steps_1_to_4();
	step_5();
	step_6();
	check_all_agree();
	check_kept(&x);
	check_kept(&y);
	ok("Figure 8: no entry of an older term is committed by counting");
}

static void test_reunion(void)
{
	raft_fixture_revive(&fixture, A);
	connect_two(A, B);
	connect_two(A, C);
	run(5000);
	check(leader() != N_SERVERS, "three servers without a leader");
	ask(leader(), &z);
	for (unsigned k = 0;
	     k < 300 &&
	     !(z.granted && strchr(applied[A], 'Z') && strchr(applied[B], 'Z'));
	     k++)
		run(100);
	check(z.granted, "Z was not granted");
	check_kept(&z);
	check_all_agree();
	ok("together again, all three have applied \"%s\"", applied[A]);
	raft_fixture_close(&fixture);
}

int main(void)
{
	test_version();
	test_figure_8();
	test_reunion();
	return 0;
}

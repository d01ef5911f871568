/* SPDX-License-Identifier: MIT */
/* Leases in virtual time: granting, refusing, running out. Each name begins
 * with the number of the sequence in holes.md that it plays. */
#include "ring/lease.h"

#include "ring/calm.h"
#include "tests/unit/lease_rig.h"

/* ---- Ordinary life ---- */

static void alone(void)
{
	world(1);
	check_int(nodes[0].n_sent, 0);
	play(10 * LEASE);
	check_int(nodes[0].n_changes, 0);
	check(nodes[0].obituary_len > 0, "for the herald");
	ok("a cluster of one holds its lease without a message");

	nodes[0].stopped = true;
	play(3 * LEASE);
	check(!held(0), "whatever ticks there were");
	nodes[0].stopped = false;
	play(1);
	check(held(0), "again");
	check_int(nodes[0].n_changes, 0);
	ok("a lone node that was stopped holds nothing until it has run again");
}

static void both_clocks(void)
{
	uint64_t sent;

	world(3);
	delay_ms = 50;
	play(LEASE);
	while (n_msgs > 0)
		play(1);
	isolate(2, true);
	swim(0, 2, true);
	sent = now;
	for (; held(2); play(1))
		check_int(nodes[0].n_downs, 0);
	check(now - sent <= LEASE, "%llu", (unsigned long long)(now - sent));
	for (sent = now; nodes[0].n_downs == 0; play(1))
		check(now - sent < LEASE, "in vain");
	check_int(now - sent, 50 + MARGIN);
	check_int(nodes[0].down.cause, LEASE_DEAD);
	check_int(nodes[0].down.epoch, 12);
	ok("the holder counts from sending, the leader from receipt and a "
	   "margin");
}

static void rounds_are_shared(void)
{
	world(5);
	memset(sent_of_kind, 0, sizeof(sent_of_kind));
	delay_ms = 20;
	play(4 * LEASE);
	check(sent_of_kind[LEASE_RENEWAL] >= 60 &&
		      sent_of_kind[LEASE_RENEWAL] <= 70,
	      "%u", sent_of_kind[LEASE_RENEWAL]);
	check(sent_of_kind[LEASE_CONFIRM] <= 2 * 17 * 4, "%u",
	      sent_of_kind[LEASE_CONFIRM]);
	check_int(sent_of_kind[LEASE_REFUSAL], 0);
	for (unsigned i = 0; i < 5; i++)
		check(held(i), "node %u", i);
	ok("one round serves all renewals that wait: %u rounds for %u",
	   sent_of_kind[LEASE_CONFIRM] / 4, sent_of_kind[LEASE_RENEWAL]);

	delay_ms = 200; /* a grant takes 800 ms: longer than lease / 4 */
	play(2 * LEASE);
	play(20 * LEASE);
	for (unsigned i = 0; i < 5; i++) {
		check(held(i), "node %u", i);
		check_int(nodes[i].n_changes, 0);
	}
	ok("a round trip longer than a period starves nobody");
}

/* ---- A. Leases ---- */

static void hole_1(void)
{
	world(3);
	isolate(2, true);
	swim(0, 2, true);
	play(2 * LEASE);
	check_int(nodes[0].n_downs, 1);
	apply_down(0, 2);
	apply_down(1, 2);
	isolate(2, false);
	swim(0, 2, false);
	play(LEASE);
	check(!held(2), "its log lags: it believes to be up");
	check_int(lease_refused(nodes[2].l), LEASE_NOT_UP);
	apply_down(2, 2);
	play(LEASE);
	check(!held(2), "down");
	check_int(nodes[2].n_renewals, 0);
	ok("holes 1: who was declared down is refused until it has applied "
	   "that");

	nodes[2].life.epoch = 30;
	apply_up(2, 2); /* here first */
	play(LEASE);
	check(!held(2), "the leader has not applied it yet");
	check_int(lease_refused(nodes[2].l), LEASE_NOT_UP);
	apply_up(0, 2);
	apply_up(1, 2);
	play(LEASE);
	check(held(2), "in the new epoch");
	ok("holes 1: it shows nothing before it has a lease for its new epoch");
}

static void hole_1_proposed(void)
{
	world(3);
	isolate(2, true);
	swim(0, 2, true);
	play(2 * LEASE);
	check_int(nodes[0].n_downs, 1);
	isolate(2, false);
	swim(0, 2, false);
	play(4 * LEASE);
	check(!held(2), "the down is on its way");
	check_int(lease_refused(nodes[2].l), LEASE_ENDING);
	check_int(nodes[0].n_downs, 0);
	ok("holes 1: from the proposal on the leader refuses");

	lease_entry_void(nodes[0].l, now, &nodes[2].life.id);
	play(LEASE);
	check(held(2), "granted again");
	check_int(nodes[0].n_downs, 0);
	ok("holes 1: a down that was not appended is no reason to refuse");

	isolate(2, true);
	swim(0, 2, true);
	play(2 * LEASE);
	check_int(nodes[0].n_downs, 1);
	lease_entry_void(nodes[0].l, now, &nodes[2].life.id);
	play(49);
	check_int(nodes[0].n_downs, 0);
	play(2 * LEASE);
	check_int(nodes[0].n_downs, 1);
	ok("a down that was not appended is asked for again");

	isolate(2, false);
	swim(0, 2, false);
	nodes[0].raft.is_mute = true; /* its disk stalls */
	set_raft(0);
	play(LEASE);
	nodes[0].raft.is_mute = false;
	set_raft(0);
	play(2 * LEASE);
	check(held(0) && held(1), "it is the same term's leader again");
	check(!held(2), "that down may still be committed");
	check_int(nodes[0].n_downs, 0);
	ok("holes 1: a leader that was mute for a while forgets no proposal");

	check_int(lease_may_leave(nodes[0].l, now, &nodes[1].life.id, 3, 99),
		  -ESTALE);
	check_int(lease_may_leave(nodes[0].l, now, &nodes[1].life.id, 3, 11),
		  0);
	check_int(lease_may_leave(nodes[0].l, now, &nodes[1].life.id, 3, 11),
		  -EAGAIN);
	play(2 * LEASE);
	check(!held(1), "it leaves");
	ok("a node whose leave is proposed is granted nothing more");
}

/* 0 leads and is stopped; meanwhile 1 is elected by 1 and 2, and declares 3
 * down. When 0 goes on it finds fresh renewals of 3, and nobody has told it. */
static void hole_2(bool is_cut)
{
	world(4);
	n_voters = 3;
	lead(0, 1, true);
	nodes[0].stopped = true;
	for (unsigned i = 1; i < 3; i++)
		follow(i, 1, 2, true);
	cut[3][1] = cut[3][2] = cut[1][3] = cut[2][3] = true;
	swim(1, 3, true);
	play(3 * LEASE);
	check_int(nodes[1].n_downs, 1);
	check(!held(3), "its lease is out");
	check(n_msgs > 4, "it asks 0 all along");
	apply_down(1, 3);
	apply_down(2, 3);
	nodes[0].stopped = false;
	if (is_cut)
		cut[0][1] = cut[0][2] = cut[1][0] = cut[2][0] = true;
	play(4 * LEASE);
	check(!held(3), "no majority confirms term 1 any more");
	/* Else its own renewals reach 1, by 2, who grants them. */
	check_int(held(0), !is_cut);
	check(held(1) && held(2), "the others have");
	check_int(nodes[0].n_downs, 0);
}

/* 0 leads, 2 is in another term, and 1 is played by hand. */
static void hole_2_order(void)
{
	struct lease_packet renewal = {
		.kind = LEASE_RENEWAL, .boot = 3, .epoch = 11, .number = 1000};
	struct lease_packet yes = {
		.kind = LEASE_CONFIRMED, .term = 1, .server = 101};

	world(3);
	isolate(1, true);
	nodes[2].raft.term = nodes[2].raft.durable_term = 2;
	set_raft(2);
	play(2 * LEASE);
	check(!held(0), "alone");
	nodes[1].n_grants = 0;
	renewal.id = nodes[1].life.id;
	yes.nonce = nodes[0].l->nonce;
	hear_packet(0, 1, &renewal);
	hear_packet(0, 1, &yes);
	check_int(nodes[1].n_grants, 0);
	yes.nonce = nodes[0].l->nonce;
	yes.server = 102;
	hear_packet(0, 1, &yes);
	check_int(nodes[1].n_grants, 0);
	yes.nonce = UINT64_MAX;
	yes.server = 101;
	hear_packet(0, 1, &yes);
	check_int(nodes[1].n_grants, 0);
	yes.nonce = nodes[0].l->nonce;
	yes.term = 2;
	hear_packet(0, 1, &yes);
	check_int(nodes[1].n_grants, 0);
	yes.term = 1;
	hear_packet(0, 1, &yes);
	check_int(nodes[1].n_grants, 1);
}

static void hole_2_voters(void)
{
	world(3);
	isolate(2, true);
	play(2 * LEASE);
	check(held(0) && held(1), "two of three");
	nodes[1].raft.term = 2; /* the disk has not written it yet */
	set_raft(1);
	play(2 * LEASE);
	check(!held(0) && !held(1), "1 is on its way to another term");
	ok("holes 2: a voter whose next term is on its way to the disk is "
	   "silent");

	world(3);
	isolate(2, true);
	nodes[1].raft.server = 999;
	nodes[1].raft.voters = voters;
	nodes[1].raft.n_voters = 3;
	lease_set_raft(nodes[1].l, now, &nodes[1].raft, &nodes[1].out);
	collect(1);
	play(2 * LEASE);
	check(!held(0), "21: its log was deleted; it is another server now");
	ok("holes 2, 21: a voter that lost its log confirms nothing in its old "
	   "name");

	world(3);
	isolate(2, true);
	nodes[1].raft.is_mute = true;
	set_raft(1);
	play(2 * LEASE);
	check(!held(0) && !held(1), "mute");
	check_int(nodes[1].n_sent, 0);
	ok("holes 2, 14: a voter whose disk failed confirms and renews no "
	   "more");

	world(4);
	isolate(2, true);
	isolate(3, true);
	play(2 * LEASE);
	check(!held(0) && !held(1), "two of four");
	isolate(2, false);
	play(LEASE);
	check(held(0) && held(1) && held(2), "three of four");
	ok("holes 2: half of the voters is no majority");
}

static void hole_2_first_down(void)
{
	uint64_t elected;

	world(3);
	swim(1, 0, true);
	swim(1, 2, true);
	isolate(0, true);
	play(10 * LEASE);
	elected = now;
	follow(1, 1, 2, true);
	follow(2, 1, 2, false);
	isolate(2, true);
	while (nodes[1].n_downs == 0) {
		play(1);
		check(now - elected <= LEASE + MARGIN, "in vain");
	}
	check_int(now - elected, LEASE + MARGIN);
	ok("holes 2: a new leader waits a lease and a margin from its "
	   "election");
}

static void hole_3(void)
{
	world(3);
	play(LEASE);
	swim(1, 2, true);
	isolate(2, true);
	follow(0, 1, 2, false);
	follow(1, 1, 2, false); /* elected, its barrier is not committed */
	hear(1, NULL, nodes[2].obituary, nodes[2].obituary_len);
	play(20 * LEASE);
	check(!held(0) && !held(1), "no grants");
	check_int(nodes[1].n_downs, 0);
	check_int(lease_may_come_up(nodes[1].l, now, &nodes[2].life), -EAGAIN);
	check_int(lease_may_leave(nodes[1].l, now, &nodes[0].life.id, 3, 10),
		  -EAGAIN);
	nodes[1].n_downs = 0;
	follow(1, 1, 2, true);
	check_int(nodes[1].n_downs, 1);
	check_int(nodes[1].down.cause, LEASE_PROOF);
	play(LEASE);
	check(held(0) && held(1), "granted");
	ok("holes 3: before its own barrier a leader neither grants nor "
	   "declares");
}

static void hole_5(void)
{
	world(2);
	lease_destroy(nodes[1].l);
	nodes[1].l = lease_create(&(struct lease_config){
		nodes[1].life.id, nodes[1].life.life, 3});
	lease_set_duration(nodes[1].l, 10 * LEASE); /* it is mistaken */
	lease_out_clear(&nodes[1].out);
	apply_up(1, 0);
	follow(1, 0, 1, false);
	apply_up(1, 1);
	play(10);
	check(held(1), "granted");
	isolate(1, true);
	play(LEASE + 1);
	check(!held(1), "by the grant's duration");
	ok("holes 5: a lease is as long as its grant says, whatever a node "
	   "believes");
}

static void hole_7(void)
{
	world(4);
	cut[2][0] = cut[0][2] = true;
	play(4 * LEASE);
	check(held(2), "by 1 and 3");
	check_int(nodes[2].n_changes, 0);
	check_int(nodes[0].n_downs, 0);
	ok("holes 7: a renewal reaches the leader by any member");

	cut[2][0] = false;
	play(4 * LEASE);
	check(held(2), "each answer goes back the way its renewal came");
	check_int(nodes[2].n_changes, 0);
	cut[2][0] = true;
	cut[0][2] = false;
	play(4 * LEASE);
	check(held(2), "either way");
	check_int(nodes[2].n_changes, 0);
	ok("holes 7: a way that works in one direction only does not stop "
	   "renewals");

	nodes[2].raft.leader = lease_nobody;
	set_raft(2);
	play(4 * LEASE);
	check(held(2), "others know the leader");
	ok("holes 7: who does not know the leader renews by those who do");

	isolate(2, true);
	play(10 * LEASE);
	check(!held(2), "out");
	check_int(nodes[0].n_downs, 0);
	play(2 * LEASE);
	check_int(nodes[0].n_downs, 1);
	check_int(nodes[0].down.cause, LEASE_SILENT);
	ok("holes 7: out for ten leases is down, though SWIM says alive");
}

static void stalled_leader(void)
{
	world(3);
	swim(0, 2, true); /* wrongly, or not: it is renewing */
	play(4 * LEASE);
	check_int(nodes[0].n_downs, 0);
	ok("holes 7: SWIM alone declares nobody down");

	nodes[0].stopped = true;
	n_msgs = 0;
	cut[1][0] = cut[2][0] = true;
	play(12 * LEASE);
	cut[1][0] = cut[2][0] = false;
	nodes[0].stopped = false;
	play(LEASE);
	check_int(nodes[0].n_downs, 0);
	check(held(1) && held(2), "again");
	ok("a leader that was stopped concludes nothing from what it missed");
}

static void own_stall(void)
{
	world(3);
	nodes[2].stopped = true;
	play(LEASE - LEASE / 4 - 1);
	check(held(2), "not yet");
	play(LEASE / 4 + 1);
	check(!held(2), "exact without a tick");
	now += 3600000; /* suspended: CLOCK_BOOTTIME jumps */
	check(!held(2), "still");
	ok("holes 6: after a stop or a suspend the lease is out before "
	   "anything is "
	   "served");
}

static void hole_26(void)
{
	uint64_t ttl = 10000, received = 5000;

	check_int(lease_out_ms(received, 0, ttl), 16001);
	check_int(lease_out_ms(received, 7000, ttl), 18001);
	check_int(lease_out_ms(0, 0, 1), 3);
	check_int(lease_out_ms(0, 0, UINT32_MAX), 4724464026LL);
	/* It asks for no death: there is nothing in it that could shorten. */
	ok("holes 26: ttl and margin after the last renewal, or the leader's "
	   "barrier");
}

static void hole_30(void)
{
	struct calm c = {0};

	check(calm_due_ms(&c, 500) == UINT64_MAX, "nothing came");
	calm_note(&c, 1000);
	check_int(calm_due_ms(&c, 500), 1500);
	calm_note(&c, 1400);
	check_int(calm_due_ms(&c, 500), 1900);
	for (uint64_t t = 1800; t < 3500; t += 100)
		calm_note(&c, t);
	check_int(calm_due_ms(&c, 500), 3500);
	calm_clear(&c);
	check(calm_due_ms(&c, 500) == UINT64_MAX, "done");
	calm_note(&c, 9000);
	check_int(calm_due_ms(&c, 0), 9000);
	ok("holes 30: calm is for joins; at most five times in all");
}

int main(void)
{
	alone();
	both_clocks();
	rounds_are_shared();
	hole_1();
	hole_1_proposed();
	hole_2(false);
	hole_2(true);
	ok("holes 2: a deposed leader grants nothing, to itself neither");
	hole_2_order();
	ok("holes 2: only answers to a round begun after the renewal count");
	hole_2_voters();
	hole_2_first_down();
	hole_3();
	hole_5();
	hole_7();
	stalled_leader();
	own_stall();
	hole_26();
	hole_30();
	world_end();
	free(msgs);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* Proof of death: obituaries and newer boots; and the messages' bytes. Each
 * name begins with the number of the sequence in holes.md that it plays. */
#include "ring/lease.h"

#include "tests/unit/lease_rig.h"

/* ---- B. Proof ---- */

static void hole_10(void)
{
	uint8_t old[MSG_MAX];
	size_t len;

	world(3);
	len = nodes[2].obituary_len;
	memcpy(old, nodes[2].obituary, len);
	play(LEASE);
	check_int(hear(0, NULL, old, len), 0);
	play(LEASE);
	check_int(nodes[0].n_downs, 0);
	check(held(2), "it lives");
	ok("holes 10: an old herald's obituary counts less than a later "
	   "renewal");

	hear(2, NULL, nodes[2].obituary, nodes[2].obituary_len);
	play(LEASE);
	check_int(nodes[0].n_downs, 0);
	ok("holes 10: a daemon does not pass on its own obituary");
}

static void hole_11(void)
{
	struct lease_packet p;
	struct buf b = {0};

	world(3);
	/* The order: what the herald has is never behind what was sent. */
	check_int(lease_decode(nodes[2].obituary, nodes[2].obituary_len, &p),
		  0);
	check_int(p.kind, LEASE_OBITUARY);
	check_int(p.epoch, 12);
	n_msgs = 0;
	delay_ms = 1;
	lease_tick(nodes[2].l, now += LEASE / 4 + 1, &nodes[2].out);
	collect(2);
	struct lease_packet renewal;

	check(n_msgs > 0, "it renews");
	check_int(lease_decode(msgs[0].bytes, msgs[0].len, &renewal), 0);
	check_int(lease_decode(nodes[2].obituary, nodes[2].obituary_len, &p),
		  0);
	check(p.number >= renewal.number, "%llu, %llu",
	      (unsigned long long)p.number, (unsigned long long)renewal.number);
	ok("holes 11: the obituary for a grant is handed over before its "
	   "renewal");

	play(LEASE);
	check_int(lease_decode(nodes[2].obituary, nodes[2].obituary_len, &p),
		  0);
	for (int i = 0; i < 2; i++) {
		struct lease_packet lie = p;

		if (i == 0)
			lie.boot--;
		else
			lie.epoch--;
		b.len = 0;
		lease_encode(&b, &lie);
		check_int(hear(0, NULL, b.base, b.len), 0);
		play(LEASE);
		check_int(nodes[0].n_downs, 0);
	}
	free(b.base);
	ok("holes 11: an obituary of another life has no effect");

	isolate(2, true); /* killed */
	nodes[0].n_downs = 0;
	check_int(hear(0, NULL, nodes[2].obituary, nodes[2].obituary_len), 0);
	check_int(nodes[0].n_downs, 1);
	check_int(nodes[0].down.boot, 3);
	check_int(nodes[0].down.epoch, 12);
	check_int(nodes[0].down.cause, LEASE_PROOF);
	ok("holes 30: with proof neither lease nor SWIM nor calm is waited "
	   "for");

	apply_down(0, 2);
	nodes[2].life.epoch = 40;
	apply_up(0, 2);
	play(1);
	check_int(hear(0, NULL, nodes[2].obituary, nodes[2].obituary_len), 0);
	play(LEASE / 2);
	check_int(nodes[0].n_downs, 0);
	ok("holes 11: a replayed obituary does not end the next life");
}

static void hole_12(void)
{
	struct lease_life next;

	world(3);
	next = nodes[2].life;
	check_int(lease_may_come_up(nodes[0].l, now, &next), -EALREADY);
	next.boot = 4;
	next.life.byte[0] = 4;
	next.host[5] = 1; /* another machine, or address */
	check_int(lease_may_come_up(nodes[0].l, now, &next), -EAGAIN);
	play(10 * LEASE);
	check_int(lease_may_come_up(nodes[0].l, now, &next), -EAGAIN);
	check(held(2), "the living one is not harmed");
	next.boot = 3;
	check_int(lease_may_come_up(nodes[0].l, now, &next), -ESTALE);
	ok("holes 12: a copied state's newer boot does not end the living one");

	next.boot = 4;
	isolate(2, true);
	play(LEASE);
	check_int(lease_may_come_up(nodes[0].l, now, &next), -EAGAIN);
	play(2 * MARGIN);
	check_int(lease_may_come_up(nodes[0].l, now, &next), 0);
	ok("holes 12: elsewhere it may come up when the old lease is out");

	isolate(2, false);
	play(2 * LEASE);
	check(!held(2), "the entry that ends it is on its way");
	next.boot = 5;
	memcpy(next.host, nodes[2].life.host, sizeof(next.host));
	check_int(lease_may_come_up(nodes[0].l, now, &next), -EAGAIN);
	lease_entry_void(nodes[0].l, now, &next.id);
	check_int(lease_may_come_up(nodes[0].l, now, &next), 0);
	ok("holes 12: one life at a time; a newer boot on the same host is "
	   "proof");

	world(3);
	next = nodes[2].life;
	next.boot = 4;
	memset(next.host, 0, sizeof(next.host));
	memset(nodes[2].life.host, 0, sizeof(next.host));
	all_apply_up(2, 50); /* in a machine that knows no hosts */
	play(LEASE);
	check_int(lease_may_come_up(nodes[0].l, now, &next), -EAGAIN);
	next = nodes[2].life;
	next.life.byte[3] = 9;
	check_int(lease_may_come_up(nodes[0].l, now, &next), -ESTALE);
	ok("holes 12: unknown hosts are never the same; one boot, two lives: "
	   "copied");

	start(1, 3); /* the copy hears of a life that looks like its own */
	nodes[1].life.life.byte[0] = 77;
	all_apply_up(1, 60);
	follow(1, 0, 1, false);
	play(LEASE);
	check_int(nodes[1].n_renewals, 0);
	check(!held(1), "not its life");
	ok("holes 12: a copy does not take the original's life for its own");
}

static void own_restart(void)
{
	world(1);
	nodes[0].raft.is_leader = nodes[0].raft.is_ready = false;
	struct lease_life old = nodes[0].life;

	start(0, 4);
	memset(nodes[0].life.host, 9, sizeof(old.host)); /* rebooted */
	lease_on_up(nodes[0].l, now, &old, &nodes[0].out);
	collect(0);
	follow(0, 0, 2, true);
	check(!held(0), "that is another life");
	check_int(lease_may_come_up(nodes[0].l, now, &nodes[0].life), 0);
	all_apply_up(0, 20);
	check(held(0), "at once");
	ok("a sole voter follows its own former life at once, rebooted or not");
}

static void hole_13(void)
{
	world(5);
	play(LEASE);
	nodes[4].stopped = true; /* killed; its herald reaches only 3 */
	cut[3][0] = cut[0][3] = true;
	check_int(hear(3, NULL, nodes[4].obituary, nodes[4].obituary_len), 0);
	play(LEASE / 2);
	check_int(nodes[0].n_downs, 0);
	/* 1 is elected: 3 tells it at once. */
	for (unsigned i = 0; i < 4; i++)
		follow(i, 1, 2, true);
	play(1);
	check_int(nodes[1].n_downs, 1);
	check_int(nodes[1].down.cause, LEASE_PROOF);
	/* That down is lost with its leader. */
	for (unsigned i = 0; i < 4; i++)
		follow(i, 2, 3, true);
	play(1);
	check_int(nodes[2].n_downs, 1);
	for (unsigned i = 0; i < 4; i++)
		apply_down(i, 4);
	memset(sent_of_kind, 0, sizeof(sent_of_kind));
	for (unsigned i = 0; i < 4; i++)
		follow(i, 0, 4, true);
	play(4 * LEASE);
	check_int(sent_of_kind[LEASE_OBITUARY], 0);
	ok("holes 13: an obituary goes to each new leader until the down is "
	   "applied");

	world(3);
	check_int(hear(1, NULL, nodes[0].obituary, nodes[0].obituary_len), 0);
	nodes[1].leader_died = false;
	check_int(hear(1, NULL, nodes[0].obituary, nodes[0].obituary_len), 0);
	check(!nodes[1].leader_died, "said once");
	check_int(hear(2, NULL, nodes[1].obituary, nodes[1].obituary_len), 0);
	check(!nodes[2].leader_died, "not the leader");
	check_int(hear(2, NULL, nodes[0].obituary, nodes[0].obituary_len), 0);
	check(nodes[2].leader_died, "that is the leader's");
	ok("holes 19: an obituary of the leader is told, once");
}

static void unknown_obituaries(void)
{
	struct lease_packet p = {.kind = LEASE_OBITUARY,
				 .id.byte = {9},
				 .boot = 1,
				 .epoch = 500,
				 .number = 1};
	struct buf b = {0};

	world(2);
	for (unsigned i = 0; i < LEASE_OBITS_MAX; i++, p.boot++) {
		b.len = 0;
		lease_encode(&b, &p);
		check_int(hear(0, NULL, b.base, b.len), 0);
	}
	b.len = 0;
	lease_encode(&b, &p);
	check_int(hear(0, NULL, b.base, b.len), -ENOSPC);
	play(60001);
	check_int(hear(0, NULL, b.base, b.len), 0);
	free(b.base);
	ok("obituaries of nobody known are few, and forgotten in time");
}

static void grace(void)
{
	world(3);
	nodes[2].life.grace_ms = 5000;
	all_apply_up(2, 20);
	play(LEASE);
	isolate(2, true);
	swim(0, 2, true);
	hear(0, NULL, nodes[2].obituary, nodes[2].obituary_len);
	play(4999);
	check_int(nodes[0].n_downs, 0);
	play(1);
	check_int(nodes[0].n_downs, 1);
	ok("a grace for restarts is waited for, by proof and by lease");
}

/* ---- Bytes ---- */

static void wire(void)
{
	static const size_t sizes[LEASE_N_KINDS] = {0, 42, 46, 43, 17, 25, 41};

	for (unsigned kind = 1; kind < LEASE_N_KINDS; kind++) {
		struct lease_packet p = {.kind = (enum lease_kind)kind,
					 .hops = 1,
					 .why = LEASE_ENDING,
					 .id.byte = {1, 2, 3},
					 .boot = 4,
					 .epoch = 5,
					 .number = 6,
					 .duration_ms = LEASE_MS_MAX,
					 .term = 8,
					 .nonce = 9,
					 .server = 10};
		struct lease_packet got;
		struct buf b = {0};

		lease_encode(&b, &p);
		check_int(b.len, sizes[kind]);
		check_int(lease_decode(b.base, b.len, &got), 0);
		check_int(got.kind, kind);
		for (size_t len = 0; len < b.len; len++)
			check_int(lease_decode(b.base, len, &got), -EBADMSG);
		buf_u8(&b, 0);
		check_int(lease_decode(b.base, b.len, &got), -EBADMSG);
		free(b.base);
	}
	ok("wire: each kind is read as written, and neither shorter nor "
	   "longer");
}

static void refuse(struct lease_packet p, const struct ring_id *from)
{
	struct buf b = {0};

	lease_encode(&b, &p);
	check_int(hear(0, from, b.base, b.len), -EBADMSG);
	free(b.base);
}

static void wire_lies(void)
{
	struct lease_packet good = {.kind = LEASE_RENEWAL,
				    .boot = 3,
				    .epoch = 11,
				    .number = 1},
			    p;

	world(2);
	good.id = nodes[1].life.id;
	for (unsigned i = 0; i < 8; i++) {
		p = good;
		p.kind = i < 3 ? LEASE_RENEWAL : LEASE_GRANT;
		p.duration_ms = 1;
		if (i == 0)
			p.epoch = 0;
		if (i == 1)
			p.number = 0;
		if (i == 2)
			p.hops = 2;
		if (i == 3)
			p.duration_ms = 0;
		if (i == 4)
			p.duration_ms = LEASE_MS_MAX + 1;
		if (i >= 5)
			p.kind = LEASE_REFUSAL;
		if (i == 5)
			p.why = 0;
		if (i == 6)
			p.why = LEASE_N_WHY;
		if (i == 7)
			p.kind = LEASE_N_KINDS;
		refuse(p, &nodes[1].life.id);
	}
	refuse(good, NULL);
	refuse(good, &nodes[0].life.id);
	good.id = nodes[0].life.id;
	refuse(good, &nodes[1].life.id);
	ok("wire: what is out of range, or not from whom it says, is refused");

	/* Grants for what was never asked, or long ago, or by another life. */
	play(LEASE / 4);
	isolate(1, true);
	play(2 * LEASE);
	p = (struct lease_packet){.kind = LEASE_GRANT,
				  .id = nodes[1].life.id,
				  .boot = 3,
				  .epoch = 11,
				  .number = nodes[1].l->number + SENT_MAX,
				  .duration_ms = LEASE};
	for (unsigned i = 0; i < 4; i++) {
		struct buf b = {0};

		lease_encode(&b, &p);
		check_int(hear(1, &nodes[0].life.id, b.base, b.len), 0);
		free(b.base);
		check(!held(1), "grant %u", i);
		p.number = nodes[1].l->number;
		if (i == 0)
			p.number -= SENT_MAX;
		p.boot = i == 1 ? 2 : 3;
		p.epoch = i == 2 ? 10 : 11;
	}
	ok("a grant that answers none of this life's renewals has no effect");
}
int main(void)
{
	hole_10();
	hole_11();
	hole_12();
	own_restart();
	hole_13();
	unknown_obituaries();
	grace();
	wire();
	wire_lies();
	world_end();
	free(msgs);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* The key machine, one behaviour at a time; keyset_rig.h says how to read the
 * traces. */
#include <errno.h>

#include "tests/unit/keyset_rig.h"

/* ---- Operations ---- */

static void test_claim(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 2);
	char longest[300];
	struct ring_op big = {.type = RING_CLAIM, .name = "big"};

	check_int(op(g, 0, RING_CLAIM, g->mine), 0);
	trace_is(g, "mine gone -> held@0 claimed t3 a0 f-\n");
	check_int(g->answer.id, 3);
	check_int(g->answer.token, 3);
	check_int(op(g, 0, RING_CLAIM, g->mine), -EEXIST);
	check_int(g->answer.id, 3);
	check_int(op(g, 1, RING_CLAIM, g->mine), -EEXIST);
	check_int(op(g, 0, RING_CLAIM, g->his), -EREMOTE);
	check_int(g->answer.id, 0);
	trace_is(g, "");
	ok("claims=owner: the ring owner holds what it claims, once");

	check_int(op(g, 0, RING_CLAIM, ""), -EINVAL);
	check_int(op(g, 0, RING_CLAIM, ".x"), -EINVAL);
	check_int(op(g, 0, RING_CLAIM, "a/b"), -EINVAL);
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	check_int(op(g, 0, RING_CLAIM, longest), -ENAMETOOLONG);
	big.note_len = RING_NOTE_MAX + 1;
	big.note = xcalloc(1, big.note_len);
	check_int(ask(g, 0, &big), -EFBIG);
	free((void *)(uintptr_t)big.note);
	check_int(count(g, RING_VIEW_KEYS, 0), 1);
	ok("bad names and long notes are refused");
	rig_free(g);

	g = rig_new(RING_CLAIMS_ANY, 2);
	check_int(op(g, 0, RING_CLAIM, g->his), 0);
	trace_is(g, "his gone -> held@0 claimed t3 a0 f-\n");
	check_int(op(g, 1, RING_CLAIM, g->his), -EEXIST);
	longest[RING_NAME_MAX] = '\0';
	check_int(op(g, 1, RING_CLAIM, longest), 0);
	check_int(count(g, RING_VIEW_OWNED, 1), 1);
	ok("claims=any: whoever comes first holds");
	rig_free(g);
}

static void test_submit(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 2);
	struct ring_op note = {.type = RING_NOTE, .note = "hello"};

	check_int(op(g, 0, RING_SUBMIT, g->his), 0);
	trace_is(g, "his gone -> sub-offered@1 submitted t3 a0 f-\n");
	check_int(op(g, 1, RING_CLAIM, g->his), -EEXIST);
	check_int(op(g, 1, RING_TAKE, g->his), -ENOENT);
	check_int(op(g, 1, RING_FINISH, g->his), -EREMOTE);
	check_int(op(g, 1, RING_OFFER, g->his), -ENOENT);
	note.name = g->his;
	note.note_len = 5;
	check_int(ask(g, 1, &note), -ENOENT);
	check_int(ask(g, 0, &note), 0);
	check_int(op(g, 0, RING_OFFER, g->his), 0);
	trace_is(g, "his sub-offered@1 -> offered@1 submitted t3 a0 f-\n");
	check_int(op(g, 0, RING_OFFER, g->his), -ENOENT);
	check_int(op(g, 0, RING_FINISH, g->his), -EREMOTE);
	check_int(op(g, 1, RING_TAKE, g->his), 0);
	trace_is(g, "his offered@1 -> held@1 submitted t4 a1 f-\n");
	check_int(find(g, g->his)->note_len, 5);
	check_int(find(g, g->his)->claimer, 0);
	ok("a submission is offered to the ring owner when it is complete");

	check_int(op(g, 0, RING_SUBMIT, g->mine), 0);
	check_int(op(g, 0, RING_FINISH, g->mine), 0);
	check_int(op(g, 0, RING_SUBMIT, g->mine), 0);
	restart(g, 0, 100);
	trace_is(g, "mine sub-offered@0 -> offered@0 submitted t6 a0 f-\n");
	check_int(op(g, 0, RING_SUBMIT, "other"), 0);
	down(g, 0, RING_DEAD);
	check(strstr(g->trace, "other sub-offered@") != NULL &&
		      !find(g, "other")->submitting,
	      "got:\n%s", g->trace);
	ok("a submission whose node dies is offered");
	rig_free(g);
}

static void test_take_give(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 1);
	static const uint32_t backoff[] = {1000, 1000};

	check_int(op(g, 0, RING_CLAIM, g->mine), 0);
	for (int i = 0; i < MAX_ATTEMPTS; i++) {
		check_int(op(g, 0, RING_GIVE, g->mine), 0);
		check_int(find(g, g->mine)->backoff_ms, backoff[i]);
		check_int(op(g, 0, RING_GIVE, g->mine), -ENOENT);
		check_int(op(g, 0, RING_TAKE, g->mine), 0);
		check_int(find(g, g->mine)->backoff_ms, 0);
		check_int(op(g, 0, RING_TAKE, g->mine), -ENOENT);
	}
	check_int(op(g, 0, RING_GIVE, g->mine), 0);
	trace_is(g, "mine held@0 -> parked@- given-back t5 a2 f0\n");
	check_int(count(g, RING_VIEW_PARKED, 0), 1);
	check_int(op(g, 0, RING_RETRY, g->mine), 0);
	trace_is(g, "mine parked@- -> offered@0 retried t6 a0 f0\n");
	check_int(op(g, 0, RING_RETRY, g->mine), -ENOENT);
	ok("a key given back is offered after a back-off, then parked");

	check_int(op(g, 0, RING_PARK, g->mine), 0);
	trace_is(g, "mine offered@0 -> parked@- retried t7 a0 f0\n");
	check_int(op(g, 0, RING_PARK, g->mine), -ENOENT);
	check_int(op(g, 0, RING_FINISH, g->mine), 0);
	trace_is(g, "mine parked@- -> gone retried t7 a0 f0\n");
	check_int(g->answer.token, 7);
	check(find(g, g->mine) == NULL, "it is gone");
	check_int(op(g, 0, RING_FINISH, g->mine), -ENOENT);
	check_int(g->answer.token, 0);
	check_int(op(g, 0, RING_CLAIM, g->mine), 0);
	check(find(g, g->mine)->token > 7, "no token of a former life");
	ok("parked keys are discarded or tried again, and tokens only rise");
	rig_free(g);
}

static void test_backoff(void)
{
	struct rig *g = xcalloc(1, sizeof(*g));
	struct keyset_events none = {.on_answer = on_answer, .data = g};
	struct ring_settings s = {.vnodes = 16, .max_attempts = 65535};
	uint32_t wanted = 1000;

	g->k = keyset_create(&none);
	entry(g);
	keyset_put_settings(&g->e, &g->me[0].id, &s);
	check_int(apply(g), 0);
	restart(g, 0, 1);
	check_int(op(g, 0, RING_SUBMIT, "k"), 0);
	check_int(op(g, 0, RING_OFFER, "k"), 0);
	for (int i = 0; i < 70; i++) {
		check_int(op(g, 0, RING_TAKE, "k"), 0);
		check_int(op(g, 0, RING_GIVE, "k"), 0);
		check_int(find(g, "k")->backoff_ms, wanted);
		wanted = 2 * wanted < 60000 ? 2 * wanted : 60000;
	}
	ok("the back-off doubles from 1 s and stops at 60 s");
	rig_free(g);
}

static void test_ids(void)
{
	static const enum ring_op_type types[] = {
		RING_OFFER, RING_NOTE, RING_TAKE,  RING_GIVE,
		RING_PARK,  RING_LET,  RING_RETRY, RING_FINISH};
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 1);
	struct ring_op o = {.name = g->mine};

	check_int(op(g, 0, RING_CLAIM, g->mine), 0);
	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		o.type = types[i];
		o.id = find(g, g->mine)->id + 1;
		o.token = 0;
		check_int(ask(g, 0, &o), -ENOENT);
		o.id = 0;
		o.token = find(g, g->mine)->token + 1;
		check_int(ask(g, 0, &o), -ENOENT);
		trace_is(g, "");
	}
	o.id = o.token = find(g, g->mine)->id;
	check_int(ask(g, 0, &o), 0);
	ok("another life or token is ENOENT, the right one is not");
	rig_free(g);
}

static void test_moves(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 1);
	size_t n_all, n_release;
	const uint64_t *ids;
	char name[16];

	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		check_int(op(g, 0, RING_CLAIM, name), 0);
	}
	restart(g, 1, 100);
	n_all = count(g, RING_VIEW_OWNED, 0);
	ids = keyset_list(g->k, RING_VIEW_RELEASE, 0, &n_release);
	check_int(n_all, 100);
	check_int(g->n_keys, n_release);
	check(n_release > 20 && n_release < 80, "%zu asked for", n_release);
	snprintf(name, sizeof(name), "%s", keyset_find_id(g->k, ids[0])->name);
	check_int(op(g, 1, RING_LET, name), -ENOENT);
	check_int(op(g, 0, RING_LET, name), 0);
	check_int(find(g, name)->holder, 1);
	check_int(find(g, name)->reason, RING_MOVED);
	check_int(find(g, name)->from, 0);
	check_int(find(g, name)->token, g->answer.token);
	check_int(op(g, 0, RING_LET, name), -ENOENT);
	check_int(op(g, 0, RING_FINISH, name), -EREMOTE);
	check_int(count(g, RING_VIEW_RELEASE, 0), n_release - 1);
	ok("claims=owner: a join asks for keys, and they move when let go");

	down(g, 1, RING_LEFT);
	check_int(count(g, RING_VIEW_RELEASE, 0), 0);
	check_int(find(g, name)->holder, 0);
	check_int(find(g, name)->reason, RING_LEFT);
	check_int(g->n_keys, n_release);
	ok("a vnode that comes back is asked for no more");
	rig_free(g);

	g = rig_new(RING_CLAIMS_ANY, 1);
	check_int(op(g, 0, RING_CLAIM, "a"), 0);
	for (int i = 1; i < MAX_NODES; i++)
		restart(g, i, 100);
	check_int(g->n_keys, 0);
	ok("claims=any: nobody is asked to let go");
	rig_free(g);
}

static void asked_for_if_moved(const struct rig *g, const char *name)
{
	const struct ring_key *key = find(g, name);

	check_int(key->state,
		  keyset_vnode_owner(g->k, key->vnode) == key->holder
			  ? RING_HELD
			  : RING_RELEASING);
}

static void test_share(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 2);

	check_int(op(g, 0, RING_CLAIM, g->mine), 0);
	check_int(op(g, 1, RING_CLAIM, g->his), 0);
	share(g, 0, 100, true);
	trace_is(g, "mine held@0 -> releasing@0 claimed t3 a0 f-\n");
	check_int(keyset_node(g->k, 0)->n_vnodes, 0);
	check_int(op(g, 0, RING_CLAIM, "any"), -EREMOTE);
	check_int(g->n_nodes, 0);
	share(g, 0, 100, true);
	trace_is(g, "");
	share(g, 0, 100, false);
	check_int(keyset_node(g->k, 0)->n_vnodes, N_VNODES / 2);
	/* Which of the vnodes come back is the plan's. */
	asked_for_if_moved(g, g->mine);
	asked_for_if_moved(g, g->his);
	ok("a drain asks for what is held, resuming for what then has moved");

	share(g, 1, 300, false);
	check_int(keyset_node(g->k, 0)->n_vnodes, N_VNODES / 4);
	g->me[1].epoch++;
	share(g, 1, 100, false);
	check_int(keyset_node(g->k, 1)->weight, 300);
	g->me[1].epoch--;
	ok("a share counts as its weight, and not another life's");

	share(g, 0, 0, false);
	share(g, 1, 0, false);
	check_int(op(g, 0, RING_SUBMIT, "s"), 0);
	check_int(find(g, "s")->holder, RING_NONE);
	share(g, 0, 1, false);
	check_int(find(g, "s")->holder, 0);
	check(find(g, "s")->submitting, "by whom, who lives");
	ok("what had no heir goes to the first who wants a share");

	share(g, 0, 1, true);
	check(keyset_node(g->k, 0)->is_draining, "it drains");
	restart(g, 0, 100);
	check(!keyset_node(g->k, 0)->is_draining, "as it says");
	check_int(keyset_most_up(g->k), 2);
	down(g, 0, RING_DEAD);
	check_int(keyset_most_up(g->k), 2);
	restart(g, 2, 100);
	check_int(keyset_most_up(g->k), 2);
	restart(g, 0, 100);
	check_int(keyset_most_up(g->k), 3);
	ok("a restart drains no more; the most that were up are remembered");
	rig_free(g);
}

/* ---- Once ---- */

static void test_once(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 1);
	struct ring_op ops[] = {{.type = RING_CLAIM, .name = "a"},
				{.type = RING_CLAIM, .name = "b"},
				{.type = RING_CLAIM, .name = "a"}};
	struct keyset_origin o = g->me[0];

	check_int(ask_all(g, &o, ops, 3), 0);
	check_int(g->n_keys, 2);
	check_int(g->n_ops, 3);
	check_int(g->answer.rc, -EEXIST);
	for (int i = 0; i < 3; i++) {
		check_int(ask_all(g, &o, ops, 3), 0);
		check_int(g->n_keys, 0);
		check_int(g->n_ops, 3);
		check_int(g->answer.rc, -EEXIST);
		check_int(g->answer.id, 2);
	}
	ok("holes 25: a repeat is answered as before, and has no effect");

	o.seq = 10;
	o.floor = 5;
	ops[0].type = RING_FINISH;
	check_int(ask_all(g, &o, ops, 1), 0);
	check_int(g->n_keys, 1);
	o.seq = 4;
	o.floor = 1;
	check_int(ask_all(g, &o, ops + 1, 1), -ESTALE);
	check_int(g->n_ops, 0);
	o.seq = 5 + KEYSET_WINDOW;
	check_int(ask_all(g, &o, ops + 1, 1), -EAGAIN);
	o.seq--;
	check_int(ask_all(g, &o, ops + 1, 1), 0);
	o.seq = o.floor = 1ull << 62;
	check_int(ask_all(g, &o, ops + 1, 1), 0);
	ok("holes 25: below the floor is ESTALE, above the window EAGAIN");

	o.boot++;
	check_int(ask_all(g, &o, ops, 1), -ENOTCONN);
	o.boot -= 2;
	check_int(ask_all(g, &o, ops, 1), -ESTALE);
	o.boot++;
	o.epoch++;
	check_int(ask_all(g, &o, ops, 1), -ENOTCONN);
	check_int(ask_all(g, &g->me[1],
			  &(struct ring_op){.type = RING_CLAIM, .name = "x"},
			  1),
		  -ENOTCONN);
	ok("holes 11: another life than the one that is up is refused");
	rig_free(g);
}

static void test_once_memory(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 1);
	struct keyset_origin o = g->me[0];
	size_t n = RING_OPS_MAX;
	struct ring_op *ops = xcalloc(n, sizeof(*ops));

	for (size_t i = 0; i < n; i++)
		ops[i] = (struct ring_op){.type = RING_TAKE, .name = "absent"};
	for (size_t sum = n; sum <= KEYSET_ANSWERS_MAX; sum += n) {
		check_int(ask_all(g, &o, ops, n), 0);
		o.seq++;
	}
	check_int(ask_all(g, &o, ops, n), -EAGAIN);
	o.floor = 2;
	check_int(ask_all(g, &o, ops, n), 0);
	ok("the answers kept are bounded, and a higher floor makes room");
	free(ops);
	rig_free(g);
}

/* ---- Nodes ---- */

static void test_restart(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 1);
	struct keyset_origin old = g->me[0];

	check_int(op(g, 0, RING_CLAIM, "held"), 0);
	check_int(op(g, 0, RING_CLAIM, "back"), 0);
	check_int(op(g, 0, RING_GIVE, "back"), 0);
	check_int(op(g, 0, RING_CLAIM, "parked"), 0);
	check_int(op(g, 0, RING_PARK, "parked"), 0);
	restart(g, 0, 100);
	trace_is(g, "held held@0 -> offered@0 restart t6 a0 f0\n");
	check_int(g->n_nodes, 1);
	check_int(find(g, "back")->backoff_ms, 1000);
	check_int(find(g, "back")->reason, RING_GIVEN_BACK);
	check_int(keyset_node(g->k, 0)->n_keys, 2);
	ok("a node that restarts is offered what it held, once");

	old.seq = 9;
	check_int(ask_all(g, &old,
			  &(struct ring_op){.type = RING_TAKE, .name = "held"},
			  1),
		  -ESTALE);
	check_int(op(g, 0, RING_TAKE, "held"), 0);
	trace_is(g, "held offered@0 -> held@0 restart t7 a1 f0\n");
	ok("holes 11, 25: its former life is refused, and sequence numbers "
	   "begin anew");
	rig_free(g);
}

/* Half of its vnodes move to another; then it restarts while it is up. */
static void test_restart_moved(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 1);

	for (int i = 0; i < 40; i++) {
		char name[16];

		snprintf(name, sizeof(name), "m%d", i);
		check_int(op(g, 0, RING_CLAIM, name), 0);
	}
	restart(g, 1, 100);
	check(count(g, RING_VIEW_RELEASE, 0) > 0, "some have moved");
	restart(g, 0, 100);
	check_int(count(g, RING_VIEW_OWNED, 0), 0);
	check_int(count(g, RING_VIEW_RECOVER, 0), 40);
	check_int(count(g, RING_VIEW_RECOVER, 1), 0);
	ok("a node that is back at once is offered all that it held");
	for (int i = 0; i < 40; i++) {
		char name[16];

		snprintf(name, sizeof(name), "m%d", i);
		const struct ring_key *key = find(g, name);
		bool moved = keyset_vnode_owner(g->k, key->vnode) != 0;

		check_int(key->reason, RING_RESTART);
		check_int(op(g, 0, RING_TAKE, name), 0);
		check_int(key->state, moved ? RING_RELEASING : RING_HELD);
	}
	check(count(g, RING_VIEW_RELEASE, 0) > 0, "asked for");
	ok("what it takes in a vnode that has moved is asked for at once");
	rig_free(g);
}

static void test_names(void)
{
	struct rig *g = rig_new(RING_CLAIMS_ANY, 2);
	struct keyset_up u = up_of(g, 1);

	g->me[2].boot = 1;
	u.id = g->me[2].id;
	check_int(up(g, 2, &u), -EEXIST);
	check_int(keyset_find_node(g->k, &u.id), RING_NONE);
	down(g, 1, RING_DEAD);
	check_int(up(g, 2, &u), 0);
	u = up_of(g, 1);
	check_int(up(g, 1, &u), -EEXIST);
	ok("of the nodes that are up, no two have a name");
	rig_free(g);
}

static void test_up(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 2);
	struct keyset_up u = up_of(g, 0);
	uint64_t epoch = g->me[0].epoch;

	check_int(up(g, 0, &u), 0);
	check_int(g->n_nodes, 0);
	check_int(g->me[0].epoch, epoch);
	u.life.byte[5] = 1;
	check_int(up(g, 0, &u), -ESTALE);
	u.boot--;
	check_int(up(g, 0, &u), -ESTALE);
	u.boot += 2;
	u.name = "a/b";
	check_int(up(g, 0, &u), -EINVAL);
	u.name = "";
	check_int(up(g, 0, &u), -EINVAL);
	check_int(keyset_node(g->k, 0)->epoch, epoch);
	ok("holes 12: a boot that was seen is refused, and the same life has "
	   "no "
	   "effect");

	check_int(op(g, 0, RING_CLAIM, g->mine), 0);
	down(g, 0, RING_DEAD);
	trace_is(g, "mine held@0 -> offered@1 dead t4 a0 f0\n");
	check_int(keyset_node(g->k, 0)->n_vnodes, 0);
	check_int(keyset_node(g->k, 1)->n_vnodes, N_VNODES);
	check_int(keyset_epoch(g->k), g->index);
	g->me[0].seq = 1;
	g->me[0].floor = 1;
	check_int(ask_all(g, &g->me[0],
			  &(struct ring_op){.type = RING_CLAIM, .name = "x"},
			  1),
		  -ENOTCONN);
	u = up_of(g, 0);
	check_int(up(g, 0, &u), 0);
	check_int(g->me[0].epoch, g->index);
	check_int(op(g, 0, RING_TAKE, g->mine), -ENOENT);
	check_int(op(g, 1, RING_TAKE, g->mine), 0);
	ok("holes 1: a node declared down works again after a new up, in a new "
	   "epoch");
	rig_free(g);
}

static void test_down(void)
{
	struct rig *g = rig_new(RING_CLAIMS_OWNER, 2);

	g->me[0].epoch++;
	down(g, 0, RING_DEAD);
	g->me[0].epoch--;
	g->me[0].boot--;
	down(g, 0, RING_DEAD);
	g->me[0].boot++;
	check_int(g->n_nodes, 0);
	check(keyset_node(g->k, 0)->up, "still up");
	ok("holes 11: a down of another life is void");

	check_int(op(g, 0, RING_CLAIM, g->mine), 0);
	check_int(op(g, 1, RING_CLAIM, g->his), 0);
	down(g, 0, RING_LEFT);
	trace_is(g, "mine held@0 -> offered@1 left t5 a0 f0\n");
	down(g, 0, RING_LEFT);
	check_int(g->n_nodes, 0);
	check_int(op(g, 1, RING_TAKE, g->mine), 0);
	check_int(op(g, 1, RING_FINISH, g->mine), 0);
	down(g, 1, RING_DEAD);
	trace_is(g, "his held@1 -> offered@- dead t7 a0 f1\n");
	check_int(count(g, RING_VIEW_KEYS, 0), 1);
	check_int(keyset_vnode_owner(g->k, 0), RING_NONE);
	restart(g, 2, 0);
	trace_is(g, "");
	restart(g, 3, 1);
	trace_is(g, "his offered@- -> offered@3 dead t9 a0 f1\n");
	check_int(op(g, 3, RING_TAKE, g->his), 0);
	ok("holes 27: keys without heir are offered to the first eligible "
	   "node");
	rig_free(g);
}

int main(void)
{
	test_claim();
	test_submit();
	test_take_give();
	test_backoff();
	test_ids();
	test_moves();
	test_share();
	test_once();
	test_once_memory();
	test_restart();
	test_restart_moved();
	test_names();
	test_up();
	test_down();
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* A ring of one node through ring.h: its disk, its threads, real time. */
#include "ring/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/check.h"

static char dir[] = "/tmp/ringfs-ring-test-XXXXXX";
static int wake_fd;
static unsigned last_before, last_after;
static char last_name[RING_NAME_MAX + 1];
static int n_changes;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void on_change(void *data, const struct ring_change *change)
{
	(void)data;
	last_before = change->before;
	last_after = change->after;
	memcpy(last_name, change->key->name, change->key->name_len + 1u);
	n_changes++;
}

static void on_status(void *data)
{
	(void)data;
}

static void on_log(void *data, int level, const char *line)
{
	(void)data;
	printf("# log %d: %s\n", level, line);
}

static void wake(void *data)
{
	uint64_t one = 1;

	(void)data;
	if (write(wake_fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

static const struct ring_settings unset = {
	.vnodes = RING_UNSET,
	.claims = RING_UNSET,
	.lease_ms = RING_UNSET,
	.calm_ms = RING_UNSET,
	.max_attempts = RING_UNSET,
	.handover_timeout_ms = RING_UNSET,
};

static uint64_t boot;

static int try_open(const struct ring_settings *settings, struct ring **r,
		    char *errmsg)
{
	struct ring_config config = {.dir = dir,
				     .cluster = {{1}},
				     .id = {{2}},
				     .boot = ++boot,
				     .name = "n1",
				     .weight = 100,
				     .settings = *settings,
				     .op_timeout_ms = 2000,
				     .on_change = on_change,
				     .on_status = on_status,
				     .on_log = on_log,
				     .wake = wake};

	return ring_open(&config, now_ms(), r, errmsg);
}

static void turn(struct ring *r)
{
	uint32_t wait = ring_flush(r, now_ms());
	struct pollfd p = {.fd = wake_fd, .events = POLLIN};

	if (poll(&p, 1, wait < 1000 ? (int)wait : 1000) > 0) {
		uint64_t n;

		check_int(read(wake_fd, &n, sizeof(n)), sizeof(n));
		ring_wake(r, now_ms());
	}
	ring_tick(r, now_ms());
}

static struct ring *open_ready(void)
{
	char errmsg[RING_ERRMSG_SIZE] = "";
	struct ring *r;
	int rc = try_open(&unset, &r, errmsg);

	check(rc == 0, "%d %s", rc, errmsg);
	for (int i = 0; i < 1000 && ring_self(r) == RING_NONE; i++)
		turn(r);
	check(ring_self(r) != RING_NONE, "not ready");
	return r;
}

struct ask {
	struct ring_request req;
	struct ring_op op;
	bool done;
};

static void on_done(struct ring_request *req)
{
	((struct ask *)req->data)->done = true;
}

static void start(struct ring *r, struct ask *a, enum ring_op_type type,
		  const char *name)
{
	*a = (struct ask){.op = {.type = type, .name = name}};
	a->req = (struct ring_request){
		.ops = &a->op, .n_ops = 1, .cb = on_done, .data = a};
	ring_submit(r, now_ms(), &a->req);
}

static void finish(struct ring *r, struct ask *a)
{
	uint64_t until = now_ms() + 5000;

	while (!a->done && now_ms() < until)
		turn(r);
	check(a->done, "no answer");
}

static int ask(struct ring *r, enum ring_op_type type, const char *name)
{
	struct ask a;

	start(r, &a, type, name);
	finish(r, &a);
	return a.req.rc != 0 ? a.req.rc : a.op.rc;
}

static int note(struct ring *r, const char *name, const char *text)
{
	struct ask a = {.op = {.type = RING_NOTE,
			       .name = name,
			       .note = text,
			       .note_len = (uint32_t)strlen(text)}};

	a.req = (struct ring_request){
		.ops = &a.op, .n_ops = 1, .cb = on_done, .data = &a};
	ring_submit(r, now_ms(), &a.req);
	finish(r, &a);
	return a.req.rc != 0 ? a.req.rc : a.op.rc;
}

static bool in_view(struct ring *r, const char *name, enum ring_view view)
{
	const struct ring_key *key = ring_find(r, name);

	return key != NULL && ring_shows(r, key, view);
}

static void test_claim_to_finish(void)
{
	struct ring *r = open_ready();

	check_int(ask(r, RING_CLAIM, "a"), 0);
	check_int(last_before, 0);
	check_int(last_after, 1 << RING_VIEW_KEYS | 1 << RING_VIEW_OWNED);
	check_int(ask(r, RING_CLAIM, "a"), -EEXIST);
	check_int(note(r, "a", "half done"), 0);
	check(memcmp(ring_find(r, "a")->note, "half done", 9) == 0, "note");
	check_int(ask(r, RING_FINISH, "a"), 0);
	check(ring_find(r, "a") == NULL, "still there");
	check_int(last_after, 0);
	check_int(ask(r, RING_FINISH, "a"), -ENOENT);
	ring_close(r);
	ok("a claim is exclusive, keeps its note, and is over when finished");
}

static void test_restart(void)
{
	struct ring *r = open_ready();

	check_int(ask(r, RING_CLAIM, "b"), 0);
	check_int(note(r, "b", "page 7"), 0);
	uint64_t token = ring_find(r, "b")->token;

	ring_close(r);
	r = open_ready();
	const struct ring_key *key = ring_find(r, "b");

	check(key != NULL, "lost");
	check_int(key->state, RING_OFFERED);
	check_int(key->reason, RING_RESTART);
	check(key->token > token, "token");
	check(memcmp(key->note, "page 7", 6) == 0, "note");
	check(in_view(r, "b", RING_VIEW_RECOVER), "recover");
	check_int(ask(r, RING_TAKE, "b"), 0);
	check(in_view(r, "b", RING_VIEW_OWNED), "owned");
	check_int(ask(r, RING_FINISH, "b"), 0);
	ring_close(r);
	ok("after a restart an unfinished key is offered again, with its note");
}

static void test_backoff(void)
{
	struct ring *r = open_ready();

	check_int(ask(r, RING_CLAIM, "c"), 0);
	check_int(ask(r, RING_GIVE, "c"), 0);
	check(!in_view(r, "c", RING_VIEW_RECOVER), "shown too early");
	uint64_t given = now_ms();

	while (!in_view(r, "c", RING_VIEW_RECOVER) && now_ms() < given + 9000)
		turn(r);
	check(now_ms() - given >= 900, "after %d ms", (int)(now_ms() - given));
	check(now_ms() - given < 4000, "after %d ms", (int)(now_ms() - given));
	check_int(last_after, 1 << RING_VIEW_KEYS | 1 << RING_VIEW_RECOVER);
	check_int(ask(r, RING_FINISH, "c"), 0);
	ring_close(r);
	ok("a key given back is offered again after its back-off");
}

static void test_abandon(void)
{
	struct ring *r = open_ready();
	struct ask a, b;
	int before = n_changes;

	start(r, &a, RING_CLAIM, "d"); /* interrupted before it was sent */
	ring_abandon(r, &a.req);
	finish(r, &a);
	check_int(a.req.rc, -EINTR);
	check(ring_find(r, "d") == NULL, "claimed");

	start(r, &a, RING_CLAIM, "d"); /* and after */
	ring_flush(r, now_ms());
	ring_abandon(r, &a.req);
	finish(r, &a);
	check_int(a.req.rc, -EINTR);
	check_int(ask(r, RING_CLAIM, "other"), 0); /* time passes */
	check(ring_find(r, "d") == NULL, "shown");
	check_int(n_changes, before + 1); /* only the other */

	start(r, &a, RING_CLAIM, "e"); /* and repeated: one and the same */
	ring_flush(r, now_ms());
	ring_abandon(r, &a.req);
	start(r, &b, RING_CLAIM, "e");
	finish(r, &b);
	check_int(b.req.rc, 0);
	check_int(b.op.rc, 0);
	check(in_view(r, "e", RING_VIEW_OWNED), "adopted");
	start(r, &a, RING_SUBMIT, "f"); /* a submission likewise */
	ring_flush(r, now_ms());
	ring_abandon(r, &a.req);
	start(r, &b, RING_SUBMIT, "f");
	finish(r, &b);
	check_int(b.req.rc, 0);
	check_int(b.op.rc, 0);
	check_int(ask(r, RING_OFFER, "f"), 0);
	check(in_view(r, "f", RING_VIEW_RECOVER), "offered");
	check_int(ask(r, RING_FINISH, "f"), 0);
	check_int(ask(r, RING_CLAIM, "d"), 0);
	check_int(ask(r, RING_FINISH, "d"), 0);
	check_int(ask(r, RING_FINISH, "e"), 0);
	check_int(ask(r, RING_FINISH, "other"), 0);
	ring_close(r);
	ok("holes 24: an abandoned claim is never shown, and finished or "
	   "adopted");
}

/* Of several that are on their way, one may be refused. */
static void test_hidden(void)
{
	struct ring *r = open_ready();
	struct ask park, stale;

	check_int(ask(r, RING_CLAIM, "h"), 0);
	stale = (struct ask){.op = {.type = RING_FINISH,
				    .name = "h",
				    .token = ring_find(r, "h")->token}};
	stale.req = (struct ring_request){
		.ops = &stale.op, .n_ops = 1, .cb = on_done, .data = &stale};
	start(r, &park, RING_PARK, "h");
	check(!in_view(r, "h", RING_VIEW_OWNED), "hidden before it is sent");
	finish(r, &park);
	check_int(ask(r, RING_RETRY, "h"), 0);
	start(r, &park, RING_TAKE, "h"); /* and so its token is another */
	ring_submit(r, now_ms(), &stale.req);
	finish(r, &park);
	finish(r, &stale);
	check_int(stale.op.rc, -ENOENT);
	check(in_view(r, "h", RING_VIEW_OWNED), "shown again");
	check_int(ask(r, RING_FINISH, "h"), 0);
	ring_close(r);
	ok("what may leave is hidden, and shown again when it stays");
}

/* A batch submits and offers at once: not what somebody else is writing. */
static void test_submit_twice(void)
{
	struct ring *r = open_ready();
	struct ring_op ops[2] = {{.type = RING_SUBMIT, .name = "s"},
				 {.type = RING_OFFER, .name = "s"}};
	struct ask a = {.req = {.ops = ops, .n_ops = 2, .cb = on_done}};

	a.req.data = &a;
	check_int(ask(r, RING_SUBMIT, "s"), 0);
	ring_submit(r, now_ms(), &a.req);
	finish(r, &a);
	check_int(ops[0].rc, -EEXIST);
	check_int(ops[1].rc, -ENOENT);
	check(!in_view(r, "s", RING_VIEW_RECOVER), "not offered");
	check_int(ask(r, RING_OFFER, "s"), 0);
	check(in_view(r, "s", RING_VIEW_RECOVER), "offered");
	check_int(ask(r, RING_FINISH, "s"), 0);
	ring_close(r);
	ok("a submission is complete when its own writer says so");
}

static void test_batch(void)
{
	enum {
		N = RING_OPS_MAX
	};
	static struct ring_op ops[N];
	static char names[N][16];
	struct ring *r = open_ready();
	struct ask a = {.req = {.ops = ops, .n_ops = N, .cb = on_done}};

	a.req.data = &a;
	for (int i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[i]), "batch-%d", i);
		ops[i] = (struct ring_op){.type = RING_CLAIM, .name = names[i]};
	}
	struct ring_status before, after;

	ring_status(r, &before);
	ring_submit(r, now_ms(), &a.req);
	finish(r, &a);
	ring_status(r, &after);
	check_int(a.req.rc, 0);
	for (int i = 0; i < N; i++)
		check_int(ops[i].rc, 0);
	check_int(after.n_entries - before.n_entries, 1);
	check_int(ring_count(r, RING_VIEW_OWNED), N);
	ring_close(r);
	r = open_ready();
	check_int(ring_count(r, RING_VIEW_RECOVER), N);
	for (int i = 0; i < N; i++)
		ops[i] =
			(struct ring_op){.type = RING_FINISH, .name = names[i]};
	a.done = false;
	ring_submit(r, now_ms(), &a.req);
	finish(r, &a);
	check_int(ring_count(r, RING_VIEW_KEYS), 0);
	ring_close(r);
	ok("a batch is one commit and survives a restart");
}

/* What is asked for in one turn is one entry, but never one that stalls the
 * loop. */
static void test_entry_size(void)
{
	enum {
		N = RING_OPS_MAX / 2
	};
	static struct ring_op ops[3][N];
	static struct ask asks[3];
	struct ring *r = open_ready();
	struct ring_status before, after;

	ring_status(r, &before);
	for (int i = 0; i < 3; i++) {
		for (int j = 0; j < N; j++)
			ops[i][j] = (struct ring_op){.type = RING_FINISH,
						     .name = "none"};
		asks[i].req = (struct ring_request){.ops = ops[i],
						    .n_ops = N,
						    .cb = on_done,
						    .data = &asks[i]};
		ring_submit(r, now_ms(), &asks[i].req);
	}
	for (int i = 0; i < 3; i++)
		finish(r, &asks[i]);
	ring_status(r, &after);
	check_int(after.n_entries - before.n_entries, 2);
	ring_close(r);
	ok("an entry has no more operations than a request may have");
}

/* Enough entries for snapshots and removed segments. */
static void test_snapshot(void)
{
	struct ring *r = open_ready();
	static struct ask asks[512];
	static char names[512][16];
	struct ring_status before, after;

	for (int i = 0; i < 512; i++)
		snprintf(names[i], sizeof(names[i]), "s%d", i);
	for (int round = 0; round < 30; round++) {
		for (int i = 0; i < 512; i++) {
			start(r, &asks[i], round % 2 ? RING_FINISH : RING_CLAIM,
			      names[i]);
			ring_flush(r, now_ms());
			if (i % 4 == 3)
				turn(r);
		}
		for (int i = 0; i < 512; i++)
			finish(r, &asks[i]);
	}
	check_int(ask(r, RING_CLAIM, "kept"), 0);
	ring_status(r, &before);
	ring_close(r);
	r = open_ready();
	ring_status(r, &after);
	check(after.index > before.index, "index");
	check(in_view(r, "kept", RING_VIEW_RECOVER), "kept");
	check_int(ring_count(r, RING_VIEW_KEYS), 1);
	check_int(ask(r, RING_FINISH, "kept"), 0);
	ring_close(r);
	ok("a long log is cut, and the store continues it (%llu entries)",
	   (unsigned long long)before.index);
}

static void test_settings(void)
{
	char errmsg[RING_ERRMSG_SIZE] = "";
	struct ring_settings other = unset;
	struct ring *r;

	other.claims = RING_CLAIMS_ANY;
	check_int(try_open(&other, &r, errmsg), -EINVAL);
	check(strstr(errmsg, "any") && strstr(errmsg, "owner"), "%s", errmsg);
	other = unset;
	other.vnodes = 64;
	check_int(try_open(&other, &r, errmsg), -EINVAL);
	check(strstr(errmsg, "64") && strstr(errmsg, "4096"), "%s", errmsg);
	other.vnodes = 4096;
	check_int(try_open(&other, &r, errmsg), 0);
	ring_close(r);
	ok("settings that disagree are refused with both values");
}

static void test_lost(void)
{
	char errmsg[RING_ERRMSG_SIZE] = "", command[256];
	struct ring *r;

	snprintf(command, sizeof(command), "rm -r %s/wal %s/store", dir, dir);
	check_int(system(command), 0);
	check(try_open(&unset, &r, errmsg) != 0, "started anew");
	printf("# %s\n", errmsg);
	ok("a state that lost its log does not start anew in silence");
}

int main(void)
{
	char command[256];

	check(mkdtemp(dir) != NULL, "mkdtemp");
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	test_claim_to_finish();
	test_restart();
	test_backoff();
	test_abandon();
	test_hidden();
	test_submit_twice();
	test_batch();
	test_entry_size();
	test_snapshot();
	test_settings();
	test_lost();
	close(wake_fd);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command) != 0;
}

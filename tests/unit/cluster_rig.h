/* SPDX-License-Identifier: MIT */
/* For the tests of several rings in one process: real disks (a scratch folder),
 * real time, and a network of queues that delays, loses, duplicates and cuts.
 * SWIM is played: who is not reached both ways for a while is dead.
 *
 * At every turn of the loop, at one instant for all, it is checked that no key is
 * shown as held or offered by two nodes, and that machines at the same index are
 * the same. */
#ifndef TESTS_UNIT_CLUSTER_RIG_H
#define TESTS_UNIT_CLUSTER_RIG_H

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "ring/ring.h"
#include "tests/unit/scratch.h"

enum {
	HOSTS_MAX = 6,
	DEAD_MS = 400, /* until the played SWIM says dead */
	LEASE_MS = 600,
	CALM_MS = 60,
	HASHES = 65536,
	KEYS_MAX = 4096,
	/* A busy machine takes so many times as long, and is late by so much. */
	PATIENCE = 4,
	LATE_MS = 700,
};

struct packet {
	uint64_t due_ms;
	int from, to;
	bool bulk;
	size_t len;
	struct packet *next;
	uint8_t bytes[];
};

struct host {
	int index;
	struct ring *ring; /* NULL: not running */
	uint64_t boot, due_ms;
	char dir[512], name[16];
	struct ring_id id;
	struct ring_settings settings;
	bool join, same_host; /* config's; host bytes told */
	bool is_moved;	      /* config's */
	atomic_bool woken;
	uint64_t unreached_ms[HOSTS_MAX]; /* since when; 0: reached */
	bool said_dead[HOSTS_MAX], said[HOSTS_MAX];
	unsigned n_changes, n_hidden; /* hidden: a held key vanished */
	uint8_t cluster;	      /* config's */
	unsigned shown[RING_N_VIEWS]; /* counted from on_change */
	int obituaries;
	uint8_t obituary[256]; /* the last one handed over */
	size_t obituary_len;
	bool held_swim;	   /* SWIM says nothing new to this node */
	uint8_t deaf_kind; /* what it sends of that kind is lost; 0: none */
	bool stopped;	   /* as by SIGSTOP: it does nothing, and hears later */
};

struct shown {
	char name[32];
	int by;
};

static struct host hosts[HOSTS_MAX];
static struct packet *lanes[HOSTS_MAX][HOSTS_MAX][2];
static bool cut[HOSTS_MAX][HOSTS_MAX]; /* from, to */
static unsigned lose_percent, double_percent, delay_most_ms;
static uint64_t net_seed = 1;
static int wake_fd = -1;
static bool quiet_log = true;
static uint32_t handover_ms; /* of the next new_cluster(); 0: never */
/* Changes the settings of the next new_cluster(), if set. */
static void (*tune)(struct ring_settings *settings);
static uint64_t hashes[HASHES];
static unsigned long n_checks;

static inline uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- The network ---- */

static inline int host_of(const struct ring_id *id)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		if (memcmp(&hosts[i].id, id, sizeof(*id)) == 0)
			return i;
	return -1;
}

static inline bool reaches(int from, int to)
{
	return hosts[from].ring != NULL && hosts[to].ring != NULL &&
	       !cut[from][to];
}

/* Both do what they should. */
static inline bool answers(int from, int to)
{
	return reaches(from, to) && reaches(to, from) && !hosts[from].stopped &&
	       !hosts[to].stopped;
}

static inline void enqueue(struct packet *p)
{
	struct packet **at = &lanes[p->from][p->to][p->bulk];

	p->due_ms = now_ms();
	if (delay_most_ms > 0)
		p->due_ms += check_random(&net_seed) % (delay_most_ms + 1);
	while (*at != NULL) {
		if ((*at)->due_ms > p->due_ms) /* a lane keeps its order */
			p->due_ms = (*at)->due_ms;
		at = &(*at)->next;
	}
	p->next = NULL;
	*at = p;
}

static inline void on_send(void *data, const struct ring_id *to, bool bulk,
			   const void *bytes, size_t len)
{
	struct host *h = data;
	int n = host_of(to);
	unsigned copies = 1;

	if (n < 0 || !reaches(h->index, n) ||
	    *(const uint8_t *)bytes == h->deaf_kind)
		return;
	if (check_random(&net_seed) % 100 < lose_percent)
		return;
	if (check_random(&net_seed) % 100 < double_percent)
		copies = 2;
	for (; copies > 0; copies--) {
		struct packet *p = malloc(sizeof(*p) + len);

		*p = (struct packet){
			.from = h->index, .to = n, .bulk = bulk, .len = len};
		memcpy(p->bytes, bytes, len);
		enqueue(p);
	}
}

static inline uint64_t deliver(void)
{
	uint64_t next = UINT64_MAX, now = now_ms();

	for (int i = 0; i < HOSTS_MAX * HOSTS_MAX * 2; i++) {
		struct packet **lane = &lanes[0][0][0] + i;

		while (*lane != NULL && (*lane)->due_ms <= now &&
		       !hosts[(*lane)->to].stopped) {
			struct packet *p = *lane;

			*lane = p->next;
			if (reaches(p->from, p->to)) {
				ring_recv(hosts[p->to].ring, now_ms(),
					  &hosts[p->from].id, p->bytes, p->len);
				hosts[p->to].due_ms = 0;
			}
			free(p);
		}
		if (*lane != NULL && !hosts[(*lane)->to].stopped &&
		    (*lane)->due_ms < next)
			next = (*lane)->due_ms;
	}
	return next;
}

static inline void drop_lanes_of(int host)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		for (int j = 0; j < HOSTS_MAX; j++)
			for (int b = 0; b < 2; b++)
				while ((i == host || j == host) &&
				       lanes[i][j][b] != NULL) {
					struct packet *p = lanes[i][j][b];

					lanes[i][j][b] = p->next;
					free(p);
				}
}

/* ---- SWIM, played ---- */

static inline void say(struct host *h, int of, bool dead)
{
	if (h->said[of] && h->said_dead[of] == dead)
		return;
	h->said[of] = true;
	h->said_dead[of] = dead;
	ring_member(h->ring, now_ms(), &hosts[of].id,
		    dead ? RING_MEMBER_DEAD : RING_MEMBER_ALIVE);
	h->due_ms = 0;
}

static inline void play_swim(void)
{
	uint64_t now = now_ms();

	for (int i = 0; i < HOSTS_MAX; i++)
		for (int j = 0; j < HOSTS_MAX; j++) {
			struct host *h = &hosts[i];

			if (i == j || h->ring == NULL || h->held_swim ||
			    h->stopped)
				continue;
			if (answers(i, j)) {
				h->unreached_ms[j] = 0;
				say(h, j, false);
			} else if (h->unreached_ms[j] == 0) {
				h->unreached_ms[j] = now;
			} else if (h->said[j] &&
				   now - h->unreached_ms[j] > DEAD_MS) {
				say(h, j, true);
			}
		}
}

/* ---- What must hold at every instant ---- */

static inline void check_holders(void)
{
	static struct shown table[KEYS_MAX];
	uint64_t now = now_ms();

	memset(table, 0, sizeof(table));
	for (int i = 0; i < HOSTS_MAX; i++) {
		struct ring *r = hosts[i].ring;

		if (r == NULL || !ring_check(r, now))
			continue;
		for (enum ring_view v = RING_VIEW_OWNED; v <= RING_VIEW_RECOVER;
		     v++) {
			size_t n;
			uint64_t *ids = ring_list(r, v, &n);

			for (size_t k = 0; k < n; k++) {
				const struct ring_key *key =
					ring_find_id(r, ids[k]);

				if (!ring_shows(r, key, v))
					continue;
				uint64_t at = 14695981039346656037u;

				for (const char *c = key->name; *c; c++)
					at = (at ^ (uint8_t)*c) *
					     1099511628211u;
				for (at %= KEYS_MAX;
				     table[at].by != 0 &&
				     strcmp(table[at].name, key->name) != 0;
				     at = (at + 1) % KEYS_MAX)
					;
				check(table[at].by == 0,
				      "%s is shown by %s and %s", key->name,
				      hosts[table[at].by - 1].name,
				      hosts[i].name);
				snprintf(table[at].name, sizeof(table->name),
					 "%s", key->name);
				table[at].by = i + 1;
			}
			free(ids);
		}
	}
	n_checks++;
}

static inline void check_hashes(void)
{
	for (int i = 0; i < HOSTS_MAX; i++) {
		struct ring_status s;

		if (hosts[i].ring == NULL)
			continue;
		ring_status(hosts[i].ring, &s);
		if (s.index == 0 || s.index >= HASHES)
			continue;
		if (hashes[s.index] == 0)
			hashes[s.index] = s.hash;
		check(hashes[s.index] == s.hash,
		      "%s: another machine at index %" PRIu64, hosts[i].name,
		      s.index);
	}
}

/* ---- The loop ---- */

static inline void turn(void)
{
	uint64_t next = now_ms() + 20;
	struct pollfd p = {.fd = wake_fd, .events = POLLIN};

	play_swim();
	for (int i = 0; i < HOSTS_MAX; i++) {
		struct host *h = &hosts[i];

		if (h->ring == NULL || h->stopped)
			continue;
		if (atomic_exchange(&h->woken, false)) {
			ring_wake(h->ring, now_ms());
			h->due_ms = 0;
		}
		if (now_ms() >= h->due_ms)
			ring_tick(h->ring, now_ms());
		h->due_ms = now_ms() + ring_flush(h->ring, now_ms());
		if (h->due_ms < next)
			next = h->due_ms;
	}
	check_holders();
	check_hashes();
	uint64_t sent = deliver();
	uint64_t now = now_ms();

	if (sent < next)
		next = sent;
	for (int i = 0; i < HOSTS_MAX; i++)
		if (hosts[i].ring != NULL && !hosts[i].stopped &&
		    hosts[i].due_ms < next)
			next = hosts[i].due_ms;
	if (poll(&p, 1, next > now ? (int)(next - now) : 0) > 0) {
		uint64_t n;

		check_int(read(wake_fd, &n, sizeof(n)), sizeof(n));
	}
}

static inline void run_for(uint64_t ms)
{
	uint64_t until = now_ms() + ms;

	while (now_ms() < until)
		turn();
}

/* Turn until cond holds; else the test fails. */
#define wait_until(seconds, cond, ...)                                         \
	do {                                                                   \
		uint64_t until_ = now_ms() + (seconds)*PATIENCE * 1000;        \
		while (!(cond) && now_ms() < until_)                           \
			turn();                                                \
		check(cond, __VA_ARGS__);                                      \
	} while (0)

/* ---- Hosts ---- */

static inline void on_change(void *data, const struct ring_change *c)
{
	struct host *h = data;

	h->n_changes++;
	h->n_hidden += (c->before & ~c->after) >> RING_VIEW_OWNED & 1;
	for (int v = 0; v < RING_N_VIEWS; v++)
		h->shown[v] += ((c->after >> v) & 1) - ((c->before >> v) & 1);
}

static inline void on_status(void *data)
{
	(void)data;
}

static inline void on_log(void *data, int level, const char *line)
{
	const struct host *h = data;

	if (!quiet_log)
		printf("# %8" PRIu64 " %s %d: %s\n", now_ms() % 10000000,
		       h->name, level, line);
}

static inline void on_wake(void *data)
{
	struct host *h = data;
	uint64_t one = 1;

	atomic_store(&h->woken, true);
	if (write(wake_fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

static inline int on_obituary(void *data, const void *bytes, size_t len)
{
	struct host *h = data;

	check(len <= sizeof(h->obituary), "a small one");
	memcpy(h->obituary, bytes, len);
	h->obituary_len = len;
	h->obituaries++;
	return 0;
}

static const struct ring_settings unset = {
	.vnodes = RING_UNSET,
	.claims = RING_UNSET,
	.lease_ms = RING_UNSET,
	.calm_ms = RING_UNSET,
	.max_attempts = RING_UNSET,
	.handover_timeout_ms = RING_UNSET,
};

static inline int try_start(int i, char *errmsg)
{
	struct host *h = &hosts[i];
	struct ring_config config = {.dir = h->dir,
				     .cluster = {{h->cluster}},
				     .id = h->id,
				     .boot = ++h->boot,
				     .name = h->name,
				     .weight = 100,
				     .settings = h->settings,
				     .op_timeout_ms = 2000,
				     .join = h->join,
				     .is_moved = h->is_moved,
				     .on_change = on_change,
				     .on_status = on_status,
				     .on_log = on_log,
				     .wake = on_wake,
				     .send = on_send,
				     .obituary = on_obituary,
				     .data = h};

	if (h->same_host)
		config.host[0] = (uint8_t)(i + 1);
	memset(h->said, 0, sizeof(h->said));
	memset(h->unreached_ms, 0, sizeof(h->unreached_ms));
	memset(h->shown, 0, sizeof(h->shown));
	h->due_ms = 0;
	return ring_open(&config, now_ms(), &h->ring, errmsg);
}

static inline struct ring *start_host(int i)
{
	char errmsg[RING_ERRMSG_SIZE] = "";
	int rc = try_start(i, errmsg);

	check(rc == 0, "%s: %d %s", hosts[i].name, rc, errmsg);
	return hosts[i].ring;
}

/* As power gone: nothing more is sent. */
static inline void kill_host(int i)
{
	struct ring *r = hosts[i].ring;

	hosts[i].ring = NULL;
	drop_lanes_of(i);
	ring_close(r);
}

static inline struct ring_status status_of(int i)
{
	struct ring_status s = {.health = RING_FAILED};

	if (hosts[i].ring != NULL)
		ring_status(hosts[i].ring, &s);
	return s;
}

static inline bool is_ready(int i)
{
	return status_of(i).health == RING_READY;
}

static inline int leader(void)
{
	for (int i = 0; i < HOSTS_MAX; i++) {
		struct ring_status s = status_of(i);

		if (hosts[i].ring != NULL && s.leader != RING_NONE &&
		    s.leader == ring_self(hosts[i].ring) && s.has_quorum)
			return i;
	}
	return -1;
}

static inline int follower(void)
{
	int l = leader();

	for (int i = 0; i < HOSTS_MAX; i++)
		if (i != l && is_ready(i))
			return i;
	return -1;
}

static inline bool all_ready(int n)
{
	for (int i = 0; i < n; i++)
		if (hosts[i].ring != NULL && !is_ready(i))
			return false;
	return true;
}

/* The nodes that run are at the same index. */
static inline bool all_even(void)
{
	uint64_t index = 0;

	for (int i = 0; i < HOSTS_MAX; i++) {
		uint64_t at = status_of(i).index;

		if (hosts[i].ring == NULL)
			continue;
		if (index != 0 && at != index)
			return false;
		index = at;
	}
	return true;
}

static inline void new_cluster(int n, enum ring_claims claims)
{
	static int serial;

	memset(hashes, 0, sizeof(hashes));
	memset(cut, 0, sizeof(cut));
	lose_percent = double_percent = delay_most_ms = 0;
	if (wake_fd < 0)
		wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	serial++;
	for (int i = 0; i < HOSTS_MAX; i++) {
		struct host *h = &hosts[i];

		*h = (struct host){.index = i,
				   .settings = unset,
				   .join = i > 0,
				   .cluster = 42,
				   .id = {{(uint8_t)(i + 1), 7}}};
		snprintf(h->name, sizeof(h->name), "n%d", i);
		snprintf(h->dir, sizeof(h->dir), "%s/%d-%s", scratch_dir,
			 serial, h->name);
		check_int(mkdir(h->dir, 0700), 0);
	}
	hosts[0].settings.claims = claims;
	hosts[0].settings.vnodes = 64;
	hosts[0].settings.lease_ms = LEASE_MS;
	hosts[0].settings.calm_ms = CALM_MS;
	hosts[0].settings.handover_timeout_ms = handover_ms;
	if (tune != NULL)
		tune(&hosts[0].settings);
	for (int i = 0; i < n; i++)
		start_host(i);
	wait_until(20, all_ready(n), "ready: %s, %s, %s", status_of(0).reason,
		   status_of(1).reason, status_of(2).reason);
}

static inline void end_cluster(void)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		if (hosts[i].ring != NULL)
			kill_host(i);
}

/* ---- Asking ---- */

struct asked {
	struct ring_request req;
	struct ring_op op;
	char name[32];
	uint64_t began_ms, took_ms;
	bool done;
	int rc;
};

static inline void on_asked(struct ring_request *req)
{
	struct asked *a = req->data;

	a->done = true;
	a->rc = req->rc != 0 ? req->rc : a->op.rc;
	a->took_ms = now_ms() - a->began_ms;
}

static inline void submit(int host, struct asked *a)
{
	a->began_ms = now_ms();
	a->req = (struct ring_request){
		.ops = &a->op, .n_ops = 1, .cb = on_asked, .data = a};
	ring_submit(hosts[host].ring, now_ms(), &a->req);
	hosts[host].due_ms = 0;
}

static inline void begin(int host, struct asked *a, enum ring_op_type type,
			 const char *name)
{
	*a = (struct asked){0};
	snprintf(a->name, sizeof(a->name), "%s", name);
	a->op = (struct ring_op){.type = type, .name = a->name};
	submit(host, a);
}

/* text is borrowed for the call. */
static inline void begin_note(int host, struct asked *a, const char *name,
			      const char *text)
{
	*a = (struct asked){0};
	snprintf(a->name, sizeof(a->name), "%s", name);
	a->op = (struct ring_op){.type = RING_NOTE,
				 .name = a->name,
				 .note = text,
				 .note_len = (uint32_t)strlen(text)};
	submit(host, a);
}

static inline int ask(int host, enum ring_op_type type, const char *name)
{
	struct asked a;

	begin(host, &a, type, name);
	wait_until(5, a.done, "an answer to %s by %d", name, host);
	return a.rc;
}

static inline int ask_note(int host, const char *name, const char *text)
{
	struct asked a;

	begin_note(host, &a, name, text);
	wait_until(5, a.done, "an answer");
	return a.rc;
}

static inline bool shows(int host, const char *name, enum ring_view view)
{
	struct ring *r = hosts[host].ring;

	if (r == NULL)
		return false;
	ring_check(r, now_ms());
	const struct ring_key *key = ring_find(r, name);

	return key != NULL && ring_shows(r, key, view);
}

/* Who shows name in view, or -1. */
static inline int who_shows(const char *name, enum ring_view view)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		if (shows(i, name, view))
			return i;
	return -1;
}

/* All tests, or the one of that number in $ONLY; $VERBOSE shows the logs. */
static inline void run_tests(uint64_t seed, void (*const tests[])(void),
			     size_t n)
{
	const char *only = getenv("ONLY");

	net_seed = seed;
	quiet_log = getenv("VERBOSE") == NULL;
	for (size_t i = 0; i < n; i++)
		if (only == NULL || (size_t)atoi(only) == i)
			tests[i]();
	printf("# %lu instants checked\n", n_checks);
}

#endif

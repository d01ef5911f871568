/* SPDX-License-Identifier: MIT */
/* Five rings, and everything that can happen to them, at random: claims, takes,
 * notes, gifts, hand-overs and finishes on any node (even seeds: claims=owner); nodes killed and started again, logs
 * lost; cuts one way and both ways; a bad network. What cluster_rig.h checks
 * holds at every instant; in the end all heal, and what was acknowledged is there,
 * what was finished is not, and all machines are the same.
 *
 * ring_cluster_random_test [SEED [SECONDS]] */
#include "tests/unit/cluster_rig.h"

enum {
	N = 5,
	N_KEYS = 40
};

/* One name after the other: when an outcome is unknown, nothing more can be said
 * of that name, for what was asked may still be done. */
struct model {
	struct asked a;
	char name[32];
	unsigned n_names;
	bool busy, there;
	enum ring_op_type type;
	int last_note; /* acknowledged; -1: unknown */
	char note[16];
	int noting;
};

static struct model models[N_KEYS];
static uint64_t seed;
static int seconds = 12;
static unsigned n_acked, n_refused, n_unknown, n_kills, n_cuts;

static uint64_t below(uint64_t n)
{
	return check_random(&seed) % n;
}

static void next_name(struct model *m)
{
	snprintf(m->name, sizeof(m->name), "key-%d-%u", (int)(m - models),
		 m->n_names++);
	m->there = false;
	m->last_note = -1;
}

static void settle_model(struct model *m)
{
	int rc = m->a.rc;

	m->busy = false;
	n_acked += rc == 0;
	n_unknown += rc == -ETIMEDOUT || rc == -ECANCELED;
	n_refused += rc == -EROFS || rc == -EAGAIN;
	if (rc == -ETIMEDOUT || rc == -ECANCELED) {
		m->last_note = -1;
		if (m->type != RING_NOTE)
			next_name(m);
		return;
	}
	if (m->type == RING_CLAIM) {
		check(rc == 0 || rc == -EEXIST || rc == -EROFS ||
			      rc == -EAGAIN || rc == -EREMOTE,
		      "claim: %d", rc);
		check(rc != -EEXIST || m->there, "%s exists", m->name);
		check(rc != 0 || !m->there, "%s was claimed twice", m->name);
		if (rc == 0) {
			m->there = true;
			m->last_note = -1;
		}
	} else if (m->type == RING_FINISH && rc == 0) {
		check(m->there, "%s was finished twice", m->name);
		m->there = false;
	} else if (m->type == RING_NOTE) {
		m->last_note = rc == 0 ? m->noting : -1;
	}
}

static void settle_all(void)
{
	for (int i = 0; i < N_KEYS; i++)
		if (models[i].busy && models[i].a.done)
			settle_model(&models[i]);
}

static void random_ask(void)
{
	static int noting;
	int k = (int)below(N_KEYS), host = (int)below(N);
	struct model *m = &models[k];
	char name[32];

	memcpy(name, m->name, sizeof(name));
	if (m->busy || hosts[host].ring == NULL)
		return;
	if (shows(host, name, RING_VIEW_RECOVER))
		m->type = RING_TAKE;
	else if (shows(host, name, RING_VIEW_RELEASE))
		m->type = RING_LET;
	else if (shows(host, name, RING_VIEW_OWNED))
		m->type = below(3) == 0	  ? RING_FINISH
			  : below(3) == 0 ? RING_GIVE
					  : RING_NOTE;
	else
		m->type = RING_CLAIM;
	m->busy = true;
	if (m->type != RING_NOTE) {
		begin(host, &m->a, m->type, name);
		return;
	}
	m->noting = ++noting;
	snprintf(m->note, sizeof(m->note), "%d", m->noting);
	begin_note(host, &m->a, name, m->note);
}

static int n_running(void)
{
	int n = 0;

	for (int i = 0; i < N; i++)
		n += hosts[i].ring != NULL;
	return n;
}

static void lose_log(int i)
{
	char command[1200];

	snprintf(command, sizeof(command), "rm -rf %s/wal %s/store",
		 hosts[i].dir, hosts[i].dir);
	check_int(system(command), 0);
	hosts[i].join = true;
}

static void random_harm(void)
{
	int i = (int)below(N), j = (int)below(N);
	static int n_lost;

	switch (below(8)) {
	case 0:
		if (hosts[i].ring == NULL || n_running() < N - 1)
			break;
		kill_host(i);
		n_kills++;
		/* A voter less for good: seldom, and never two at a time. */
		if (below(6) == 0 && n_running() == N - 1 && n_lost++ < 2)
			lose_log(i);
		break;
	case 1:
	case 2:
		hosts[i].same_host = below(2);
		if (hosts[i].ring == NULL)
			start_host(i);
		break;
	case 3:
		if (i != j)
			cut[i][j] = true;
		n_cuts++;
		break;
	case 4: /* i alone */
		for (int k = 0; k < N; k++)
			cut[i][k] = cut[k][i] = k != i;
		n_cuts++;
		break;
	case 5:
	case 6:
		memset(cut, 0, sizeof(cut));
		break;
	default:
		lose_percent = (unsigned)below(10);
		double_percent = (unsigned)below(10);
		delay_most_ms = (unsigned)below(30);
	}
}

static void heal(void)
{
	memset(cut, 0, sizeof(cut));
	lose_percent = double_percent = delay_most_ms = 0;
	for (int i = 0; i < N; i++)
		if (hosts[i].ring == NULL)
			start_host(i);
	wait_until(30, all_ready(N), "ready: %s; %s; %s; %s; %s",
		   status_of(0).reason, status_of(1).reason,
		   status_of(2).reason, status_of(3).reason,
		   status_of(4).reason);
	for (int i = 0; i < N_KEYS; i++)
		wait_until(5, !models[i].busy || models[i].a.done, "answer");
	settle_all();
	run_for(1500); /* what nobody waited for is finished */
	wait_until(5, all_even(), "at the same index");
}

static void compare(void)
{
	for (int k = 0; k < N_KEYS; k++) {
		const struct model *m = &models[k];

		for (int i = 0; i < N; i++) {
			const struct ring_key *key =
				ring_find(hosts[i].ring, m->name);

			check(key == NULL || m->there, "%s is back", m->name);
			check(key != NULL || !m->there, "%s is lost", m->name);
			if (!m->there || m->last_note < 0)
				continue;
			check(key->note_len == strlen(m->note) &&
				      memcmp(key->note, m->note,
					     key->note_len) == 0,
			      "%s: another note", m->name);
		}
	}
}

static void all(uint64_t given)
{
	seed = net_seed = given;
	quiet_log = getenv("VERBOSE") == NULL;
	for (int i = 0; i < N_KEYS; i++)
		next_name(&models[i]);
	new_cluster(N, seed & 1 ? RING_CLAIMS_ANY : RING_CLAIMS_OWNER);
	uint64_t until = now_ms() + (uint64_t)seconds * 1000, harm_ms = 0;

	while (now_ms() < until) {
		turn();
		settle_all();
		if (below(3) == 0)
			random_ask();
		if (now_ms() >= harm_ms) {
			random_harm();
			harm_ms = now_ms() + 50 + below(600);
		}
	}
	heal();
	compare();
	ok("%u acknowledged, %u refused, %u unknown; %u kills, %u cuts; one "
	   "holder at %lu instants",
	   n_acked, n_refused, n_unknown, n_kills, n_cuts, n_checks);
	end_cluster();
}

int main(int argc, char **argv)
{
	uint64_t given = check_seed(argc, argv);

	if (argc > 2)
		seconds = atoi(argv[2]);
	return scratch_run(all, given);
}

/* SPDX-License-Identifier: MIT */
/* sim nodes [--log] [--twice] [--break NAME] [--only FAMILY,...] SEED[-SEED]...
 *
 * Runs each seed in a process of its own, one after the other, until one fails:
 * what was broken, with the seed, goes to stderr. --log prints what happens;
 * --twice runs each seed twice, and wants the same trace; --break plants a fault
 * (node.h), which is to be found; --only has the families of faults named. */
#include "tests/sim/node.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND	  1000000u
#define HEAL_US	  (90 * (uint64_t)SECOND)
#define STEP_US	  (100000)
#define SETTLE_US (2 * (uint64_t)SECOND)

static const char *const planted_names[] = {
	[PLANTED_NOSYNC] = "nosync",
	[PLANTED_LEASE] = "lease",
	[PLANTED_LIAR] = "liar",
	[PLANTED_SKIP] = "skip",
};

static const char *const family_names[] = {
	[FAMILY_KILL] = "kill", [FAMILY_POWER] = "power",
	[FAMILY_STOP] = "stop", [FAMILY_CUT] = "cut",
	[FAMILY_LINK] = "link", [FAMILY_DISK] = "disk",
	[FAMILY_WIPE] = "wipe", [FAMILY_MOVE] = "move",
	[FAMILY_ALL] = "all",
};

static unsigned only; /* families; 0: as drawn */

static void on_abort(int signum)
{
	fprintf(stderr, "seed %llu: killed by signal %d at %.3f ms\n",
		(unsigned long long)world.seed, signum,
		(double)world.sim.now_us / 1000);
	signal(signum, SIG_DFL);
	raise(signum);
}

/* Peace has come: in some time all must be well. */
static void converge(void)
{
	uint64_t until = world.sim.now_us + HEAL_US;
	const char *why = "";

	while (!check_is_quiet(&why)) {
		if (world.sim.now_us > until)
			broken("after %u s of peace: %s",
			       (unsigned)(HEAL_US / SECOND), why);
		world_run(world.sim.now_us + STEP_US);
		calls_check();
	}
}

static void probe_all(void)
{
	uint64_t until = world.sim.now_us + 10 * (uint64_t)SECOND;
	const char *why = "";

	for (uint32_t i = 1; i <= world.plan.n_nodes; i++)
		if (world.nodes[i].state == NODE_UP)
			calls_probe(&world.nodes[i]);
	while (!calls_probed(&why)) {
		if (world.sim.now_us > until)
			broken("after all: %s", why);
		world_run(world.sim.now_us + STEP_US);
	}
}

static void print_end(void)
{
	printf("seed %llu: %u nodes, hash %016llx, %llu events, %llu entries, "
	       "%lu instants, %.1f s\n",
	       (unsigned long long)world.seed, world.plan.n_nodes,
	       (unsigned long long)(world.hash ^ world.sim.hash),
	       (unsigned long long)world.n_run, (unsigned long long)check_top(),
	       check_instants(), (double)world.sim.now_us / SECOND);
	if (world.log)
		calls_print();
}

/* In a process of its own; gives the hash to fd. */
static void run_seed(uint64_t seed, int fd)
{
	signal(SIGABRT, on_abort);
	signal(SIGSEGV, on_abort);
	world_init(seed);
	if (only != 0)
		world.plan.families = only;
	faults_begin();
	world_run(world.plan.faults_us);
	faults_heal();
	converge();
	world_run(world.sim.now_us + SETTLE_US);
	converge();
	probe_all();
	converge();
	print_end();
	fflush(stdout);
	uint64_t hash = world.hash ^ world.sim.hash;

	world_finish();
	if (write(fd, &hash, sizeof(hash)) != sizeof(hash))
		exit(1);
}

/* Below /dev/shm, where it is: nothing of it needs to last. */
static bool make_world_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	if (tmp == NULL)
		tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(world.dir, sizeof(world.dir), "%.200s/ringfs-sim-XXXXXX", tmp);
	if (mkdtemp(world.dir) != NULL)
		return true;
	perror(world.dir);
	return false;
}

/* 0, or the status it ended with. */
static int try_seed(uint64_t seed, uint64_t *hash)
{
	int fds[2], status = 1;

	if (!make_world_dir() || pipe(fds) != 0)
		return 1;
	fflush(stdout);
	pid_t pid = fork();

	if (pid == 0) {
		close(fds[0]);
		run_seed(seed, fds[1]);
		exit(0);
	}
	close(fds[1]);
	if (read(fds[0], hash, sizeof(*hash)) != sizeof(*hash))
		*hash = 0;
	close(fds[0]);
	if (waitpid(pid, &status, 0) != pid)
		status = 1;
	remove_tree(world.dir);
	return status;
}

static int try_seeds(uint64_t first, uint64_t last, bool twice)
{
	for (uint64_t seed = first; seed <= last; seed++) {
		uint64_t hash, again;

		if (try_seed(seed, &hash) != 0)
			return 1;
		if (!twice)
			continue;
		if (try_seed(seed, &again) != 0)
			return 1;
		if (hash == again)
			continue;
		fprintf(stderr, "seed %llu: two runs, two traces\n",
			(unsigned long long)seed);
		return 1;
	}
	return 0;
}

static unsigned find_name(const char *name, size_t len,
			  const char *const *names, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (names[i] != NULL && strlen(names[i]) == len &&
		    strncmp(names[i], name, len) == 0)
			return i;
	return n;
}

static bool set_only(const char *list)
{
	while (*list != '\0') {
		size_t len = strcspn(list, ",");
		unsigned f = find_name(list, len, family_names, FAMILY_N);

		if (f == FAMILY_N)
			return false;
		only |= 1u << f;
		list += len + (list[len] == ',');
	}
	return only != 0;
}

static int usage(void)
{
	fputs("usage: sim nodes [--log] [--twice] [--break NAME] "
	      "[--only FAMILY,...] SEED[-SEED]...\n",
	      stderr);
	return 64;
}

/* Where things lie in memory is the kernel's dice, and the library sends some
 * bytes as it has found them there. */
static void begin_anew(char **argv)
{
	int old = personality(0xffffffff);

	if (old >= 0 && !(old & ADDR_NO_RANDOMIZE) &&
	    personality((unsigned long)old | ADDR_NO_RANDOMIZE) >= 0)
		execv("/proc/self/exe", argv - 1); /* else as it is */
}

int nodes_main(int argc, char **argv)
{
	bool twice = false;
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--log") == 0)
			world.log = true;
		else if (strcmp(argv[i], "--twice") == 0)
			twice = true;
		else if (strcmp(argv[i], "--break") == 0 && i + 1 < argc)
			world.planted =
				find_name(argv[i + 1], strlen(argv[i + 1]),
					  planted_names, PLANTED_N),
			i++;
		else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc &&
			 set_only(argv[i + 1]))
			i++;
		else
			return usage();
	}
	if (i == argc || world.planted == PLANTED_N)
		return usage();
	begin_anew(argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (; i < argc; i++) {
		char *end;
		uint64_t first = strtoull(argv[i], &end, 0);
		uint64_t last =
			*end == '-' ? strtoull(end + 1, &end, 0) : first;

		if (*end != '\0')
			return usage();
		if (try_seeds(first, last, twice) != 0)
			return 1;
	}
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* A snapshot is received and put in the store's place, and the machine stops at
 * each of the system calls that this takes: every start afterwards succeeds,
 * and the node becomes as the others are.
 *
 * The system calls that change a disk are defined here, in front of the C
 * library's: from the n-th on, none of the victim's has an effect. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/unit/group_rig.h"

static struct {
	bool armed, stopped;
	int victim;
	unsigned n, at;
} stop = {.victim = -1};

/* Is the machine off when this call is made? */
static bool is_off(void)
{
	if (!stop.armed || rig.in_disk != stop.victim)
		return false;
	if (++stop.n >= stop.at)
		stop.stopped = true;
	if (stop.stopped)
		errno = EIO;
	return stop.stopped;
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	return is_off() ? -1 : syscall(SYS_pwrite64, fd, bytes, n, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
	return is_off() ? -1 : syscall(SYS_pwrite64, fd, bytes, n, at);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
	return is_off() ? -1 : syscall(SYS_pwritev, fd, iov, n, at, 0);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t at)
{
	return is_off() ? -1 : syscall(SYS_pwritev, fd, iov, n, at, 0);
}

int fdatasync(int fd)
{
	return is_off() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	return is_off() ? -1 : (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
	return is_off() ? -1
			: (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD,
				       to, 0);
}

int renameat(int a, const char *from, int b, const char *to)
{
	return is_off() ? -1 : (int)syscall(SYS_renameat2, a, from, b, to, 0);
}

static bool no_exchange; /* as on a file system that has none */

int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
	if (is_off())
		return -1;
	if (no_exchange && flags != 0) {
		errno = EINVAL;
		return -1;
	}
	return (int)syscall(SYS_renameat2, a, from, b, to, flags);
}

int mkdir(const char *path, mode_t mode)
{
	return is_off() ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int unlinkat(int dirfd, const char *name, int flags)
{
	return is_off() ? -1 : (int)syscall(SYS_unlinkat, dirfd, name, flags);
}

int remove(const char *path)
{
	if (is_off())
		return -1;
	if (syscall(SYS_unlinkat, AT_FDCWD, path, 0) == 0)
		return 0;
	return (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

/* ---- The test ---- */

static uint64_t round_id;

static void write_some(unsigned n)
{
	while (n > 0) {
		int l = rig_leader();
		/* Few slots: the content is small. */
		uint64_t id = round_id * RIG_SLOTS + round_id % 40;

		if (l >= 0 && rig_propose((unsigned)l, id, 200) == 0) {
			round_id++;
			n--;
		}
		rig_turn();
	}
	rig_run(50);
}

/* Stop at the call number at of those that the copy and the installation take.
 * False: there were not so many. */
static bool stop_at(uint64_t seed, unsigned at)
{
	rig_begin(seed);
	rig.is_verbose = getenv("VERBOSE") != NULL;
	rig.snapshot_entries = 30;
	rig.trailing_entries = 5;
	rig_make(3);
	unsigned f = rig_wait_leader(1000) == 2 ? 1 : 2;

	write_some(10);
	for (unsigned j = 0; j < 3; j++)
		rig.cut[f][j] = rig.cut[j][f] = true;
	write_some(100);
	for (unsigned j = 0; j < 3; j++)
		rig.cut[f][j] = rig.cut[j][f] = false;
	stop.victim = (int)f;
	stop.n = 0;
	stop.at = at;
	stop.armed = true;
	for (unsigned t = 0; t < 2000 && !stop.stopped; t++) {
		rig_turn();
		if (rig.node[f].n_resets > 0 && rig_are_equal())
			break;
	}
	rig_run(20);
	bool stopped = stop.stopped;

	check(stopped || rig.node[f].n_resets > 0, "no snapshot was sent");
	rig_kill(f);
	stop.armed = stop.stopped = false;
	rig_start(f, false);
	write_some(3);
	rig_wait_equal(20000);
	check(group_server_id(rig.node[f].g) != 0, "server");
	rig_end();
	return stopped;
}

static void stop_everywhere(uint64_t seed)
{
	unsigned n = 1;

	while (stop_at(seed, n))
		n++;
	check(n > 20, "only %u calls", n);
	ok("holes 17, 18: a stop at each of %u system calls of an "
	   "installation%s",
	   n - 1, no_exchange ? ", without exchange of names" : "");
}

static void body(uint64_t seed)
{
	stop_everywhere(seed);
	no_exchange = true;
	stop_everywhere(seed + 1);
}

int main(int argc, char **argv)
{
	return scratch_run(body, check_seed(argc, argv));
}

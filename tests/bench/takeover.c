/* SPDX-License-Identifier: MIT */
/* The clock of the benchmarks in which a node is lost.
 *
 *   takeover N OLD DIR...
 *
 * Hears the IN_CREATEs of DIR..., the recover/ of the survivors, until there are
 * N, and lists OLD, the owned/ of the node that is lost, until it is empty or
 * fails ("-": it is not listed; a stopped node would not answer). The first line
 * is "watching". The second, at the end or after 20 s, has microseconds of the
 * wall clock, 0 if never:
 *
 *   <first IN_CREATE> <last> <how many> <when OLD was found empty> */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 20000

static const char *old;
static atomic_ullong old_empty;

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void die(const char *what)
{
	fprintf(stderr, "takeover: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int n_listed(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *e;
	int n = 0;

	if (d == NULL)
		return 0;
	while ((e = readdir(d)) != NULL)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

/* When the listing began that found nothing: it showed nothing from then on. */
static void *list(void *data)
{
	const struct timespec rest = {.tv_nsec = 2000000};
	uint64_t at;

	(void)data;
	while (at = now_us(), n_listed(old) > 0)
		nanosleep(&rest, NULL);
	old_empty = at;
	return NULL;
}

static size_t creates(int fd)
{
	static char buf[1 << 20]
		__attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(fd, buf, sizeof(buf));
	size_t heard = 0;

	for (char *p = buf; n > 0 && p < buf + n;) {
		const struct inotify_event *e = (const void *)p;

		if (e->mask & IN_Q_OVERFLOW) {
			errno = EOVERFLOW;
			die("inotify");
		}
		heard += (e->mask & IN_CREATE) != 0;
		p += sizeof(*e) + e->len;
	}
	return heard;
}

static void hear(int fd, size_t wanted)
{
	uint64_t first = 0, last = 0, end = now_us() + PATIENCE_MS * 1000;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t n = 0;

	while (n < wanted && now_us() < end) {
		if (poll(&p, 1, 100) <= 0)
			continue;
		uint64_t at = now_us();
		size_t more = creates(fd);

		if (more > 0 && first == 0)
			first = at;
		if (more > 0)
			last = at;
		n += more;
	}
	printf("%llu %llu %zu %llu\n", (unsigned long long)first,
	       (unsigned long long)last, n, (unsigned long long)old_empty);
}

int main(int argc, char **argv)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	pthread_t thread;

	if (argc < 4 || atoi(argv[1]) <= 0) {
		fprintf(stderr, "takeover: see the head of "
				"tests/bench/takeover.c\n");
		return 64;
	}
	for (int i = 3; i < argc; i++)
		if (inotify_add_watch(fd, argv[i], IN_CREATE) < 0)
			die(argv[i]);
	old = argv[2];
	if (strcmp(old, "-") != 0 &&
	    pthread_create(&thread, NULL, list, NULL) != 0)
		die("thread");
	printf("watching\n");
	fflush(stdout);
	hear(fd, (size_t)atoi(argv[1]));
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* A watcher that keeps up: says on standard output what inotify tells of PATHs.
 *
 *   watch [-a] PATH...
 *
 * The first line is "watching", when all watches are armed; then a line for each
 * event, with the last part of PATH, what happened, the name if there is one,
 * and the cookie if there is one:
 *
 *   recover CREATE order-42
 *   owned MOVED_TO order-42 317
 *   - Q_OVERFLOW
 *
 * With -a all that inotify knows, else what changes names and contents. Reads
 * nothing else of PATH, so it raises no event itself. Lines are written when
 * there are no events left, or the buffer is full; it ends with 0 when all that
 * it watched is gone. */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BUFFER_SIZE (4 * 1024 * 1024)

static const struct {
	uint32_t bit;
	const char *word;
} words[] = {
	{IN_ACCESS, "ACCESS"},
	{IN_MODIFY, "MODIFY"},
	{IN_ATTRIB, "ATTRIB"},
	{IN_CLOSE_WRITE, "CLOSE_WRITE"},
	{IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"},
	{IN_OPEN, "OPEN"},
	{IN_MOVED_FROM, "MOVED_FROM"},
	{IN_MOVED_TO, "MOVED_TO"},
	{IN_CREATE, "CREATE"},
	{IN_DELETE, "DELETE"},
	{IN_DELETE_SELF, "DELETE_SELF"},
	{IN_MOVE_SELF, "MOVE_SELF"},
	{IN_UNMOUNT, "UNMOUNT"},
	{IN_Q_OVERFLOW, "Q_OVERFLOW"},
	{IN_IGNORED, "IGNORED"},
};

static const uint32_t changes =
	IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MODIFY | IN_MOVE;

static const char *word_of(uint32_t mask)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (mask & words[i].bit)
			return words[i].word;
	return "NOTHING";
}

/* paths[wd - 1] is what wd watches: wds of a new instance count from 1. */
static void put_event(const struct inotify_event *e, char *const *paths)
{
	const char *path = e->wd < 0 ? "-" : paths[e->wd - 1];
	const char *slash = strrchr(path, '/');

	printf("%s %s", slash == NULL ? path : slash + 1, word_of(e->mask));
	if (e->len > 0)
		printf(" %s", e->name);
	if (e->cookie != 0)
		printf(" %u", e->cookie);
	putchar('\n');
}

/* Gives how many watches have ended. */
static int put_events(const char *buffer, size_t n, char *const *paths)
{
	int gone = 0;

	for (size_t at = 0; at < n;) {
		const struct inotify_event *e = (const void *)(buffer + at);

		put_event(e, paths);
		gone += (e->mask & IN_IGNORED) != 0;
		at += sizeof(*e) + e->len;
	}
	return gone;
}

static int watch(int fd, int n_watches, char *const *paths)
{
	char *buffer = malloc(BUFFER_SIZE);
	int left = 0;

	assert(buffer != NULL);
	while (n_watches > 0) {
		ssize_t n = read(fd, buffer, BUFFER_SIZE);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		n_watches -= put_events(buffer, (size_t)n, paths);
		if (ioctl(fd, FIONREAD, &left) != 0 || left == 0)
			fflush(stdout);
	}
	free(buffer);
	return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	uint32_t mask = changes;
	int first = 1;

	if (argc > 1 && strcmp(argv[1], "-a") == 0) {
		mask = IN_ALL_EVENTS;
		first = 2;
	}
	if (argc <= first) {
		fprintf(stderr, "usage: watch [-a] PATH...\n");
		return 64;
	}
	int fd = inotify_init1(IN_CLOEXEC);
	for (int i = first; i < argc; i++) {
		int wd = inotify_add_watch(fd, argv[i], mask);

		if (wd < 0) {
			perror(argv[i]);
			return 1;
		}
		assert(wd == i - first + 1);
	}
	static char out[1 << 16];

	setvbuf(stdout, out, _IOFBF, sizeof(out));
	puts("watching");
	fflush(stdout);
	return watch(fd, argc - first, argv + first);
}

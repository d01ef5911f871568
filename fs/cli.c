/* SPDX-License-Identifier: MIT */
#include "fs/cli.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/text.h"
#include "fs/util.h"
#include "ring/ring.h"

int cli_next(int argc, char **argv, const char *letters,
	     const struct option *longs, const char *help)
{
	char *verb = argv[0], program[64];

	/* getopt's own sentences then begin as ours do. */
	snprintf(program, sizeof(program), "ringfs: %s", verb);
	argv[0] = program;
	int c = getopt_long(argc, argv, letters, longs, NULL);
	argv[0] = verb;
	if (c == 'h') {
		fputs(help, stdout);
		exit(0);
	}
	if (c == '?') {
		fprintf(stderr, "Try 'ringfs %s --help'\n", verb);
		exit(EX_USAGE);
	}
	return c;
}

static void say(const char *verb, const char *format, va_list args)
{
	fprintf(stderr, "ringfs: %s: ", verb);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

void cli_say(const char *verb, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(verb, format, args);
	va_end(args);
}

void cli_usage(const char *verb, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(verb, format, args);
	va_end(args);
	fprintf(stderr, "Try 'ringfs %s --help'\n", verb);
	exit(EX_USAGE);
}

int cli_status_of(int rc)
{
	switch (-rc) {
	case 0:
		return EX_OK;
	case EEXIST:
	case EREMOTE:
	case ENOENT:
	case ESTALE:
	case EBUSY:
		return 1; /* the answer is no */
	case EROFS:
	case EAGAIN:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ECONNRESET:
		return EX_TEMPFAIL;
	case EPERM:
	case EACCES:
		return EX_NOPERM;
	case EINVAL:
	case ENAMETOOLONG:
	case EFBIG:
		return EX_USAGE;
	case ENOTCONN:
	case ECONNABORTED: /* the daemon ended while we waited for it */
		return EX_UNAVAILABLE;
	default:
		return EX_OSERR;
	}
}

int cli_refused(const char *verb, const char *key, int rc, const char *hint)
{
	char *shown = cli_printable(key);

	assert(rc < 0);
	if (hint[0] == '\0' && cli_status_of(rc) == EX_UNAVAILABLE)
		hint = " (the daemon is dead; mount again)";
	cli_say(verb, "'%s': %s%s", shown, strerror(-rc), hint);
	free(shown);
	return cli_status_of(rc);
}

char *cli_printable(const char *s)
{
	char *out = xmalloc(4 * strlen(s) + 1), *end = out;

	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;
		if (c < ' ' || c == 0x7f)
			end += snprintf(end, 5, "\\x%02x", c);
		else
			*end++ = *s;
	}
	*end = '\0';
	return out;
}

int cli_read_file(int dir_fd, const char *path, struct text *out)
{
	char piece[4096];
	int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, piece, sizeof(piece));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = -errno;
		if (n <= 0)
			break;
		text_add(out, piece, (size_t)n);
	}
	close(fd);
	return rc;
}

int cli_read_xattr(int dir_fd, const char *key, const char *name,
		   struct text *out)
{
	char value[4096]; /* the longest is a node's name */
	/* There is no getxattrat; the descriptor's own path names the file. */
	char *path = xasprintf("/proc/self/fd/%d/keys/%s", dir_fd, key);
	char *full = xasprintf("user.ring.%s", name);
	ssize_t n = lgetxattr(path, full, value, sizeof(value));
	int rc = n < 0 ? -errno : 0;

	if (rc == 0)
		text_add(out, value, (size_t)n);
	free(full);
	free(path);
	return rc;
}

int cli_read_route(int dir_fd, const char *key, struct text *out)
{
	static const char peers[] = "../peers/";
	char target[sizeof(peers) + RING_NAME_MAX];
	char *path = xasprintf("route/%s", key);
	ssize_t n = readlinkat(dir_fd, path, target, sizeof(target));
	int rc = n < 0 ? -errno : 0;

	free(path);
	if (rc < 0)
		return rc;
	size_t skip = sizeof(peers) - 1;
	if ((size_t)n <= skip || memcmp(target, peers, skip) != 0)
		return -EINVAL; /* no tree of ours answers so */
	text_add(out, target + skip, (size_t)n - skip);
	return 0;
}

int cli_write_ctl(int dir_fd, const char *line)
{
	int fd = openat(dir_fd, "ctl", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	/* In one piece: ctl is no disk that fills up. */
	char *text = xasprintf("%s\n", line);
	ssize_t n = write(fd, text, strlen(text));
	int rc = n < 0 ? -errno : 0;
	free(text);
	close(fd);
	return rc;
}

void cli_check_key(const char *verb, const char *key)
{
	if (key[0] == '\0')
		cli_usage(verb, "the name of a key is empty");
	if (strchr(key, '/') != NULL)
		cli_usage(verb, "'%s': a key's name has no slash", key);
	if (key[0] == '.')
		cli_usage(verb, "'%s': a key's name does not begin with a dot",
			  key);
	if (strlen(key) > RING_NAME_MAX)
		cli_usage(verb, "a key's name is not longer than %d bytes",
			  RING_NAME_MAX);
}

/* SPDX-License-Identifier: MIT */
#include "fs/util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void *check(void *p)
{
	if (p == NULL) {
		fputs("ringfs: out of memory\n", stderr);
		abort();
	}
	return p;
}

void *xmalloc(size_t size)
{
	return check(malloc(size));
}

void *xcalloc(size_t n, size_t size)
{
	return check(calloc(n, size));
}

void *xrealloc(void *p, size_t size)
{
	return check(realloc(p, size));
}

char *xstrdup(const char *s)
{
	return check(strdup(s));
}

char *xasprintf(const char *format, ...)
{
	char *s = NULL;
	va_list args;

	va_start(args, format);
	int n = vasprintf(&s, format, args);
	va_end(args);
	return check(n < 0 ? NULL : s);
}

int write_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t got = write(fd, bytes, n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		bytes += got;
		n -= (size_t)got;
	}
	return 0;
}

uint64_t boot_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t wall_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

char *xlist(char *const *words, size_t n)
{
	char *all = xstrdup("");

	for (size_t i = 0; i < n; i++) {
		char *more = xasprintf("%s%s'%s'", all,
				       i == 0	   ? ""
				       : i + 1 < n ? ", "
						   : " or ",
				       words[i]);
		free(all);
		all = more;
	}
	return all;
}

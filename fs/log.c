/* SPDX-License-Identifier: MIT */
/* One record is one line: control characters in it are escaped, so that no name
 * of a key can forge a second one. Lines are written where they are said, but
 * between log_begin() and log_end() by the writer, all that wait in one write(2).
 *
 * Thread: any. */
#include "fs/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fs/json.h"
#include "fs/text.h"
#include "fs/util.h"

#define TAIL_BYTES 65536
#define WAIT_BYTES (1u << 20) /* that wait to be written */
#define END_S	   1
#define STAMP_SIZE sizeof("2026-11-21T04:05:06.789Z")

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",   [LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_NOTICE] = "notice", [LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

static struct {
	pthread_mutex_t lock;
	int level;
	bool json;
	char tail[TAIL_BYTES]; /* the end of what was said, as a ring */
	uint64_t n_said;       /* bytes, ever */

	pthread_t writer;
	bool has_writer, ending;
	pthread_cond_t waits; /* for the writer: there is something to do */
	struct text waiting;  /* whole lines */
	uint64_t n_lost;      /* lines that found no room */
} the_log = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.level = LOG_LEVEL_INFO,
	.waits = PTHREAD_COND_INITIALIZER,
};

void log_set(enum log_level level, bool json)
{
	pthread_mutex_lock(&the_log.lock);
	the_log.level = (int)level;
	the_log.json = json;
	pthread_mutex_unlock(&the_log.lock);
}

int log_level_of(const char *word)
{
	for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++)
		if (strcmp(word, level_names[i]) == 0)
			return i;
	return -1;
}

/* Does stderr go to the journal? systemd says which device and inode it gave
 * (systemd.exec(5)); stderr may have been redirected since. */
static bool is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream != NULL && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev &&
	       st.st_ino == ino;
}

static void stamp(char out[STAMP_SIZE])
{
	uint64_t us = wall_us();
	time_t s = (time_t)(us / 1000000);
	struct tm tm;
	char day[sizeof("2026-11-21T04:05:06")];

	gmtime_r(&s, &tm);
	if (strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
		day[0] = '\0'; /* untested: a year of five digits */
	snprintf(out, STAMP_SIZE, "%s.%03uZ", day,
		 (unsigned)(us / 1000 % 1000));
}

static void add_escaped(struct text *x, const char *line)
{
	for (const char *p = line; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;
		if (c < ' ' || c == 0x7f)
			text_printf(x, "\\x%02x", c);
		else
			text_add(x, p, 1);
	}
}

static void add_json(struct text *x, int level, const char *line)
{
	char when[STAMP_SIZE];

	stamp(when);
	text_printf(x,
		    "{\"time\": \"%s\", \"level\": \"%s\", \"message\": ", when,
		    level_names[level]);
	json_add_string(x, line, strlen(line));
	text_puts(x, "}\n");
}

static void add_text(struct text *x, int level, const char *line)
{
	char when[STAMP_SIZE];

	stamp(when);
	text_printf(x, "%s %s: ", when, level_names[level]);
	add_escaped(x, line);
	text_puts(x, "\n");
}

static void keep(const char *bytes, size_t n)
{
	if (n > TAIL_BYTES) {
		bytes += n - TAIL_BYTES;
		n = TAIL_BYTES;
	}
	size_t at = (size_t)(the_log.n_said % TAIL_BYTES);
	size_t first = n < TAIL_BYTES - at ? n : TAIL_BYTES - at;
	memcpy(the_log.tail + at, bytes, first);
	memcpy(the_log.tail, bytes + first, n - first);
	the_log.n_said += n;
}

/* All of it, or what fits: a full log disk must not stop the daemon. */
static void say(const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t got = write(STDERR_FILENO, bytes, n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return;
		bytes += got;
		n -= (size_t)got;
	}
}

/* With the lock. */
static void say_or_queue(const struct text *x)
{
	if (!the_log.has_writer) {
		say(x->base, x->len);
	} else if (the_log.waiting.len + x->len > WAIT_BYTES) {
		the_log.n_lost++;
	} else {
		text_add(&the_log.waiting, x->base, x->len);
		pthread_cond_signal(&the_log.waits);
	}
}

void log_line(int level, const char *line)
{
	struct text kept = {0}, journal = {0};
	int saved = errno;

	if (level < LOG_LEVEL_ERROR)
		level = LOG_LEVEL_ERROR;
	if (level > LOG_LEVEL_DEBUG)
		level = LOG_LEVEL_DEBUG;
	pthread_mutex_lock(&the_log.lock);
	if (level > the_log.level)
		goto out;
	if (the_log.json)
		add_json(&kept, level, line);
	else
		add_text(&kept, level, line);
	keep(kept.base, kept.len);
	if (!the_log.json && is_journal()) { /* it has its own clock */
		text_printf(&journal, "<%d>", level);
		add_escaped(&journal, line);
		text_puts(&journal, "\n");
		say_or_queue(&journal);
	} else {
		say_or_queue(&kept);
	}
out:
	pthread_mutex_unlock(&the_log.lock);
	text_finish(&kept);
	text_finish(&journal);
	errno = saved;
}

/* With the lock: take all that waits, or wait for it. False: the end. */
static bool take_waiting(struct text *out, uint64_t *n_lost)
{
	while (the_log.waiting.len == 0 && !the_log.ending)
		pthread_cond_wait(&the_log.waits, &the_log.lock);
	*out = the_log.waiting;
	*n_lost = the_log.n_lost;
	the_log.waiting = (struct text){0};
	the_log.n_lost = 0;
	return out->len > 0;
}

static void *writer(void *arg)
{
	struct text x;
	uint64_t n_lost;

	/* A descriptor table of its own: who hangs in a write cannot be killed,
	 * and would keep open whatever the daemon has. */
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, CLOSE_RANGE_UNSHARE);
	pthread_mutex_lock(&the_log.lock);
	while (take_waiting(&x, &n_lost)) {
		pthread_mutex_unlock(&the_log.lock);
		say(x.base, x.len);
		text_finish(&x);
		if (n_lost > 0)
			log_warning("%llu lines before this one were lost: the "
				    "log could not be written in time",
				    (unsigned long long)n_lost);
		pthread_mutex_lock(&the_log.lock);
	}
	pthread_mutex_unlock(&the_log.lock);
	return arg;
}

void log_begin(void)
{
	pthread_mutex_lock(&the_log.lock);
	the_log.ending = false;
	the_log.has_writer =
		pthread_create(&the_log.writer, NULL, writer, NULL) == 0;
	if (the_log.has_writer)
		pthread_setname_np(the_log.writer, "ringfs-writer");
	pthread_mutex_unlock(&the_log.lock);
}

void log_end(void)
{
	struct timespec until;

	pthread_mutex_lock(&the_log.lock);
	bool had_writer = the_log.has_writer;
	the_log.ending = true;
	pthread_cond_signal(&the_log.waits);
	pthread_mutex_unlock(&the_log.lock);
	if (!had_writer)
		return;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += END_S;
	if (pthread_timedjoin_np(the_log.writer, NULL, &until) != 0) {
		pthread_detach(the_log.writer);
		return;
	}
	pthread_mutex_lock(&the_log.lock);
	the_log.has_writer = false;
	pthread_mutex_unlock(&the_log.lock);
}

static void log_v(int level, const char *format, va_list args)
{
	char *line = NULL;

	if (vasprintf(&line, format, args) < 0)
		return; /* untested: a format of the program's own is bad */
	log_line(level, line);
	free(line);
}

void log_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_v(LOG_LEVEL_ERROR, format, args);
	va_end(args);
}

void log_warning(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_v(LOG_LEVEL_WARNING, format, args);
	va_end(args);
}

void log_info(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_v(LOG_LEVEL_INFO, format, args);
	va_end(args);
}

void log_debug(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_v(LOG_LEVEL_DEBUG, format, args);
	va_end(args);
}

char *log_tail(size_t *len)
{
	pthread_mutex_lock(&the_log.lock);
	uint64_t said = the_log.n_said;
	size_t n = said < TAIL_BYTES ? (size_t)said : TAIL_BYTES;
	size_t at = (size_t)((said - n) % TAIL_BYTES);
	size_t first = n < TAIL_BYTES - at ? n : TAIL_BYTES - at;
	char *out = xmalloc(n + 1);
	memcpy(out, the_log.tail + at, first);
	memcpy(out + first, the_log.tail, n - first);
	pthread_mutex_unlock(&the_log.lock);
	/* The oldest line is whole only if nothing was said before it. */
	char *line = said > n ? memchr(out, '\n', n) : NULL;
	size_t cut = line == NULL ? 0 : (size_t)(line + 1 - out);
	memmove(out, out + cut, n - cut);
	*len = n - cut;
	return out;
}

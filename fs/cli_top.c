/* SPDX-License-Identifier: MIT */
/* top: what happens, again and again. No clock is shown, so that `watch -d`
 * marks only what changed; no descriptor of the tree is kept between two frames,
 * so that it can be unmounted. */
#include "fs/cli.h"
#include "fs/cli_nodes.h"
#include "fs/cli_table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "fs/text.h"
#include "fs/util.h"

#define OLDEST	  10
#define LOOKED_AT 10000 /* keys of owned/: each costs a request */

static const char help[] =
	"Usage: ringfs top [OPTION]...\n"
	"Show the state, the counts, what happens per second as seen by this\n"
	"node, the nodes, and the keys that are in owned/ for longest: again\n"
	"and again on a terminal, else once.\n"
	"\n"
	"Options:\n"
	"  -d, --delay S      seconds between two frames, 0.1 to 3600\n"
	"                     (default: 1)\n"
	"  -n, --frames N     end after N frames\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"\n"
	"Exit status: 0 shown, or told to end by INT or TERM; 64 usage;\n"
	"69 no daemon; 71 the system refused; 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs top\n"
	"  ringfs top -d 5 -m /srv/ring\n"
	"  watch -d ringfs top -n 1\n";

/* ---- The parts of a frame ---- */

static void put_state(const json_t *document, const char *dir, struct text *out)
{
	static const char *const counts[] = {"keys", "owned", "recovering",
					     "releasing", "parked"};
	char *at = cli_printable(dir);

	text_printf(out, "%s: %s\n", nodes_word(document, "state"),
		    nodes_word(document, "reason"));
	text_printf(out, "node %s, leader %s, mount %s\n",
		    nodes_word(document, "name"),
		    nodes_word(document, "leader"), at);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		text_printf(out, "%s%s %lld", i ? ", " : "", counts[i],
			    nodes_number(document, counts[i]));
	text_puts(out, "\n\n");
	free(at);
}

/* Two readings of status/json, or one; before may be NULL. */
struct readings {
	json_t *before, *now;
	uint64_t between_ms;
};

static const char *const events[] = {"claims", "submits", "finishes",
				     "offers", "takes",	  "gives",
				     "parks",  "retries", "notes"};

#define N_EVENTS (sizeof(events) / sizeof(events[0]))

static void put_events(const struct readings *r, struct text *out)
{
	struct cli_table t = {.n_columns = N_EVENTS + 1, .left = 1};
	const json_t *now = json_object_get(r->now, "events");
	const json_t *before = json_object_get(r->before, "events");

	cli_table_add(&t, "EVENTS");
	for (size_t i = 0; i < N_EVENTS; i++)
		cli_table_add(&t, events[i]);
	cli_table_add(&t, "all");
	for (size_t i = 0; i < N_EVENTS; i++)
		cli_table_printf(&t, "%lld", nodes_number(now, events[i]));
	cli_table_add(&t, "per second");
	for (size_t i = 0; i < N_EVENTS; i++) {
		long long n = nodes_number(now, events[i]) -
			      nodes_number(before, events[i]);
		/* Fewer than before: the daemon is a new one. */
		if (before == NULL || r->between_ms == 0 || n < 0)
			cli_table_add(&t, "-");
		else
			cli_table_printf(&t, "%.1f",
					 (double)n * 1000 /
						 (double)r->between_ms);
	}
	cli_table_put(&t, out);
	cli_table_finish(&t);
	text_puts(out, "\n");
}

struct owned {
	char *name;
	struct timespec claimed;
};

struct oldest {
	struct owned keys[OLDEST]; /* the oldest first */
	size_t n, n_looked;
};

static bool is_older(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec
				      : a->tv_nsec < b->tv_nsec;
}

static void sort_in(struct oldest *o, const char *name,
		    const struct timespec *claimed)
{
	size_t at = o->n;

	while (at > 0 && is_older(claimed, &o->keys[at - 1].claimed))
		at--;
	if (at == OLDEST)
		return;
	if (o->n == OLDEST)
		free(o->keys[--o->n].name);
	memmove(&o->keys[at + 1], &o->keys[at],
		(o->n - at) * sizeof(o->keys[0]));
	o->keys[at] = (struct owned){xstrdup(name), *claimed};
	o->n++;
}

static void find_oldest(int root, struct oldest *o)
{
	int fd = openat(root, "owned", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	struct stat st;

	while (d != NULL && o->n_looked < LOOKED_AT &&
	       (e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.' ||
		    fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue; /* gone by now */
		o->n_looked++;
		sort_in(o, e->d_name, &st.st_ctim); /* ctime is the claim */
	}
	if (d != NULL)
		closedir(d);
}

static void add_fact(struct cli_table *t, int root, const char *key,
		     const char *name)
{
	struct text value = {0};
	int rc = cli_read_xattr(root, key, name, &value);

	text_add(&value, "", 1);
	cli_table_add(t, rc == 0 ? value.base : "-");
	text_finish(&value);
}

static void add_key(struct cli_table *t, int root, const struct owned *key)
{
	char *shown = cli_printable(key->name), when[32];
	struct tm tm;

	gmtime_r(&key->claimed.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	cli_table_add(t, when);
	add_fact(t, root, key->name, "token");
	add_fact(t, root, key->name, "attempts");
	add_fact(t, root, key->name, "reason");
	cli_table_add(t, shown);
	free(shown);
}

/* The name comes last: it may be long. */
static void put_oldest(int root, struct text *out)
{
	static const char *const titles[] = {"CLAIMED", "TOKEN", "ATTEMPTS",
					     "REASON", "OLDEST IN OWNED"};
	struct cli_table t = {.n_columns = 5, .left = 1u | 1u << 3 | 1u << 4};
	struct oldest o = {.n = 0};

	find_oldest(root, &o);
	for (size_t i = 0; i < t.n_columns; i++)
		cli_table_add(&t, titles[i]);
	for (size_t i = 0; i < o.n; i++) {
		add_key(&t, root, &o.keys[i]);
		free(o.keys[i].name);
	}
	text_puts(out, "\n");
	cli_table_put(&t, out);
	if (o.n_looked == LOOKED_AT)
		text_printf(out, "(of %d that were looked at)\n", LOOKED_AT);
	cli_table_finish(&t);
}

/* ---- Frames ---- */

static bool is_screen(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term != NULL &&
	       strcmp(term, "dumb") != 0;
}

/* Over the one before, without a flicker: each line is cleared to its end, and
 * what is below; too long ones are cut by the terminal, too many here. */
static void draw(const struct text *frame)
{
	struct winsize size = {.ws_row = 24};
	const char *p = frame->base, *end = p + frame->len;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row < 2)
		size.ws_row = 24;
	fputs("\033[?7l\033[H", stdout);
	for (int row = 1; p < end && row < size.ws_row; row++) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((eol != NULL ? eol : end) - p);
		fwrite(p, 1, n, stdout);
		fputs("\033[K\n", stdout);
		p += n + (eol != NULL);
	}
	fputs("\033[J\033[?7h", stdout);
	fflush(stdout);
}

struct top {
	struct cli_mount mount; /* its fd is open during a frame only */
	struct readings readings;
	uint64_t read_ms;
	bool screen;
	unsigned n_shown;
};

static int show_frame(struct top *t)
{
	struct readings *r = &t->readings;
	struct text frame = {0};
	json_t *now;
	int rc = nodes_ask("top", &t->mount, &now);

	if (rc != EX_OK)
		return rc;
	uint64_t now_ms = boot_ms();
	json_decref(r->before);
	*r = (struct readings){r->now, now, now_ms - t->read_ms};
	t->read_ms = now_ms;
	put_state(now, t->mount.dir, &frame);
	put_events(r, &frame);
	nodes_put_shares(now, &frame);
	put_oldest(t->mount.fd, &frame);
	if (t->screen) {
		draw(&frame);
	} else {
		if (t->n_shown > 0)
			putchar('\n');
		fwrite(frame.base, 1, frame.len, stdout);
		fflush(stdout);
	}
	t->n_shown++;
	text_finish(&frame);
	return EX_OK;
}

static int next_frame(struct top *t)
{
	t->mount.fd = open(t->mount.dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (t->mount.fd < 0) {
		cli_say("top", "'%s': %s", t->mount.dir, strerror(errno));
		return EX_UNAVAILABLE;
	}
	int rc = show_frame(t);
	close(t->mount.fd);
	t->mount.fd = -1;
	return rc;
}

/* n: how many, 0: without end. */
static int run(struct top *t, unsigned delay_ms, unsigned n)
{
	struct timespec delay = {.tv_sec = delay_ms / 1000,
				 .tv_nsec = (long)(delay_ms % 1000) * 1000000};
	sigset_t ends;
	int rc;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	close(t->mount.fd);
	t->screen = is_screen();
	if (t->screen)
		fputs("\033[H\033[J", stdout);
	while ((rc = next_frame(t)) == EX_OK && !ferror(stdout)) {
		if (n != 0 && t->n_shown == n)
			break;
		if (sigtimedwait(&ends, NULL, &delay) > 0)
			break;
	}
	json_decref(t->readings.before);
	json_decref(t->readings.now);
	return rc;
}

static unsigned parse_delay(const char *verb, const char *s)
{
	char *end;
	double v = strspn(s, "0123456789.") == strlen(s) ? strtod(s, &end) : 0;

	if (v < 0.1 || v > 3600 || *end != '\0')
		cli_usage(verb, "-d %s: must be 0.1 to 3600 seconds", s);
	return (unsigned)(v * 1000);
}

static unsigned parse_frames(const char *verb, const char *s)
{
	size_t n = strspn(s, "0123456789");
	unsigned long v =
		n > 0 && n < 10 && s[n] == '\0' ? strtoul(s, NULL, 10) : 0;

	if (v == 0)
		cli_usage(verb, "-n %s: must be 1 to 999999999", s);
	return (unsigned)v;
}

int cli_top(int argc, char **argv)
{
	static const struct option longs[] = {
		{"delay", required_argument, NULL, 'd'},
		{"frames", required_argument, NULL, 'n'},
		{"mount", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	unsigned delay_ms = 1000, n = is_screen() ? 0 : 1;
	struct top t = {.n_shown = 0};
	const char *given = NULL;
	int c;

	while ((c = cli_next(argc, argv, "d:n:m:h", longs, help)) >= 0) {
		if (c == 'd')
			delay_ms = parse_delay(argv[0], optarg);
		if (c == 'n')
			n = parse_frames(argv[0], optarg);
		if (c == 'm')
			given = optarg;
	}
	if (optind < argc)
		cli_usage(argv[0], "'%s': no argument is wanted", argv[optind]);
	int rc = cli_mount_find(argv[0], given, &t.mount);
	if (rc != EX_OK)
		return rc;
	rc = run(&t, delay_ms, n);
	cli_mount_finish(&t.mount);
	return rc;
}

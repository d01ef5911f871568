/* SPDX-License-Identifier: MIT */
/* show and route: what is known about a key. */
#include "fs/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <sysexits.h>

#include "fs/json.h"
#include "fs/text.h"
#include "fs/util.h"

#define LIST_MAX 4096 /* bytes: the names of a key's attributes */

static const char show_help[] =
	"Usage: ringfs show [OPTION]... K\n"
	"Show the facts of the key K, in lines of NAME VALUE. The note is\n"
	"in keys/K; --json has it, too.\n"
	"\n"
	"Options:\n"
	"      --json         one JSON document\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"In JSON, text that is no UTF-8 is percent-encoded, and then\n"
	"NAME_encoded is true. A name that begins with a dash goes\n"
	"behind --.\n"
	"\n"
	"Exit status: 0 shown; 1 there is no such key; 64 usage;\n"
	"69 no daemon; 71 the system refused; 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs show order-42\n"
	"  ringfs show order-42 | sed -n 's/^token //p'\n"
	"  ringfs show --json order-42 | jq -r .holder\n";

static const char route_help[] =
	"Usage: ringfs route [OPTION]... K\n"
	"Name the ring owner of K, whether K is claimed or not.\n"
	"\n"
	"Options:\n"
	"  -m, --mount DIR    the ring mounted at DIR\n"
	"  -h, --help         show this text\n"
	"Without -m: the ring in $RINGFS, else the one around the working\n"
	"directory, else the only one that is mounted.\n"
	"A name that begins with a dash goes behind --.\n"
	"\n"
	"Exit status: 0 named; 1 nobody owns it; 64 usage; 69 no daemon;\n"
	"71 the system refused; 77 permission.\n"
	"\n"
	"Examples:\n"
	"  ringfs route order-42\n"
	"  ssh \"$(ringfs route order-42)\" ship order-42\n"
	"  ringfs route -m /srv/ring -- -odd-name-\n";

/* ---- show ---- */

/* The facts of a key, as they come. */
struct shown {
	const char *key;
	bool json;
	struct text out;
};

/* Is this a number in JSON's eyes? */
static bool is_number(const char *s)
{
	size_t n = strspn(s, "0123456789");

	if (n == 0 || (s[0] == '0' && n > 1))
		return false;
	if (s[n] != '.')
		return s[n] == '\0';
	size_t m = strspn(s + n + 1, "0123456789");
	return m > 0 && s[n + 1 + m] == '\0';
}

/* These are numbers whenever they are there; others may look like one. */
static bool is_numeric(const char *name)
{
	static const char *const numeric[] = {"token", "vnode", "attempts",
					      "since", "claimed"};

	for (size_t i = 0; i < sizeof(numeric) / sizeof(numeric[0]); i++)
		if (strcmp(name, numeric[i]) == 0)
			return true;
	return false;
}

static void put_member(struct text *out, const char *name)
{
	text_puts(out, out->len == 0 ? "{\n  " : ",\n  ");
	json_add_string(out, name, strlen(name));
	text_puts(out, ": ");
}

/* A string of bytes that came from outside, and whether it is encoded. */
static void put_bytes(struct text *out, const char *name, const char *bytes,
		      size_t n)
{
	bool encoded = !json_is_utf8(bytes, n);
	struct text safe = {0};
	char *flag = xasprintf("%s_encoded", name);

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)bytes[i];
		if (encoded && (c <= ' ' || c >= 0x7f || c == '%'))
			text_printf(&safe, "%%%02X", c);
		else
			text_add(&safe, bytes + i, 1);
	}
	put_member(out, name);
	json_add_string(out, safe.base == NULL ? "" : safe.base, safe.len);
	put_member(out, flag);
	text_puts(out, encoded ? "true" : "false");
	text_finish(&safe);
	free(flag);
}

static bool is_name(const char *name)
{
	return strcmp(name, "holder") == 0 || strcmp(name, "heir") == 0 ||
	       strcmp(name, "from") == 0;
}

static void put_fact(struct shown *s, const char *name, const char *value)
{
	if (!s->json) {
		char *safe = cli_printable(value);
		text_printf(&s->out, "%s %s\n", name, safe);
		free(safe);
	} else if (is_name(name)) {
		put_bytes(&s->out, name, value, strlen(value));
	} else if (is_numeric(name) && is_number(value)) {
		put_member(&s->out, name);
		text_puts(&s->out, value);
	} else {
		put_member(&s->out, name);
		json_add_string(&s->out, value, strlen(value));
	}
}

static int put_facts(struct shown *s, int dir_fd)
{
	static const char prefix[] = "user.ring.";
	char names[LIST_MAX];
	char *path = xasprintf("/proc/self/fd/%d/keys/%s", dir_fd, s->key);
	ssize_t n = llistxattr(path, names, sizeof(names));
	int rc = n < 0 ? -errno : 0;

	free(path);
	for (ssize_t i = 0; i < n; i += (ssize_t)strlen(names + i) + 1) {
		struct text value = {0};
		const char *name = names + i;
		if (strncmp(name, prefix, sizeof(prefix) - 1) != 0)
			continue;
		name += sizeof(prefix) - 1;
		rc = cli_read_xattr(dir_fd, s->key, name, &value);
		text_add(&value, "", 1);
		if (rc == 0)
			put_fact(s, name, value.base);
		text_finish(&value);
		if (rc < 0 && rc != -ENODATA)
			return rc; /* gone while we looked */
		rc = 0;
	}
	return rc;
}

static int gather(struct shown *s, int dir_fd)
{
	char *path = xasprintf("keys/%s", s->key);
	struct text note = {0};
	int rc = cli_read_file(dir_fd, path, &note);

	free(path);
	if (rc == 0 && s->json)
		put_bytes(&s->out, "key", s->key, strlen(s->key));
	else if (rc == 0)
		put_fact(s, "key", s->key);
	if (rc == 0)
		rc = put_facts(s, dir_fd);
	if (rc == 0 && s->json) {
		put_bytes(&s->out, "note", note.base == NULL ? "" : note.base,
			  note.len);
		text_puts(&s->out, "\n}\n");
	} else if (rc == 0) {
		text_printf(&s->out, "note_bytes %zu\n", note.len);
	}
	text_finish(&note);
	return rc;
}

int cli_show(int argc, char **argv)
{
	static const struct option longs[] = {
		{"mount", required_argument, NULL, 'm'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	struct shown s = {0};
	const char *given = NULL;
	struct cli_mount m;
	int c;

	while ((c = cli_next(argc, argv, "m:h", longs, show_help)) >= 0) {
		if (c == 'm')
			given = optarg;
		s.json |= c == 'j';
	}
	if (argc - optind != 1)
		cli_usage(argv[0], "the name of one key is wanted");
	s.key = argv[optind];
	cli_check_key(argv[0], s.key);
	int status = cli_mount_find(argv[0], given, &m);
	if (status != 0)
		return status;
	int rc = gather(&s, m.fd);
	if (rc == 0)
		fwrite(s.out.base, 1, s.out.len, stdout);
	else
		status = cli_refused(argv[0], s.key, rc, "");
	text_finish(&s.out);
	cli_mount_finish(&m);
	return status;
}

/* ---- route ---- */

int cli_route(int argc, char **argv)
{
	static const struct option longs[] = {
		{"mount", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	const char *given = NULL;
	struct text name = {0};
	struct cli_mount m;

	while (cli_next(argc, argv, "m:h", longs, route_help) >= 0)
		given = optarg;
	if (argc - optind != 1)
		cli_usage(argv[0], "the name of one key is wanted");
	cli_check_key(argv[0], argv[optind]);
	int status = cli_mount_find(argv[0], given, &m);
	if (status != 0)
		return status;
	int rc = cli_read_route(m.fd, argv[optind], &name);
	if (rc < 0) {
		status = cli_refused(argv[0], argv[optind], rc, "");
	} else {
		fwrite(name.base, 1, name.len, stdout);
		putchar('\n');
	}
	text_finish(&name);
	cli_mount_finish(&m);
	return status;
}

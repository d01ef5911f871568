/* SPDX-License-Identifier: MIT */
/* Which ring is meant. Only /proc is read and only O_PATH descriptors are made:
 * neither asks the daemon, whose answer might never come. */
#include "fs/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/util.h"

/* A line of mountinfo (proc(5)):
 *   id parent major:minor root mountpoint options [tag...] - type source super */
struct entry {
	int id;
	char *device, *root, *dir, *type;
};

/* Octal escapes, as in \040 for a space, become what they mean. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s != '\0'; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' &&
		    s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
					(s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

/* Cut line into e. */
static bool parse_entry(char *line, struct entry *e)
{
	char *rest = line, *word;
	char **fields[] = {NULL, NULL, &e->device, &e->root, &e->dir};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		word = strsep(&rest, " ");
		if (word == NULL)
			return false;
		if (i == 0)
			e->id = atoi(word);
		if (fields[i] != NULL)
			*fields[i] = word;
	}
	do
		word = strsep(&rest, " ");
	while (word != NULL && strcmp(word, "-") != 0);
	e->type = strsep(&rest, " ");
	if (e->type == NULL)
		return false;
	unescape(e->dir);
	return true;
}

/* The whole tree of a ring; not another file system, nor a part of one. */
static bool is_ring(const struct entry *e)
{
	return strcmp(e->type, "fuse.ringfs") == 0 && strcmp(e->root, "/") == 0;
}

/* Call each(data, entry) for every ring until it says true. */
static void for_rings(bool (*each)(void *data, const struct entry *e),
		      void *data)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t cap = 0;
	bool found = false;

	while (f != NULL && !found && getline(&line, &cap, f) > 0) {
		struct entry e;
		line[strcspn(line, "\n")] = '\0';
		if (parse_entry(line, &e) && is_ring(&e))
			found = each(data, &e);
	}
	free(line);
	if (f != NULL)
		fclose(f);
}

struct by_id {
	int id;
	char *dir; /* result */
};

static bool match_id(void *data, const struct entry *e)
{
	struct by_id *m = data;

	if (e->id != m->id)
		return false;
	m->dir = xstrdup(e->dir);
	return true;
}

struct by_dir {
	const char *dir;
	char *device; /* result: of the last, which lies above the others */
};

static bool match_dir(void *data, const struct entry *e)
{
	struct by_dir *m = data;

	if (strcmp(e->dir, m->dir) == 0) {
		free(m->device);
		m->device = xstrdup(e->device);
	}
	return false;
}

struct by_device {
	const char *device;
	bool found; /* result */
};

static bool match_device(void *data, const struct entry *e)
{
	struct by_device *m = data;

	m->found = strcmp(e->device, m->device) == 0;
	return m->found;
}

struct all {
	char *device, *dir; /* of the first */
	char *others;	    /* "'A' and 'B'" when there are several */
};

static bool collect(void *data, const struct entry *e)
{
	struct all *a = data;

	if (a->dir == NULL) {
		a->device = xstrdup(e->device);
		a->dir = xstrdup(e->dir);
	} else if (strcmp(a->device, e->device) != 0) { /* no bind mount */
		a->others = xasprintf("'%s' and '%s'", a->dir, e->dir);
		return true;
	}
	return false;
}

int cli_mount_id(int fd)
{
	char path[64], *line = NULL;
	size_t cap = 0;
	int id = -1;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	FILE *f = fopen(path, "re");
	while (f != NULL && id < 0 && getline(&line, &cap, f) > 0)
		if (sscanf(line, "mnt_id: %d", &id) != 1)
			id = -1;
	free(line);
	if (f != NULL)
		fclose(f);
	return id;
}

/* The ring around dir; *dir_of is NULL if there is none. 0 or negative errno. */
static int ring_around(const char *dir, char **dir_of)
{
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	*dir_of = NULL;
	if (fd < 0)
		return -errno;
	struct by_id m = {.id = cli_mount_id(fd)};
	close(fd);
	if (m.id >= 0)
		for_rings(match_id, &m);
	*dir_of = m.dir;
	return 0;
}

/* Takes dir. */
static int open_root(const char *verb, char *dir, struct cli_mount *out)
{
	out->dir = dir;
	out->fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (out->fd >= 0)
		return 0;
	int rc = -errno;
	cli_say(verb, "'%s': %s", dir, strerror(-rc));
	cli_mount_finish(out);
	return rc == -EACCES ? EX_NOPERM : EX_UNAVAILABLE;
}

/* dir was named by the user, in words that what repeats. */
static int find_named(const char *verb, const char *what, const char *dir,
		      struct cli_mount *out)
{
	char *found;
	int rc = ring_around(dir, &found);

	if (rc == 0 && found != NULL)
		return open_root(verb, found, out);
	cli_say(verb, "%s'%s': %s", what, dir,
		rc < 0 ? strerror(-rc) : "no ringfs is mounted here");
	return rc == -EACCES ? EX_NOPERM : EX_UNAVAILABLE;
}

static int find_only(const char *verb, struct cli_mount *out)
{
	struct all all = {0};
	int rc;

	for_rings(collect, &all);
	if (all.others != NULL) {
		cli_say(verb,
			"several rings are mounted, %s among them; say which "
			"with -m DIR",
			all.others);
		rc = EX_USAGE;
	} else if (all.dir == NULL) {
		cli_say(verb, "no ringfs is mounted; start one with: ringfs "
			      "mount DIR");
		rc = EX_UNAVAILABLE;
	} else {
		rc = open_root(verb, xstrdup(all.dir), out);
	}
	free(all.device);
	free(all.dir);
	free(all.others);
	return rc;
}

int cli_mount_find(const char *verb, const char *given, struct cli_mount *out)
{
	const char *env = getenv("RINGFS");
	char *around;

	*out = (struct cli_mount){.fd = -1};
	if (given != NULL)
		return find_named(verb, "", given, out);
	if (env != NULL && env[0] != '\0')
		return find_named(verb, "RINGFS=", env, out);
	if (ring_around(".", &around) == 0 && around != NULL)
		return open_root(verb, around, out);
	return find_only(verb, out);
}

int cli_mount_at(const char *verb, const char *dir, struct cli_mount *out)
{
	*out = (struct cli_mount){.fd = -1};
	int rc = find_named(verb, "", dir, out);
	if (rc != 0)
		return rc;
	char path[64], at[PATH_MAX];
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, at, sizeof(at) - 1);
	if (fd >= 0)
		close(fd);
	at[n < 0 ? 0 : n] = '\0';
	if (strcmp(at, out->dir) == 0)
		return 0;
	cli_say(verb, "'%s': the ring is mounted at '%s'", dir, out->dir);
	cli_mount_finish(out);
	return EX_USAGE;
}

char *cli_mount_device(const struct cli_mount *m)
{
	struct by_dir at = {.dir = m->dir};

	for_rings(match_dir, &at);
	return at.device;
}

bool cli_mount_is_anywhere(const char *device)
{
	struct by_device m = {.device = device};

	for_rings(match_device, &m);
	return m.found;
}

void cli_mount_finish(struct cli_mount *m)
{
	if (m->fd >= 0)
		close(m->fd);
	free(m->dir);
	*m = (struct cli_mount){.fd = -1};
}

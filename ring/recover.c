/* SPDX-License-Identifier: MIT */
/* A node's log and store, read while its daemon does not run, and made a cluster
 * of one: the last resort when a majority of the voters is gone.
 *
 * The machine here is one of its own that nobody watches: it is loaded from the
 * store, and all of the log is applied to it, for the names of the nodes and the
 * count of the keys. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ring/group.h"
#include "ring/keyset.h"
#include "ring/mem.h"
#include "ring/wal.h"

static int on_apply(void *data, uint64_t index, const void *bytes, size_t len)
{
	return keyset_apply(data, index, bytes, len);
}

static int on_load_key(void *data, const void *record, size_t len)
{
	return keyset_load_key(data, record, len);
}

static int on_load_meta(void *data, const void *meta, size_t len)
{
	int rc = keyset_load_meta(data, meta, len);

	return rc == 0 ? keyset_load_end(data) : rc;
}

static void on_log(void *data, int level, const char *line)
{
	(void)data;
	(void)level;
	(void)line; /* what a crash has left is cut off in silence */
}

static uint64_t mtime_us(int dir_fd, const char *name)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return (uint64_t)st.st_mtim.tv_sec * 1000000 +
	       (uint64_t)st.st_mtim.tv_nsec / 1000;
}

/* Before anything is opened: that may write. */
static uint64_t last_write_us(const char *dir)
{
	char path[4096];
	const struct dirent *e;
	uint64_t last = 0;

	snprintf(path, sizeof(path), "%s/wal", dir);
	DIR *wal = opendir(path);

	while (wal != NULL && (e = readdir(wal)) != NULL) {
		const char *dot = strrchr(e->d_name, '.');

		if (dot == NULL || strcmp(dot, ".seg") != 0)
			continue;
		uint64_t us = mtime_us(dirfd(wal), e->d_name);

		last = us > last ? us : last;
	}
	if (wal != NULL)
		closedir(wal);
	return last;
}

static void put_server(const struct keyset *keys, const struct group_server *s,
		       const struct group_config *config,
		       struct ring_server *out)
{
	static const enum ring_role roles[] = {
		[GROUP_STANDBY] = RING_ROLE_STANDBY,
		[GROUP_VOTER] = RING_ROLE_VOTER,
		[GROUP_SPARE] = RING_ROLE_SPARE,
		[GROUP_NONE] = RING_ROLE_NONE,
	};
	const struct ring_node *n =
		keyset_node(keys, keyset_find_node(keys, &s->node));

	out->id = s->node;
	out->role = roles[s->role];
	out->is_self = memcmp(&s->node, &config->node, sizeof(s->node)) == 0;
	if (n == NULL)
		return;
	out->n_keys = n->n_keys;
	snprintf(out->name, sizeof(out->name), "%s", n->name);
}

static void put_log(const struct keyset *keys, const struct group_log *log,
		    const struct group_config *config, struct ring_log *out)
{
	const struct ring_settings *s = keyset_settings(keys);

	out->index = log->index;
	out->term = log->term;
	out->generation = log->generation;
	out->lease_ms = s != NULL ? s->lease_ms : 0;
	keyset_list(keys, RING_VIEW_KEYS, RING_NONE, &out->n_keys);
	out->servers = xcalloc(log->n_servers + 1, sizeof(*out->servers));
	out->n_servers = log->n_servers;
	for (size_t i = 0; i < log->n_servers; i++) {
		put_server(keys, &log->servers[i], config, &out->servers[i]);
		out->n_voters += log->servers[i].role == GROUP_VOTER;
	}
}

/* Either look or recover. */
static int run(const char *dir, struct group_config *config,
	       int (*what)(const struct group_config *config,
			   struct group_log *out, char *errmsg),
	       struct ring_log *out, char *errmsg)
{
	const struct keyset_events none = {0};
	struct keyset *keys = keyset_create(&none);
	struct group_log log;

	*out = (struct ring_log){.written_us = last_write_us(dir)};
	config->dir = dir;
	config->apply = on_apply;
	config->load_key = on_load_key;
	config->load_meta = on_load_meta;
	config->on_log = on_log;
	config->data = keys;
	int rc = what(config, &log, errmsg);

	if (rc == 0) {
		put_log(keys, &log, config, out);
		free(log.servers);
	}
	keyset_destroy(keys);
	return rc;
}

int ring_look(const char *dir, const struct ring_id *cluster,
	      const struct ring_id *id, struct ring_log *out,
	      char errmsg[RING_ERRMSG_SIZE])
{
	struct group_config config = {.cluster = *cluster, .node = *id};

	return run(dir, &config, group_look, out, errmsg);
}

void ring_log_finish(struct ring_log *log)
{
	free(log->servers);
	*log = (struct ring_log){0};
}

int ring_recover(const char *dir, const struct ring_id *cluster,
		 const struct ring_id *id, char errmsg[RING_ERRMSG_SIZE])
{
	struct group_config config = {.cluster = *cluster, .node = *id};
	struct ring_log was;
	int rc = run(dir, &config, group_recover, &was, errmsg);

	ring_log_finish(&was);
	return rc;
}

/* The store belongs to the log: it goes when the next log is made. */
int ring_remove_log(const char *dir)
{
	return wal_remove(dir);
}

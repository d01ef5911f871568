/* SPDX-License-Identifier: MIT */
#include "fs/dir_ctl_nodes.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/cluster.h"
#include "fs/dir_status.h"
#include "fs/tree_impl.h"
#include "fs/util.h"

static int join(struct tree *t, const char *argument)
{
	return cluster_join(t->cluster, argument);
}

/* The node stops when its keys have gone to others, and they were told. */
static int leave(struct tree *t, const char *argument)
{
	bool force = strcmp(argument, "force") == 0;

	if (!force && argument[0] != '\0')
		return -EINVAL;
	return ring_leave(t->ring, boot_ms(), force);
}

static int stay(struct tree *t, const char *argument)
{
	if (argument[0] != '\0')
		return -EINVAL;
	return ring_stay(t->ring, boot_ms());
}

static int drain(struct tree *t, const char *argument)
{
	if (argument[0] != '\0')
		return -EINVAL;
	ring_drain(t->ring, boot_ms(), true);
	return 0;
}

static int resume(struct tree *t, const char *argument)
{
	int rc = stay(t, argument);

	if (rc == 0)
		ring_drain(t->ring, boot_ms(), false);
	return rc;
}

static int weight(struct tree *t, const char *argument)
{
	size_t n = strspn(argument, "0123456789");

	if (n == 0 || n > 5 || argument[n] != '\0')
		return -EINVAL;
	return ring_set_weight(t->ring, boot_ms(),
			       (uint32_t)strtoul(argument, NULL, 10));
}

static int forget(struct tree *t, const char *argument)
{
	return dir_peers_forget(t, argument, false);
}

static int key_add(struct tree *t, const char *argument)
{
	return cluster_key_add(t->cluster,
			       argument[0] == '\0' ? NULL : argument);
}

/* 16 hex digits. 0 or -EINVAL. */
static int parse_id(const char *s, uint64_t *out)
{
	static const char digits[] = "0123456789abcdef";

	*out = 0;
	if (strlen(s) != 16)
		return -EINVAL;
	for (; *s != '\0'; s++) {
		const char *digit = strchr(digits, *s);

		if (digit == NULL)
			return -EINVAL;
		*out = *out << 4 | (uint64_t)(digit - digits);
	}
	return 0;
}

static int key_use(struct tree *t, const char *argument)
{
	uint64_t id;
	int rc = parse_id(argument, &id);

	return rc == 0 ? cluster_key_use(t->cluster, id) : rc;
}

static int key_remove(struct tree *t, const char *argument)
{
	uint64_t id;
	int rc = parse_id(argument, &id);

	return rc == 0 ? cluster_key_remove(t->cluster, id) : rc;
}

int dir_ctl_admin(const struct call *c, const char *verb, const char *argument,
		  size_t len)
{
	static const struct {
		const char *verb;
		int (*run)(struct tree *t, const char *argument);
	} verbs[] = {
		{"join", join},	      {"leave", leave},
		{"stay", stay},	      {"drain", drain},
		{"resume", resume},   {"weight", weight},
		{"forget", forget},   {"key-add", key_add},
		{"key-use", key_use}, {"key-remove", key_remove},
	};
	struct tree *t = c->tree;
	size_t i = 0;
	int rc = call_may_administer(c);

	if (rc != 0)
		return rc;
	if (t->cluster == NULL || strlen(argument) != len)
		return -EINVAL;
	while (strcmp(verbs[i].verb, verb) != 0) {
		i++;
		assert(i < sizeof(verbs) / sizeof(verbs[0]));
	}
	return verbs[i].run(t, argument);
}

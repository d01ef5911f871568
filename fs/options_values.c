/* SPDX-License-Identifier: MIT */
#include "fs/options_impl.h"

#include <errno.h>
#include <grp.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/log.h"
#include "fs/peers.h"
#include "fs/port.h"
#include "fs/util.h"

#define HANDOVER_MAX_S 4000000 /* its milliseconds fit in 32 bits */

static void *member(struct options *o, const struct options_def *def)
{
	return (char *)o + def->at;
}

static bool parse_number(const char *s, uint32_t *out)
{
	size_t n = strspn(s, "0123456789");

	if (n == 0 || n > 10 || s[n] != '\0')
		return false;
	unsigned long long v = strtoull(s, NULL, 10);
	*out = (uint32_t)v;
	return v <= UINT32_MAX;
}

static int set_number(struct options *o, const struct options_def *def,
		      const char *value, char why[RING_ERRMSG_SIZE])
{
	uint32_t n;

	if (!parse_number(value, &n) || n < def->min || n > def->max) {
		snprintf(why, RING_ERRMSG_SIZE, "must be %u to %u", def->min,
			 def->max);
		return -EINVAL;
	}
	*(uint32_t *)member(o, def) = n;
	return 0;
}

static int set_vnodes(struct options *o, const struct options_def *def,
		      const char *value, char why[RING_ERRMSG_SIZE])
{
	uint32_t n;

	if (!parse_number(value, &n) || n < def->min || n > def->max ||
	    (n & (n - 1)) != 0) {
		snprintf(why, RING_ERRMSG_SIZE,
			 "must be a power of two, %u to %u", def->min,
			 def->max);
		return -EINVAL;
	}
	o->settings.vnodes = n;
	return 0;
}

static int set_handover(struct options *o, const struct options_def *def,
			const char *value, char why[RING_ERRMSG_SIZE])
{
	uint32_t n = 0;

	if (strcmp(value, "never") != 0 &&
	    (!parse_number(value, &n) || n < def->min || n > def->max)) {
		snprintf(why, RING_ERRMSG_SIZE,
			 "must be %u to %u seconds, or never", def->min,
			 def->max);
		return -EINVAL;
	}
	o->settings.handover_timeout_ms = n * 1000;
	return 0;
}

static int set_flag(struct options *o, const struct options_def *def,
		    const char *value, char why[RING_ERRMSG_SIZE])
{
	bool yes = strcmp(value, "yes") == 0;

	if (!yes && strcmp(value, "no") != 0) {
		snprintf(why, RING_ERRMSG_SIZE, "must be yes or no");
		return -EINVAL;
	}
	*(bool *)member(o, def) = yes;
	return 0;
}

static int set_claims(struct options *o, const struct options_def *def,
		      const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	bool any = strcmp(value, "any") == 0;
	if (!any && strcmp(value, "owner") != 0) {
		snprintf(why, RING_ERRMSG_SIZE, "must be owner or any");
		return -EINVAL;
	}
	o->settings.claims = any ? RING_CLAIMS_ANY : RING_CLAIMS_OWNER;
	return 0;
}

int options_set_name(struct options *o, const char *value,
		     char why[RING_ERRMSG_SIZE])
{
	const char *reason = peers_flaw(value);

	if (reason != NULL) {
		snprintf(why, RING_ERRMSG_SIZE, "%s", reason);
		return -EINVAL;
	}
	o->name = xstrdup(value);
	return 0;
}

static int set_name(struct options *o, const struct options_def *def,
		    const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	return options_set_name(o, value, why);
}

char *options_absolute(const char *path)
{
	char *out = realpath(path, NULL);

	if (out != NULL)
		return out;
	char *for_dir = xstrdup(path), *for_base = xstrdup(path);
	const char *base = basename(for_base);
	char *dir = realpath(dirname(for_dir), NULL);
	char *cwd = path[0] == '/' ? NULL : getcwd(NULL, 0);
	if (dir != NULL && strcmp(base, "..") != 0)
		out = xasprintf("%s/%s", dir[1] == '\0' ? "" : dir, base);
	else if (cwd != NULL)
		out = xasprintf("%s/%s", cwd, path);
	else
		out = xstrdup(path);
	free(cwd);
	free(dir);
	free(for_base);
	free(for_dir);
	return out;
}

static int set_state(struct options *o, const struct options_def *def,
		     const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	if (value[0] == '\0') {
		snprintf(why, RING_ERRMSG_SIZE, "must not be empty");
		return -EINVAL;
	}
	o->state = options_absolute(value);
	return 0;
}

static int set_bind(struct options *o, const struct options_def *def,
		    const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	if (port_check(value, why) < 0)
		return -EINVAL;
	o->bind = xstrdup(value);
	return 0;
}

/* As others reach it: no port 0. */
static int check_peer(const char *value, char why[RING_ERRMSG_SIZE])
{
	if (port_check(value, why) < 0)
		return -EINVAL;
	if (strtoul(strrchr(value, ':') + 1, NULL, 10) != 0)
		return 0;
	snprintf(why, RING_ERRMSG_SIZE, "the port must be 1 to 65535");
	return -EINVAL;
}

static int set_advertise(struct options *o, const struct options_def *def,
			 const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	if (check_peer(value, why) < 0)
		return -EINVAL;
	o->advertise = xstrdup(value);
	return 0;
}

/* One or more, with blanks between them. */
static int set_join(struct options *o, const struct options_def *def,
		    const char *value, char why[RING_ERRMSG_SIZE])
{
	char *words = xstrdup(value), *rest = words, *word;
	int rc = 0;

	(void)def;
	while (rc == 0 && (word = strsep(&rest, " ")) != NULL) {
		if (word[0] == '\0' && rest != NULL)
			continue;
		rc = check_peer(word, why);
		if (rc < 0)
			break;
		o->joins = xrealloc(o->joins,
				    (o->n_joins + 1) * sizeof(o->joins[0]));
		o->joins[o->n_joins++] = xstrdup(word);
	}
	free(words);
	return rc;
}

static int set_key_file(struct options *o, const struct options_def *def,
			const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	if (value[0] == '\0') {
		snprintf(why, RING_ERRMSG_SIZE, "must not be empty");
		return -EINVAL;
	}
	o->key_file = options_absolute(value);
	return 0;
}

/* The place of value among words, which end with NULL; or -1, and why. */
static int word_in(const char *const words[], const char *value,
		   char why[RING_ERRMSG_SIZE])
{
	size_t n = 0;

	for (int i = 0; words[i] != NULL; i++)
		if (strcmp(words[i], value) == 0)
			return i;
	n += (size_t)snprintf(why, RING_ERRMSG_SIZE, "must be %s", words[0]);
	for (int i = 1; words[i] != NULL; i++)
		n += (size_t)snprintf(why + n, RING_ERRMSG_SIZE - n, "%s%s",
				      words[i + 1] == NULL ? " or " : ", ",
				      words[i]);
	return -1;
}

static int set_insecure(struct options *o, const struct options_def *def,
			const char *value, char why[RING_ERRMSG_SIZE])
{
	static const char *const words[] = {[OPTIONS_SEALED] = "no",
					    [OPTIONS_SEALED_AND_CLEAR] = "both",
					    [OPTIONS_CLEAR] = "yes",
					    NULL};
	int i = word_in(words, value, why);

	(void)def;
	if (i < 0)
		return -EINVAL;
	o->seal = (enum options_seal)i;
	return 0;
}

static int set_preset(struct options *o, const struct options_def *def,
		      const char *value, char why[RING_ERRMSG_SIZE])
{
	static const char *const words[] = {[OPTIONS_LAN] = "lan",
					    [OPTIONS_LOCAL] = "local",
					    [OPTIONS_WAN] = "wan",
					    NULL};
	int i = word_in(words, value, why);

	(void)def;
	if (i < 0)
		return -EINVAL;
	o->preset = (enum options_preset)i;
	return 0;
}

static int set_group(struct options *o, const struct options_def *def,
		     const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	const struct group *g = getgrnam(value);
	uint32_t gid;
	if (g != NULL) {
		o->group = g->gr_gid;
	} else if (parse_number(value, &gid) && gid != UINT32_MAX) {
		o->group = gid;
	} else {
		snprintf(why, RING_ERRMSG_SIZE, "there is no such group");
		return -EINVAL;
	}
	o->has_group = true;
	return 0;
}

static int set_source(struct options *o, const struct options_def *def,
		      const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	if (value[0] == '\0') {
		snprintf(why, RING_ERRMSG_SIZE, "must not be empty");
		return -EINVAL;
	}
	o->source = xstrdup(value);
	return 0;
}

static int set_log_level(struct options *o, const struct options_def *def,
			 const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	o->log_level = log_level_of(value);
	if (o->log_level >= 0)
		return 0;
	snprintf(why, RING_ERRMSG_SIZE,
		 "must be error, warning, notice, info or debug");
	return -EINVAL;
}

static int set_log_format(struct options *o, const struct options_def *def,
			  const char *value, char why[RING_ERRMSG_SIZE])
{
	(void)def;
	o->log_json = strcmp(value, "json") == 0;
	if (o->log_json || strcmp(value, "text") == 0)
		return 0;
	snprintf(why, RING_ERRMSG_SIZE, "must be text or json");
	return -EINVAL;
}

#define AT(m) offsetof(struct options, m)

const struct options_def options_defs[] = {
	{.name = "foreground",
	 .set = set_flag,
	 .at = AT(foreground),
	 .is_flag = true},
	{.name = "name", .set = set_name},
	{.name = "state", .set = set_state},
	{.name = "bind", .set = set_bind},
	{.name = "advertise", .set = set_advertise},
	{.name = "join", .set = set_join, .is_list = true},
	{.name = "key-file", .set = set_key_file},
	{.name = "insecure",
	 .set = set_insecure,
	 .is_flag = true,
	 .has_value = true},
	{.name = "preset", .set = set_preset},
	{.name = "expect",
	 .set = set_number,
	 .at = AT(expect),
	 .min = 1,
	 .max = 65535},
	{.name = "new", .set = set_flag, .at = AT(is_new), .is_flag = true},
	{.name = "client",
	 .set = set_flag,
	 .at = AT(is_client),
	 .is_flag = true},
	{.name = "weight",
	 .set = set_number,
	 .at = AT(weight),
	 .max = RING_WEIGHT_MAX},
	{.name = "op-timeout",
	 .set = set_number,
	 .at = AT(op_timeout_ms),
	 .min = 10,
	 .max = 600000},
	{.name = "restart-grace",
	 .set = set_number,
	 .at = AT(restart_grace_ms),
	 .max = 3600000},
	{.name = "claims", .set = set_claims},
	{.name = "vnodes", .set = set_vnodes, .min = 16, .max = 65536},
	{.name = "calm",
	 .set = set_number,
	 .at = AT(settings.calm_ms),
	 .max = 600000},
	{.name = "lease",
	 .set = set_number,
	 .at = AT(settings.lease_ms),
	 .min = 100,
	 .max = 600000},
	{.name = "handover-timeout",
	 .set = set_handover,
	 .min = 1,
	 .max = HANDOVER_MAX_S},
	{.name = "max-attempts",
	 .set = set_number,
	 .at = AT(settings.max_attempts),
	 .min = 1,
	 .max = 65535},
	{.name = "allow-other",
	 .set = set_flag,
	 .at = AT(allow_other),
	 .is_flag = true},
	{.name = "group", .set = set_group},
	{.name = "source", .set = set_source},
	{.name = "log-level", .set = set_log_level},
	{.name = "log-format", .set = set_log_format},
};

_Static_assert(sizeof(options_defs) / sizeof(options_defs[0]) == OPTIONS_N, "");

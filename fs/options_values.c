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

/* A node's name becomes a file name, a word in flat-keyed files and a part of
 * sentences. */
int options_set_name(struct options *o, const char *value,
		     char why[RING_ERRMSG_SIZE])
{
	const char *reason = NULL;
	if (value[0] == '\0')
		reason = "must not be empty";
	else if (strlen(value) > RING_NAME_MAX)
		reason = "must not be longer than 255 bytes";
	else if (value[0] == '.')
		reason = "must not begin with a dot";
	else if (strchr(value, '/') != NULL)
		reason = "must not have a slash";
	else if (strcmp(value, "self") == 0)
		reason = "is the link peers/self";
	for (const char *p = value; reason == NULL && *p != '\0'; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			reason = "must not have spaces or control characters";
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
	{.name = "weight", .set = set_number, .at = AT(weight), .max = 10000},
	{.name = "op-timeout",
	 .set = set_number,
	 .at = AT(op_timeout_ms),
	 .min = 10,
	 .max = 600000},
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
	{.name = "log-level", .set = set_log_level},
	{.name = "log-format", .set = set_log_format},
};

_Static_assert(sizeof(options_defs) / sizeof(options_defs[0]) == OPTIONS_N, "");

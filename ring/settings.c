/* SPDX-License-Identifier: MIT */
/* The settings of the whole cluster, against what this node was started with. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ring/ring_impl.h"

static const struct ring_settings defaults = {.vnodes = 4096,
					      .claims = RING_CLAIMS_OWNER,
					      .lease_ms = 1500,
					      .calm_ms = 500,
					      .max_attempts = 5,
					      .handover_timeout_ms = 0};

struct setting {
	const char *name;
	size_t offset;
};

static const struct setting table[] = {
	{"vnodes", offsetof(struct ring_settings, vnodes)},
	{"claims", offsetof(struct ring_settings, claims)},
	{"lease", offsetof(struct ring_settings, lease_ms)},
	{"calm", offsetof(struct ring_settings, calm_ms)},
	{"max-attempts", offsetof(struct ring_settings, max_attempts)},
	{"handover-timeout",
	 offsetof(struct ring_settings, handover_timeout_ms)},
};
#define N_SETTINGS (sizeof(table) / sizeof(table[0]))

static uint32_t get(const struct ring_settings *s, size_t i)
{
	return *(const uint32_t *)((const char *)s + table[i].offset);
}

struct ring_settings settings_wanted(const struct ring_settings *asked)
{
	struct ring_settings s = *asked;

	for (size_t i = 0; i < N_SETTINGS; i++)
		if (get(&s, i) == RING_UNSET)
			*(uint32_t *)((char *)&s + table[i].offset) =
				get(&defaults, i);
	return s;
}

/* As the user wrote it. */
static void put_text(size_t i, uint32_t v, char out[24])
{
	const char *name = table[i].name;

	if (strcmp(name, "claims") == 0)
		snprintf(out, 24, "%s", v == RING_CLAIMS_ANY ? "any" : "owner");
	else if (strcmp(name, "handover-timeout") != 0)
		snprintf(out, 24, "%" PRIu32, v);
	else if (v == 0)
		snprintf(out, 24, "never");
	else
		snprintf(out, 24, "%" PRIu32, v / 1000);
}

int settings_check(const struct ring_settings *asked,
		   const struct ring_settings *in_force,
		   char errmsg[RING_ERRMSG_SIZE])
{
	for (size_t i = 0; i < N_SETTINGS; i++) {
		uint32_t a = get(asked, i), b = get(in_force, i);
		char text_a[24], text_b[24];

		if (a == RING_UNSET || a == b)
			continue;
		put_text(i, a, text_a);
		put_text(i, b, text_b);
		snprintf(errmsg, RING_ERRMSG_SIZE,
			 "--%s %s was asked for, but this cluster was started "
			 "with %s %s, and that is fixed; leave the option out",
			 table[i].name, text_a, table[i].name, text_b);
		return -EINVAL;
	}
	return 0;
}

const struct ring_settings *ring_settings(const struct ring *r)
{
	const struct ring_settings *s = keyset_settings(r->keys);

	return s != NULL ? s : &r->wanted;
}

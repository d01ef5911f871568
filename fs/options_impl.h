/* SPDX-License-Identifier: MIT */
/* Inside the options: the table of what there is, and how a word becomes a value.
 *
 * If you change the table, also change the help in options.c. */
#ifndef FS_OPTIONS_IMPL_H
#define FS_OPTIONS_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/options.h"

#define OPTIONS_N 26

struct options_def {
	const char *name;
	/* Put value into o. 0, or -EINVAL with the rest of the sentence
	 * "VALUE: ..." in why. */
	int (*set)(struct options *o, const struct options_def *def,
		   const char *value, char why[RING_ERRMSG_SIZE]);
	size_t at; /* of the member of struct options */
	uint32_t min, max;
	bool is_flag;	/* yes or no; without a value: yes */
	bool has_value; /* of a flag: what it may be given, beside yes and no */
	bool is_list;	/* may be repeated: its words, a blank between two */
};

extern const struct options_def options_defs[OPTIONS_N];

/* As the setter of `name`, for a name that was not given. */
int options_set_name(struct options *o, const char *value,
		     char why[RING_ERRMSG_SIZE]);

/* The canonical path as far as it exists. It need not: a state is made at its
 * first use, and a dead mount cannot be looked at. free() releases it. */
char *options_absolute(const char *path);

#endif

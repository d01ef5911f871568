/* SPDX-License-Identifier: MIT */
/* The options of `ringfs mount`: from the command line, from -o name=value, and
 * from --config FILE, in the order flag, -o, file (the first wins). */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ring/ring.h"

/* What is sealed: --insecure. */
enum options_seal {
	OPTIONS_SEALED,
	OPTIONS_SEALED_AND_CLEAR, /* both are taken: while a cluster changes */
	OPTIONS_CLEAR,
};

/* Timings of the failure detector. */
enum options_preset {
	OPTIONS_LAN,
	OPTIONS_LOCAL,
	OPTIONS_WAN,
};

struct options {
	char *mountpoint; /* absolute */
	char *name;	  /* this node's name in peers/ */
	char *state;	  /* absolute; the state directory */
	char *bind;	  /* ADDR:PORT, port 0: any free one */
	char *advertise;  /* ADDR:PORT that others use; NULL: what is bound */
	char **joins;	  /* n_joins, each ADDR:PORT of a member */
	size_t n_joins;
	char *key_file; /* absolute; NULL: `key` in the state directory */
	enum options_seal seal;
	enum options_preset preset;
	uint32_t expect; /* nodes to be seen together before claims */
	bool is_new;	 /* a new cluster although there is a key */
	bool is_client;	 /* owns nothing; then weight is 0 */
	bool foreground;
	char *source; /* what mount(8) shows; NULL: ringfs */
	bool allow_other;
	bool has_group;
	gid_t group; /* who may write, with has_group */
	uint32_t weight;
	uint32_t op_timeout_ms;
	uint32_t restart_grace_ms;
	struct ring_settings settings; /* RING_UNSET where none was given */
	int log_level;
	bool log_json;
};

/* Parse into out, with defaults for what is not given. Does not touch the disk
 * but for the config file, and for realpath of the directory that holds state.
 * 0, or the exit status (64 usage, 78 configuration) after one line on stderr;
 * -1: --help was shown, exit 0. */
int options_parse(int argc, char **argv, struct options *out);
void options_finish(struct options *o);

#endif

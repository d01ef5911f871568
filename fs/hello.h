/* SPDX-License-Identifier: MIT */
/* What a node says in the lobby before it is let in, and what it is told.
 *
 *	hello    who asks, and the settings of the whole cluster that were given
 *		 to it
 *	answer   the settings that are in force, and the cluster's generation
 *
 * The bytes come from whoever has the cluster's key, and are believed no further
 * than that: both are read by bounded readers, and an answer's settings are
 * checked. Thread: any. */
#ifndef FS_HELLO_H
#define FS_HELLO_H

#include <stddef.h>
#include <stdint.h>

#include "ring/ring.h"

#define HELLO_VERSION 1
#define HELLO_MAX     (2 + 16 + 24 + 1 + RING_NAME_MAX)
#define HELLO_ANSWER  (2 + 24 + 4)

struct hello {
	struct ring_id id;
	struct ring_settings wanted; /* RING_UNSET: none was given */
	char name[RING_NAME_MAX + 1];
};

/* Both give the length. */
size_t hello_put(const struct hello *hello, uint8_t out[HELLO_MAX]);
size_t hello_put_answer(const struct ring_settings *settings,
			uint32_t generation, uint8_t out[HELLO_ANSWER]);

/* 0; -EPROTONOSUPPORT: of another version, which is in *version; -EPROTO: it
 * cannot be read, or says what cannot be. */
int hello_get(const void *bytes, size_t len, struct hello *out,
	      unsigned *version);
int hello_get_answer(const void *bytes, size_t len, struct ring_settings *out,
		     uint32_t *generation, unsigned *version);

/* Does what is wanted agree with what is in force? 0; -EINVAL with both values
 * in the sentence why. */
int hello_agree(const struct ring_settings *wanted,
		const struct ring_settings *in_force,
		char why[RING_ERRMSG_SIZE]);

#endif

/* SPDX-License-Identifier: MIT */
/* What each member says of itself, key by key: a class of scuttlebutt. Small
 * things that change: how many vnodes and keys it has, its load, its version.
 * (swim's facts, name and address, are what one needs to reach it at all.)
 *
 * Only a member itself writes its traits; a newer life of it replaces all that
 * the older ones said (I6). Deleted ones leave tombstones, like everything here.
 * Thread: loop. Private to gossip/. */
#ifndef GOSSIP_TRAITS_H
#define GOSSIP_TRAITS_H

#include "gossip/scuttlebutt.h"

#define TRAITS_VALUE_MAX 1024
#define TRAITS_CHANNEL	 3

struct traits;

struct trait {
	const struct gossip_id *id; /* all borrowed until the next call */
	const char *key;
	size_t key_len;
	const uint8_t *value; /* NULL: there is none any more */
	size_t value_len;
};

/* Must not call back. */
typedef void (*traits_cb)(void *data, const struct trait *trait);

/* Never NULL. cb may be NULL. */
struct traits *traits_create(const struct sb_config *config,
			     const struct sb_self *self, traits_cb cb,
			     void *data);
void traits_destroy(struct traits *t);
struct sb *traits_sb(const struct traits *t);

/* Say something of ourselves; nothing happens if that is what we say already.
 * After it, sb_tick(). 0; -EINVAL, the key; -EFBIG; -ENOSPC. */
int traits_set(struct traits *t, const char *key, const void *value,
	       size_t value_len);
/* Also -ENOENT. */
int traits_delete(struct traits *t, const char *key);

bool traits_get(const struct traits *t, const struct gossip_id *id,
		const char *key, struct trait *trait);
/* All of all members, in no order; from cursor 0 until false. */
bool traits_next(const struct traits *t, size_t *cursor, struct trait *trait);
/* A member was forgotten: drop what it said. Every member does so by itself. */
void traits_forget(struct traits *t, const struct gossip_id *id);

#endif

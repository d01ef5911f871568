/* SPDX-License-Identifier: MIT */
/* Replicated values: a class of scuttlebutt. Last write wins, where "last" is
 * the higher counter, then the higher member id; never a clock on the wall. A
 * value that is deleted leaves a tombstone, until every member has it.
 *
 * Answers at once from memory, in any minority; what was set on both sides of a
 * cut is settled when they meet.
 *
 * Thread: loop. Private to gossip/. */
#ifndef GOSSIP_MODEL_H
#define GOSSIP_MODEL_H

#include "gossip/scuttlebutt.h"

#define MODEL_VALUE_MAX (64u << 10)
#define MODEL_CHANNEL	1

struct model;

struct model_view {
	const char *key; /* not terminated; all borrowed until the next call */
	size_t key_len;
	const uint8_t *value; /* NULL: deleted */
	size_t value_len;
	uint64_t counter;		/* user.ring.version */
	const struct sb_source *source; /* user.ring.source */
};

/* A key has another value, or none, than before. Must not call back. */
typedef void (*model_change_cb)(void *data, const struct model_view *view);

/* Never NULL. cb may be NULL; data is its first argument. */
struct model *model_create(const struct sb_config *config,
			   const struct sb_self *self, model_change_cb cb,
			   void *data);
void model_destroy(struct model *m);
/* For ticks, messages, members, dumps. */
struct sb *model_sb(const struct model *m);

/* After these, sb_tick(). 0; -EINVAL, the key; -EFBIG, the value; -ENOSPC. */
int model_set(struct model *m, const char *key, size_t key_len,
	      const void *value, size_t value_len);
/* Also -ENOENT. */
int model_delete(struct model *m, const char *key, size_t key_len);

/* False if there is none. */
bool model_get(const struct model *m, const char *key, size_t key_len,
	       struct model_view *view);
/* All, in no order; from cursor 0 until false. */
bool model_next(const struct model *m, size_t *cursor, struct model_view *view);

#endif

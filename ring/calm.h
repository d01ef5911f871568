/* SPDX-License-Identifier: MIT */
/* Calm: changes of membership that come close together make one entry.
 *
 * The leader waits calm_ms after the last one, at most five times that in all,
 * so that churn cannot starve it. What is proven, or decided by a lease, does
 * not come here: it does not wait (holes.md 30). Pure; time in milliseconds. */
#ifndef RING_CALM_H
#define RING_CALM_H

#include <stdbool.h>
#include <stdint.h>

#define CALM_MOST 5 /* times calm_ms */

/* All zero: nothing waits. */
struct calm {
	bool is_waiting;
	uint64_t first_ms, last_ms;
};

/* A change came. */
static inline void calm_note(struct calm *c, uint64_t now_ms)
{
	if (!c->is_waiting)
		c->first_ms = now_ms;
	c->is_waiting = true;
	c->last_ms = now_ms;
}

/* When to commit what came; UINT64_MAX: nothing did. */
static inline uint64_t calm_due_ms(const struct calm *c, uint32_t calm_ms)
{
	uint64_t calm = c->last_ms + calm_ms;
	uint64_t most = c->first_ms + (uint64_t)CALM_MOST * calm_ms;

	if (!c->is_waiting)
		return UINT64_MAX;
	return calm < most ? calm : most;
}

/* It was committed, with whatever entry. */
static inline void calm_clear(struct calm *c)
{
	c->is_waiting = false;
}

#endif

/* SPDX-License-Identifier: MIT */
/* Allocation that cannot fail: out of memory stops the program (style.md 24).
 * Sizes that come from outside are checked against a limit first. */
#ifndef GOSSIP_MEM_H
#define GOSSIP_MEM_H

#include <stdio.h>
#include <stdlib.h>

static inline void *mem_check(void *p)
{
	if (p == NULL) {
		fputs("ringfs: out of memory\n", stderr);
		abort();
	}
	return p;
}

static inline void *xmalloc(size_t size)
{
	return mem_check(malloc(size));
}

static inline void *xcalloc(size_t n, size_t size)
{
	return mem_check(calloc(n, size));
}

static inline void *xrealloc(void *p, size_t size)
{
	return mem_check(realloc(p, size));
}

#endif

/* SPDX-License-Identifier: MIT */
/* Text that grows: what a file of the tree says, before it is read.
 *
 * Start from {0}; text_finish() releases it. Never fails (style.md 24). */
#ifndef FS_TEXT_H
#define FS_TEXT_H

#include <stddef.h>

struct text {
	char *base; /* len bytes, no NUL promised; NULL when nothing was added */
	size_t len, cap;
};

void text_add(struct text *x, const void *bytes, size_t n);
void text_puts(struct text *x, const char *s);
void text_printf(struct text *x, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void text_finish(struct text *x);

#endif

/* SPDX-License-Identifier: MIT */
#include "fs/text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/util.h"

static void reserve(struct text *x, size_t n)
{
	if (x->cap - x->len >= n)
		return;
	size_t cap = x->cap * 2 < 64 ? 64 : x->cap * 2;

	while (cap - x->len < n)
		cap *= 2;
	x->base = xrealloc(x->base, cap);
	x->cap = cap;
}

void text_add(struct text *x, const void *bytes, size_t n)
{
	if (n == 0)
		return;
	reserve(x, n);
	memcpy(x->base + x->len, bytes, n);
	x->len += n;
}

void text_puts(struct text *x, const char *s)
{
	text_add(x, s, strlen(s));
}

void text_printf(struct text *x, const char *format, ...)
{
	va_list args, again;

	va_start(args, format);
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	assert(n >= 0);
	reserve(x, (size_t)n + 1); /* vsnprintf's NUL: not counted */
	vsnprintf(x->base + x->len, (size_t)n + 1, format, again);
	va_end(again);
	x->len += (size_t)n;
}

void text_finish(struct text *x)
{
	free(x->base);
	*x = (struct text){0};
}

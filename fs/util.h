/* SPDX-License-Identifier: MIT */
/* Allocation that cannot fail: out of memory stops the program (style.md 24).
 * Sizes that come from outside use plain malloc, after a limit check. */
#ifndef FS_UTIL_H
#define FS_UTIL_H

#include <stddef.h>
#include <stdint.h>

void *xmalloc(size_t size);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
/* As asprintf; gives memory that free() releases. */
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Write n bytes to fd. 0 or negative errno. */
int write_all(int fd, const char *bytes, size_t n);

/* CLOCK_BOOTTIME in milliseconds: it goes on in suspend (design.md 7). */
uint64_t boot_ms(void);
/* Wall clock in microseconds since the epoch, for display only. */
uint64_t wall_us(void);

/* 'a', 'b' or 'c', as a part of a sentence. free() releases it. */
char *xlist(char *const *words, size_t n);

#endif

/* SPDX-License-Identifier: MIT */
/* A table for people: columns as wide as their widest cell, two blanks between
 * them, none at the end of a line.
 *
 * Start from {.n_columns = n, .left = those that are words}; cli_table_finish()
 * releases it. Thread: any. */
#ifndef FS_CLI_TABLE_H
#define FS_CLI_TABLE_H

#include <stddef.h>

struct text;

struct cli_table {
	size_t n_columns; /* at most 32 */
	unsigned left;	  /* bit set: columns that begin at the left */
	char **cells;
	size_t n_cells, cap;
};

/* The next cell, line by line; copied. */
void cli_table_add(struct cli_table *t, const char *cell);
void cli_table_printf(struct cli_table *t, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Add all lines to out. */
void cli_table_put(const struct cli_table *t, struct text *out);
void cli_table_finish(struct cli_table *t);

#endif

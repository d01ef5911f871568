/* SPDX-License-Identifier: MIT */
#include "fs/cli_table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/text.h"
#include "fs/util.h"

/* Takes cell. */
static void add(struct cli_table *t, char *cell)
{
	if (t->n_cells == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 64;
		t->cells = xrealloc(t->cells, t->cap * sizeof(*t->cells));
	}
	t->cells[t->n_cells++] = cell;
}

void cli_table_add(struct cli_table *t, const char *cell)
{
	add(t, xstrdup(cell));
}

void cli_table_printf(struct cli_table *t, const char *format, ...)
{
	char *cell = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&cell, format, args) < 0)
		abort(); /* untested: needs a machine out of memory */
	va_end(args);
	add(t, cell);
}

/* Characters, in UTF-8. */
static size_t width(const char *s)
{
	size_t n = 0;

	for (; *s != '\0'; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

static size_t column_width(const struct cli_table *t, size_t column)
{
	size_t most = 0;

	for (size_t i = column; i < t->n_cells; i += t->n_columns) {
		size_t n = width(t->cells[i]);
		most = n > most ? n : most;
	}
	return most;
}

static void put_blanks(struct text *out, size_t n)
{
	while (n-- > 0)
		text_add(out, " ", 1);
}

static void put_cell(const struct cli_table *t, size_t i, size_t wide,
		     struct text *out)
{
	size_t column = i % t->n_columns, blanks = wide - width(t->cells[i]);
	bool last = column + 1 == t->n_columns;

	if (t->left & 1u << column) {
		text_puts(out, t->cells[i]);
		put_blanks(out, last ? 0 : blanks);
	} else {
		put_blanks(out, blanks);
		text_puts(out, t->cells[i]);
	}
	text_puts(out, last ? "\n" : "  ");
}

void cli_table_put(const struct cli_table *t, struct text *out)
{
	size_t wide[32];

	assert(t->n_columns > 0 && t->n_columns <= 32);
	assert(t->n_cells % t->n_columns == 0);
	for (size_t c = 0; c < t->n_columns; c++)
		wide[c] = column_width(t, c);
	for (size_t i = 0; i < t->n_cells; i++)
		put_cell(t, i, wide[i % t->n_columns], out);
}

void cli_table_finish(struct cli_table *t)
{
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct cli_table){0};
}

/* SPDX-License-Identifier: MIT */
/* status/ring.svg: the ring as a donut, one arc per node, with a legend.
 *
 * Arcs are dashes of one circle's stroke, so there is no trigonometry, and a
 * node that owns all of it needs no special case. Self-contained, no script.
 *
 *   +------------------------------------------------+
 *   |   ____      [] name           vnodes  %  keys  |
 *   |  /    \     [] name           vnodes  %  keys  |
 *   |  \____/     [] nobody         vnodes  %        |
 *   +------------------------------------------------+
 */
#include "fs/facts.h"

#include <inttypes.h>

#define RADIUS	      120.0
#define CIRCUMFERENCE (2 * 3.14159265358979 * RADIUS)
#define ROW	      24 /* height of a line of the legend */
#define HEIGHT_MIN    340
#define WIDTH	      820
#define NAME_SHOWN    24 /* characters of a name in the legend */
#define NOBODY	      "#d0d0d0"

/* The colour of node i: steps of the golden angle around the colour circle, so
 * that neighbours differ, however many there are; every other ring of them is
 * darker. */
static void put_colour(struct text *out, uint32_t i)
{
	static const unsigned light[] = {215, 165, 190};
	unsigned hue = (i * 1375u + 2100) % 3600; /* tenths of a degree */
	unsigned high = light[i % 3], low = high * 3 / 10;
	unsigned ramp = (high - low) * (hue % 600) / 600;
	unsigned up = low + ramp, down = high - ramp;
	const unsigned rgb[6][3] = {
		{high, up, low},   {down, high, low}, {low, high, up},
		{low, down, high}, {up, low, high},   {high, low, down},
	};
	const unsigned *c = rgb[hue / 600];

	text_printf(out, "#%02x%02x%02x", c[0], c[1], c[2]);
}

/* At most max characters of name (0: all of it), with what XML wants escaped. */
static void put_xml(struct text *out, const char *name, size_t max)
{
	struct text shown = {0};
	size_t n = 0;

	facts_put_name(&shown, name);
	for (size_t i = 0; i < shown.len; i++) {
		char c = shown.base[i];
		if (((unsigned char)c & 0xc0) != 0x80 && max && n++ == max) {
			text_puts(out, "\xe2\x80\xa6"); /* an ellipsis */
			break;
		}
		if (c == '&')
			text_puts(out, "&amp;");
		else if (c == '<')
			text_puts(out, "&lt;");
		else if (c == '>')
			text_puts(out, "&gt;");
		else
			text_add(out, &c, 1);
	}
	text_finish(&shown);
}

static double percent(const struct facts *f, uint32_t n_vnodes)
{
	return 100.0 * n_vnodes / f->settings.vnodes;
}

/* A part of the circle: n vnodes after the first `start`. `index` is the node's,
 * or RING_NONE for what nobody owns. */
static void put_arc(const struct facts *f, struct text *out, uint32_t index,
		    uint32_t start, uint32_t n)
{
	double unit = CIRCUMFERENCE / f->settings.vnodes;
	double len = unit * n;
	double gap = n == f->settings.vnodes ? 0 : len > 4 ? 1.5 : len * 0.3;

	if (n == 0)
		return;
	text_printf(out, "<circle r=\"%.0f\" stroke=\"", RADIUS);
	if (index == RING_NONE)
		text_puts(out, NOBODY);
	else
		put_colour(out, index);
	text_printf(out,
		    "\" stroke-dasharray=\"%.3f %.3f\" "
		    "stroke-dashoffset=\"%.3f\"><title>",
		    len - gap, CIRCUMFERENCE - len + gap, -unit * start);
	put_xml(out, index == RING_NONE ? "nobody" : facts_node_name(f, index),
		0);
	text_printf(out, ": %.2f %%</title></circle>\n", percent(f, n));
}

static void put_row(const struct facts *f, struct text *out, uint32_t index,
		    uint32_t n, int y)
{
	bool known = index != RING_NONE;

	text_printf(out,
		    "<rect x=\"360\" y=\"%d\" width=\"14\" height=\"14\" "
		    "rx=\"3\" fill=\"",
		    y - 12);
	if (known)
		put_colour(out, index);
	else
		text_puts(out, NOBODY);
	text_printf(out, "\"/>\n<text x=\"384\" y=\"%d\"%s>", y,
		    known && index == f->self ? " font-weight=\"bold\"" : "");
	put_xml(out, known ? facts_node_name(f, index) : "nobody", NAME_SHOWN);
	if (known && !facts_is_alive(f, index))
		text_puts(out, " (dead)");
	text_printf(out,
		    "</text>\n<g text-anchor=\"end\">"
		    "<text x=\"660\" y=\"%d\">%" PRIu32 "</text>"
		    "<text x=\"745\" y=\"%d\">%.2f %%</text>",
		    y, n, y, percent(f, n));
	if (known)
		text_printf(out, "<text x=\"800\" y=\"%d\">%" PRIu32 "</text>",
			    y, f->nodes[index]->n_keys);
	text_puts(out, "</g>\n");
}

static void put_head(const struct facts *f, struct text *out, int height)
{
	text_printf(out,
		    "<svg xmlns=\"http://www.w3.org/2000/svg\" "
		    "width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
		    "font-family=\"sans-serif\" font-size=\"14\" "
		    "fill=\"#222\">\n<title>Who owns how much of the ring"
		    "</title>\n<rect width=\"100%%\" height=\"100%%\" "
		    "fill=\"#fff\"/>\n",
		    WIDTH, height, WIDTH, height);
	text_printf(out,
		    "<g text-anchor=\"middle\"><text x=\"170\" y=\"%d\" "
		    "font-size=\"34\">%zu</text><text x=\"170\" y=\"%d\" "
		    "fill=\"#666\">%s</text></g>\n",
		    height / 2 + 4, f->counts[RING_VIEW_KEYS], height / 2 + 28,
		    f->counts[RING_VIEW_KEYS] == 1 ? "key" : "keys");
	text_puts(out, "<g fill=\"#666\" font-size=\"12\">"
		       "<text x=\"384\" y=\"36\">node</text>"
		       "<g text-anchor=\"end\"><text x=\"660\" y=\"36\">vnodes"
		       "</text><text x=\"745\" y=\"36\">share</text>"
		       "<text x=\"800\" y=\"36\">keys</text></g></g>\n");
}

void facts_svg(const struct facts *f, struct text *out)
{
	uint32_t start = 0, free_vnodes;
	int height = 70 + ROW * ((int)f->n_nodes + 1);
	int y = 36 + ROW;

	if (height < HEIGHT_MIN)
		height = HEIGHT_MIN;
	put_head(f, out, height);
	text_printf(out,
		    "<g transform=\"translate(170 %d) rotate(-90)\" "
		    "fill=\"none\" stroke-width=\"52\">\n",
		    height / 2);
	for (uint32_t i = 0; i < f->n_nodes; i++) {
		put_arc(f, out, i, start, f->nodes[i]->n_vnodes);
		start += f->nodes[i]->n_vnodes;
	}
	free_vnodes = f->settings.vnodes - start;
	put_arc(f, out, RING_NONE, start, free_vnodes);
	text_puts(out, "</g>\n");
	for (uint32_t i = 0; i < f->n_nodes; i++, y += ROW)
		put_row(f, out, i, f->nodes[i]->n_vnodes, y);
	if (free_vnodes > 0)
		put_row(f, out, RING_NONE, free_vnodes, y);
	text_puts(out, "</svg>\n");
}

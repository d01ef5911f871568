/* SPDX-License-Identifier: MIT */
/* libFuzzer on the language of ctl. The first byte chooses the form, the second
 * the size of the pieces; the items must be the same as from one piece, and a
 * name that passes must be one a key may have. */
#include "fs/batch.h"

#include <stdlib.h>
#include <string.h>

#include "ring/ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_item(const struct batch_item *item)
{
	bool is_admin = item->verb == BATCH_ADMIN;

	must(item->verb <= BATCH_ADMIN && is_admin == (item->admin != NULL));
	must(item->verb <= BATCH_FINISH || item->verb == BATCH_FORCE ||
	     is_admin || item->token > 0);
	must(batch_n_ops(item) <= (is_admin ? 0 : 2));
	must(item->name[item->len] == '\0');
	if (item->rc != 0 || is_admin)
		return;
	must(item->len > 0 && item->len <= RING_NAME_MAX);
	must(strlen(item->name) == item->len);
	must(item->name[0] != '.' && !memchr(item->name, '/', item->len));
}

/* All items as text, and the first error. */
static struct text run(bool whole, const uint8_t *data, size_t n, size_t piece)
{
	struct batch b;
	struct batch_item item;
	struct text x = {0};
	int rc = 0;

	batch_init(&b, whole);
	for (size_t at = 0; rc == 0 && at <= n; at += piece) {
		rc = batch_feed(&b, data + at, n - at < piece ? n - at : piece);
		if (rc == 0 && whole && at + piece > n)
			batch_end(&b);
		while (rc == 0 && (rc = batch_next(&b, &item)) == 1) {
			check_item(&item);
			batch_answer(&b, &item, item.rc, &x);
			rc = 0;
		}
	}
	if (rc != 0)
		text_puts(&x, batch_errno_name(rc));
	batch_finish(&b);
	return x;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	bool whole = data[0] & 1;
	size_t piece = (size_t)data[1] + 1;
	struct text one = run(whole, data + 2, size - 2, size);
	struct text many = run(whole, data + 2, size - 2, piece);

	must(one.len == many.len);
	must(one.len == 0 || memcmp(one.base, many.base, one.len) == 0);
	text_finish(&one);
	text_finish(&many);
	return 0;
}

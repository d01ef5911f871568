/* SPDX-License-Identifier: MIT */
#include "fs/text.h"

#include <string.h>

#include "tests/unit/check.h"

static void check_grows(void)
{
	struct text x = {0};

	text_add(&x, "", 0);
	check(x.base == NULL, "nothing was added");
	for (int i = 0; i < 10000; i++)
		text_printf(&x, "%d,", i);
	text_puts(&x, "end");
	text_add(&x, "\0\n", 2);
	check_int(x.len, 10 * 2 + 90 * 3 + 900 * 4 + 9000 * 5 + 5);
	check(memcmp(x.base, "0,1,2,", 6) == 0, "the beginning stays");
	check(memcmp(x.base + x.len - 10, "9999,end\0\n", 10) == 0, "the end");
	text_finish(&x);
	check(x.base == NULL && x.len == 0, "empty again");
	ok("text grows, keeps all bytes, and can be used again");
}

int main(void)
{
	check_grows();
	return 0;
}

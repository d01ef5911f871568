/* SPDX-License-Identifier: MIT */
#include "fs/json.h"

#include <stdint.h>

#include "fs/text.h"

/* The length of the sequence that begins at p, of at most n bytes; 0 if there is
 * none. */
static size_t sequence(const unsigned char *p, size_t n)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = p[0] < 0x80	     ? 1
		     : (p[0] & 0xe0) == 0xc0 ? 2
		     : (p[0] & 0xf0) == 0xe0 ? 3
		     : (p[0] & 0xf8) == 0xf0 ? 4
					     : 0;

	if (len <= 1)
		return len;
	if (len > n)
		return 0;
	uint32_t c = p[0] & (0x7fU >> len);
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	return len;
}

bool json_is_utf8(const char *bytes, size_t n)
{
	const unsigned char *p = (const unsigned char *)bytes;

	for (size_t i = 0; i < n;) {
		size_t len = sequence(p + i, n - i);
		if (len == 0)
			return false;
		i += len;
	}
	return true;
}

void json_add_string(struct text *out, const char *bytes, size_t n)
{
	const unsigned char *p = (const unsigned char *)bytes;

	text_puts(out, "\"");
	for (size_t i = 0; i < n;) {
		size_t len = sequence(p + i, n - i);
		if (len == 0) {
			text_puts(out, "\xef\xbf\xbd");
			len = 1;
		} else if (p[i] == '"' || p[i] == '\\') {
			text_printf(out, "\\%c", p[i]);
		} else if (p[i] < ' ' || p[i] == 0x7f) {
			text_printf(out, "\\u%04x", p[i]);
		} else {
			text_add(out, bytes + i, len);
		}
		i += len;
	}
	text_puts(out, "\"");
}

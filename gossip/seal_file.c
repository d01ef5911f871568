/* SPDX-License-Identifier: MIT */
/* The key file. What is read from it is the administrator's, and may have gone
 * through editors and mail: blanks around a line and CR are forgiven, nothing
 * else is. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "gossip/seal_impl.h"

#define PREFIX	     "ringfs-key-"
#define PREFIX_BYTES 11
#define CHECK_BYTES  8
/* "ringfs-key-1 BASE64 CHECK" */
#define LINE_BYTES (PREFIX_BYTES + 2 + SEAL_BASE64_BYTES + 1 + CHECK_BYTES)

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static uint32_t check_of(const struct seal_key *key)
{
	return (uint32_t)(seal_key_id(key) >> 32);
}

static int parse_line(const char *line, size_t len, struct seal_key *key)
{
	char check[CHECK_BYTES + 1];
	const char *base64 = line + PREFIX_BYTES + 2;

	if (len < PREFIX_BYTES + 2 || memcmp(line, PREFIX, PREFIX_BYTES) != 0)
		return -EINVAL;
	if (line[PREFIX_BYTES] != '1' || line[PREFIX_BYTES + 1] != ' ')
		return line[PREFIX_BYTES] >= '1' && line[PREFIX_BYTES] <= '9'
			       ? -EPROTONOSUPPORT
			       : -EINVAL;
	if (len != LINE_BYTES || base64[SEAL_BASE64_BYTES] != ' ' ||
	    !seal_key_from_text(key, base64, SEAL_BASE64_BYTES))
		return -EINVAL;
	snprintf(check, sizeof(check), "%08x", check_of(key));
	return memcmp(check, base64 + SEAL_BASE64_BYTES + 1, CHECK_BYTES) == 0
		       ? 0
		       : -EBADMSG;
}

static int parse(const char *text, size_t len, struct seal_key *keys, size_t *n,
		 unsigned *line)
{
	for (const char *at = text, *end = text + len; at < end;) {
		const char *next = memchr(at, '\n', (size_t)(end - at));
		const char *stop = next != NULL ? next : end;
		(*line)++;
		while (at < stop && is_blank(*at))
			at++;
		while (stop > at && is_blank(stop[-1]))
			stop--;
		if (stop > at && *at != '#') {
			if (*n == SEAL_KEYS_MAX)
				return -E2BIG;
			int rc = parse_line(at, (size_t)(stop - at), &keys[*n]);
			if (rc != 0)
				return rc;
			(*n)++;
		}
		at = next != NULL ? next + 1 : end;
	}
	return *n > 0 ? 0 : -EINVAL;
}

int seal_file_parse(const char *text, size_t len,
		    struct seal_key keys[SEAL_KEYS_MAX], size_t *n,
		    unsigned *line)
{
	*n = 0;
	*line = 0;
	int rc = len <= 65536 ? parse(text, len, keys, n, line) : -E2BIG;
	if (rc != 0) {
		seal_wipe(keys, SEAL_KEYS_MAX * sizeof(*keys));
		*n = 0;
	}
	return rc;
}

size_t seal_file_make(const struct seal_key *keys, size_t n,
		      char text[SEAL_FILE_MAX])
{
	char base64[SEAL_BASE64_BYTES + 1];
	size_t len = (size_t)snprintf(
		text, SEAL_FILE_MAX,
		"# ringfs: the cluster's secret. Who has it can do anything.\n"
		"# The first key seals, all of them open.\n");

	assert(n <= SEAL_KEYS_MAX);
	for (size_t i = 0; i < n; i++) {
		seal_key_to_text(&keys[i], base64);
		len += (size_t)snprintf(text + len, SEAL_FILE_MAX - len,
					PREFIX "1 %s %08x\n", base64,
					check_of(&keys[i]));
	}
	assert(len < SEAL_FILE_MAX);
	seal_wipe(base64, sizeof(base64));
	return len;
}

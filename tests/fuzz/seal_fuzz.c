/* SPDX-License-Identifier: MIT */
/* libFuzzer on what comes from outside before anybody is known: packets, the
 * bytes of a connection (in pieces of varying size), and key files. Nothing may
 * be taken that was not sealed, and the buffer of a stream stays small. */
#include <stdlib.h>
#include <string.h>

#include "gossip/seal_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static struct seal *make(uint8_t id, enum seal_mode mode)
{
	struct seal_config config = {.cluster = {{1}},
				     .self = {{id}},
				     .boot = 1,
				     .mode = mode,
				     .peers_max = 8};
	struct seal_key key = {{0}};
	struct seal *s = seal_create(&config);

	must(s != NULL && seal_add(s, &key) == 0);
	return s;
}

/* The input over a good packet's beginning, so that it gets past the door. */
static void open_packet(struct seal *s, const uint8_t *data, size_t size)
{
	struct seal *peer = make(2, SEAL_REQUIRED);
	struct seal_opened opened;
	uint8_t good[200];
	uint8_t *packet = xmalloc(size + sizeof(good));
	int n = seal_packet(peer, "body", 4, good, sizeof(good));

	must(n > 0);
	memcpy(packet, data, size);
	enum seal_reason r = seal_open(s, packet, size, &opened);
	must(r != SEAL_OK || s->config.mode != SEAL_REQUIRED);
	size_t keep = size > 0 ? data[0] % 44 : 0;
	memcpy(packet, good, keep);
	if (size > keep)
		memcpy(packet + keep, data + keep, size - keep);
	r = seal_open(s, packet, size > keep ? size : keep, &opened);
	must(r != SEAL_OK || s->config.mode != SEAL_REQUIRED);
	free(packet);
	seal_destroy(peer);
}

static void read_stream(struct seal *s, bool is_caller, const uint8_t *data,
			size_t size)
{
	struct seal_stream *st = seal_stream_create(s, is_caller, NULL);
	struct seal_frame frame;
	size_t piece = size > 0 ? data[0] % 100 + 1u : 1;
	int rc = 0;

	while (rc >= 0 && size > 0) {
		size_t n =
			seal_stream_put(st, data, size < piece ? size : piece);
		data += n;
		size -= n;
		rc = seal_stream_next(st, &frame);
		must(rc != 1 || s->config.mode != SEAL_REQUIRED);
		if (rc == 0 && n == 0)
			break;
	}
	must((rc < 0) == (seal_stream_reason(st) != SEAL_OK));
	seal_stream_destroy(st);
}

static void read_file(const uint8_t *data, size_t size)
{
	struct seal_key keys[SEAL_KEYS_MAX], again[SEAL_KEYS_MAX];
	char text[SEAL_FILE_MAX];
	size_t n, m;
	unsigned line;

	if (seal_file_parse((const char *)data, size, keys, &n, &line) != 0)
		return;
	must(n > 0 && n <= SEAL_KEYS_MAX);
	size_t len = seal_file_make(keys, n, text);
	must(seal_file_parse(text, len, again, &m, &line) == 0 && m == n);
	must(memcmp(keys, again, n * sizeof(*keys)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	struct seal *s = make(1, data[0] & 1 ? SEAL_REQUIRED : SEAL_BOTH);
	unsigned what = data[0] >> 1 & 3;

	if (what == 0)
		open_packet(s, data + 1, size - 1);
	else if (what == 3)
		read_file(data + 1, size - 1);
	else
		read_stream(s, what == 1, data + 1, size - 1);
	seal_destroy(s);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* libFuzzer on what is said in the lobby. The first byte chooses hello or answer;
 * what can be read must come out again as the same bytes, and agree with
 * itself. */
#include "fs/hello.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/peers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void try_hello(const uint8_t *bytes, size_t n)
{
	static const struct ring_settings in_force = {.vnodes = 4096,
						      .lease_ms = 1500,
						      .calm_ms = 500,
						      .max_attempts = 5};
	uint8_t again[HELLO_MAX];
	char why[RING_ERRMSG_SIZE];
	struct hello h;
	unsigned version;
	int rc = hello_get(bytes, n, &h, &version);

	must(rc == 0 || rc == -EPROTO || rc == -EPROTONOSUPPORT);
	if (rc != 0)
		return;
	must(peers_flaw(h.name) == NULL);
	must(hello_put(&h, again) == n && memcmp(again, bytes, n) == 0);
	rc = hello_agree(&h.wanted, &in_force, why);
	must(rc == 0 || (rc == -EINVAL && memchr(why, '\0', sizeof(why))));
}

static void try_answer(const uint8_t *bytes, size_t n)
{
	uint8_t again[HELLO_ANSWER];
	char why[RING_ERRMSG_SIZE];
	struct ring_settings s;
	uint32_t generation;
	unsigned version;
	int rc = hello_get_answer(bytes, n, &s, &generation, &version);

	must(rc == 0 || rc == -EPROTO || rc == -EPROTONOSUPPORT);
	if (rc != 0)
		return;
	must(hello_put_answer(&s, generation, again) == n &&
	     memcmp(again, bytes, n) == 0);
	must(hello_agree(&s, &s, why) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	/* A copy, so that a read past the end is seen. */
	uint8_t *bytes = malloc(size - 1 + (size == 1));
	memcpy(bytes, data + 1, size - 1);
	if (data[0] & 1)
		try_answer(bytes, size - 1);
	else
		try_hello(bytes, size - 1);
	free(bytes);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* The lobby's words: what goes in comes out, what is wrong is refused. */
#include "fs/hello.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/check.h"

static const struct ring_settings defaults = {.vnodes = 4096,
					      .claims = RING_CLAIMS_OWNER,
					      .lease_ms = 1500,
					      .calm_ms = 500,
					      .max_attempts = 5,
					      .handover_timeout_ms = 0};

static const struct ring_settings none = {RING_UNSET, RING_UNSET, RING_UNSET,
					  RING_UNSET, RING_UNSET, RING_UNSET};

static struct hello hello_of(const char *name)
{
	struct hello h = {.id = {{1, 2, 3}}, .wanted = none};

	snprintf(h.name, sizeof(h.name), "%s", name);
	return h;
}

static void there_and_back(void)
{
	uint8_t bytes[HELLO_MAX], again[HELLO_MAX];
	struct hello h = hello_of("n1"), got;
	struct ring_settings settings;
	uint32_t generation;
	unsigned version;
	size_t n = hello_put(&h, bytes);

	check_int(n, 2 + 16 + 24 + 1 + 2);
	check_int(hello_get(bytes, n, &got, &version), 0);
	check_int(version, 1);
	check_int(hello_put(&got, again), n);
	check(memcmp(bytes, again, n) == 0, "not the same");
	memset(h.name, 'n', RING_NAME_MAX);
	h.wanted = defaults;
	h.wanted.handover_timeout_ms = 4000000000;
	check_int(hello_put(&h, bytes), HELLO_MAX);
	check_int(hello_get(bytes, HELLO_MAX, &got, &version), 0);
	check_int(strlen(got.name), RING_NAME_MAX);
	check_int(got.wanted.handover_timeout_ms, 4000000000);
	n = hello_put_answer(&defaults, 7, bytes);
	check_int(n, HELLO_ANSWER);
	check_int(hello_get_answer(bytes, n, &settings, &generation, &version),
		  0);
	check_int(generation, 7);
	check(memcmp(&settings, &defaults, sizeof(settings)) == 0, "settings");
	ok("hello and answer come out as they went in");
}

static void every_length(void)
{
	uint8_t bytes[HELLO_MAX + 1] = {0};
	struct hello h = hello_of("n1"), got;
	struct ring_settings settings;
	uint32_t generation;
	unsigned version;
	size_t n = hello_put(&h, bytes);

	for (size_t i = 0; i <= n + 1; i++) {
		bytes[n] = 0;
		check_int(hello_get(bytes, i, &got, &version),
			  i == n ? 0 : -EPROTO);
	}
	n = hello_put_answer(&defaults, 7, bytes);
	for (size_t i = 0; i <= n + 1; i++)
		check_int(hello_get_answer(bytes, i, &settings, &generation,
					   &version),
			  i == n ? 0 : -EPROTO);
	check_int(hello_get(NULL, 0, &got, &version), -EPROTO);
	ok("what is cut short, or goes on, is refused");
}

static void wrong_values(void)
{
	static const char *const names[] = {"self", ".n", "a/b", "a b", "\x7f"};
	static const struct ring_settings bad[] = {
		{8, 0, 1500, 500, 5, 0},
		{100, 0, 1500, 500, 5, 0},
		{131072, 0, 1500, 500, 5, 0},
		{4096, 2, 1500, 500, 5, 0},
		{4096, 0, 99, 500, 5, 0},
		{4096, 0, 1500, 600001, 5, 0},
		{4096, 0, 1500, 500, 0, 0},
		{4096, 0, 1500, 500, 65536, 0},
		{4096, 0, 1500, 500, 5, 1},
		{4096, 0, 1500, 500, 5, 4000001000},
	};
	uint8_t bytes[HELLO_MAX];
	struct ring_settings settings;
	struct hello got;
	uint32_t generation;
	unsigned version;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct hello h = hello_of(names[i]);
		check_int(
			hello_get(bytes, hello_put(&h, bytes), &got, &version),
			-EPROTO);
	}
	struct hello h = hello_of("nn");
	size_t n = hello_put(&h, bytes);
	bytes[n - 1] = '\0';
	check_int(hello_get(bytes, n, &got, &version), -EPROTO);
	ok("a name that no file can have is refused");

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		n = hello_put_answer(&bad[i], 0, bytes);
		check_int(hello_get_answer(bytes, n, &settings, &generation,
					   &version),
			  -EPROTO);
		h.wanted = bad[i];
		n = hello_put(&h, bytes);
		check_int(hello_get(bytes, n, &got, &version), -EPROTO);
	}
	n = hello_put_answer(&none, 0, bytes);
	check_int(hello_get_answer(bytes, n, &settings, &generation, &version),
		  -EPROTO);
	ok("settings out of their range are refused; an answer has them all");
}

static void versions(void)
{
	uint8_t bytes[HELLO_MAX];
	struct ring_settings settings;
	struct hello h = hello_of("n1"), got;
	uint32_t generation;
	unsigned version;

	hello_put(&h, bytes);
	bytes[0] = 2;
	check_int(hello_get(bytes, 3, &got, &version), -EPROTONOSUPPORT);
	check_int(version, 2);
	bytes[1] = 1;
	check_int(hello_get_answer(bytes, 2, &settings, &generation, &version),
		  -EPROTONOSUPPORT);
	check_int(version, 258);
	ok("of another version only the number is read");
}

static void agreeing(void)
{
	static const struct {
		struct ring_settings wanted;
		const char *both;
	} bad[] = {
		{{64, RING_UNSET, RING_UNSET, RING_UNSET, RING_UNSET,
		  RING_UNSET},
		 "--vnodes 64 was asked for, but this cluster was started with "
		 "--vnodes 4096, "},
		{{RING_UNSET, RING_CLAIMS_ANY, RING_UNSET, RING_UNSET,
		  RING_UNSET, RING_UNSET},
		 "--claims any was asked for, but this cluster was started "
		 "with --claims owner, "},
		{{4096, 0, 1500, 500, 5, 7000},
		 "--handover-timeout 7 was asked for, but this cluster was "
		 "started with --handover-timeout never, "},
	};
	char why[RING_ERRMSG_SIZE];

	check_int(hello_agree(&none, &defaults, why), 0);
	check_int(hello_agree(&defaults, &defaults, why), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		check_int(hello_agree(&bad[i].wanted, &defaults, why), -EINVAL);
		check(strncmp(why, bad[i].both, strlen(bad[i].both)) == 0, "%s",
		      why);
	}
	ok("who wants another setting is told both values");
}

int main(void)
{
	there_and_back();
	every_length();
	wrong_values();
	versions();
	agreeing();
	return 0;
}

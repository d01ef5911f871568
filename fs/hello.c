/* SPDX-License-Identifier: MIT */
#include "fs/hello.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/peers.h"

/* All integers are little-endian.
 *
 *   hello    u16 version    1
 *            16  id
 *            u32 x 6        the settings, in the order of the table below;
 *                           2^32 - 1: not given
 *            u8  length     of the name, 1 to 255
 *            ..  name
 *
 *   answer   u16 version    1
 *            u32 x 6        the settings
 *            u32 generation
 *
 * Of another version nothing behind the first field is looked at. */

static const struct setting {
	const char *option;
	size_t at;
	uint32_t min, max, per; /* per: in the option's unit */
} settings[] = {
	{"vnodes", offsetof(struct ring_settings, vnodes), 16, 65536, 1},
	{"claims", offsetof(struct ring_settings, claims), 0, RING_CLAIMS_ANY,
	 1},
	{"lease", offsetof(struct ring_settings, lease_ms), 100, 600000, 1},
	{"calm", offsetof(struct ring_settings, calm_ms), 0, 600000, 1},
	{"max-attempts", offsetof(struct ring_settings, max_attempts), 1, 65535,
	 1},
	{"handover-timeout",
	 offsetof(struct ring_settings, handover_timeout_ms), 0, 4000000000,
	 1000},
};

#define N_SETTINGS (sizeof(settings) / sizeof(settings[0]))

static uint32_t value_of(const struct ring_settings *s, size_t i)
{
	uint32_t v;

	memcpy(&v, (const char *)s + settings[i].at, sizeof(v));
	return v;
}

static void set_value(struct ring_settings *s, size_t i, uint32_t v)
{
	memcpy((char *)s + settings[i].at, &v, sizeof(v));
}

/* ---- Bytes ---- */

static uint8_t *put(uint8_t *p, uint32_t v, int n)
{
	for (; n > 0; n--, v >>= 8)
		*p++ = (uint8_t)v;
	return p;
}

static uint8_t *put_settings(uint8_t *p, const struct ring_settings *s)
{
	for (size_t i = 0; i < N_SETTINGS; i++)
		p = put(p, value_of(s, i), 4);
	return p;
}

size_t hello_put(const struct hello *hello, uint8_t out[HELLO_MAX])
{
	size_t n_name = strlen(hello->name);
	uint8_t *p = put(out, HELLO_VERSION, 2);

	assert(n_name > 0 && n_name <= RING_NAME_MAX);
	memcpy(p, hello->id.byte, sizeof(hello->id.byte));
	p = put_settings(p + sizeof(hello->id.byte), &hello->wanted);
	p = put(p, (uint32_t)n_name, 1);
	memcpy(p, hello->name, n_name);
	return (size_t)(p - out) + n_name;
}

size_t hello_put_answer(const struct ring_settings *s, uint32_t generation,
			uint8_t out[HELLO_ANSWER])
{
	uint8_t *p = put_settings(put(out, HELLO_VERSION, 2), s);

	return (size_t)(put(p, generation, 4) - out);
}

struct reader {
	const uint8_t *at, *end;
	bool bad;
};

static const uint8_t *take(struct reader *r, size_t n)
{
	static const uint8_t none[RING_NAME_MAX];

	assert(n <= sizeof(none));
	if (r->bad || (size_t)(r->end - r->at) < n) {
		r->bad = true;
		return none;
	}
	r->at += n;
	return r->at - n;
}

static uint32_t get(struct reader *r, size_t n)
{
	const uint8_t *p = take(r, n);
	uint32_t v = 0;

	while (n-- > 0)
		v = v << 8 | p[n];
	return v;
}

/* not_given: RING_UNSET may stand for any. */
static void get_settings(struct reader *r, struct ring_settings *out,
			 bool not_given)
{
	for (size_t i = 0; i < N_SETTINGS; i++) {
		uint32_t v = get(r, 4);

		if (!(not_given && v == RING_UNSET) &&
		    (v < settings[i].min || v > settings[i].max ||
		     v % settings[i].per != 0))
			r->bad = true;
		set_value(out, i, v);
	}
	if (out->vnodes != RING_UNSET && (out->vnodes & (out->vnodes - 1)) != 0)
		r->bad = true;
}

/* 0, or the error of a version that is not ours. */
static int get_version(struct reader *r, unsigned *version)
{
	*version = get(r, 2);
	return r->bad			   ? -EPROTO
	       : *version != HELLO_VERSION ? -EPROTONOSUPPORT
					   : 0;
}

static int end(const struct reader *r)
{
	return r->bad || r->at != r->end ? -EPROTO : 0;
}

static struct reader reader_of(const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	return (struct reader){.at = p, .end = p == NULL ? p : p + len};
}

int hello_get(const void *bytes, size_t len, struct hello *out,
	      unsigned *version)
{
	struct reader r = reader_of(bytes, len);
	int rc = get_version(&r, version);

	*out = (struct hello){0};
	if (rc != 0)
		return rc;
	memcpy(out->id.byte, take(&r, sizeof(out->id.byte)),
	       sizeof(out->id.byte));
	get_settings(&r, &out->wanted, true);
	size_t n_name = get(&r, 1);
	memcpy(out->name, take(&r, n_name), n_name);
	if (strlen(out->name) != n_name || peers_flaw(out->name) != NULL)
		r.bad = true;
	return end(&r);
}

int hello_get_answer(const void *bytes, size_t len, struct ring_settings *out,
		     uint32_t *generation, unsigned *version)
{
	struct reader r = reader_of(bytes, len);
	int rc = get_version(&r, version);

	*out = (struct ring_settings){0};
	*generation = 0;
	if (rc != 0)
		return rc;
	get_settings(&r, out, false);
	*generation = get(&r, 4);
	return end(&r);
}

/* ---- Agreeing ---- */

/* As the user wrote it. */
static void text_of(size_t i, uint32_t v, char out[24])
{
	if (strcmp(settings[i].option, "claims") == 0)
		snprintf(out, 24, "%s", v == RING_CLAIMS_ANY ? "any" : "owner");
	else if (settings[i].per != 1 && v == 0)
		snprintf(out, 24, "never");
	else
		snprintf(out, 24, "%" PRIu32, v / settings[i].per);
}

int hello_agree(const struct ring_settings *wanted,
		const struct ring_settings *in_force,
		char why[RING_ERRMSG_SIZE])
{
	for (size_t i = 0; i < N_SETTINGS; i++) {
		uint32_t asked = value_of(wanted, i);
		uint32_t value = value_of(in_force, i);
		char a[24], b[24];

		if (asked == RING_UNSET || asked == value)
			continue;
		text_of(i, asked, a);
		text_of(i, value, b);
		snprintf(
			why, RING_ERRMSG_SIZE,
			"--%s %s was asked for, but this cluster was started "
			"with --%s %s, and that is fixed; leave the option out",
			settings[i].option, a, settings[i].option, b);
		return -EINVAL;
	}
	return 0;
}

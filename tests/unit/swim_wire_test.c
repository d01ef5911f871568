/* SPDX-License-Identifier: MIT */
/* The packet format: round trips, damage, and what later versions may add. */
#include "gossip/wire.h"

#include <errno.h>
#include <string.h>

#include "gossip/random.h"
#include "tests/unit/check.h"

static const struct gossip_id id_a = {{1, 2, 3}}, id_b = {{9, 8, 7}};

static size_t attrs_of(uint8_t *attrs, size_t cap, const char *name)
{
	struct facts_said said = {.addr = {.ip = {[15] = 1}, .port = 7400},
				  .name = name,
				  .name_len = strlen(name),
				  .meta = (const uint8_t *)"meta",
				  .meta_len = 4,
				  .oldest = 1,
				  .newest = 1};
	int len = facts_encode(&said, attrs, cap);

	check(len > 0, "%d", len);
	return (size_t)len;
}

static size_t packet_of(uint8_t *bytes, size_t cap)
{
	struct bytes_out out = bytes_out_of(bytes, cap);
	struct wire_header h = {.version = 1,
				.kind = WIRE_PING,
				.flags = WIRE_TELL_ME,
				.seq = 0x01020304,
				.from = id_a,
				.incarnation = incarnation_of(3, 7),
				.digest = 0x1122334455667788,
				.subject = id_b,
				.subject_boot = 2};
	uint8_t attrs[FACTS_BYTES_MAX];
	size_t len = attrs_of(attrs, sizeof(attrs), "name");
	struct wire_record r = {.id = id_a,
				.incarnation = incarnation_of(3, 7),
				.facts_version = incarnation_of(3, 0),
				.attrs = attrs,
				.attrs_len = (uint16_t)len};

	wire_put_header(&out, &h);
	size_t begin = wire_begin_records(&out);
	check(wire_put_record(&out, &r), "room");
	r = (struct wire_record){.id = id_b,
				 .incarnation = incarnation_of(2, 1),
				 .status = WIRE_SUSPECT,
				 .n_accusers = 1,
				 .accusers = {id_a}};
	check(wire_put_record(&out, &r), "room");
	r = (struct wire_record){.id = id_b,
				 .incarnation = incarnation_of(2, 1),
				 .status = WIRE_LEFT,
				 .age_s = 77};
	check(wire_put_record(&out, &r), "room");
	wire_end_records(&out, begin);
	check(!out.full, "full");
	return out.len;
}

static void test_round_trip(void)
{
	uint8_t bytes[1400];
	size_t len = packet_of(bytes, sizeof(bytes));
	struct wire_packet p;
	struct wire_record r;

	check_int(wire_decode(&p, bytes, len), 0);
	check_int(p.header.kind, WIRE_PING);
	check_int(p.header.seq, 0x01020304);
	check_int(p.header.digest, 0x1122334455667788);
	check_int(p.header.subject_boot, 2);
	check(gossip_id_equal(&p.header.from, &id_a), "from");
	check(wire_next(&p.records, &r), "first");
	check_int(r.incarnation, incarnation_of(3, 7));
	check_int(r.facts_version, incarnation_of(3, 0));
	check(wire_next(&p.records, &r), "second");
	check_int(r.status, WIRE_SUSPECT);
	check(gossip_id_equal(&r.accusers[0], &id_a), "accuser");
	check(wire_next(&p.records, &r), "third");
	check_int(r.age_s, 77);
	check(!wire_next(&p.records, &r), "no fourth");
	/* Golden: the layout is a promise. */
	check_int(bytes[0], 1);
	check_int(bytes[3], 4);
	check_int(bytes[7], 1);
	check_int(bytes[23], 7);
	check_int(bytes[27], 3);
	check_int(bytes[31], 0x88);
	check_int(bytes[59], 1);
	ok("UP-36: what is put in a packet comes out of it");
}

static void test_truncated(void)
{
	uint8_t bytes[1400];
	size_t len = packet_of(bytes, sizeof(bytes));
	struct wire_packet p;

	for (size_t n = 0; n < len; n++) {
		uint8_t *copy = malloc(n > 0 ? n : 1); /* its end is guarded */

		memcpy(copy, bytes, n);
		int rc = wire_decode(&p, copy, n);
		check(rc == (n == WIRE_HEADER_BYTES ? 0 : -EBADMSG),
		      "%d at %zu", rc, n);
		free(copy);
	}
	ok("D9: a packet cut anywhere is refused");
}

static void test_damaged(uint64_t seed)
{
	struct random random = {seed};
	uint8_t bytes[1400], damaged[1400];
	size_t len = packet_of(bytes, sizeof(bytes));
	struct wire_packet p;
	struct wire_record r;
	unsigned n_good = 0;

	for (unsigned i = 0; i < 100000; i++) {
		memcpy(damaged, bytes, len);
		for (unsigned k = 1 + random_below(&random, 3); k > 0; k--)
			damaged[random_below(&random, (uint32_t)len)] =
				(uint8_t)random_next(&random);
		if (wire_decode(&p, damaged, len) != 0)
			continue;
		n_good++;
		while (wire_next(&p.records, &r))
			check(r.n_accusers <= WIRE_ACCUSERS_MAX, "accusers");
	}
	ok("D9: of 100000 damaged packets %u still are packets", n_good);
}

static void test_later_versions(void)
{
	uint8_t bytes[1400], attrs[FACTS_BYTES_MAX];
	size_t len = packet_of(bytes, sizeof(bytes)), n;
	struct wire_packet p;
	struct facts_pool pool;

	bytes[0] = WIRE_NEWEST + 1;
	check_int(wire_decode(&p, bytes, len), -EPROTONOSUPPORT);
	bytes[0] = 1;
	bytes[1] = 200; /* a kind */
	check_int(wire_decode(&p, bytes, len), 0);
	memcpy(bytes + len, "\x63\x02\x00zz", 5); /* a section */
	check_int(wire_decode(&p, bytes, len + 5), 0);

	n = attrs_of(attrs, sizeof(attrs), "name");
	memcpy(attrs + n, "\xee\x03new", 5); /* an attribute */
	facts_pool_init(&pool);
	const struct facts *f = facts_of(&pool, &id_a, 1, attrs, n + 5);
	check(f != NULL && f->len == n + 5, "kept");
	check(memcmp(f->attrs, attrs, n + 5) == 0, "as it was");
	const struct facts *same = facts_of(&pool, &id_a, 1, attrs, n + 5);
	check(same == f, "shared");
	facts_drop(&pool, f);
	facts_drop(&pool, same);
	facts_pool_finish(&pool);

	check_int(wire_common_version(1, 9), 1);
	check_int(wire_common_version(2, 9), 0);
	ok("D6: sections are skipped, attributes kept, versions negotiated");
}

static void test_names(void)
{
	static const char *const bad[] = {"",	 "..",	 ".hidden",
					  "a/b", "a\nb", "\x7f"};
	struct facts_said said = {
		.addr = {.port = 1}, .oldest = 1, .newest = 1};
	uint8_t attrs[FACTS_BYTES_MAX];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		said.name = bad[i];
		said.name_len = strlen(bad[i]);
		check_int(facts_encode(&said, attrs, sizeof(attrs)), -EINVAL);
	}
	ok("a name that could not be a file's is refused");
}

int main(int argc, char **argv)
{
	uint64_t seed = check_seed(argc, argv);

	test_round_trip();
	test_truncated();
	test_damaged(seed);
	test_later_versions();
	test_names();
	return 0;
}

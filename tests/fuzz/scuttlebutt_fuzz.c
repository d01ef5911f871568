/* SPDX-License-Identifier: MIT */
/* libFuzzer on what scuttlebutt hears. The first byte chooses the class; the
 * rest is a row of messages, each with two bytes of length in front. A delta's
 * epoch is put right, so that it gets past the door. Whatever comes, the member
 * keeps all that must hold, still writes, and can still be dumped and loaded. */
#include <stdlib.h>
#include <string.h>

#include "gossip/events.h"
#include "gossip/model.h"
#include "gossip/scuttlebutt_impl.h"
#include "gossip/traits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct member {
	struct model *model;
	struct events *events;
	struct traits *traits;
	struct sb *sb;
};

static void must(bool holds)
{
	if (!holds)
		abort();
}

static struct member make(unsigned class, uint8_t id)
{
	struct sb_config config = sb_defaults;
	struct sb_self self = {.id = {{id}}, .boot = 1, .seed = id};
	struct member m = {0};

	config.sources_max = 16;
	config.bytes_max = 1 << 20;
	config.stream_bytes = SB_STREAM_MIN;
	if (class == 0) {
		m.model = model_create(&config, &self, NULL, NULL);
		m.sb = model_sb(m.model);
	} else if (class == 1) {
		m.events = events_create(&config, &self, NULL, NULL);
		m.sb = events_sb(m.events);
	} else {
		m.traits = traits_create(&config, &self, NULL, NULL);
		m.sb = traits_sb(m.traits);
	}
	sb_member(m.sb, &(struct gossip_id){{9}}, true);
	return m;
}

static void finish(struct member *m)
{
	model_destroy(m->model);
	events_destroy(m->events);
	traits_destroy(m->traits);
}

static void say_something(struct member *m)
{
	if (m->model != NULL) {
		must(model_set(m->model, "k", 1, "v", 1) == 0);
		must(model_delete(m->model, "k", 1) == 0);
		must(model_set(m->model, "k", 1, "w", 1) == 0);
	} else if (m->events != NULL) {
		must(events_emit(m->events, "t", 1, "e", 1) == 0);
	} else {
		must(traits_set(m->traits, "k", "v", 1) == 0);
	}
}

static void hear(struct member *m, const uint8_t *bytes, size_t len,
		 uint64_t now_us)
{
	uint8_t *copy = xmalloc(len + 1);
	struct sb_out out = {0};
	struct sb_msg msg = {.from = {{9}}, .bytes = copy, .len = len};

	memcpy(copy, bytes, len);
	if (len >= 8 && copy[1] == SB_DELTA)
		memcpy(copy + 4, &m->sb->epoch, 4);
	if (len >= 3)
		copy[2] = m->sb->class->channel;
	sb_recv(m->sb, now_us, &msg, &out);
	sb_tick(m->sb, now_us, &out);
	must(out.n_sends <= 8);
	sb_out_finish(&out);
	free(copy);
}

static void dump_and_load(const struct member *m, unsigned class)
{
	struct member copy = make(class, 2);
	struct sb_dump at = {0};
	uint8_t *bytes = xmalloc(SB_STREAM_MIN);
	size_t len;

	while ((len = sb_dump(m->sb, &at, bytes, SB_STREAM_MIN)) > 0)
		must(sb_load(copy.sb, bytes, len) == 0);
	sb_check(copy.sb);
	free(bytes);
	finish(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	unsigned class = data[0] % 3;
	struct member m = make(class, 1);
	struct bytes_in in = bytes_in_of(data + 1, size - 1);

	say_something(&m);
	for (uint64_t now_us = 1; bytes_left(&in) > 2; now_us += 400000) {
		size_t len = bytes_u16(&in);
		if (len > bytes_left(&in))
			len = bytes_left(&in);
		hear(&m, bytes_take(&in, len), len, now_us);
		sb_check(m.sb);
	}
	say_something(&m);
	sb_check(m.sb);
	dump_and_load(&m, class);
	finish(&m);
	return 0;
}

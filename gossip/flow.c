/* SPDX-License-Identifier: MIT */
#include "gossip/flow.h"

#include <assert.h>

static uint64_t cost_us(const struct flow *f)
{
	return 1000000 / f->rate;
}

void flow_init(struct flow *f, const struct flow_config *config)
{
	assert(config->least > 0 && config->least <= config->most);
	assert(config->most <= 1000000 && config->burst > 0);
	*f = (struct flow){.config = *config, .rate = config->most};
	f->saved_us = config->burst * cost_us(f);
}

void flow_round(struct flow *f, bool overflowed)
{
	uint64_t rate = overflowed ? f->rate * 3ull / 4
				   : (uint64_t)f->rate + f->config.step;

	if (rate < f->config.least)
		rate = f->config.least;
	if (rate > f->config.most)
		rate = f->config.most;
	f->rate = (uint32_t)rate;
}

void flow_spend(struct flow *f)
{
	uint64_t cost = cost_us(f);

	f->saved_us -= f->saved_us < cost ? f->saved_us : cost;
}

uint64_t flow_wait_us(struct flow *f, uint64_t now_us)
{
	uint64_t most = f->config.burst * cost_us(f);

	if (now_us > f->now_us) {
		f->saved_us += f->now_us > 0 ? now_us - f->now_us : 0;
		f->now_us = now_us;
	}
	if (f->saved_us > most)
		f->saved_us = most;
	return f->saved_us < cost_us(f) ? cost_us(f) - f->saved_us : 0;
}

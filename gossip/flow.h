/* SPDX-License-Identifier: MIT */
/* How fast a member may write: additive increase, multiplicative decrease.
 *
 * Paper: "Efficient reconciliation and flow control for anti-entropy protocols"
 * (2008), flow control; its factor of decrease, 0.75. There members exchange
 * their rates; here each judges by its own messages alone: an answer that did
 * not fit says that there is more news than gossip can carry, a round without
 * one says that there is room (S5). */
#ifndef GOSSIP_FLOW_H
#define GOSSIP_FLOW_H

#include <stdbool.h>
#include <stdint.h>

struct flow_config {
	uint32_t least, most; /* records per second; 0 < least <= most */
	uint32_t step;	      /* added by each round without overflow */
	uint32_t burst;	      /* records at once, after a pause */
};

struct flow {
	struct flow_config config;
	uint32_t rate;	   /* records per second, now */
	uint64_t saved_us; /* unused time up to a burst; one record costs
			    * 1000000 / rate of it */
	uint64_t now_us;
};

void flow_init(struct flow *f, const struct flow_config *config);
/* A round has ended; did a message overflow in it? */
void flow_round(struct flow *f, bool overflowed);
/* A record is written. */
void flow_spend(struct flow *f);
/* How long until the next may be. */
uint64_t flow_wait_us(struct flow *f, uint64_t now_us);

#endif

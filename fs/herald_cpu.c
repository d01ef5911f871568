/* SPDX-License-Identifier: MIT */
#include "fs/herald_cpu.h"

static void set(const cpu_set_t *cpus, const pid_t *tids, size_t n_tids)
{
	sched_setaffinity(0, sizeof(*cpus), cpus);
	for (size_t i = 0; i < n_tids; i++)
		sched_setaffinity(tids[i], sizeof(*cpus), cpus);
}

void herald_cpu_bind(struct herald_cpu *c, const pid_t *tids, size_t n_tids)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	if (c->together || cpu < 0 || cpu >= CPU_SETSIZE ||
	    sched_getaffinity(0, sizeof(c->before), &c->before) != 0)
		return;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	set(&one, tids, n_tids);
	c->together = true;
}

void herald_cpu_free(struct herald_cpu *c, const pid_t *tids, size_t n_tids)
{
	if (!c->together)
		return;
	set(&c->before, tids, n_tids);
	c->together = false;
}

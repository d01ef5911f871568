/* SPDX-License-Identifier: MIT */
/* One CPU for a burst of announcements.
 *
 * The loop and a worker of the herald take turns: each request of the one waits
 * for the other. On two CPUs every turn pays for waking the other CPU up, which
 * in a virtual machine is most of the cost: 20,000 records took 3.1 s apart and
 * 1.3 s together (measured, 2 CPUs). The scheduler cannot know, since it sees
 * two that are mostly asleep; so for the time of a burst both are bound to the
 * CPU that the loop is on, and set free again when all is announced.
 *
 * Thread: the loop. Nothing depends on it: where it is refused, it is slower. */
#ifndef FS_HERALD_CPU_H
#define FS_HERALD_CPU_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct herald_cpu {
	bool together;
	cpu_set_t before; /* the loop's and so the workers' own set */
};

/* Bind the calling thread and the threads tids to one CPU; or undo that. */
void herald_cpu_bind(struct herald_cpu *c, const pid_t *tids, size_t n_tids);
void herald_cpu_free(struct herald_cpu *c, const pid_t *tids, size_t n_tids);

#endif

/* SPDX-License-Identifier: MIT */
/* A worker thread that does blocking jobs in order, for the loop.
 *
 *   loop: disk_post(job) ... -> worker: work(job), work(job), flush() once
 *        -> wake() -> loop: disk_take(): done(job), done(job)
 *
 * All jobs found waiting are one batch: they share one flush, which is how
 * appends of several entries cost one fdatasync. Two thread wake-ups cost 7 us
 * of the 100 us that a durable append takes (measured against AIO on O_DIRECT,
 * which holds the loop for 14 us instead).
 *
 * The workers of a group have a descriptor table of their own: what one opens,
 * one of them closes.
 *
 * With inline_jobs there is no thread: disk_step() does what a worker would do,
 * when the caller says so, in the caller's thread and time. A simulator then
 * decides how long the disk takes, and what was posted when the power failed
 * (disk_abandon) is as lost as it is there. */
#ifndef RING_DISK_H
#define RING_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

struct disk;

/* Embedded in the owner's own struct; stays put until done(). */
struct disk_job {
	int (*work)(struct disk_job *job);  /* thread: worker. 0 or -errno */
	void (*done)(struct disk_job *job); /* thread: loop; rc is set */
	int rc; /* of work, or of the batch's flush if work gave 0 */
	struct disk_job *next;
};

struct disk_config {
	const char *name;	  /* of the thread; at most 15 bytes */
	int (*flush)(void *data); /* thread: worker; NULL: none */
	void (*wake)(void *data); /* thread: worker; call disk_take() soon */
	void *flush_data, *wake_data;
	bool inline_jobs; /* no thread: disk_step() */
};

struct disk *disk_create(const struct disk_config *config);

void disk_post(struct disk *d, struct disk_job *job);

/* Run done() of every job that is finished. Thread: loop. */
void disk_take(struct disk *d);

/* With inline_jobs: do the jobs posted so far, as one batch. False: none
 * was. */
bool disk_step(struct disk *d);

/* With inline_jobs: as when the machine stops. No job that is left is done:
 * their done() is called with -ECANCELED, and d is gone. */
void disk_abandon(struct disk *d);

/* Is the worker asked to end? For work() that waits for something: give up.
 * Thread: any. */
bool disk_is_closing(const struct disk *d);

/* Let the worker do what is posted, then end it, and run the last done()s. When
 * it is stuck until then (CLOCK_REALTIME) it is left behind: false, d stays
 * allocated, and nothing of the caller's is called any more. */
bool disk_destroy(struct disk *d, const struct timespec *until);

#endif

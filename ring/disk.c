/* SPDX-License-Identifier: MIT */
#include "ring/disk.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "ring/mem.h"

struct queue {
	struct disk_job *head, **tail;
};

struct disk {
	struct disk_config config;
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t posted;
	struct queue todo, finished;
	bool left_behind;
	atomic_bool closing;
};

static void queue_init(struct queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

/* Move all of from to the end of to. */
static void queue_append(struct queue *to, struct queue *from)
{
	if (from->head == NULL)
		return;
	*to->tail = from->head;
	to->tail = from->tail;
	queue_init(from);
}

/* Wait for jobs. False: closing, and none is left. */
static bool next_batch(struct disk *d, struct queue *batch)
{
	queue_init(batch);
	pthread_mutex_lock(&d->lock);
	while (d->todo.head == NULL && !d->closing)
		pthread_cond_wait(&d->posted, &d->lock);
	queue_append(batch, &d->todo);
	pthread_mutex_unlock(&d->lock);
	return batch->head != NULL;
}

static void do_batch(struct disk *d, struct queue *batch)
{
	struct disk_job *job;

	for (job = batch->head; job != NULL; job = job->next)
		job->rc = job->work(job);
	if (d->config.flush == NULL)
		return;
	int rc = d->config.flush(d->config.flush_data);

	for (job = batch->head; job != NULL; job = job->next)
		if (job->rc == 0)
			job->rc = rc;
}

static void finish_batch(struct disk *d, struct queue *batch)
{
	pthread_mutex_lock(&d->lock);
	queue_append(&d->finished, batch);
	if (!d->left_behind) /* with the lock: not after it is */
		d->config.wake(d->config.wake_data);
	pthread_mutex_unlock(&d->lock);
}

static void *worker(void *arg)
{
	struct disk *d = arg;
	struct queue batch;

	while (next_batch(d, &batch)) {
		do_batch(d, &batch);
		finish_batch(d, &batch);
	}
	return NULL;
}

bool disk_step(struct disk *d)
{
	struct queue batch;

	assert(d->config.inline_jobs);
	queue_init(&batch);
	queue_append(&batch, &d->todo);
	if (batch.head == NULL)
		return false;
	do_batch(d, &batch);
	finish_batch(d, &batch);
	return true;
}

struct disk *disk_create(const struct disk_config *config)
{
	struct disk *d = xcalloc(1, sizeof(*d));

	d->config = *config;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->posted, NULL);
	queue_init(&d->todo);
	queue_init(&d->finished);
	if (config->inline_jobs)
		return d;
	if (pthread_create(&d->thread, NULL, worker, d) != 0)
		mem_check(
			NULL); /* no thread to be had is no memory to be had */
	pthread_setname_np(d->thread, config->name);
	return d;
}

void disk_post(struct disk *d, struct disk_job *job)
{
	assert(!d->closing);
	job->next = NULL;
	pthread_mutex_lock(&d->lock);
	*d->todo.tail = job;
	d->todo.tail = &job->next;
	pthread_cond_signal(&d->posted);
	pthread_mutex_unlock(&d->lock);
}

void disk_take(struct disk *d)
{
	struct queue finished;

	queue_init(&finished);
	pthread_mutex_lock(&d->lock);
	queue_append(&finished, &d->finished);
	pthread_mutex_unlock(&d->lock);
	while (finished.head != NULL) {
		struct disk_job *job = finished.head;

		finished.head = job->next; /* done() may free the job */
		job->done(job);
	}
}

bool disk_is_closing(const struct disk *d)
{
	return d->closing;
}

static void release(struct disk *d)
{
	pthread_cond_destroy(&d->posted);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

void disk_abandon(struct disk *d)
{
	assert(d->config.inline_jobs);
	d->closing = true;
	queue_append(&d->finished, &d->todo);
	for (struct disk_job *job = d->finished.head; job; job = job->next)
		job->rc = -ECANCELED;
	disk_take(d);
	release(d);
}

/* False: it is stuck, and left behind. */
static bool end_worker(struct disk *d, const struct timespec *until)
{
	if (d->config.inline_jobs)
		return true;
	if (pthread_timedjoin_np(d->thread, NULL, until) == 0)
		return true;
	pthread_mutex_lock(&d->lock);
	d->left_behind = true;
	pthread_mutex_unlock(&d->lock);
	pthread_detach(d->thread);
	return false;
}

bool disk_destroy(struct disk *d, const struct timespec *until)
{
	pthread_mutex_lock(&d->lock);
	d->closing = true;
	pthread_cond_signal(&d->posted);
	pthread_mutex_unlock(&d->lock);
	if (d->config.inline_jobs)
		disk_step(d);
	if (!end_worker(d, until))
		return false;
	disk_take(d);
	release(d);
	return true;
}

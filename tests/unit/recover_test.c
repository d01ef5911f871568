/* SPDX-License-Identifier: MIT */
/* A log that goes on alone: what is read of it, what recovering makes of it, and
 * that a crash at any byte leaves the one or the other. */
#include "ring/ring.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring/peer.h"
#include "tests/unit/scratch.h"

static const struct ring_id cluster = {{1}}, self = {{2}};
static uint64_t boot;
static struct ring *ring;

/* What was sent last, to whom. */
static struct {
	struct ring_id to;
	uint8_t bytes[256];
	size_t len;
} sent;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void on_change(void *data, const struct ring_change *change)
{
	(void)data;
	(void)change;
}

static void on_status(void *data)
{
	(void)data;
}

static void on_log(void *data, int level, const char *line)
{
	(void)data;
	(void)level;
	(void)line;
}

static void on_send(void *data, const struct ring_id *to, bool bulk,
		    const void *bytes, size_t len)
{
	(void)data;
	(void)bulk;
	sent.to = *to;
	sent.len = len < sizeof(sent.bytes) ? len : sizeof(sent.bytes);
	memcpy(sent.bytes, bytes, sent.len);
}

static void open_ring(void)
{
	struct ring_config config = {.dir = scratch_dir,
				     .cluster = cluster,
				     .id = self,
				     .boot = ++boot,
				     .name = "n1",
				     .weight = 100,
				     .op_timeout_ms = 2000,
				     .on_change = on_change,
				     .on_status = on_status,
				     .on_log = on_log,
				     .wake = on_status,
				     .send = on_send};
	char errmsg[RING_ERRMSG_SIZE] = "";

	memset(&config.settings, 0xff, sizeof(config.settings)); /* UNSET */
	int rc = ring_open(&config, now_ms(), &ring, errmsg);

	check(rc == 0, "%d %s", rc, errmsg);
}

static void turn(void)
{
	uint32_t wait = ring_flush(ring, now_ms());

	poll(NULL, 0, wait < 5 ? (int)wait : 5);
	ring_wake(ring, now_ms());
	ring_tick(ring, now_ms());
}

static void until_ready(void)
{
	struct ring_status s = {0};

	for (int i = 0; i < 2000 && s.health != RING_READY; i++) {
		turn();
		ring_status(ring, &s);
	}
	check(s.health == RING_READY, "%s", s.reason);
}

static bool is_done;

static void on_done(struct ring_request *req)
{
	check_int(req->rc, 0);
	is_done = true;
}

static void claim(const char *name)
{
	struct ring_op op = {.type = RING_CLAIM, .name = name};
	struct ring_request req = {.ops = &op, .n_ops = 1, .cb = on_done};

	is_done = false;
	ring_submit(ring, now_ms(), &req);
	for (int i = 0; i < 2000 && !is_done; i++)
		turn();
	check(is_done, "no answer");
	check_int(op.rc, 0);
}

static void start_and_claim(const char *name)
{
	open_ring();
	until_ready();
	claim(name);
}

static void stop(void)
{
	ring_close(ring);
	ring = NULL;
}

static int look(struct ring_log *log, char *errmsg)
{
	return ring_look(scratch_dir, &cluster, &self, log, errmsg);
}

static void must_look(struct ring_log *log)
{
	char errmsg[RING_ERRMSG_SIZE] = "";
	int rc = look(log, errmsg);

	check(rc == 0, "%d %s", rc, errmsg);
}

static void must_recover(void)
{
	char errmsg[RING_ERRMSG_SIZE] = "";
	int rc = ring_recover(scratch_dir, &cluster, &self, errmsg);

	check(rc == 0, "%d %s", rc, errmsg);
}

/* ---- The file of the log ---- */

static char *segment_path(void)
{
	static char path[600];

	snprintf(path, sizeof(path), "%s/wal/0000000000000001.seg",
		 scratch_dir);
	return path;
}

static uint8_t *read_segment(size_t *len)
{
	struct stat st;
	int fd = open(segment_path(), O_RDONLY | O_CLOEXEC);

	check(fd >= 0 && fstat(fd, &st) == 0, "%s", segment_path());
	*len = (size_t)st.st_size;
	uint8_t *bytes = malloc(*len);

	check_int(pread(fd, bytes, *len, 0), st.st_size);
	close(fd);
	return bytes;
}

static void write_segment(const uint8_t *bytes, size_t from, size_t to)
{
	int fd = open(segment_path(), O_WRONLY | O_CLOEXEC);

	check_int(pwrite(fd, bytes + from, to - from, (off_t)from), to - from);
	close(fd);
}

/* ---- The tests ---- */

static void what_is_known(void)
{
	struct ring_log log;
	struct timespec ts;

	start_and_claim("a");
	claim("b");
	stop();
	must_look(&log);
	clock_gettime(CLOCK_REALTIME, &ts);
	check_int(log.term, 1);
	check(log.index >= 4, "%lu", (unsigned long)log.index);
	check(log.written_us / 1000000 + 60 > (uint64_t)ts.tv_sec, "time");
	check_int(log.generation, 0);
	check_int(log.lease_ms, 1500);
	check_int(log.n_keys, 2);
	check_int(log.n_servers, 1);
	check_int(log.n_voters, 1);
	check(log.servers[0].is_self, "another");
	check(strcmp(log.servers[0].name, "n1") == 0, "name");
	check_int(log.servers[0].n_keys, 2);
	ring_log_finish(&log);
	ok("what a log knows is read, and nothing is changed");
}

static void a_new_generation(void)
{
	struct ring_log was, is;

	must_look(&was);
	must_recover();
	must_look(&is);
	check_int(is.index, was.index + 1);
	check_int(is.term, was.term + 1);
	check_int(is.generation, 1);
	check_int(is.n_voters, 1);
	check_int(is.n_keys, 2);
	ring_log_finish(&was);
	ring_log_finish(&is);
	start_and_claim("c");
	check_int(ring_generation(ring), 1);
	check(ring_find(ring, "a") != NULL && ring_find(ring, "b") != NULL,
	      "what was acknowledged is there");
	stop();
	must_recover();
	open_ring();
	check_int(ring_generation(ring), 2);
	until_ready();
	stop();
	ok("recovered it goes on with all that the log had, a term and a "
	   "generation later");
}

/* Of the new bytes [from, to) are on the disk. Is all done? */
static bool look_torn(const uint8_t *old, const uint8_t *new, size_t from,
		      size_t to)
{
	char errmsg[RING_ERRMSG_SIZE];
	static uint64_t index; /* before */
	static uint32_t generation;
	struct ring_log log;

	if (from < to)
		write_segment(new, from, to);
	int rc = look(&log, errmsg);

	check(rc == 0, "%zu to %zu: %s", from, to, errmsg);
	if (old == NULL) {
		index = log.index;
		generation = log.generation;
	}
	bool is_new = log.generation == generation + 1;
	check(log.generation == generation + is_new &&
		      log.index == index + is_new,
	      "half of it");
	ring_log_finish(&log);
	return is_new;
}

/* The new bytes come to the disk byte by byte, or its sectors in any order. */
static void a_crash_at_any_byte(void)
{
	size_t len, same = 0, end, n_new = 0;
	uint8_t *old = read_segment(&len);

	look_torn(NULL, old, 0, 0);
	must_recover();
	uint8_t *new = read_segment(&end);

	check_int(end, len);
	while (old[same] == new[same])
		same++;
	while (old[end - 1] == new[end - 1])
		end--;
	check(end > same + 100, "%zu to %zu", same, end);
	for (size_t to = same; to <= end; to++) {
		write_segment(old, same, end + 512);
		n_new += look_torn(old, new, same, to);
	}
	check_int(n_new, 1);
	for (size_t from = same - same % 512; from < end; from += 512) {
		write_segment(old, same, end + 512);
		n_new += look_torn(old, new, from, end);
	}
	check(n_new >= 2, "%zu", n_new);
	write_segment(new, same, end);
	free(old);
	free(new);
	ok("a crash at any byte leaves what was, or what shall be");
}

static void damage_is_refused(void)
{
	char errmsg[RING_ERRMSG_SIZE];
	struct ring_log log;
	size_t len;
	uint8_t *bytes = read_segment(&len);

	bytes[4096 + 40] ^= 4;
	write_segment(bytes, 4096, 4096 + 64);
	check_int(look(&log, errmsg), -EUCLEAN);
	check(strstr(errmsg, "damaged at offset 4096") != NULL, "%s", errmsg);
	check_int(ring_recover(scratch_dir, &cluster, &self, errmsg), -EUCLEAN);
	bytes[4096 + 40] ^= 4;
	write_segment(bytes, 4096, 4096 + 64);
	free(bytes);
	check_int(ring_look(scratch_dir, &self, &self, &log, errmsg), -EXDEV);
	ok("a damaged log, and another's, is refused");
}

/* A message of that generation comes from elsewhere. */
static void hear(uint32_t generation)
{
	const struct ring_id other = {{3}};
	struct buf b = {0};

	peer_put_kind(&b, PEER_FAREWELL);
	peer_put_generation(&b, generation);
	sent.len = 0;
	ring_recv(ring, now_ms(), &other, b.base, b.len);
	free(b.base);
}

static void generations_keep_apart(void)
{
	struct ring_status s;
	struct reader body;
	struct peer_refusal no;
	uint32_t generation;

	open_ring();
	until_ready();
	uint32_t own = ring_generation(ring);

	hear(own);
	check_int(sent.len, 0);
	hear(own - 1);
	check(peer_cut_generation(sent.bytes, &sent.len, &generation), "none");
	check_int(generation, own);
	check_int(peer_kind(sent.bytes, sent.len, &body), PEER_REFUSAL);
	check_int(peer_get_refusal(&body, &no), 0);
	check_int(no.why, PEER_OLD_GENERATION);
	hear(own - 1);
	check_int(sent.len, 0); /* not so often */
	hear(own + 1);
	ring_status(ring, &s);
	check_int(s.health, RING_READY); /* it has its majority */
	stop();
	ok("holes 22: one of an older generation is told; a newer one does no "
	   "harm to "
	   "who has a majority");
}

static void body(uint64_t seed)
{
	(void)seed;
	what_is_known();
	a_new_generation();
	a_crash_at_any_byte();
	damage_is_refused();
	generations_keep_apart();
}

int main(void)
{
	return scratch_run(body, 0);
}

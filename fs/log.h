/* SPDX-License-Identifier: MIT */
/* The daemon's log: one line per record, to stderr, or to the state's `log`
 * when in the background. Text: "2026-11-21T04:05:06.789Z warning: sentence",
 * or "<4>sentence" under journald; JSON: one object per line. */
#ifndef FS_LOG_H
#define FS_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_NOTICE,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG
};

void log_set(enum log_level level, bool json);

/* From now on a thread writes: a pipe that nobody reads, or a disk that hangs,
 * holds up nobody but it. What does not fit any more is counted and left out. */
void log_begin(void);

/* Write what waits, for a second at most. Later lines are written at once; when
 * the writer hangs, never. */
void log_end(void);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_line(int level, const char *line); /* as it is */

/* The level named word (error, warning, notice, info, debug), or -1. */
int log_level_of(const char *word);

/* The last lines (64 KiB at most), for status/log: a copy of *len bytes, that
 * free() releases. */
char *log_tail(size_t *len);

#endif

/* SPDX-License-Identifier: MIT */
#include "fs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <regex.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/check.h"

#define STAMP "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z "

static char name[] = "/tmp/log_test.XXXXXX"; /* stderr, while it is watched */
static char said[8192];
static int real_stderr;

static void watch(void)
{
	fflush(stderr);
	int fd = open(name, O_RDWR | O_TRUNC | O_APPEND);
	check(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0, "%s", name);
	close(fd);
}

static void unwatch(void)
{
	FILE *f = fopen(name, "r");

	dup2(real_stderr, STDERR_FILENO);
	said[fread(said, 1, sizeof(said) - 1, f)] = '\0';
	fclose(f);
}

static void check_matches(const char *pattern)
{
	regex_t re;

	check(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB) == 0, "%s",
	      pattern);
	check(regexec(&re, said, 0, NULL, 0) == 0, "'%s' is not as %s", said,
	      pattern);
	regfree(&re);
}

static void text_lines(void)
{
	watch();
	log_warning("a %s of %d", "line", 2);
	unwatch();
	check_matches(STAMP "warning: a line of 2\n$");
	watch();
	log_info("key 'a\nb\x1b[0m'");
	unwatch();
	check_matches(STAMP "info: key 'a\\\\x0ab\\\\x1b\\[0m'\n$");
	watch();
	errno = EXDEV;
	log_debug("not said");
	log_line(LOG_LEVEL_NOTICE, "100% as it is");
	check_int(errno, EXDEV);
	unwatch();
	check_matches(STAMP "notice: 100% as it is\n$");
	log_set(LOG_LEVEL_ERROR, false);
	watch();
	log_warning("not said");
	log_error("said");
	unwatch();
	check_matches(STAMP "error: said\n$");
	ok("a record is one line, with a stamp and its level, and no control "
	   "characters");
}

static void journal(void)
{
	char stream[64];
	struct stat st;

	log_set(LOG_LEVEL_INFO, false);
	watch();
	check(fstat(STDERR_FILENO, &st) == 0, "%d", errno);
	snprintf(stream, sizeof(stream), "%llu:%llu",
		 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_warning("a\nb");
	unwatch();
	check(strcmp(said, "<4>a\\x0ab\n") == 0, "%s", said);
	snprintf(stream, sizeof(stream), "%llu:%llu",
		 (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino + 1);
	setenv("JOURNAL_STREAM", stream, 1);
	watch();
	log_warning("elsewhere");
	unwatch();
	check_matches(STAMP "warning: elsewhere\n$");
	unsetenv("JOURNAL_STREAM");
	ok("only the journal's own stream is given levels as numbers");
}

static void json_lines(void)
{
	static const char nasty[] = "quote \" back \\ tab \t \xc3\xa4 bad "
				    "\xff\xc0\x80 \xed\xa0\x80 "
				    "cut \xe2\x82";

	log_set(LOG_LEVEL_INFO, true);
	watch();
	log_line(LOG_LEVEL_INFO, nasty);
	unwatch();
	json_t *line = json_loads(said, 0, NULL);
	check(line != NULL && strchr(said, '\n') == said + strlen(said) - 1,
	      "%s", said);
	const char *message =
		json_string_value(json_object_get(line, "message"));
	static const char safe[] = "quote \" back \\ tab \t \xc3\xa4 bad "
				   "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd "
				   "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd "
				   "cut \xef\xbf\xbd\xef\xbf\xbd";
	check(strcmp(message, safe) == 0, "%s", message);
	check(strcmp(json_string_value(json_object_get(line, "level")),
		     "info") == 0,
	      "%s", said);
	json_decref(line);
	ok("a JSON line is valid whatever is in it");
}

static void tail(void)
{
	size_t n;
	char want[16];

	log_set(LOG_LEVEL_INFO, false);
	watch();
	for (int i = 0; i < 5000; i++)
		log_info("line %d", i);
	unwatch();
	char *text = log_tail(&n);
	check(n <= 65536 && n > 65536 - 64, "%zu", n);
	check(text[n - 1] == '\n' && text[0] == '2', "not whole lines");
	check(memcmp(text + n - 10, "line 4999\n", 10) == 0, "%.10s",
	      text + n - 10);
	int i = 4999; /* backwards, each line once */
	for (char *end = text + n - 1; end > text; i--) {
		char *start = memrchr(text, '\n', (size_t)(end - text));
		start = start == NULL ? text : start + 1;
		int len = snprintf(want, sizeof(want), "line %d", i);
		check(end - start > len &&
			      memcmp(end - len, want, (size_t)len) == 0,
		      "%.40s", start);
		end = start == text ? text : start - 1;
	}
	free(text);
	ok("the tail is the last lines, whole, and no more than 64 KiB");

	char *long_line = malloc(200001);
	memset(long_line, 'x', 200000);
	long_line[200000] = '\0';
	watch();
	log_line(LOG_LEVEL_INFO, long_line);
	unwatch();
	text = log_tail(&n);
	check(n <= 65536, "%zu", n);
	free(text);
	free(long_line);
	close(STDERR_FILENO);
	log_error("nobody reads this");
	dup2(real_stderr, STDERR_FILENO);
	ok("a line longer than the tail, and a stderr that is gone, do no "
	   "harm");
}

static void levels(void)
{
	check_int(log_level_of("error"), LOG_LEVEL_ERROR);
	check_int(log_level_of("warning"), LOG_LEVEL_WARNING);
	check_int(log_level_of("notice"), LOG_LEVEL_NOTICE);
	check_int(log_level_of("info"), LOG_LEVEL_INFO);
	check_int(log_level_of("debug"), LOG_LEVEL_DEBUG);
	check_int(log_level_of("Debug"), -1);
	check_int(log_level_of(""), -1);
	ok("levels have names");
}

int main(void)
{
	int fd = mkstemp(name);

	check(fd >= 0, "%s", name);
	close(fd);
	real_stderr = dup(STDERR_FILENO);
	unsetenv("JOURNAL_STREAM");
	levels();
	text_lines();
	journal();
	json_lines();
	tail();
	close(real_stderr);
	unlink(name);
	return 0;
}

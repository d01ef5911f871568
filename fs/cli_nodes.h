/* SPDX-License-Identifier: MIT */
/* The document of status/json, as those verbs read it that make tables of it
 * (cli_ring.c). */
#ifndef FS_CLI_NODES_H
#define FS_CLI_NODES_H

#include <jansson.h>
#include <stdbool.h>

struct cli_mount;
struct text;

/* The document, which json_decref() releases: 0, or the exit status after a line
 * on stderr. */
int nodes_ask(const char *verb, const struct cli_mount *m, json_t **out);

/* A member; 0 if it is not there. */
long long nodes_number(const json_t *object, const char *name);
/* A member; "-" if it is not there, or empty. Borrowed from object. */
const char *nodes_word(const json_t *object, const char *name);

/* n changes of the form NAME:WEIGHT? Exits with 64 if not. */
void nodes_check_changes(const char *verb, char **changes, int n);

/* Print what these would move, as a table or a document: the exit status. */
int nodes_plan(const struct cli_mount *m, char **changes, int n_changes,
	       bool json);

/* Who owns how much, as a table. */
void nodes_put_shares(const json_t *document, struct text *out);

#endif

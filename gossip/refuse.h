/* SPDX-License-Identifier: MIT */
/* Why something that was asked for is not done, in a sentence. */
#ifndef GOSSIP_REFUSE_H
#define GOSSIP_REFUSE_H

/* Put the sentence into errmsg, GOSSIP_ERRMSG_SIZE bytes, and give rc back. */
int gossip_refuse(char *errmsg, int rc, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif

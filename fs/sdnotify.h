/* SPDX-License-Identifier: MIT */
/* Telling the service manager how we are: sd_notify(3), by hand.
 *
 * One datagram to the socket that NOTIFY_SOCKET names: a path, or an abstract
 * name that begins with '@'. Other kinds (vsock:) are not for services of one
 * machine. Never blocks. Thread: any, as long as nobody changes the
 * environment. */
#ifndef FS_SDNOTIFY_H
#define FS_SDNOTIFY_H

/* Send state: assignments, one per line ("READY=1\nSTATUS=3 alive",
 * "STOPPING=1").
 *
 * 0, also when nobody asked (NOTIFY_SOCKET unset or empty), or -EINVAL (neither
 * a path nor '@'), -ENAMETOOLONG, -ENOENT, -ECONNREFUSED (nobody listens),
 * -EAGAIN (he does not read), ... */
int sdnotify(const char *state);

#endif

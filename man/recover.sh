#!/bin/sh
# SPDX-License-Identifier: MIT
# Usage: recover.sh MOUNTPOINT COMMAND [ARG]...
#
# Run COMMAND for each key that is offered in recover/: the key is its last
# argument, the note its standard input. `ringfs work` does that and more: it
# stops COMMAND when the key is lost, and runs several at a time.
ring=$1
shift

token() { # KEY: of its present life
	getfattr --absolute-names --only-values -n user.ring.token \
		"$ring/owned/$1" 2>/dev/null
}

work() { # KEY COMMAND [ARG]...
	key=$1
	shift
	mv -- "$ring/recover/$key" "$ring/owned/" 2>/dev/null || return 0
	life=$(token "$key") # what is done below is done to this life alone
	if "$@" "$key" <"$ring/owned/$key"; then
		printf 'finish-at %s %s\0' "$life" "$key" >&3
		tr '\0' '\n' <&3 | grep -v '^ok ' >&2
	elif [ "$(token "$key")" = "$life" ]; then
		mv -- "$ring/owned/$key" "$ring/recover/"
	fi
} 3<>"$ring/ctl"

# Arm, list, work, wait: what comes after the listing ends the wait, or has done
# so already. Events only wake; after 30 s it looks again in any case.
while [ -d "$ring/recover" ]; do
	inotifywait -t 30 -e create -e moved_to -e unmount -- "$ring/recover" \
		2>&1 | {
		armed=false
		while read -r line; do
			[ "$line" = "Watches established." ] || continue
			armed=true
			for file in "$ring"/recover/*; do
				work "${file##*/}" "$@"
			done
		done
		$armed
	} || sleep 1
done
exit 69

# SPDX-License-Identifier: MIT
# The tests' own network: if it lied, so would every test on it.
load helper
load hosts

pings() { # FROM TO [ARG...]
	local from=$1 to=$2
	shift 2
	on "$from" ping -c 1 -W 1 "$@" "10.77.0.$to"
}

@test "hosts reach each other, in both families" {
	hosts 3
	pings 1 2
	pings 3 1 -s 1400
	on 2 ping -c 1 -W 1 fd77::3
}

@test "a cut goes one way" {
	hosts 2
	pings 1 2
	wire cut 2 1
	run ! pings 1 2
	on 2 nstat -az IcmpInEchos | grep -q 'InEchos *2 ' # it did arrive
	heal
	pings 1 2
}

@test "two sides of a split do not hear each other, and each side does" {
	hosts 4
	split "1 2" "3 4"
	pings 1 2
	pings 4 3
	run ! pings 1 3
	run ! pings 4 2
}

@test "delay and loss are as they were asked for" {
	hosts 2
	wire delay 20000 0
	on 1 ping -c 3 -i 0.2 -q 10.77.0.2 |
		awk -F/ '/^rtt/ { exit !($4 + 0 > 2 * 20 || $5 > 40) }'
	wire delay 0 0
	wire loss 1000
	run ! pings 1 2
	wire loss 0
	wire copy 1000
	on 1 ping -c 2 -i 0.2 10.77.0.2 | grep -q DUP
}

@test "a stream of 4 MB crosses the wire whole" {
	hosts 2
	head -c 4000000 /dev/urandom >"$BATS_TEST_TMPDIR/sent"
	spawn nsenter --net="/run/netns/$(host_ns 2)" bash -c \
		"exec nc -l 10.77.0.2 9 >'$BATS_TEST_TMPDIR/got' </dev/null"
	local pid=$!
	wait_for 10 on 1 nc -N 10.77.0.2 9 <"$BATS_TEST_TMPDIR/sent"
	wait_for 10 gone "$pid"
	cmp "$BATS_TEST_TMPDIR/sent" "$BATS_TEST_TMPDIR/got"
}

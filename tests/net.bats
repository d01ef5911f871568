# SPDX-License-Identifier: MIT
# Membership between hosts: real daemons, real sockets, cables that are cut.
load helper
load hosts

MEMBER_ARGS=(--preset local)

is_at() { # ID NAME ADDR
	[ "$(fact "$1" "$2" address)" = "$3" ]
}

@test "members that join through one of them see each other, with the same facts" {
	members 3
	run -0 ls "$(mnt n2)/peers"
	output_is <<-'EOF'
		n1
		n2
		n3
		self
	EOF
	[ "$(readlink "$(mnt n2)/peers/self")" = n2 ]
	for word in id address incarnation boot; do
		[ "$(fact n1 n3 $word)" = "$(fact n2 n3 $word)" ]
		[ -n "$(fact n1 n3 $word)" ]
	done
	[ "$(fact n1 n3 address)" = "$(addr 3)" ]
}

@test "IPv6 is as good" {
	hosts 2
	BIND='[fd77::1]:7400' ON="nsenter --net=/run/netns/$(host_ns 1)" \
		start_node n1
	BIND='[fd77::2]:7400' ON="nsenter --net=/run/netns/$(host_ns 2)" \
		start_node n2 --join '[fd77::1]:7400' \
		--key-file "$(key_of n1)"
	wait_for 10 sees n1 n2 alive
	[ "$(fact n1 n2 address)" = '[fd77::2]:7400' ]
}

@test "who is killed is dead to all, and alive again when it is back" {
	members 3
	boot=$(fact n1 n3 boot)
	crash_node n3
	wait_for 10 sees n1 n3 dead
	wait_for 10 sees n2 n3 dead
	member 3
	wait_for 10 sees n1 n3 alive
	wait_for 10 sees n2 n3 alive
	(($(fact n1 n3 boot) > boot))
}

@test "a host that comes back at another port is found there" {
	members 3
	crash_node n3
	BIND=10.77.0.3:7999 ON="nsenter --net=/run/netns/$(host_ns 3)" \
		start_node n3 --preset local --key-file "$(key_of n1)" \
		--join "$(addr 1)"
	wait_for 10 sees n1 n3 alive
	wait_for 10 sees n2 n3 alive
	for id in n1 n2; do wait_for 10 is_at $id n3 10.77.0.3:7999; done
}

@test "who is stopped for long is dead, and denies it when it goes on" {
	members 3
	incarnation=$(fact n1 n2 incarnation)
	kill -STOP "$(pid_of n2)"
	wait_for 10 sees n1 n2 dead
	kill -CONT "$(pid_of n2)"
	wait_for 10 sees n1 n2 alive
	wait_for 10 sees n3 n2 alive
	(($(fact n1 n2 incarnation) > incarnation))
}

@test "a split makes each side's others dead, and heals by itself" {
	members 4
	split "1 2" "3 4"
	wait_for 10 sees n1 n3 dead
	wait_for 10 sees n2 n4 dead
	wait_for 10 sees n3 n1 dead
	wait_for 10 sees n1 n2 alive
	wait_for 10 sees n3 n4 alive
	heal
	all_see 4
}

@test "a cable that is cut one way does not make anybody flap" {
	members 4
	wire cut 1 2
	spawn "$TOOLS/watch" "$(mnt n3)/peers" \
		>"$BATS_TEST_TMPDIR/events" 2>&1
	watch=$!
	sleep 5 # of the whole time nothing, or one death, may be said
	kill "$watch"
	changes=$(grep -c -E 'MODIFY.*n[12]$' "$BATS_TEST_TMPDIR/events") || true
	((changes <= 6)) || fail "$changes changes: $(cat "$BATS_TEST_TMPDIR/events")"
	heal
	all_see 4
}

@test "a wire that loses, delays and repeats kills nobody" {
	hosts 4
	MEMBER_ARGS=(--preset lan)
	member 1
	for k in 2 3 4; do launch_member $k; done
	for k in 2 3 4; do started n$k; done
	all_see 4
	wire loss 100
	wire delay 3000 3000
	wire copy 50
	for _ in {1..40}; do
		for k in 1 2 3 4; do
			! sees n1 n$k dead || fail "n$k was called dead"
		done
		sleep 0.2
	done
}

@test "who leaves has left, and may be forgotten" {
	members 3
	run -1 rm "$(mnt n1)/peers/n3"
	[[ $output == *'Device or resource busy'* ]]
	ringfs leave -m "$(mnt n3)"
	wait_for 10 sees n1 n3 left
	wait_for 10 sees n2 n3 left
	rm "$(mnt n1)/peers/n3"
	[ ! -e "$(mnt n1)/peers/n3" ]
	wait_for 10 [ ! -e "$(mnt n2)/peers/n3" ]
}

@test "garbage at the port is nobody's word" {
	members 2
	before=$(ps -o rss= -p "$(pid_of n1)")
	head -c 30000000 /dev/urandom |
		on 2 nc -u -w 1 10.77.0.1 7400 || true
	for _ in 1 2 3; do
		head -c 30000000 /dev/urandom |
			on 2 timeout 5 nc -N 10.77.0.1 7400 || true
	done
	all_see 2
	after=$(ps -o rss= -p "$(pid_of n1)")
	((after < before + 20000)) || fail "from $before to $after kB"
}

@test "ten that join at once are all there" {
	hosts 10
	member 1
	for k in {2..10}; do launch_member $k; done
	for k in {2..10}; do started n$k; done
	all_see 10
}

@test "clocks a year apart do no harm" {
	hosts 2
	member 1
	LD_PRELOAD=$TOOLS/../shim/clock.so member 2
	wait_for 10 sees n1 n2 alive
	wait_for 10 sees n2 n1 alive
	touch "$(mnt n2)/keys/k" || true
	crash_node n2
	wait_for 10 sees n1 n2 dead
}

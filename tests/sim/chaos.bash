#!/bin/bash
# SPDX-License-Identifier: MIT
# Usage: tests/sim/chaos.bash SEED | sim --seed SEED
# A random script: whatever can happen to some nodes, then peace, in which all
# must see each other and agree. What must hold meanwhile, the simulator checks.
RANDOM=$1
n=$((2 + RANDOM % 7))
declare -A is

pick() {
	i=$((1 + RANDOM % n)) j=$((1 + RANDOM % n))
}

running() {
	[ "${is[$i]}" = running ]
}

restart() {
	[ "${is[$i]}" = down ] || return
	((RANDOM % 2)) || echo "wipe $i"
	((RANDOM % 3)) || echo "port $i $((1000 + RANDOM))"
	printf 'start %d\njoin %d %d\n' "$i" "$i" "$j"
	is[$i]=running
}

step() {
	case $((RANDOM % 14)) in
	0) [ "${is[$i]}" = down ] || echo "kill $i"; is[$i]=down ;;
	1 | 2) restart ;;
	3) running && echo "stop $i" && is[$i]=stopped ;;
	4 | 5) [ "${is[$i]}" = stopped ] && echo "continue $i" && is[$i]=running ;;
	6) running && echo "leave $i" ;;
	7) running && echo "join $i $j" ;;
	8) echo "cut $i $j" ;;
	9) echo heal ;;
	10) running && echo "meta $i text$RANDOM" ;;
	11) running && ((i != j)) && echo "forget $i $j" ;;
	13) running && ((i != j)) && echo "obituary $i $j 1" ;; # true or not
	12) echo "link $i $j fails $((RANDOM % 2))" ;;
	esac
}

echo "trace * none"
((RANDOM % 3)) || echo "set tombstone 5000"
((RANDOM % 4)) || echo "set probes 3"
echo "nodes $n"
for ((i = 1; i <= n; i++)); do is[$i]=running; done
echo "link * * jitter $((RANDOM % 50)) loss $((RANDOM % 30))" \
	"duplicate $((RANDOM % 20)) reorder $((RANDOM % 20))"
for ((k = 0; k < 40; k++)); do
	pick
	step
	echo "run $((RANDOM % 1500))"
done
echo heal
for ((i = 1; i <= n; i++)); do
	[ "${is[$i]}" != down ] || echo "start $i"
	[ "${is[$i]}" != stopped ] || echo "continue $i"
	echo "join $i $((i % n + 1))"
done
echo "wait 60000 * sees * alive"
echo "wait 60000 agree"
echo "wait 10000 quiet"

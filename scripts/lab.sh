#!/usr/bin/env bash
# A lab for XDP mode on one machine: two network namespaces joined by a multi-queue veth pair. The broker runs in one with
# its program on the pair's end, the clients in the other.
#
#   sudo ./scripts/lab.sh up [QUEUES]   make it (2 queues)
#   sudo ./scripts/lab.sh demo          show XDP mode in it, with the counters that prove it; ends with down if it made the lab
#   sudo ./scripts/lab.sh down          take it away
#
# Needs Linux, root, Go, iproute2 and ethtool. Addresses are those of RFC 2544 and RFC 5180, which nobody routes.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

broker_ns=ringmq-broker client_ns=ringmq-client
broker_if=rmq0 client_if=rmq1
broker4=198.18.0.1 client4=198.18.0.2
broker6=2001:2::1 client6=2001:2::2

fail() {
	echo "lab: $*" >&2
	exit 1
}

need() {
	[ "$(uname -s)" = Linux ] || fail "XDP needs Linux"
	[ "$(id -u)" = 0 ] || fail "needs root: sudo $0 $*"
	local p
	for p in ip:iproute2 ethtool:ethtool; do
		command -v "${p%:*}" >/dev/null || fail "${p%:*} is missing: apt-get install ${p#*:}"
	done
}

exists() { ip netns list | grep -q "^$broker_ns\b"; }

up() {
	local queues=${1:-2}
	exists && fail "the lab is up already: $0 down"
	ip netns add $broker_ns
	ip netns add $client_ns
	ip link add $broker_if numrxqueues "$queues" numtxqueues "$queues" netns $broker_ns type veth \
		peer name $client_if numrxqueues "$queues" numtxqueues "$queues" netns $client_ns
	# A veth leaves checksums to be filled in by a NIC that is not there; our TCP checks every one.
	ip netns exec $client_ns ethtool -K $client_if tx off >/dev/null
	side $broker_ns $broker_if $broker4 $broker6
	side $client_ns $client_if $client4 $client6
}

# side NAMESPACE INTERFACE IPV4 IPV6 brings one end up.
side() {
	ip -n "$1" link set lo up
	ip -n "$1" address add "$3/24" dev "$2"
	ip -n "$1" address add "$4/64" dev "$2" nodad
	ip -n "$1" link set "$2" up
}

down() {
	exists || return 0
	local ns pid
	for ns in $broker_ns $client_ns; do
		for pid in $(ip netns pids $ns); do kill "$pid" 2>/dev/null || true; done
		ip netns del $ns
	done
}

in_broker() { ip netns exec $broker_ns "$@"; }
in_client() { ip netns exec $client_ns "$@"; }

# kernel_segments is what the kernel's TCP has received in the broker's namespace.
kernel_segments() { in_broker awk '/^Tcp:/ { if (seen) print $11; seen = 1 }' /proc/net/snmp; }

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

demo() {
	local made= dir before
	exists || { up && made=yes; }
	dir=$(mktemp -d)
	trap "kill \$(jobs -p) 2>/dev/null || true; wait; rm -rf '$dir'; ${made:+down}" EXIT
	go build -o "$dir/ringmq" ./cmd/ringmq
	say "A broker in XDP mode on $broker4:1883"
	in_broker "$dir/ringmq" serve --mode xdp --interface $broker_if --listen $broker4:1883 --listen "[$broker6]:1883" \
		--allow-anonymous --admin "$dir/admin.sock" 2>"$dir/log" &
	for _ in $(seq 100); do grep -q steering "$dir/log" && break || sleep 0.1; done
	grep -q steering "$dir/log" || { cat "$dir/log" >&2 && fail "the broker did not start"; }
	cat "$dir/log"
	before=$(kernel_segments)

	say "A message from the other namespace, over IPv4 and over IPv6"
	in_client "$dir/ringmq" sub -h $broker4 -t 'plant/#' -C 1 -v -W 10 &
	local sub=$!
	sleep 0.5
	in_client "$dir/ringmq" pub -h $broker6 -t plant/line1/state -m running
	wait $sub

	say "A million messages and more"
	in_client "$dir/ringmq" bench -h $broker4 -n 50 --count 1000000 --quiet

	say "What went through the rings"
	"$dir/ringmq" xdp status --admin "$dir/admin.sock"

	say "What the kernel's TCP saw of it"
	echo "segments received by the kernel in the broker's namespace: $(($(kernel_segments) - before))"
	echo "connections that ss knows there: $(in_broker ss -Htn state established | wc -l)"
}

command=${1:-}
case $command in
up | down | demo)
	need "$command"
	shift
	"$command" "$@"
	;;
*)
	echo "usage: $0 up [QUEUES] | demo | down" >&2
	exit 2
	;;
esac

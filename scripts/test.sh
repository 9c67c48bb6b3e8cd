#!/usr/bin/env bash
# Runs every check of RingMQ. On Debian, root gets what is missing installed; anybody else is told its name, and what
# needs it is left out. With --long the fuzz targets run for ten minutes each instead of ten seconds, or for as many seconds
# as are given, every planted bug is hunted instead of two, 20,000 seeds are simulated, XDP mode's lab runs once more with all clients in all
# modes, 100,000 connections, and floods whose times are judged; the broker is killed 200 times, soaks take ten minutes and a flood five in each mode.
#
# Not here: govulncheck, because it needs its database from the network.
set -u
cd "$(dirname "$0")/.." || exit 1

usage="usage: scripts/test.sh [--long [SECONDS]]"
fuzz_seconds=10 long=
case "${1:-}" in
"") ;;
--long)
	fuzz_seconds=${2:-600} long=yes
	case $fuzz_seconds in *[!0-9]*) echo "$usage" >&2 && exit 2 ;; esac
	;;
-h | --help) echo "$usage" && exit 0 ;;
*) echo "$usage" >&2 && exit 2 ;;
esac

staticcheck_version=v0.8.2
targets="linux/arm64 darwin/arm64 freebsd/amd64"
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0
summary="$scratch/summary"

# note RESULT NAME SECONDS [WHY] adds a step to the summary and prints its line.
note() {
	case $1 in
	passed) passed=$((passed + 1)) ;;
	failed) failed=$((failed + 1)) ;;
	skipped) skipped=$((skipped + 1)) ;;
	esac
	printf '%-8s %4d s  %s%s\n' "$1" "$3" "$2" "${4:+: $4}" | tee -a "$summary"
}

# step NAME COMMAND… runs a step; its output is shown when it fails.
step() {
	local name=$1 start=$SECONDS
	shift
	if "$@" >"$scratch/output" 2>&1; then
		note passed "$name" $((SECONDS - start))
	else
		cat "$scratch/output"
		note failed "$name" $((SECONDS - start))
	fi
}

# shown NAME COMMAND… is step for what takes long: its output is shown as it comes.
shown() {
	local name=$1 start=$SECONDS
	shift
	echo "-------- $name"
	if "$@"; then
		note passed "$name" $((SECONDS - start))
	else
		note failed "$name" $((SECONDS - start))
	fi
}

# missing_packages prints the Debian packages whose programs are not there.
missing_packages() {
	local PATH="$PATH:/usr/sbin:/sbin"
	command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null && command -v mosquitto_rr >/dev/null || echo mosquitto-clients
	command -v mosquitto >/dev/null && command -v mosquitto_passwd >/dev/null || echo mosquitto
	command -v gcc >/dev/null && [ -e /usr/include/stdlib.h ] || { echo gcc && echo libc6-dev; }
	command -v git >/dev/null || echo git
	command -v stdbuf >/dev/null || echo coreutils
	command -v node >/dev/null || echo nodejs
	command -v npm >/dev/null || echo npm
	has_paho || echo python3-paho-mqtt
	command -v ip >/dev/null || echo iproute2
	command -v ethtool >/dev/null || echo ethtool
	command -v bpftool >/dev/null || echo bpftool
	command -v nft >/dev/null || echo nftables
	command -v iptables-legacy >/dev/null || echo iptables
	command -v ipset >/dev/null || echo ipset
	command -v tshark >/dev/null || echo tshark
	# Who has clang can compile the steering program, which a test then does; nobody else needs its headers.
	command -v clang >/dev/null && [ ! -e /usr/include/bpf/bpf_endian.h ] && echo libbpf-dev
	command -v capsh >/dev/null || echo libcap2-bin
	command -v strace >/dev/null || echo strace
}

# has_paho looks where scripts/interop looks for Python's MQTT client.
has_paho() (
	cd / && { /usr/bin/python3 -c 'import paho.mqtt.client' || python3 -c 'import paho.mqtt.client'; } >/dev/null 2>&1
)

# install_packages installs Debian packages without letting their services start.
install_packages() {
	local policy=/usr/sbin/policy-rc.d status=0
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
	else
		policy=
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; } || status=1
	[ -z "$policy" ] || rm -f "$policy"
	case " $* " in
	*" mosquitto "*) [ ! -d /run/systemd/system ] || systemctl disable --now mosquitto || true ;;
	esac
	return $status
}

prepare() {
	local packages
	packages=$(missing_packages | tr '\n' ' ')
	packages=${packages% }
	if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		# shellcheck disable=SC2086 # one word per package
		step "install $packages" install_packages $packages
		packages=$(missing_packages | tr '\n' ' ')
		packages=${packages% }
	fi
	if [ -n "$packages" ]; then
		note skipped "what needs programs that are missing" 0 "apt-get install $packages"
	fi
}

formatted() {
	local files
	files=$(gofmt -l $(find . -name '*.go' -not -path './.*')) || return 1
	[ -z "$files" ] || { echo "not as gofmt writes it:" && echo "$files" && return 1; }
}

# cross TARGET compiles everything for another system, tests included, and vets it.
cross() (
	export CGO_ENABLED=0 GOOS=${1%/*} GOARCH=${1#*/}
	go build ./... && go vet ./...
)

# packages_with PATTERN prints the packages whose tests contain it.
packages_with() { find . -name '*_test.go' -not -path './.*' -exec grep -lE "$1" {} + | xargs -r -n 1 dirname | sort -u; }

# measured runs, of each package, the tests that -short or the race detector leave out; the whole package where they ask for that in
# a function that tests share.
measured() {
	local status=0 folder names
	for folder in $(packages_with "$left_out"); do
		names=$(awk -v left_out="$left_out" '/^func / { name = $0; sub(/^func (\([^)]*\) )?/, "", name); sub(/\(.*/, "", name) }
			$0 ~ left_out { print name }' "$folder"/*_test.go | sort -u)
		if echo "$names" | grep -qv '^Test'; then names=; fi
		go test -count=1 -timeout 20m ${names:+-run "^($(echo "$names" | paste -s -d '|' -))\$"} "$folder" || status=1
	done
	return $status
}
left_out='AllocsPerRun|testing\.Short|raceEnabled'

# fuzz_one FOLDER TARGET PROGRAM OUTPUT runs one fuzz target for a while, on one core; what it finds it also writes below testdata.
fuzz_one() (
	cd "$1" || exit 1
	# What is interesting is kept beside the build cache, as "go test -fuzz" does, so that the next run goes on. To make each of these as
	# short as can be would take a minute by default: FuzzBroker met 33 inputs in that time, without it 500 a second.
	"$3" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "${fuzz_seconds}s" -test.fuzzminimizetime 10x -test.parallel 1 \
		-test.fuzzcachedir "$fuzz_cache/$1" >"$4" 2>&1 && exit 0
	# At the end of its time the fuzzer sometimes reports its own deadline, with no input that fails.
	grep -q 'context deadline exceeded' "$4" && ! grep -q 'Failing input' "$4"
)

# fuzz runs every fuzz target, two at a time; each package is built once, with the fuzzer's coverage in it.
fuzz() {
	local status=0 folder target program jobs=0
	fuzz_cache=$(go env GOCACHE)/ringmq-fuzz
	for folder in $(packages_with '^func Fuzz'); do
		program=$scratch/fuzz-$(echo "$folder" | tr -c 'a-z0-9\n' -)
		target=$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$folder"/*_test.go | cut -c6- | head -n 1)
		go test -c -fuzz "^$target\$" -o "$program" "$folder" || { status=1 && continue; }
		for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$folder"/*_test.go | cut -c6-); do
			echo "fuzz $folder $target"
			{ fuzz_one "$folder" "$target" "$program" "$program-$target" || : >"$program-$target.failed"; } &
			jobs=$((jobs + 1))
			[ $((jobs % 2)) = 1 ] || wait
		done
	done
	wait
	for target in "$scratch"/*.failed; do
		[ -e "$target" ] || continue
		cat "${target%.failed}"
		status=1
	done
	return $status
}

static() {
	if ! GOBIN=$scratch go install "honnef.co/go/tools/cmd/staticcheck@$staticcheck_version" >"$scratch/output" 2>&1; then
		if [ -n "${CI:-}" ]; then
			cat "$scratch/output"
			note failed staticcheck 0 "cannot be fetched"
		else
			note skipped staticcheck 0 "$staticcheck_version cannot be fetched: $(tail -n 1 "$scratch/output")"
		fi
		return
	fi
	step "staticcheck $staticcheck_version" "$scratch/staticcheck" ./...
}

if ! command -v go >/dev/null; then
	echo "go is missing: install Go $(sed -n 's/^go //p' go.mod) or newer" >&2
	exit 1
fi
prepare
step gofmt formatted
step "go vet" go vet ./...
for t in $targets; do
	step "build and vet for $t" cross "$t"
done
unset t
static
if command -v gcc >/dev/null; then
	# What -short leaves out measures memory and speed, which the race detector changes: it runs in the next step.
	shown "tests under the race detector" go test -race -short -count=1 -p 2 -timeout 20m ./...
else
	shown "tests (no race detector without gcc)" go test -short -count=1 -p 2 -timeout 20m ./...
fi
# One package at a time, because others' work would be measured, too.
shown "allocations, memory, speed; XDP mode in its lab" measured
if [ -n "$long" ]; then
	shown "XDP mode in its lab, the long run" env RINGMQ_LONG=1 go test -count=1 -timeout 60m ./scripts/lab
	[ "$(id -u)" = 0 ] && modes=both || modes=standard
	shown "200 times SIGKILL, and large stores" env RINGMQ_LONG=1 go test -count=1 -timeout 60m -v -run 'TestKillAndRecover|TestReadySoon|TestPlanHolds' ./cmd/ringmq
	shown "every change of the disk as the last, the full, the failing one" \
		env RINGMQ_LONG=1 go test -count=1 -timeout 60m -v -run 'EveryChange|OneSyncFails|LyingDisk|LevelOS|Salvage|TornLog' ./broker/store
	shown "20,000 seeds" go run ./scripts/sim -from 1000 -seeds 20000 -jobs 2
	shown "soaks of ten minutes" go run ./perf soak --mode $modes --minutes 10 --broker-cpu -1 --load-cpu -1
	shown "soaks of ten minutes with a store" go run ./perf soak --data --mode $modes --minutes 10 --broker-cpu -1 --load-cpu -1
	shown "a flood of five minutes" go run ./perf overload --alone --mode $modes --scenario flood --rounds 1 --seconds 300
	shown "every planted bug, found by simulation" env RINGMQ_LONG=1 go test -count=1 -timeout 60m -v -run TestPlantedBugs ./scripts/sim
fi
shown "fuzzing, $fuzz_seconds s a target" fuzz

echo "-------- summary"
cat "$summary"
echo "in all   $SECONDS s"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]

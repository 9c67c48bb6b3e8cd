#!/usr/bin/env bash
# Runs every check of RingMQ. On Debian, root gets what is missing installed; anybody else is told its name, and what
# needs it is left out. With --long the fuzz targets run for half a minute each instead of seconds, and XDP mode's lab
# once more with all clients in all modes, 100,000 connections, and floods whose times are judged.
#
# Not here: govulncheck, because it needs its database from the network.
set -u
cd "$(dirname "$0")/.." || exit 1

usage="usage: scripts/test.sh [--long]"
fuzz_seconds=3 long=
case "${1:-}" in
"") ;;
--long) fuzz_seconds=30 long=yes ;;
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
	command -v capsh >/dev/null || echo libcap2-bin
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

# fuzz runs every fuzz target for a while; what it finds it also writes below testdata.
fuzz() {
	local status=0 folder target
	for folder in $(packages_with '^func Fuzz'); do
		for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$folder"/*_test.go | cut -c6-); do
			echo "fuzz $folder $target"
			go test -run '^$' -fuzz "^$target\$" -fuzztime "${fuzz_seconds}s" "$folder" >"$scratch/fuzz" 2>&1 && continue
			# At the end of its time the fuzzer sometimes reports its own deadline, with no input that fails.
			if grep -q 'context deadline exceeded' "$scratch/fuzz" && ! grep -q 'Failing input' "$scratch/fuzz"; then
				continue
			fi
			cat "$scratch/fuzz"
			status=1
		done
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
	shown "tests under the race detector" go test -race -short -count=1 -p 2 -timeout 10m ./...
else
	shown "tests (no race detector without gcc)" go test -short -count=1 -p 2 -timeout 10m ./...
fi
# One package at a time, because others' work would be measured, too.
shown "allocations, memory, speed; XDP mode in its lab" go test -count=1 -p 1 -timeout 10m $(packages_with 'AllocsPerRun|testing\.Short')
if [ -n "$long" ]; then
	shown "XDP mode in its lab, the long run" env RINGMQ_LONG=1 go test -count=1 -timeout 60m ./scripts/lab
fi
shown "fuzzing, $fuzz_seconds s a target" fuzz

echo "-------- summary"
cat "$summary"
echo "in all   $SECONDS s"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]

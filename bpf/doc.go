// Package bpf is the steering program (steer.c) and its loader: it decides which of the frames that an interface receives go
// to AF_XDP sockets, one per queue, and which to the kernel.
//
// # What it is, and what it is not
//
// The program redirects TCP segments to the broker's addresses and ports, and the ICMP messages "fragmentation needed" and
// "packet too big" that quote such a segment. Everything else is the kernel's: ARP and neighbour discovery, other ICMP, other
// ports, fragments, IPv4 options, extension headers it does not parse, what is malformed. It changes no frame, keeps no state
// of connections but where they belong, and verifies no checksum: the stack behind the socket does. The loader knows nothing
// of sockets but their descriptors, and starts no goroutine.
//
// # Order of the checks
//
// It stands at the head of steer.c, and each Verdict is one way out of it. In short: parse; deny and allow lists; for a SYN the
// bucket of its source, then the gate for all; connections on the kernel's path; drain; is there a socket; redirect. So what
// is dropped is always addressed to the broker, and a SYN that is passed to the kernel has had its token, too.
//
// # Words
//
//   - verdict: what was decided about a frame, and why. Counters has packets and bytes of each, by queue. Redirected means that
//     the frame was given to a socket; whether its RX ring had room is in the socket's own statistics (XDP_STATISTICS).
//   - kernel flow: a connection that is on the kernel's path for life, because it began there. AddKernelFlows holds those that
//     the caller has accepted. What the program itself passes, a SYN, it remembers on its own in a table that forgets the
//     oldest, so that a flood of SYNs cannot push out a connection: add connections when they are accepted.
//   - drain: new connections go to the kernel, known flows are still redirected.
//   - hold: while a queue has no socket, its known flows wait instead of being reset by the kernel.
//   - deny, allow, exempt: lists of source prefixes. Deny drops all segments, of connections that are there, too; allow
//     overrides deny, whatever the lengths of the prefixes; exempt is for the SYN limits only.
//   - SYN limit: token buckets, one for each source prefix (the least recently used is forgotten, and begins full), and one
//     gate for all. Exact on up to four CPUs; on more, at most CPUs - 4 SYNs too many at a time, which are charged all the
//     same: see take in steer.c.
//
// # Use
//
// Load, SetAddresses, SetPorts, Attach with an empty XSKMAP, open the sockets and fill their fill rings, AddKernelFlows for
// what the kernel's listener has accepted meanwhile, then SetSocket for each queue. Later changes may come at any time. To stop
// softly: SetDrain, wait, Close. When the process ends otherwise, the kernel takes everything away with its descriptors:
// the bpf_link, the program and the maps are pinned nowhere, so that a crash leaves the interface as it was before Attach, and
// nothing has to be cleaned up. Installed lists what is there, of running brokers.
//
// Another program on the interface is never replaced: Attach fails with a *ForeignProgramError, which names it.
//
// # VLAN
//
// A frame with one or two tags is steered like one without, by its destination address alone. So SetAddresses must have the
// addresses of the VLAN sub-interfaces that are to be served, and whoever may send frames with any tag to the interface
// reaches the addresses that it has. Hardware that takes the tag off before XDP (ethtool -K … rxvlan off prevents it) hides
// it from us and from the stack, whose answers would then go out untagged.
//
// # Needs
//
// Linux 5.15 on amd64, 5.18 on arm64. The youngest thing in use is compare-and-swap in BPF, which the JIT compiler of amd64
// knows since 5.12 and that of arm64 since 5.18; bpf_link for XDP is of 5.9. Tested on 6.18 only. Load takes CAP_BPF,
// CAP_NET_ADMIN and CAP_PERFMON, without which the verifier lets nobody read packets at variable offsets. After Load
// nothing needs a capability since Linux 5.19; older ones want CAP_BPF at every call where kernel.unprivileged_bpf_disabled is
// set, as it is by default. Map memory is accounted to the cgroup, not to RLIMIT_MEMLOCK.
//
// # Cost
//
// By the kernel's test-run, in which a program that does nothing takes 27 ns on the machine of the README, ours takes 75 ns for
// a segment that it redirects (11 ns more with deny lists, 25 ns more with kernel flows), 110 ns for a SYN (190 ns with all
// lists and limits), 30 ns for what is not TCP and 63 ns for TCP to another port:
//
//	go test -run '^$' -bench Steer -benchtime 2000000x ./bpf
//
// # The object
//
// steer_bpfel.o and its Go file are committed, so that nobody needs clang to build RingMQ; amd64 and arm64 have the same byte
// order and the same object. After a change of steer.c, with clang, llvm, libbpf-dev and linux-libc-dev of Debian:
//
//	go generate ./bpf
//
// A test builds it again where clang is of the version that is recorded in clang-version, and compares.
package bpf

// The kernel's headers for user space are split by architecture on Debian: both folders are named, one is there.
//
//go:generate sh -c "clang --version | head -n 1 >clang-version"
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel -tags linux steer steer.c -- -mcpu=v3 -O2 -Wall -Wextra -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

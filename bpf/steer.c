//go:build ignore

// Copyright RingMQ authors. Apache License 2.0.
//
// steer.c decides, for each frame that an interface receives, whether it goes to the AF_XDP socket of its queue or to the
// kernel. It redirects TCP segments to our addresses and ports, and "too big" messages of ICMP that quote a segment of ours.
// Whatever it does not understand to the last header is the kernel's. Nobody but the loader in this folder writes its maps,
// except where a map says so.
//
// The order of the checks; the first that applies is the verdict:
//
//   1. Ethernet, at most two VLAN tags (802.1Q, 802.1ad), then IPv4 or IPv6      passed_not_ip, passed_malformed
//   2. the IP header is whole, and the packet as long as it says                 passed_malformed
//   3. IPv4: no fragment, no options                                             passed_fragment, passed_ip_options
//      IPv6: at most six Hop-by-Hop (first only), Routing (Segments Left 0)      passed_fragment, passed_malformed,
//            and Destination Options headers                                     passed_extension_headers
//   4. TCP; or ICMP 3/4, ICMPv6 2 that quotes TCP from the address it came to    passed_other_protocol, passed_icmp
//   5. the destination is one machine (Ethernet) and in addresses                passed_other_address; ICMP: passed_icmp
//   6. TCP: the header is whole                                                  passed_malformed
//   7. the destination port (ICMP: the quoted source port) is in ports           passed_other_port; ICMP: passed_icmp
//   8. TCP: not SYN+ACK                                                          passed_syn_ack
//   9. the source is in the deny list and not in the allow list                  dropped_denied
//  10. SYN, source not exempt: a token of its source prefix, a token of the gate dropped_syn_source, dropped_syn_gate
//  11. a flow of the kernel's                                                    passed_kernel_flow
//  12. SYN on a draining queue                                                   passed_drain
//  13. no socket in the XSKMAP at this queue                                     dropped_held (no SYN), passed_no_socket
//  14.                                                                           redirected, redirected_icmp
//
// A SYN that 12 or 13 pass is remembered in kernel_syns, so that the rest of its connection takes the same way.
//
// All loops are unrolled and all functions inlined. Packets are read at offsets that other bytes of them give, which the
// verifier allows only to a loader with CAP_PERFMON. The verifier and the JIT compilers know compare-and-swap (see take)
// since Linux 5.12 on amd64 and 5.18 on arm64; all else is older.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// The numbers are those of Verdict in verdict.go, where the names are stable and the numbers are not.
enum verdict {
	REDIRECTED,
	REDIRECTED_ICMP,
	PASSED_NOT_IP,
	PASSED_MALFORMED,
	PASSED_FRAGMENT,
	PASSED_IP_OPTIONS,
	PASSED_EXTENSION_HEADERS,
	PASSED_OTHER_PROTOCOL,
	PASSED_ICMP,
	PASSED_OTHER_ADDRESS,
	PASSED_OTHER_PORT,
	PASSED_SYN_ACK,
	PASSED_KERNEL_FLOW,
	PASSED_DRAIN,
	PASSED_NO_SOCKET,
	DROPPED_DENIED,
	DROPPED_SYN_SOURCE,
	DROPPED_SYN_GATE,
	DROPPED_HELD,
	VERDICTS,

	LAST_REDIRECTED = REDIRECTED_ICMP,
	FIRST_DROPPED = DROPPED_DENIED,
};

enum {
	VLAN_TAGS_MAX = 2,
	EXTENSION_HEADERS_MAX = 6,
	IPV4_MORE_FRAGMENTS = 0x2000,
	IPV4_FRAGMENT_OFFSET = 0x1fff,
	ICMP_UNREACHABLE = 3, // type, and
	ICMP_FRAGMENTATION_NEEDED = 4, // its code (RFC 792)
	ICMPV6_TOO_BIG = 2, // type; the code says nothing (RFC 4443)
	ICMP_QUOTE_SIZE = 8, // bytes of TCP that every ICMP error quotes (RFC 792): the ports and the sequence number
	TAKE_ATTEMPTS = 4,   // see take
};

// KERNEL_SYN_NS is how long the kernel may hold a connection open for the peer's answer: it sends its SYN+ACK again after 1,
// 2, 4, 8 and 16 s and gives up 32 s later (net.ipv4.tcp_synack_retries 5). Till then a SYN that comes again must meet the
// same kernel socket. A connection that the kernel has closed first is in TIME-WAIT for 60 s, which this covers as well.
#define KERNEL_SYN_NS (64ULL * 1000 * 1000 * 1000)

// An address of either family: IPv4 in word 0, the others zero.
struct address {
	__u32 family; // 4 or 6
	__be32 word[4];
};

// A TCP connection as its arriving segments name it. family holds for both addresses.
struct flow {
	struct address remote;
	__be32 local[4];
	__be16 remote_port;
	__be16 local_port;
};

struct prefix {
	__u32 length; // bits of what follows that count: 32 for the family, and those of the prefix
	struct address address;
};

// The lists that a source prefix is in, each prefix including those of the shorter ones around it.
enum list {
	LIST_DENY = 1,
	LIST_ALLOW = 2,
	LIST_EXEMPT = 4,
};

enum queue_flag {
	QUEUE_DRAIN = 1, // new connections to the kernel
	QUEUE_HOLD = 2,  // while there is no socket: known flows wait, not reset by the kernel
};

enum table {
	TABLE_SOURCES,
	TABLE_KERNEL_FLOWS,
	TABLE_KERNEL_SYNS,
	TABLES,
};

// A token bucket without tokens: interval is the time that one SYN costs, capacity what may be owed at a time.
struct rate {
	__u64 interval; // ns, 0 for no limit
	__u64 capacity; // ns: burst times interval
};

struct syn_limit {
	struct rate source;
	struct rate gate;
	__be32 mask4;
	__be32 mask6[4];
	__u32 unused;
};

struct count {
	__u64 packets;
	__u64 bytes;
};

// queues is how many there are: counters has a row for each, and one more for frames of queues beyond.
const volatile __u32 queues = 1;

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1); // as all that follow that say 1: set by the loader
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, enum queue_flag);
} queue_flags SEC(".maps");

// counters is written by this program, on each CPU its own copy, and read by the loader.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32); // queue * VERDICTS + verdict
	__type(value, struct count);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address);
	__type(value, __u32); // unused
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536 / 64);
	__type(key, __u32);
	__type(value, __u64); // a bit for each port
} ports SEC(".maps");

// in_use says which of the tables that follow have ever had an entry: looking into an empty one costs 15 to 25 ns a frame.
// The loader sets an entry before it fills the table, and clears it after it has emptied it; the program sets that of
// kernel_syns, and nobody clears that one.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TABLES);
	__type(key, enum table);
	__type(value, __u32); // 0 or 1
} in_use SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, enum list);
} sources SEC(".maps");

// kernel_flows are the connections that the loader's caller has on the kernel's path. Nothing pushes them out.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow);
	__type(value, __u32); // unused
} kernel_flows SEC(".maps");

// kernel_syns are the connection attempts that this program has passed, and connections that the caller no longer has. It is
// apart from kernel_flows so that a flood of SYNs pushes out no connection. Written by this program and the loader.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow);
	__type(value, __u64); // when the last SYN came, ns of CLOCK_MONOTONIC
} kernel_syns SEC(".maps");

// syn_buckets and syn_gate are written by this program: until when (ns of CLOCK_MONOTONIC) what was taken is owed.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct address); // masked
	__type(value, __u64);
} syn_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} syn_gate SEC(".maps");

// syn_limits holds the limits in use at the index that syn_current names; the loader writes the other one, then the index.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct syn_limit);
} syn_limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} syn_current SEC(".maps");

// What the parsers find out. It is whole only when they return REDIRECTED or REDIRECTED_ICMP.
struct packet {
	struct flow flow;
	struct address source; // who sent it: flow.remote, or the router whose ICMP message it is
	bool group;            // sent to a broadcast or multicast address of Ethernet
	bool syn;
};

struct vlan_header {
	__be16 tag;
	__be16 type;
};

struct icmp_header { // of both families
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 mtu;
};

struct extension_header {
	__u8 next;
	__u8 length; // in units of 8 bytes, the first not counted
	__u8 type;
	__u8 segments_left; // of a Routing header
	__u8 rest[4];
};

// ours looks up the packet's local address.
static __always_inline bool ours(const struct packet *packet)
{
	struct address local = {
		.family = packet->flow.remote.family,
		.word = {packet->flow.local[0], packet->flow.local[1], packet->flow.local[2], packet->flow.local[3]},
	};
	return !packet->group && bpf_map_lookup_elem(&addresses, &local);
}

static __always_inline bool served(__be16 port)
{
	__u32 number = bpf_ntohs(port), word = number / 64;
	__u64 *bits = bpf_map_lookup_elem(&ports, &word);
	return bits && *bits >> (number % 64) & 1;
}

// parse_tcp is given room, the bytes that are left of the IP packet; they are in the frame.
static __always_inline enum verdict parse_tcp(struct packet *packet, void *at, void *end, __u32 room)
{
	struct tcphdr *tcp = at;
	if (!ours(packet))
		return PASSED_OTHER_ADDRESS;
	if ((void *)(tcp + 1) > end || room < sizeof(*tcp) || tcp->doff * 4 < sizeof(*tcp) || room < tcp->doff * 4)
		return PASSED_MALFORMED;
	if (!served(tcp->dest))
		return PASSED_OTHER_PORT;
	if (tcp->syn && tcp->ack)
		return PASSED_SYN_ACK;
	packet->flow.remote_port = tcp->source;
	packet->flow.local_port = tcp->dest;
	packet->syn = tcp->syn;
	return REDIRECTED;
}

// parse_quote reads the ports of a segment that we have sent.
static __always_inline enum verdict parse_quote(struct packet *packet, void *at, void *end)
{
	struct {
		__be16 source, dest;
		__be32 sequence;
	} *tcp = at;
	if ((void *)(tcp + 1) > end || !ours(packet) || !served(tcp->source))
		return PASSED_ICMP;
	packet->flow.remote_port = tcp->dest;
	packet->flow.local_port = tcp->source;
	return REDIRECTED_ICMP;
}

static __always_inline enum verdict parse_icmp4(struct packet *packet, void *at, void *end, __u32 room)
{
	struct icmp_header *icmp = at;
	struct iphdr *ip = (void *)(icmp + 1);
	if ((void *)(ip + 1) > end || room < sizeof(*icmp) + sizeof(*ip) + ICMP_QUOTE_SIZE)
		return PASSED_ICMP;
	if (icmp->type != ICMP_UNREACHABLE || icmp->code != ICMP_FRAGMENTATION_NEEDED)
		return PASSED_ICMP;
	if (ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_TCP ||
	    ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) || ip->saddr != packet->flow.local[0])
		return PASSED_ICMP;
	packet->flow.remote.word[0] = ip->daddr;
	return parse_quote(packet, ip + 1, end);
}

static __always_inline enum verdict parse_icmp6(struct packet *packet, void *at, void *end, __u32 room)
{
	struct icmp_header *icmp = at;
	struct ipv6hdr *ip = (void *)(icmp + 1);
	if ((void *)(ip + 1) > end || room < sizeof(*icmp) + sizeof(*ip) + ICMP_QUOTE_SIZE)
		return PASSED_ICMP;
	if (icmp->type != ICMPV6_TOO_BIG || ip->version != 6 || ip->nexthdr != IPPROTO_TCP)
		return PASSED_ICMP;
	__be32 *source = ip->saddr.in6_u.u6_addr32, *local = packet->flow.local;
	if (source[0] != local[0] || source[1] != local[1] || source[2] != local[2] || source[3] != local[3])
		return PASSED_ICMP;
	__builtin_memcpy(packet->flow.remote.word, &ip->daddr, sizeof(ip->daddr));
	return parse_quote(packet, ip + 1, end);
}

static __always_inline enum verdict parse_ipv4(struct packet *packet, void *at, void *end)
{
	struct iphdr *ip = at;
	if ((void *)(ip + 1) > end)
		return PASSED_MALFORMED;
	__u32 length = bpf_ntohs(ip->tot_len), header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip) || length < header || at + length > end)
		return PASSED_MALFORMED;
	if (ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))
		return PASSED_FRAGMENT;
	if (header != sizeof(*ip))
		return PASSED_IP_OPTIONS;
	packet->source.family = packet->flow.remote.family = 4;
	packet->source.word[0] = packet->flow.remote.word[0] = ip->saddr;
	packet->flow.local[0] = ip->daddr;
	switch (ip->protocol) {
	case IPPROTO_TCP:
		return parse_tcp(packet, ip + 1, end, length - sizeof(*ip));
	case IPPROTO_ICMP:
		return parse_icmp4(packet, ip + 1, end, length - sizeof(*ip));
	}
	return PASSED_OTHER_PROTOCOL;
}

static __always_inline bool extends(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS;
}

static __always_inline enum verdict parse_ipv6(struct packet *packet, void *at, void *end)
{
	struct ipv6hdr *ip = at;
	if ((void *)(ip + 1) > end)
		return PASSED_MALFORMED;
	__u32 room = bpf_ntohs(ip->payload_len);
	at = ip + 1;
	if (ip->version != 6 || at + room > end)
		return PASSED_MALFORMED;
	__u8 protocol = ip->nexthdr;
#pragma unroll
	for (int i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		struct extension_header *header = at;
		if (!extends(protocol))
			break;
		if ((void *)(header + 1) > end || room < (header->length + 1) * 8)
			return PASSED_MALFORMED;
		if (protocol == IPPROTO_HOPOPTS && i > 0)
			return PASSED_EXTENSION_HEADERS;
		if (protocol == IPPROTO_ROUTING && header->segments_left)
			return PASSED_EXTENSION_HEADERS;
		protocol = header->next;
		room -= (header->length + 1) * 8;
		at += (header->length + 1) * 8;
	}
	packet->source.family = packet->flow.remote.family = 6;
	__builtin_memcpy(packet->source.word, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(packet->flow.remote.word, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(packet->flow.local, &ip->daddr, sizeof(ip->daddr));
	switch (protocol) {
	case IPPROTO_TCP:
		return parse_tcp(packet, at, end, room);
	case IPPROTO_ICMPV6:
		return parse_icmp6(packet, at, end, room);
	case IPPROTO_FRAGMENT:
		return PASSED_FRAGMENT;
	}
	return extends(protocol) ? PASSED_EXTENSION_HEADERS : PASSED_OTHER_PROTOCOL;
}

static __always_inline enum verdict parse(struct packet *packet, void *at, void *end)
{
	struct ethhdr *ethernet = at;
	if ((void *)(ethernet + 1) > end)
		return PASSED_MALFORMED;
	packet->group = ethernet->h_dest[0] & 1;
	__be16 type = ethernet->h_proto;
	at = ethernet + 1;
#pragma unroll
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		struct vlan_header *vlan = at;
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(vlan + 1) > end)
			return PASSED_MALFORMED;
		type = vlan->type;
		at = vlan + 1;
	}
	if (type == bpf_htons(ETH_P_IP))
		return parse_ipv4(packet, at, end);
	if (type == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(packet, at, end);
	return PASSED_NOT_IP;
}

// take charges one SYN to a bucket, if it is not exhausted. The bucket is one word, until when what was taken is owed, so
// that compare-and-swap is all the locking there is: no SYN is lost or counted twice, however many CPUs take at a time.
// A CPU that loses the race TAKE_ATTEMPTS times takes without looking: at any moment at most (CPUs - TAKE_ATTEMPTS) SYNs
// more than the burst, all of them charged, so that the long run is exact.
static __always_inline bool take(__u64 *owed, const struct rate *rate, __u64 now)
{
#pragma unroll
	for (int i = 0; i < TAKE_ATTEMPTS; i++) {
		__u64 until = *(volatile __u64 *)owed;
		__u64 ahead = until > now ? until - now : 0;
		if (ahead > rate->capacity) { // Owed under other limits: never wait longer than these say.
			__sync_val_compare_and_swap(owed, until, now + rate->capacity);
			return false;
		}
		if (ahead + rate->interval > rate->capacity)
			return false;
		if (__sync_val_compare_and_swap(owed, until, now + ahead + rate->interval) == until)
			return true;
	}
	__sync_fetch_and_add(owed, rate->interval);
	return true;
}

static __always_inline bool take_source(const struct syn_limit *limit, const struct address *source, __u64 now)
{
	struct address key = {.family = source->family};
	if (source->family == 4) {
		key.word[0] = source->word[0] & limit->mask4;
	} else {
		for (int i = 0; i < 4; i++)
			key.word[i] = source->word[i] & limit->mask6[i];
	}
	__u64 *owed = bpf_map_lookup_elem(&syn_buckets, &key);
	if (!owed) {
		__u64 first = now + limit->source.interval;
		if (!bpf_map_update_elem(&syn_buckets, &key, &first, BPF_NOEXIST))
			return true;
		owed = bpf_map_lookup_elem(&syn_buckets, &key); // Another CPU was faster,
		if (!owed)
			return true; // and it was pushed out at once: the gate is left.
	}
	return take(owed, &limit->source, now);
}

// limit_syn gives REDIRECTED when the SYN may go on.
static __always_inline enum verdict limit_syn(const struct packet *packet, __u64 now)
{
	__u32 zero = 0;
	__u32 *current = bpf_map_lookup_elem(&syn_current, &zero);
	struct syn_limit *limit = current ? bpf_map_lookup_elem(&syn_limits, current) : NULL;
	__u64 *gate = bpf_map_lookup_elem(&syn_gate, &zero);
	if (!limit || !gate)
		return REDIRECTED; // Cannot be.
	if (limit->source.interval && !take_source(limit, &packet->source, now))
		return DROPPED_SYN_SOURCE;
	if (limit->gate.interval && !take(gate, &limit->gate, now))
		return DROPPED_SYN_GATE;
	return REDIRECTED;
}

static __always_inline bool used(enum table table)
{
	__u32 *used = bpf_map_lookup_elem(&in_use, &table);
	return used && *used;
}

static __always_inline bool is_kernel_flow(const struct packet *packet, __u64 now)
{
	if (used(TABLE_KERNEL_FLOWS) && bpf_map_lookup_elem(&kernel_flows, &packet->flow))
		return true;
	__u64 *seen = used(TABLE_KERNEL_SYNS) ? bpf_map_lookup_elem(&kernel_syns, &packet->flow) : NULL;
	if (!seen)
		return false;
	if (!packet->syn)
		return true;
	if (now - *seen < KERNEL_SYN_NS) {
		*seen = now;
		return true;
	}
	bpf_map_delete_elem(&kernel_syns, &packet->flow);
	return false;
}

static __always_inline void remember(const struct flow *flow, __u64 now)
{
	enum table table = TABLE_KERNEL_SYNS;
	__u32 *used = bpf_map_lookup_elem(&in_use, &table);
	if (used && !*used)
		*used = 1;
	bpf_map_update_elem(&kernel_syns, flow, &now, BPF_ANY);
}

static __always_inline __u32 lists_of(const struct address *address)
{
	struct prefix source = {.length = sizeof(*address) * 8, .address = *address};
	enum list *lists = used(TABLE_SOURCES) ? bpf_map_lookup_elem(&sources, &source) : NULL;
	return lists ? *lists : 0;
}

static __always_inline __u32 flags_of(__u32 queue)
{
	enum queue_flag *flags = bpf_map_lookup_elem(&queue_flags, &queue);
	return flags ? *flags : 0;
}

// admit judges what the parsers would redirect.
static __always_inline enum verdict admit(const struct packet *packet, enum verdict verdict, __u32 queue)
{
	__u32 lists = lists_of(&packet->source);
	if ((lists & (LIST_DENY | LIST_ALLOW)) == LIST_DENY)
		return DROPPED_DENIED;
	__u64 now = packet->syn ? bpf_ktime_get_ns() : 0;
	if (packet->syn && !(lists & LIST_EXEMPT)) {
		enum verdict limited = limit_syn(packet, now);
		if (limited != REDIRECTED)
			return limited;
	}
	if (is_kernel_flow(packet, now))
		return PASSED_KERNEL_FLOW;
	__u32 flags = flags_of(queue);
	bool drain = packet->syn && flags & QUEUE_DRAIN;
	if (!drain && bpf_map_lookup_elem(&sockets, &queue))
		return verdict;
	if (packet->syn)
		remember(&packet->flow, now);
	else if (flags & QUEUE_HOLD)
		return DROPPED_HELD;
	return drain ? PASSED_DRAIN : PASSED_NO_SOCKET;
}

static __always_inline void count(enum verdict verdict, __u32 queue, __u32 length)
{
	__u32 row = (queue < queues ? queue : queues) * VERDICTS + verdict;
	struct count *count = bpf_map_lookup_elem(&counters, &row);
	if (count) {
		count->packets++;
		count->bytes += length;
	}
}

SEC("xdp")
int ringmq_steer(struct xdp_md *context)
{
	struct packet packet = {};
	void *frame = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	__u32 queue = context->rx_queue_index;
	enum verdict verdict = parse(&packet, frame, end);
	if (verdict <= LAST_REDIRECTED)
		verdict = admit(&packet, verdict, queue);
	count(verdict, queue, end - frame);
	if (verdict <= LAST_REDIRECTED)
		return bpf_redirect_map(&sockets, queue, XDP_PASS);
	return verdict < FIRST_DROPPED ? XDP_PASS : XDP_DROP;
}

// The helpers above are for programs of every licence, so that ours can be told as it is.
char _license[] SEC("license") = "Apache-2.0";

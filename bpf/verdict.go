package bpf

import "strconv"

// Verdict is what the program decided about a frame, and why. The numbers are those of enum verdict in steer.c.
type Verdict uint8

// The verdicts. Names are stable: they stand in status output and metrics.
const (
	Redirected             Verdict = iota // a TCP segment, given to the queue's AF_XDP socket
	RedirectedICMP                        // "too big" that quotes one of our flows, given to the queue's socket
	PassedNotIP                           // no IPv4 or IPv6: ARP, more than two VLAN tags, anything else
	PassedMalformed                       // shorter than its headers say, or headers that contradict themselves
	PassedFragment                        // of IPv4, or with a Fragment header of IPv6
	PassedIPOptions                       // IPv4 with options
	PassedExtensionHeaders                // IPv6 with more than six, or a Routing header with Segments Left
	PassedOtherProtocol                   // neither TCP nor ICMP
	PassedICMP                            // ICMP or ICMPv6 that is not RedirectedICMP's business
	PassedOtherAddress                    // TCP to an address that is not in SetAddresses, or to a group of machines
	PassedOtherPort                       // TCP to a port that is not in SetPorts
	PassedSYNACK                          // the answer to a connection that the kernel has opened from one of our ports
	PassedKernelFlow                      // belongs to a connection on the kernel's path
	PassedDrain                           // SYN on a queue that is draining
	PassedNoSocket                        // nothing stands in the XSKMAP at this queue
	DroppedDenied                         // source in the deny list and not in the allow list
	DroppedSYNSource                      // SYN of a source prefix without a token
	DroppedSYNGate                        // SYN beyond the global gate
	DroppedHeld                           // segment of a flow whose queue is held while its socket is replaced
	Verdicts               = iota         // how many there are
)

// verdictNames are indexed by Verdict.
var verdictNames = [Verdicts]string{
	"redirected", "redirected_icmp",
	"passed_not_ip", "passed_malformed", "passed_fragment", "passed_ip_options", "passed_extension_headers",
	"passed_other_protocol", "passed_icmp", "passed_other_address", "passed_other_port", "passed_syn_ack",
	"passed_kernel_flow", "passed_drain", "passed_no_socket",
	"dropped_denied", "dropped_syn_source", "dropped_syn_gate", "dropped_held",
}

// String gives the stable name.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "verdict_" + strconv.Itoa(int(v))
}

package probe

import (
	"slices"
	"strings"
)

// ipset is a set that rules of iptables match by its name.
type ipset struct {
	place   int         // of the port among the parts of its elements, -1 when they have none
	ports   []PortRange // of TCP
	members []string    // of a list:set, the names of others
}

// parseIPSets reads what ipset save prints: create NAME hash:ip,port …, then add NAME 192.0.2.1,tcp:1883 …
func parseIPSets(text string) map[string]ipset {
	sets := map[string]ipset{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		s, known := sets[fields[1]]
		switch {
		case fields[0] == "create":
			_, parts, _ := strings.Cut(fields[2], ":")
			sets[fields[1]] = ipset{place: slices.Index(strings.Split(parts, ","), "port")}
		case fields[0] == "add" && known:
			s.add(fields[2])
			sets[fields[1]] = s
		}
	}
	return sets
}

func (s *ipset) add(element string) {
	parts := strings.Split(element, ",")
	if s.place < 0 || s.place >= len(parts) {
		s.members = append(s.members, element) // Of no use but for a list:set.
		return
	}
	port := parts[s.place]
	if protocol, number, hasProtocol := strings.Cut(port, ":"); hasProtocol {
		if protocol != "tcp" {
			return
		}
		port = number
	}
	s.ports = append(s.ports, iptablesPorts(strings.ReplaceAll(port, "-", ":"))...)
}

// ipsetPorts gives the TCP destination ports that --match-set NAME DIRECTIONS matches, and whether it is about such at all.
func ipsetPorts(sets map[string]ipset, name, directions string) (ports []PortRange, about bool) {
	to := strings.Split(directions, ",")
	s := sets[name]
	all := []ipset{s}
	for _, member := range s.members {
		if m, known := sets[member]; known {
			all = append(all, m)
		}
	}
	for _, s := range all {
		if s.place >= 0 && s.place < len(to) && to[s.place] == "dst" {
			ports, about = append(ports, s.ports...), true
		}
	}
	return ports, about
}

package xdp

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is a range of our address space that shows a socket, from /proc/self/maps.
type mapping struct {
	start, end uintptr
	offset     uint64 // Which ring: XDP_PGOFF_… of linux/if_xdp.h.
	name       string // socket:[INODE]
}

// ringMappings finds all mappings of sockets. AF_PACKET sockets are mapped, too, if somebody in this process uses them.
func ringMappings() ([]mapping, error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("find the mappings of AF_XDP rings (is /proc mounted?): %w", err)
	}
	defer f.Close()
	var found []mapping
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// Such as: 7f1c2000-7f1c3000 rw-s 100000000 00:08 12345 socket:[12345]
		fields := strings.Fields(lines.Text())
		if len(fields) != 6 || !strings.HasPrefix(fields[5], "socket:[") {
			continue
		}
		m := mapping{name: fields[5]}
		if _, err := fmt.Sscanf(fields[0]+" "+fields[2], "%x-%x %x", &m.start, &m.end, &m.offset); err != nil {
			return nil, fmt.Errorf("read /proc/self/maps: %q: %w", lines.Text(), err)
		}
		found = append(found, m)
	}
	return found, lines.Err()
}

// unmapSince unmaps the rings of AF_XDP sockets that were not mapped before. A socket is an AF_XDP socket if it has a
// mapping at an offset of their rings other than the RX ring's, which is zero.
func unmapSince(before []mapping) error {
	now, err := ringMappings()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, m := range before {
		known[m.name] = true
	}
	ours := map[string]bool{}
	for _, m := range now {
		if !known[m.name] && m.offset >= unix.XDP_PGOFF_TX_RING {
			ours[m.name] = true
		}
	}
	var failed []error
	for _, m := range now {
		if ours[m.name] {
			failed = append(failed, unmap(m.start, m.end-m.start))
		}
	}
	return errors.Join(failed...)
}

func unmap(start, length uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, start, length, 0); errno != 0 {
		return fmt.Errorf("munmap %d bytes: %w", length, errno)
	}
	return nil
}

//go:build unix

package load

import "golang.org/x/sys/unix"

// descriptorLimit is how many descriptors this process may have; the Go runtime has already raised the soft
// limit to the hard one. Zero: not known.
func descriptorLimit() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<31-1))
}

package xdp

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails for leaked goroutines, and for descriptors of sockets and of BPF, and mappings of sockets, that were not there before.
func TestMain(m *testing.M) {
	before := openDescriptors()
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Println(err)
		code = 1
	}
	if left, err := ringMappings(); err != nil || len(left) > 0 {
		fmt.Println("mappings of sockets are left:", left, err)
		code = 1
	}
	for number, target := range openDescriptors() {
		if before[number] != target {
			fmt.Printf("descriptor %s is left open: %s\n", number, target)
			code = 1
		}
	}
	os.Exit(code)
}

// openDescriptors returns the process's descriptors of sockets, and of programs, maps and links of BPF, by number.
func openDescriptors() map[string]string {
	open := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.HasPrefix(target, "socket:") || strings.HasPrefix(target, "anon_inode:bpf")) {
			open[e.Name()] = target
		}
	}
	return open
}

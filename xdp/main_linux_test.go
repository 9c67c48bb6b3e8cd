package xdp

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails for leaked goroutines, and for descriptors and mappings of sockets that were not there before.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Println(err)
		code = 1
	}
	if left, err := ringMappings(); err != nil || len(left) > 0 {
		fmt.Println("mappings of sockets are left:", left, err)
		code = 1
	}
	os.Exit(code)
}

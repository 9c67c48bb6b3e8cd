package broker

import (
	"fmt"
	"testing"
)

// TestDefaultsFit: limits that nobody has set fit the memory beside any data plane and a store, with room for messages and for
// more than a handful of clients.
func TestDefaultsFit(t *testing.T) {
	const mib = 1 << 20
	for _, memory := range []int64{1024 * mib, 8192 * mib} {
		for _, queues := range []int64{0, 1, 2, 4} {
			for _, store := range []int64{0, 96 * mib} {
				t.Run(fmt.Sprintf("%d MiB, %d queues, store %d", memory/mib, queues, store), func(t *testing.T) {
					l := Limits{Memory: memory, Shards: int(queues) + 1, StoreBytes: store, AuthBytes: 48 * mib}
					if queues > 0 {
						l.PlaneConnectionBytes, l.PlaneBytes = 6<<10, queues*41*mib
						l.PlaneSendBytes, l.PlaneReceiveBytes = memory/8, memory/16
					}
					l, err := l.Resolve()
					if err != nil {
						t.Fatal(err)
					}
					p, err := l.Plan()
					if err != nil || int64(p.Pages)*pageSize < memory/64 || l.MaxConnections < 1000 {
						t.Errorf("%d connections leave %d pages for messages: %v", l.MaxConnections, p.Pages, err)
					}
					t.Logf("%d connections, %d MiB for messages", l.MaxConnections, int64(p.Pages)*pageSize/mib)
				})
			}
		}
	}
}

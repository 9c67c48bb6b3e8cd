package client

import (
	"io"
	"testing"
)

// BenchmarkPublish publishes at QoS 0, in 3.1.1 also on the library's own way, which this package goes around.
func BenchmarkPublish(b *testing.B) {
	b.Run("3.1.1", func(b *testing.B) { benchmarkPublish(b, V311, false) })
	b.Run("3.1.1/library", func(b *testing.B) { benchmarkPublish(b, V311, true) })
	b.Run("5.0", func(b *testing.B) { benchmarkPublish(b, V5, false) })
}

func benchmarkPublish(b *testing.B, v Version, library bool) {
	c := connected(b, v, func(p *peer) { _, _ = io.Copy(io.Discard, p.in) })
	defer c.Close(Properties{}, 0)
	m := &Message{Topic: "x", Payload: []byte("y")}
	publish := func() error { return c.Publish(b.Context(), m) }
	if three, ok := c.(*v311); ok && library {
		publish = func() error { return three.library.Publish(m.Topic, 0, false, m.Payload).Error() }
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := publish(); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		b.Fatal(err)
	}
}

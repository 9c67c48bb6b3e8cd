package main

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/packet"
)

// TestJournalIsNoFlood has clients cause as many events as they like: few become lines.
func TestJournalIsNoFlood(t *testing.T) {
	const floods, events, most = 2, 10000, 1000 // lines of ten seconds, where this takes some milliseconds
	for name, kinds := range map[string][floods]broker.LogEvent{
		"refused": {{Kind: broker.EventRefused, Reason: packet.QuotaExceeded}, {Kind: broker.EventRefused, Reason: packet.ServerBusy}},
		"losses":  {{Kind: broker.EventDropping, Text: "packet too large for the client"}, {Kind: broker.EventCaughtUp, Text: "1"}},
	} {
		var out bytes.Buffer
		j := newJournal(slog.New(slog.NewTextHandler(&out, nil)))
		for i := range events {
			j.write(&kinds[i%floods])
		}
		if n := bytes.Count(out.Bytes(), []byte("\n")); n < linesPerSecond || n > most {
			t.Errorf("%s: %d events made %d lines", name, events, n)
		}
	}
}

package main

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/packet"
)

const (
	// journalQueue is how many events may wait for the log; more are lost and counted.
	journalQueue = 4096
	// linesPerSecond bounds the lines about refused clients, and those about clients that lose messages: a flood must not become a
	// flood of the log.
	linesPerSecond = 50
)

// newLogger writes one line per event to standard error; under systemd without the time, which the journal adds.
func newLogger(level string) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	switch level {
	case "debug":
		options.Level = slog.LevelDebug
	case "warn":
		options.Level = slog.LevelWarn
	}
	if os.Getenv("JOURNAL_STREAM") != "" {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// journal turns the shards' events into log lines, on a goroutine of its own.
type journal struct {
	log      *slog.Logger
	queue    chan broker.LogEvent
	done     sync.WaitGroup
	refusals allowance
	losses   allowance
}

// allowance is how many lines of a kind there were in a second.
type allowance struct {
	second int64
	lines  int
}

// take counts another line. It says whether that may be written, and how many were not in the second before.
func (a *allowance) take() (ok bool, missed int) {
	if now := time.Now().Unix(); now != a.second {
		missed = max(0, a.lines-linesPerSecond)
		a.second, a.lines = now, 0
	}
	a.lines++
	return a.lines <= linesPerSecond, missed
}

func newJournal(log *slog.Logger) *journal {
	return &journal{log: log, queue: make(chan broker.LogEvent, journalQueue)}
}

func (j *journal) start() {
	j.done.Go(func() {
		for e := range j.queue {
			j.write(&e)
		}
	})
}

// close writes what waits. No shard may put any more.
func (j *journal) close() {
	close(j.queue)
	j.done.Wait()
}

// put takes an event without ever blocking; false when it is lost. What the level hides is not queued at all.
func (j *journal) put(e broker.LogEvent) bool {
	if !j.log.Enabled(context.Background(), levelOf(&e)) {
		return true
	}
	select {
	case j.queue <- e:
		return true
	default:
		return false
	}
}

// levelOf is info for what clients do, debug for those refused by their own fault, and warn for what the operator's
// limits or the machine refuse.
func levelOf(e *broker.LogEvent) slog.Level {
	switch e.Kind {
	case broker.EventRefused:
		switch e.Reason {
		case packet.QuotaExceeded, packet.ServerBusy, packet.ConnectionRateExceeded, packet.UseAnotherServer:
			return slog.LevelWarn
		}
		return slog.LevelDebug
	case broker.EventDropping, broker.EventAcceptFailed, broker.EventExhausted, broker.EventBeyondLimit:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func (j *journal) write(e *broker.LogEvent) {
	switch e.Kind {
	case broker.EventConnected:
		j.log.Info("client connected", "address", e.Address.String(), "client", e.ClientID, "protocol", e.Version.String(),
			"clean", e.Clean, "keep_alive", e.KeepAlive, "user", e.User)
	case broker.EventDisconnected:
		j.log.Info("client disconnected", "client", e.ClientID, "address", e.Address.String(), "reason", e.Text)
	case broker.EventDropping, broker.EventCaughtUp:
		j.writeLosses(e)
	case broker.EventAcceptFailed:
		j.log.Warn("cannot accept connections", "error", e.Text, "remedy", "raise the limit of file descriptors (ulimit -n)")
	case broker.EventExhausted:
		j.log.Warn("memory for messages is used up: publishers are refused or wait", "times", e.Text, "remedy", "raise --memory or lower max_queued_messages")
	case broker.EventBeyondLimit:
		j.log.Warn(e.Text)
	case broker.EventRefused:
		j.writeRefused(e)
	}
}

func (j *journal) writeRefused(e *broker.LogEvent) {
	level := levelOf(e)
	ok, missed := j.refusals.take()
	if missed > 0 {
		j.log.Log(context.Background(), level, "more clients refused", "count", missed)
	}
	if !ok {
		return
	}
	why := e.Text
	if why == "" {
		why = e.Reason.String()
	}
	j.log.Log(context.Background(), level, "client refused", "address", e.Address.String(), "client", e.ClientID, "reason", why, "code", int(e.Reason))
}

// writeLosses says that a client begins to lose messages, or loses no more. One that takes packets of a few bytes only, and publishes what
// is larger to itself, does either with each message.
func (j *journal) writeLosses(e *broker.LogEvent) {
	ok, missed := j.losses.take()
	if missed > 0 {
		j.log.Warn("more clients began to lose messages, or caught up", "lines", missed)
	}
	switch {
	case !ok:
	case e.Kind == broker.EventDropping:
		j.log.Warn("messages are being dropped", "client", e.ClientID, "reason", e.Text)
	default:
		j.log.Info("client has caught up", "client", e.ClientID, "dropped", e.Text)
	}
}

package main

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/store"
	"github.com/ringmq/ringmq/cmd/admin"
)

// adminOff is the value of --admin for no socket.
const adminOff = "none"

// status is the answer to GET /v1/status.
type status struct {
	Version       string            `json:"version"`
	PID           int               `json:"pid"`
	Mode          string            `json:"mode"`
	UptimeSeconds float64           `json:"uptime_s"`
	Listening     []string          `json:"listening"`
	Shards        int               `json:"shards"`
	Connections   int64             `json:"connections"`
	MemoryBytes   int64             `json:"memory_planned_bytes"`
	HeapBytes     uint64            `json:"heap_bytes"`
	Collections   uint32            `json:"collections"`
	Goroutines    int               `json:"goroutines"`
	InUse         broker.Usage      `json:"in_use"`
	Counters      map[string]uint64 `json:"counters"`
	Store         *store.Health     `json:"store,omitempty"` // none: nothing outlives the process
}

// control opens the admin socket. Without one the broker still serves: only a place that was asked for must work.
func (p *process) control() error {
	path, asked := p.settings.Admin, p.settings.Admin != ""
	switch {
	case path == adminOff:
		return nil
	case !asked:
		path = admin.PathOf(os.Getpid())
		admin.Running() // sweeps what crashed brokers have left
	}
	s, err := admin.Listen(path)
	if err != nil {
		if asked {
			return err
		}
		p.log.Warn("no admin socket", "error", err)
		return nil
	}
	s.Answer("GET /v1/status", func(r *http.Request) (any, error) {
		if r.URL.Query().Get("collect") == "true" {
			runtime.GC()         // what pools hold goes with the second one
			debug.FreeOSMemory() // the collector is off until memory runs short: only then is heap_bytes what is in use
		}
		return p.status(), nil
	})
	s.Answer("GET /v1/ready", func(*http.Request) (any, error) { return p.ready() })
	s.Handle("GET /v1/connections", http.HandlerFunc(p.listConnections))
	s.Handle("GET /v1/capture", http.HandlerFunc(p.serveCapture))
	s.Handle("GET /debug/pprof/", http.HandlerFunc(pprof.Index))
	s.Handle("GET /debug/pprof/profile", http.HandlerFunc(pprof.Profile))
	s.Handle("GET /debug/pprof/trace", http.HandlerFunc(pprof.Trace))
	p.bypass.handle(s, p.broker.Loops())
	p.durable.handle(s)
	p.admin = s
	return nil
}

func (p *process) status() status {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	n, plan := p.broker.Counters(), p.broker.Plan()
	s := status{Version: p.version, PID: os.Getpid(), Mode: p.mode(), UptimeSeconds: p.broker.Uptime().Seconds(),
		Shards: p.limits.Shards, Connections: p.broker.Connected(), MemoryBytes: plan.Bytes(), HeapBytes: m.HeapAlloc, Collections: m.NumGC,
		Goroutines: runtime.NumGoroutine(), InUse: p.broker.Usage(), Counters: map[string]uint64{}}
	for _, a := range p.group.Addresses() {
		s.Listening = append(s.Listening, a.String())
	}
	for i, name := range n.Names() {
		s.Counters[name] = n[i]
	}
	s.Store = p.durable.health()
	return s
}

// readiness is the answer to GET /v1/ready of a broker that takes all that clients may send; another answers 503 and says why.
type readiness struct {
	Ready bool `json:"ready"`
}

func (p *process) ready() (any, error) {
	if h := p.durable.health(); h != nil && h.Refusing {
		return nil, admin.Errorf(http.StatusServiceUnavailable, "not ready for %v: the store refuses messages that are to be kept: %s",
			time.Since(h.Since).Round(time.Second), h.Why)
	}
	return readiness{true}, nil
}

// listConnections streams one JSON object a line, up to ?limit=N (default all), only ?client=ID.
func (p *process) listConnections(w http.ResponseWriter, r *http.Request) {
	limit, client := -1, r.URL.Query().Get("client")
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			admin.Fail(w, admin.Errorf(http.StatusBadRequest, "limit %q: want a positive number", text))
			return
		}
		limit = n
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	encoder := json.NewEncoder(w)
	_ = p.broker.Connections(r.Context(), func(c broker.ConnectionInfo) bool {
		if client != "" && c.ClientID != client {
			return true
		}
		limit--
		return encoder.Encode(c) == nil && limit != 0
	})
}

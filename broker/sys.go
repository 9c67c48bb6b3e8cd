package broker

import (
	"fmt"
	"math"
	"runtime/metrics"
	"strconv"
)

// The names below $SYS/broker are those of Mosquitto's manual (mosquitto(8), "Broker status"): dashboards rely on them.

// sysState is what shard 0 remembers between two updates of $SYS.
type sysState struct {
	next    int64 // second
	last    map[string]string
	loads   map[string]*[len(loadMinutes)]float64
	before  Counters
	second  int64
	maximum int64 // most clients connected at a time
	text    []byte
	heap    [1]metrics.Sample
}

// loadMinutes are the periods of the load averages in minutes.
var loadMinutes = [...]float64{1, 5, 15}

// updateSys publishes what has changed of $SYS. Only shard 0 does.
func (s *Shard) updateSys() {
	interval := int64(s.config.SysIntervalSeconds)
	if s.id != 0 || interval == 0 || s.second < s.sys.next {
		return
	}
	if s.sys.last == nil {
		s.sys.last, s.sys.loads = make(map[string]string), make(map[string]*[len(loadMinutes)]float64)
		s.sys.second = s.second - interval
		s.sys.heap[0].Name = "/memory/classes/heap/objects:bytes"
	}
	s.sys.next = s.second + interval
	n := s.sum()
	s.sysClients(&n)
	s.sysTraffic(&n)
	s.sysLoad(&n)
	s.sys.before, s.sys.second = n, s.second
}

// sysSet publishes one value if it has changed.
func (s *Shard) sysSet(name, value string) {
	if s.sys.last[name] == value || s.isOverflowing() {
		return
	}
	s.sys.last[name] = value
	p := &s.own
	s.sys.text = append(append(s.sys.text[:0], "$SYS/broker/"...), name...)
	p.begin(s.sys.text, nil, 0, true)
	p.payload, p.size = []byte(value), len(value)
	s.publishOwn(p, 0)
}

func (s *Shard) sysCount(name string, n int64) { s.sysSet(name, strconv.FormatInt(n, 10)) }

func (s *Shard) sysClients(n *Counters) {
	connected, total := s.connected.Load(), s.sessionCount.Load()
	s.sys.maximum = max(s.sys.maximum, connected)
	s.sysSet("version", "RingMQ version "+s.config.Version)
	s.sysSet("uptime", strconv.FormatInt(s.second, 10)+" seconds")
	s.sysCount("clients/total", total)
	s.sysCount("clients/connected", connected)
	s.sysCount("clients/active", connected)
	s.sysCount("clients/disconnected", max(0, total-connected))
	s.sysCount("clients/inactive", max(0, total-connected))
	s.sysCount("clients/maximum", s.sys.maximum)
	s.sysCount("clients/expired", int64(n[CounterSessionsExpired]))
	s.sysCount("subscriptions/count", s.subscribed.Load())
	s.sysCount("shared_subscriptions/count", int64(n[CounterSharedSubscriptions]-n[CounterSharedSubscriptionsEnded]))
}

func (s *Shard) sysTraffic(n *Counters) {
	for _, v := range [...]struct {
		name string
		c    Counter
	}{
		{"messages/received", CounterMessagesReceived}, {"messages/sent", CounterMessagesSent},
		{"publish/messages/received", CounterPublishReceived}, {"publish/messages/sent", CounterPublishSent},
		{"publish/bytes/received", CounterPublishBytesReceived}, {"publish/bytes/sent", CounterPublishBytesSent},
		{"bytes/received", CounterBytesReceived}, {"bytes/sent", CounterBytesSent},
	} {
		s.sysCount(v.name, int64(n[v.c]))
	}
	s.sysCount("publish/messages/dropped", int64(n.Dropped()))
	s.sysCount("retained messages/count", s.retained.count.Load())
	stored := int64(s.messageSlots.max) - s.messageSlots.available.Load()
	pages := int64(s.arena.slots.max) - s.arena.slots.available.Load()
	s.sysCount("messages/stored", stored)
	s.sysCount("store/messages/count", stored)
	s.sysCount("store/messages/bytes", pages*pageSize)
	metrics.Read(s.sys.heap[:]) // unlike ReadMemStats it does not stop the world
	s.sysCount("heap/current", int64(s.sys.heap[0].Value.Uint64())+pages*pageSize)
}

// sysLoad updates the load averages: events per minute, exponentially weighted over 1, 5 and 15 minutes.
func (s *Shard) sysLoad(n *Counters) {
	elapsed := float64(max(1, s.second-s.sys.second))
	for _, v := range [...]struct {
		name string
		c    Counter
	}{
		{"messages/received", CounterMessagesReceived}, {"messages/sent", CounterMessagesSent},
		{"publish/received", CounterPublishReceived}, {"publish/sent", CounterPublishSent},
		{"bytes/received", CounterBytesReceived}, {"bytes/sent", CounterBytesSent},
		{"sockets", CounterSockets}, {"connections", CounterConnects},
	} {
		load := s.sys.loads[v.name]
		if load == nil {
			load = new([len(loadMinutes)]float64)
			s.sys.loads[v.name] = load
		}
		perMinute := float64(n[v.c]-s.sys.before[v.c]) / elapsed * 60
		for i, minutes := range loadMinutes {
			keep := math.Exp(-elapsed / (60 * minutes))
			load[i] = load[i]*keep + perMinute*(1-keep)
			s.sysSet(fmt.Sprintf("load/%s/%.0fmin", v.name, minutes), strconv.FormatFloat(load[i], 'f', 2, 64))
		}
	}
}

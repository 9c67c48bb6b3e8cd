package overload

import (
	"fmt"
	"time"
)

// Scenarios lists what there is, in the order in which a report shows it.
func Scenarios() []*Scenario {
	return append(trafficScenarios(), connectionScenarios()...)
}

// trafficScenarios are those of clients who are connected.
func trafficScenarios() []*Scenario {
	return []*Scenario{
		{Name: "deaf", Says: fmt.Sprintf("2 subscribers that never read (QoS 0, QoS 1), beside %d that do", deafReaders),
			Policy:   "bounded buffer and queue for each; beyond them the newest message is dropped for that client",
			Settings: "max_queued_messages = 100", Counters: []string{"outbound_buffer_full", "queue_full"},
			Beside: true, check: deliversAll, make: func() tactic { return &deafness{} }},
		{Name: "slow", Says: fmt.Sprintf("%d subscribers that read a thirtieth of what they ask for", slowReaders),
			Policy:   "bounded buffer for each; beyond it QoS 0 is dropped for that client",
			Settings: `max_outbound_bytes = "128KiB"`, Counters: []string{"outbound_buffer_full"},
			check: closesNobody, make: func() tactic { return &slowness{} }},
		{Name: "flood", Says: fmt.Sprintf("%d publishers at three times what subscribers take, QoS 0 and 1", floodPairs),
			Policy:   "publishers go on; the newest message is dropped for the subscriber that does not keep up",
			Settings: "max_queued_messages = 200\nmax_outbound_bytes = \"128KiB\"", Counters: []string{"outbound_buffer_full", "queue_full"},
			check: closesNobody, make: func() tactic { return &flooding{} }},
		{Name: "topics", Says: "a million distinct topics, each once",
			Policy: "the topic cache is bounded and forgets", Counters: []string{"topic_cache_misses"},
			Ends: true, check: isComplete, make: func() tactic { return &manyTopics{} }},
		{Name: "retained", Says: fmt.Sprintf("%d retained messages to a slow new subscriber", retainedCount),
			Policy: "a cursor under back-pressure: every message arrives", Counters: []string{"retained_sent"},
			Ends: true, check: isComplete, make: func() tactic { return &retention{} }},
		{Name: "filters", Says: fmt.Sprintf("%d filters by every combination of names and wildcards, %d levels deep", bombers*bombFilters, bombDeep),
			Policy:   "SUBACK 0x8F for too many levels, DISCONNECT 0x97 for too many filters in a packet; the rest is served",
			Counters: []string{"subscribe_refused", "protocol_violations"}, Answers: []string{"SUBACK 0x8F", "DISCONNECT 0x97"},
			check: deliversAll, make: func() tactic { return &bomb{} }},
		{Name: "churn", Says: fmt.Sprintf("%d subscriptions that come or go per second", churnPace),
			Policy: "served; only cached topics below the same literal prefix are matched anew", Counters: []string{"topic_cache_misses"},
			Least: map[string]int64{"topic_cache_misses": 150}, check: deliversAll, make: func() tactic { return &churn{} }},
		{Name: "gateways", Says: fmt.Sprintf("2 clients with up to %d subscriptions that connect %d times per second: the one's Session moves, the other's ends", gatewayFilters, gatewayPace),
			Policy: "served: a Session moves as it is, and what it had ends by and by",
			check:  deliversAll, make: func() tactic { return &gateways{} }},
	}
}

// connectionScenarios are those of clients who connect, or send what is no packet yet.
func connectionScenarios() []*Scenario {
	return []*Scenario{
		{Name: "storm", Says: fmt.Sprintf("%d idle connections and %d connects per second", idleClients, stormPace),
			Policy: "served, within max_connections", Counters: []string{"connects"}, Least: map[string]int64{"connects": 1000},
			check: closesNobody, make: func() tactic { return &storm{idle: idleClients} }},
		{Name: "full", Says: fmt.Sprintf("%d clients, and %d connects per second, where there is room for %d connections", stayingClients, stormPace, fullConnections),
			Policy:   "CONNACK 0x97 beyond max_connections; who is connected stays",
			Settings: fmt.Sprintf("max_connections = %d", fullConnections), Counters: []string{"refused_max_connections"}, Answers: []string{"CONNACK 0x97"},
			Late: true, check: closesThem, make: func() tactic { return &storm{stay: stayingClients, more: stayingClients} }},
		{Name: "rate", Says: fmt.Sprintf("%d connects per second, twice what is allowed", stormPace),
			Policy:   "CONNACK 0x9F beyond max_connect_rate",
			Settings: fmt.Sprintf("max_connect_rate = %d", stormPace/2), Counters: []string{"refused_connect_rate"}, Answers: []string{"CONNACK 0x9F"},
			Late: true, check: closesThem, make: func() tactic { return &storm{} }},
		{Name: "sessions", Says: fmt.Sprintf("%d connects per second, each of another client whose Session is kept, where there is room for %d Sessions", stormPace, fullConnections),
			Policy:   "CONNACK 0x97 beyond max_sessions; who has a Session keeps it",
			Settings: fmt.Sprintf("max_connections = %d\nmax_sessions = %d", fullConnections, fullConnections), Counters: []string{"refused_max_sessions"},
			Answers: []string{"CONNACK 0x97"}, Late: true, check: closesThem, make: func() tactic { return &storm{expiry: 3600} }},
		{Name: "loris", Says: fmt.Sprintf("%d connections that send CONNECT a byte a second, and come back when they are closed", lorisClients),
			Policy:   "closed after connect_timeout (10 s), without a word, for there is none before CONNECT",
			Counters: []string{"connect_timeouts"}, check: closesThem, make: func() tactic { return &loris{over: 10 * time.Second} }},
		{Name: "hasty", Says: "the same with a connect_timeout of 1 s, which closes ten times as many",
			Policy:   "closed after connect_timeout, without a word",
			Settings: `connect_timeout = "1s"`, Counters: []string{"connect_timeouts"},
			check: closesThem, make: func() tactic { return &loris{over: time.Second} }},
		{Name: "dribble", Says: fmt.Sprintf("%d publishers that write single bytes, %d per second", dribblers, dribblePace),
			Policy: "served: each message is acknowledged, and no counter tells them from others",
			check:  deliversAll, make: func() tactic { return &dribble{} }},
		{Name: "announce", Says: "packets of 256 MB, and more of 2 MB than there is memory, announced and not sent",
			Policy:   "0x95 beyond max_packet_size; at most half of the memory is promised, what is beyond is thrown away as it comes; 0x8D without progress",
			Settings: `packet_timeout = "1s"`, Counters: []string{"protocol_violations", "memory_exhausted", "packet_timeouts"},
			Answers: []string{"DISCONNECT 0x95", "DISCONNECT 0x8D"},
			check:   closesThem, make: func() tactic { return &announcement{} }},
	}
}

func deliversAll(o *Outcome) string {
	if o.Good != o.Expected || o.Expected == 0 {
		return fmt.Sprintf("%d of %d came to clients who behave", o.Good, o.Expected)
	}
	return ""
}

func closesNobody(o *Outcome) string {
	if o.Closed > 0 {
		return fmt.Sprintf("%d connections were closed", o.Closed)
	}
	return ""
}

func closesThem(o *Outcome) string {
	if o.Closed == 0 {
		return "no connection was closed"
	}
	return ""
}

func isComplete(o *Outcome) string {
	if !o.Complete {
		return "it has not come to its end"
	}
	return closesNobody(o)
}

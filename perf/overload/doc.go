// Package overload attacks an MQTT broker: each Scenario is one way in which clients, by malice or by accident, take more
// than their part, with the answer that the broker promises to it. `perf overload` runs each beside victims whose loss and
// latency it measures (perf/load), and `perf soak` is one that leaves nothing behind.
//
// Vocabulary. An aggressor is a crowd of clients on one goroutine and one thread, which wait for readiness together
// (perf/epoll). What they do is a tactic: it lays the clients out, hears what comes for them, and acts once in each turn, at
// most a millisecond apart. Whatever an aggressor does has a pace: the same attack, as fast as it can, would take the load's
// processor from the victims, and its effect would be the generator's and not the broker's. The sink that plays the broker in
// a control run is perf/relay: it answers CONNECT, SUBSCRIBE and PUBLISH and passes nothing on. Where most of the crowd does no
// harm (Scenario.Beside), the control has those at the broker, and the others nowhere.
//
// Start starts the one goroutine, Stop ends it and waits.
package overload

package sim

import (
	"github.com/ringmq/ringmq/broker"
)

// stopTurnsMax is how many turns every shard has to end its connections when the broker stops.
const stopTurnsMax = 3000

// stop ends the broker in order, as broker.Run does, and starts another one: every client of 5.0 is told, and with a store nothing is lost,
// of whatever was handled. Without one all that there was is gone.
func (w *world) stop(o *Op) {
	if w.options.Threaded {
		return
	}
	w.setDisk(&Op{})
	w.stopping = true
	for _, p := range w.network.Planes() {
		p.StopAccepting()
	}
	for turns := 0; w.network.Open() > 0 && turns < stopTurnsMax && w.violation == nil; turns++ {
		for _, l := range w.broker.Loops() {
			l.Do(func(s *broker.Shard) { s.Drain(1 + o.get("most", 0)) })
		}
		w.turn(0)
	}
	if n := w.network.Open(); n > 0 {
		w.violate("stuck", "%d connections are open after %d turns in which the broker was to stop", n, stopTurnsMax)
	}
	for rounds, turns := broker.StopRounds, 0; rounds > 0 && turns < stopTurnsMax; turns++ {
		rounds--
		for _, l := range w.broker.Loops() {
			if l.HasLeft() {
				rounds = broker.StopRounds
			}
		}
		w.turn(0)
	}
	w.broker.HandOver()
	stopped := w.moment()
	if w.disk != nil {
		if err := w.disk.work(nil, 1<<20, epochMS+stopped.ms); err != nil {
			w.violate("store", "%v", err)
		}
	}
	w.reboot(o)
	w.stopping = false
	w.stats.Stops++
	for _, c := range w.clients {
		c.session.goOn(w.disk != nil, stopped)
	}
	if w.disk == nil {
		clear(w.streams)
		w.emptied = w.step
	}
}

// goOn is what a Session is after the broker has stopped: offline since then, or gone with it.
func (s *session) goOn(kept bool, stopped moment) {
	if s.gone = stopped; s.link != nil {
		s.link.gone = stopped
	}
	if !kept {
		s.exists, s.maybe, s.attempts, s.doubt = false, false, 0, false
	}
}

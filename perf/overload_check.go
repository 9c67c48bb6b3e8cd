package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringmq/ringmq/perf/load"
	"github.com/ringmq/ringmq/perf/overload"
)

const (
	checkRate = 1000 // messages per second of the victims, who are there to lose nothing
	checkLong = time.Second / 2
	// checkPatience bounds the wait until a scenario's counters have moved: there is no timing in a check.
	checkPatience = 30 * time.Second
	checkPoll     = 250 * time.Millisecond
)

// check runs each scenario in small, and only for what is answered: Reason Codes, counters, who is closed, and that nobody
// else loses anything. No figure of time is judged.
func (o *overloader) check(ctx context.Context) error {
	o.rate, o.seconds = checkRate, checkLong.Seconds()
	bad := 0
	for _, s := range o.scenarios {
		t := trial{Scenario: s.Name, Attacked: true}
		if err := o.checkOne(ctx, s, &t); err != nil {
			t.Wrong = append(t.Wrong, err.Error())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !t.Victims.Clean() || t.Victims.Published == 0 {
			t.Wrong = append(t.Wrong, fmt.Sprintf("of the victims' %d messages %d were lost", t.Victims.Published, t.Victims.Lost))
		}
		if t.Peak > t.Planned {
			t.Wrong = append(t.Wrong, fmt.Sprintf("the broker took %d bytes and planned %d", t.Peak, t.Planned))
		}
		says := "good"
		if len(t.Wrong) > 0 {
			says, bad = "NOT AS PROMISED", bad+1
		}
		o.done = append(o.done, t)
		fmt.Printf("%-8s %-8s %s: %s; %s %q\n", o.mode, s.Name, says, &t.Outcome, tellingOf(s, t.Moved), t.Wrong)
	}
	if err := writeJSON(o.jsonFile, o.done); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("overload in %s mode: %d of %d scenarios are not as promised", o.mode, bad, len(o.scenarios))
	}
	return nil
}

// checkOne attacks until the counters have moved, and has victims beside it once.
func (o *overloader) checkOne(ctx context.Context, sc *overload.Scenario, t *trial) error {
	s, address, err := o.startBroker(ctx, sc.Settings)
	if err != nil {
		return err
	}
	defer s.stop()
	before, err := o.ask(ctx)
	if err != nil {
		return err
	}
	cfg := o.aggressor(address)
	cfg.Small, cfg.Long, cfg.Patience = true, checkLong, checkPatience
	victims, connected := o.victims(checkRate), begins(sc, &cfg)
	attack, err := overload.Start(ctx, sc, cfg)
	if err != nil {
		return err
	}
	victims.Target, victims.PID, victims.WarmUp = address, s.command.Process.Pid, -1
	t.Victims, err = load.Run(ctx, victims, connected)
	patience := time.Duration(0)
	if sc.Ends {
		patience = checkPatience
	}
	movedErr := o.awaitMoved(ctx, sc, before)
	var attackErr error
	t.Outcome, attackErr = attack.Stop(patience)
	return errors.Join(err, movedErr, attackErr, o.judge(ctx, s, sc, t, before))
}

// awaitMoved waits until the counters that a scenario names have moved, or have had time enough.
func (o *overloader) awaitMoved(ctx context.Context, sc *overload.Scenario, before report) error {
	for end := time.Now().Add(checkPatience); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(checkPoll) {
		now, err := o.ask(ctx)
		if err != nil {
			return err
		}
		moved := true
		for _, name := range sc.Counters {
			moved = moved && now.Counters[name]-before.Counters[name] >= max(1, sc.Least[name])
		}
		if moved {
			return nil
		}
	}
	return ctx.Err()
}

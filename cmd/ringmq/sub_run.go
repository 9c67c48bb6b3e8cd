package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ringmq/ringmq/broker/packet"
	"github.com/ringmq/ringmq/cmd/client"
)

// subscriber is one run of ringmq sub.
type subscriber struct {
	*subFlags
	cfg           client.Config
	properties    commandProperties
	subscriptions []client.Subscription
	printer       *printer
	reply         format // nil: there is no --reply
	errors        io.Writer

	client      client.Client  // the connection of now
	subscribing sync.WaitGroup // the goroutine that waits for its SUBACK
	replier     *replier       // nil where reply is
	printed     int
}

// errEnough is why a subscriber ends that has done what it was asked for.
var errEnough = errors.New("that is enough")

// run connects, and connects again, until there is a reason to end.
func (s *subscriber) run(ctx context.Context) error {
	err := s.connect(ctx)
	if err != nil {
		return err
	}
	if s.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(s.wait), errTimeUp)
		defer cancel()
	}
	for {
		err = s.session(ctx)
		if flushed := s.printer.flush(); flushed != nil {
			err = flushed
		}
		s.disconnect()
		switch {
		case errors.Is(err, errEnough):
			return nil
		case errors.Is(err, errTimeUp):
			return fmt.Errorf("%w (-W), after %d messages", err, s.printed)
		case s.noMore || !comesBack(err):
			return err
		}
		if err := s.reconnect(ctx, err); err != nil {
			return err
		}
	}
}

// comesBack says whether it makes sense to connect again: not after another client has taken the Session over, which would
// go to and fro for ever, nor when it was not the broker that failed.
func comesBack(err error) bool {
	var refused *client.Refused
	if errors.As(err, &refused) {
		switch refused.Reason {
		case packet.ServerUnavailable, packet.ServerBusy, packet.ServerShuttingDown, packet.KeepAliveTimeout, packet.MessageRateTooHigh,
			packet.QuotaExceeded, packet.AdministrativeAction, packet.UseAnotherServer, packet.ConnectionRateExceeded,
			packet.MaximumConnectTime, packet.UnspecifiedError, packet.ImplementationSpecificError:
			return true
		}
		return false
	}
	var lost *client.Lost
	var unreachable *client.Unreachable
	return errors.As(err, &lost) || errors.As(err, &unreachable)
}

// subscribeTries is for brokers that take a Packet Identifier of ours for one of theirs when a Session has messages under
// way (mochi 2.7.9 does): each try has another.
const subscribeTries = 5

const (
	backOffFirst = 250 * time.Millisecond
	backOffMax   = 30 * time.Second
)

// reconnect tries until it succeeds or there is no point in it.
func (s *subscriber) reconnect(ctx context.Context, why error) error {
	s.notice(s.errors, "%v; connecting again", why)
	for pause := backOffFirst; ; pause = min(2*pause, backOffMax) {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return stopped(ctx)
		}
		err := s.connect(ctx)
		if err == nil {
			s.notice(s.errors, "connected again")
			return nil
		}
		if ctx.Err() != nil {
			return stopped(ctx)
		}
		if !comesBack(err) {
			return err
		}
	}
}

// stopped is why a context has ended.
func stopped(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errTimeUp) {
		return errTimeUp
	}
	return errInterrupted
}

func (s *subscriber) connect(ctx context.Context) error {
	connection, err := client.Dial(ctx, s.cfg)
	if err != nil {
		return advice(err)
	}
	s.client = connection
	if p := s.cfg.Properties.SessionExpiry; p != nil && *p > 0 {
		s.cfg.CleanStart = false // From now on the Session is ours.
	}
	if s.reply != nil {
		s.replier = startReplier(connection, s.reply, s.properties["publish"])
	}
	return nil
}

// disconnect lets go of the connection; replies that are under way go first.
func (s *subscriber) disconnect() {
	if s.replier != nil {
		if dropped := s.replier.stop(); dropped > 0 {
			s.notice(s.errors, "%d requests were not answered: they came faster than the broker takes answers", dropped)
		}
	}
	s.client.Close(*s.properties["disconnect"], closeHurry)
	s.subscribing.Wait()
}

// session subscribes and prints until the connection ends or there is enough. It takes messages while it waits for the
// SUBACK: those of a Session of before come first, and what nobody takes holds back what comes behind.
func (s *subscriber) session(ctx context.Context) error {
	subscribed := make(chan error, 1)
	s.subscribing.Go(func() { subscribed <- s.subscribe(ctx) })
	var answer <-chan error = subscribed
	for {
		m, err := s.next(ctx, answer)
		switch {
		case err != nil:
			return err
		case m == nil && s.exitSubscribed:
			return errEnough
		case m == nil:
			answer = nil // Never ready again.
			continue
		}
		err = s.take(m)
		if m.QoS > 0 && err == nil || errors.Is(err, errEnough) {
			if flushed := s.printer.flush(); flushed != nil {
				err = flushed // Not acknowledged: it was not printed.
			}
		}
		if err == nil || errors.Is(err, errEnough) {
			m.Handled()
		}
		if err != nil {
			return err
		}
	}
}

// next waits for a message, or for the answer to the subscribing, for which it returns nil. Before it waits it flushes
// what is printed.
func (s *subscriber) next(ctx context.Context, subscribed <-chan error) (*client.Message, error) {
	select {
	case <-ctx.Done():
		return nil, stopped(ctx)
	case m := <-s.client.Messages():
		return m, nil
	default:
	}
	if err := s.flush(); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, stopped(ctx)
	case err := <-subscribed:
		return nil, err
	case m := <-s.client.Messages():
		return m, nil
	case <-s.client.Done():
	}
	select {
	case m := <-s.client.Messages(): // What came before the end.
		return m, nil
	default:
		return nil, s.client.Err()
	}
}

func (s *subscriber) flush() error {
	if s.removeRetained {
		if err := s.client.Flush(); err != nil {
			return err
		}
	}
	return s.printer.flush()
}

// take does with one message what the flags say.
func (s *subscriber) take(m *client.Message) error {
	if s.leftOut(m.Topic) {
		return nil
	}
	if s.retainedOnly && !m.Retain {
		return errEnough
	}
	if s.removeRetained && m.Retain && len(m.Payload) > 0 {
		if err := s.client.Publish(context.Background(), &client.Message{Topic: m.Topic, Retain: true}); err != nil {
			return err
		}
	}
	if s.noRetained && m.Retain {
		return nil
	}
	if err := s.printer.print(m); err != nil {
		if errors.Is(err, errOutputClosed) {
			return err
		}
		s.notice(s.errors, "%v", err)
	}
	if s.replier != nil && m.Properties.ResponseTopic != "" {
		s.replier.answer(m)
	}
	s.printed++
	if s.count > 0 && s.printed >= s.count {
		return errEnough
	}
	return nil
}

// subscribe makes and removes subscriptions.
func (s *subscriber) subscribe(ctx context.Context) error {
	if len(s.subscriptions) > 0 {
		codes, err := s.client.Subscribe(ctx, s.subscriptions, *s.properties["subscribe"])
		for try := 1; err == nil && slices.Contains(codes, packet.PacketIdentifierInUse) && try < subscribeTries; try++ {
			codes, err = s.client.Subscribe(ctx, s.subscriptions, *s.properties["subscribe"])
		}
		if err != nil {
			return s.unlessStopped(ctx, err)
		}
		if err := s.granted(codes); err != nil {
			return err
		}
	}
	if len(s.unsubscribe) == 0 {
		return nil
	}
	codes, err := s.client.Unsubscribe(ctx, s.unsubscribe, *s.properties["unsubscribe"])
	for i, code := range codes {
		if err == nil && code.Failed() {
			err = fmt.Errorf("the broker refused to unsubscribe from %s: %w (0x%02X)", s.unsubscribe[i], code, byte(code))
		}
	}
	return s.unlessStopped(ctx, err)
}

func (s *subscriber) unlessStopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return stopped(ctx)
	}
	return err
}

// granted is an error when nothing was granted, and otherwise a notice for each that was not.
func (s *subscriber) granted(codes []packet.Reason) error {
	var refused []error
	for i, code := range codes {
		if code.Failed() {
			refused = append(refused, fmt.Errorf("the broker refused the subscription to %s: %w (0x%02X)", s.subscriptions[i].Filter, code, byte(code)))
		}
	}
	switch {
	case len(refused) == len(codes) && len(codes) > 1:
		return fmt.Errorf("the broker refused all %d subscriptions: %w (0x%02X)", len(codes), codes[0], byte(codes[0]))
	case len(refused) == len(codes):
		return refused[0]
	}
	for _, err := range refused {
		s.notice(s.errors, "%v", err)
	}
	return nil
}

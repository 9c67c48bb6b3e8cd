package crashtest

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/broker/packet"
)

// What a Trouble publishes.
const (
	queuedMessages = 20       // before it
	fedBytes       = 64 << 10 // each of Feed
	stagesMax      = 4        // calls of Refused and Failing
)

// refusedPayload is of what the broker is to refuse.
const refusedPayload = "refused"

// Trouble is clients of both protocol versions around a broker whose disk is full or fails. Each method is a stage, and its error says what a
// client saw that is not as README's table has it.
type Trouble struct {
	dial     func() (net.Conn, error)
	v5, v3   *peer   // publishers
	passing  *peer   // subscriber whose Session ends with its connection
	ending   []*peer // those whose Sessions are kept until they end them, one at each stage
	present  []*peer // subscribers with kept Sessions that stay, of both versions
	absent   *peer   // one that is away until it is over,
	late     *peer   // one that comes back while Sessions that are there still may,
	old      *peer   // and one of MQTT 3.1.1 that comes back when nothing is written any more
	want     []string
	waits    bool  // v3 has published what waits for its acknowledgement
	newcomer *peer // a new Session that waits for its CONNACK

	feeder, fed *peer
	fedMessages int
	fedWant     []string       // those of them that were acknowledged
	feeding     sync.WaitGroup // Feed
	feedErr     error          // read when that is over
}

// NewTrouble makes clients that connect by dial.
func NewTrouble(dial func() (net.Conn, error)) *Trouble {
	t := &Trouble{dial: dial, v5: newPeer("publisher5", packet.V50, true), v3: newPeer("publisher3", packet.V311, true),
		passing: newPeer("passing", packet.V311, false), present: []*peer{newPeer("present5", packet.V50, true), newPeer("present3", packet.V311, true)},
		absent: newPeer("absent", packet.V50, true), late: newPeer("late", packet.V50, true), old: newPeer("old", packet.V311, true),
		feeder: newPeer("feeder", packet.V50, false), fed: newPeer("fed", packet.V50, true)}
	for i := range stagesMax {
		t.ending = append(t.ending, newPeer(fmt.Sprint("ending", i), packet.V50, true))
	}
	return t
}

// receivers are who must get what is kept.
func (t *Trouble) receivers() []*peer { return append([]*peer{t.absent, t.late, t.old}, t.present...) }

// Before connects everybody and has messages queued for those that go.
func (t *Trouble) Before() error {
	for _, p := range append([]*peer{t.v5, t.v3, t.feeder, t.passing, t.fed}, append(t.receivers(), t.ending...)...) {
		if err := p.mustConnect(t.dial); err != nil {
			return err
		}
	}
	filters := map[*peer]string{t.passing: "passing", t.fed: "fed"}
	for _, p := range t.receivers() {
		filters[p] = "kept"
	}
	for _, p := range t.ending {
		filters[p] = "ending"
	}
	for p, filter := range filters {
		if r, err := p.subscribe(filter, 2); err != nil || r.Failed() {
			return errors.Join(fmt.Errorf("%s: SUBACK %v", p.id, r), err)
		}
	}
	for _, p := range []*peer{t.absent, t.late, t.old, t.fed} {
		if err := p.disconnect(); err != nil {
			return err
		}
	}
	if err := t.v5.publish("retained", "retained", 1, true); err != nil {
		return err
	}
	if r, err := t.v5.acknowledged(1); err != nil || r.Failed() {
		return errors.Join(fmt.Errorf("a Retained Message: %v", r), err)
	}
	for i := range queuedMessages {
		if err := t.keep([]*peer{t.v5, t.v3}[i%2], fmt.Sprint("queued ", i), uint8(1+i/2%2)); err != nil {
			return err
		}
	}
	return errors.Join(t.present[0].gets(len(t.want)), t.present[1].gets(len(t.want)))
}

// keep publishes what is to be acknowledged and to arrive.
func (t *Trouble) keep(p *peer, payload string, qos uint8) error {
	if err := p.publish("kept", payload, qos, false); err != nil {
		return err
	}
	if r, err := p.acknowledged(qos); err != nil || r.Failed() {
		return errors.Join(fmt.Errorf("%s publishes %q: %v", p.id, payload, r), err)
	}
	t.want = append(t.want, payload)
	return nil
}

// Refused finds that what a level, one of the broker's Refusals, refuses is refused and that the rest goes on. Levels come in their order.
func (t *Trouble) Refused(level int) error {
	err := t.messages()
	switch broker.Refusal(level) {
	case broker.RefuseMessages:
		err = errors.Join(err, t.newcomers(level, packet.Success), t.subscriptions("more", packet.Success))
	case broker.RefuseNew:
		err = errors.Join(err, t.newcomers(level, packet.QuotaExceeded), t.subscriptions("other", packet.QuotaExceeded),
			t.subscriptions("more", packet.Success), t.resumes(t.late))
	case broker.RefuseAll:
		err = errors.Join(err, t.newcomers(level, packet.QuotaExceeded), t.subscriptions("other", packet.QuotaExceeded),
			t.subscriptions("more", packet.QuotaExceeded), t.answered(t.absent, packet.ServerBusy), t.resumes(t.old))
	}
	if err != nil {
		return fmt.Errorf("level %d: %w", level, err)
	}
	return nil
}

// messages are refused at every level, and those of QoS 0 pass, as do those that are kept for nobody, even while a Session that is kept ends.
func (t *Trouble) messages() error {
	for _, c := range []struct {
		topic  string
		qos    uint8
		retain bool
	}{{"kept", 1, false}, {"kept", 2, false}, {"retained", 1, true}, {"retained", 2, true}} {
		if err := t.v5.publish(c.topic, refusedPayload, c.qos, c.retain); err != nil {
			return err
		}
		if r, err := t.v5.acknowledged(c.qos); err != nil || r != packet.QuotaExceeded {
			return errors.Join(fmt.Errorf("PUBLISH %+v: %v, want %v", c, r, packet.QuotaExceeded), err)
		}
	}
	if !t.waits {
		if err := t.v3.publish("kept", "waits", 2, false); err != nil {
			return err
		}
		t.waits = true
	}
	ending := t.ending[0]
	t.ending = t.ending[1:]
	if err := ending.end(); err != nil {
		return err
	}
	for qos := range uint8(2) {
		if err := t.v5.publish("passing", "passes", qos, false); err != nil {
			return err
		}
		if err := t.passing.gets(len(t.passing.got) + 1); err != nil {
			return err
		}
	}
	if r, err := t.v5.acknowledged(1); err != nil || r.Failed() {
		return errors.Join(fmt.Errorf("a message that is kept for nobody: %v", r), err)
	}
	return t.v3.silent()
}

// newcomers are told the same in both versions; those whose Sessions are not kept are served as ever.
func (t *Trouble) newcomers(level int, want packet.Reason) (err error) {
	for _, v := range []packet.Version{packet.V50, packet.V311} {
		err = errors.Join(err, t.answered(newPeer(fmt.Sprintf("newcomer %d at level %d", v, level), v, true), want))
		p := newPeer("not kept", v, false)
		if err = errors.Join(err, p.mustConnect(t.dial)); err != nil {
			return err
		}
		if r, e := p.subscribe("kept", 1); e != nil || r.Failed() {
			err = errors.Join(err, fmt.Errorf("a Session of %v that is not kept subscribes: %v", v, r), e)
		}
		p.hangUp()
	}
	return err
}

// answered connects, finds the answer and goes. 3.1.1 has one word for all that is refused.
func (t *Trouble) answered(p *peer, want packet.Reason) error {
	r, _, err := p.connect(t.dial)
	if p.version != packet.V50 && want.Failed() {
		want = packet.ServerUnavailable
	}
	if err != nil || r != want {
		return errors.Join(fmt.Errorf("%s: CONNACK %v, want %v", p.id, r, want), err)
	}
	p.hangUp()
	return nil
}

// subscriptions are what kept Sessions ask for.
func (t *Trouble) subscriptions(filter string, want packet.Reason) error {
	for _, p := range t.present {
		r, err := p.subscribe(filter, 1)
		expected := want
		switch {
		case !want.Failed():
			expected = packet.GrantedQoS1
		case p.version != packet.V50:
			expected = packet.UnspecifiedError // 3.1.1 has no other failure (section 3.9.3).
		}
		if err != nil || r != expected {
			return errors.Join(fmt.Errorf("%s subscribes to %s: %v, want %v", p.id, filter, r, expected), err)
		}
	}
	return nil
}

// resumes connects to a Session that waits. One of 5.0 gets and acknowledges what is there; where nothing is written, that of 3.1.1 goes on later.
func (t *Trouble) resumes(p *peer) error {
	r, present, err := p.connect(t.dial)
	if err != nil || r.Failed() || !present {
		return errors.Join(fmt.Errorf("%s: CONNACK %v, its Session is there: %v", p.id, r, present), err)
	}
	if p == t.old {
		return nil
	}
	return errors.Join(p.gets(len(t.want)), p.settled())
}

// Feed publishes n large messages of QoS 1 for an absent client and looks at their acknowledgements when it is over.
func (t *Trouble) Feed(n int) {
	t.fedMessages = n
	t.feeding.Go(func() {
		for i := 0; i < n && t.feedErr == nil; i++ {
			t.feedErr = t.feeder.publish("fed", fmt.Sprint(i, " ", strings.Repeat("x", fedBytes)), 1, false)
		}
	})
}

// Failing finds that messages are refused and that who needs the store waits for it, or is told that too much waits already: nothing can be
// written, although there is space.
func (t *Trouble) Failing() error {
	t.newcomer = newPeer("newcomer", packet.V50, true)
	if err := t.newcomer.begin(t.dial); err != nil {
		return err
	}
	if err := t.messages(); err != nil {
		return err
	}
	if t.newcomer.silent() == nil {
		return nil
	}
	t.newcomer.hangUp()
	t.newcomer = nil
	return t.answered(newPeer("newcomer", packet.V50, true), packet.ServerBusy)
}

// Acknowledged finds, when it is over, that what waited is acknowledged.
func (t *Trouble) Acknowledged() error {
	if r, err := t.v3.acknowledged(2); err != nil || r.Failed() {
		return errors.Join(fmt.Errorf("what %s has published is to be acknowledged now: %v", t.v3.id, r), err)
	}
	t.want = append(t.want, "waits")
	if t.newcomer != nil {
		if r, _, err := t.newcomer.connack(); err != nil || r.Failed() {
			return errors.Join(fmt.Errorf("%s: CONNACK %v", t.newcomer.id, r), err)
		}
	}
	return errors.Join(t.fedAnswers(), t.keep(t.v5, "after", 2))
}

// Delivered finds, when the broker was killed behind that and another runs, that everybody gets what was acknowledged, once and in order, and
// nothing that was refused.
func (t *Trouble) Delivered() error {
	t.HangUp()
	for _, p := range append([]*peer{t.v5, t.fed}, t.receivers()...) {
		p.again = true
		if r, present, err := p.connect(t.dial); err != nil || r.Failed() || !present {
			return errors.Join(fmt.Errorf("%s: CONNACK %v, its Session is there: %v", p.id, r, present), err)
		}
	}
	if err := t.keep(t.v5, "after the kill", 1); err != nil {
		return err
	}
	for _, p := range t.receivers() {
		if err := errors.Join(p.gets(len(t.want)), p.settled()); err != nil {
			return err
		}
		if !slices.Equal(p.got, t.want) {
			return fmt.Errorf("%s got %q, want %q", p.id, p.got, t.want)
		}
	}
	return errors.Join(t.eaten(), t.retained())
}

// fedAnswers are of what was fed.
func (t *Trouble) fedAnswers() error {
	if t.feeding.Wait(); t.feedErr != nil {
		return t.feedErr
	}
	for i := range t.fedMessages {
		r, err := t.feeder.acknowledged(1)
		if err != nil {
			return err
		}
		if !r.Failed() {
			t.fedWant = append(t.fedWant, fmt.Sprint(i))
		}
	}
	return nil
}

// eaten finds that what was acknowledged of Feed, and nothing else, has arrived.
func (t *Trouble) eaten() error {
	if err := t.fed.gets(len(t.fedWant)); err != nil {
		return err
	}
	for i, payload := range t.fed.got {
		if n, _, _ := strings.Cut(payload, " "); n != t.fedWant[i] {
			return fmt.Errorf("message %d of those that were fed is %s; want %s", i, n, t.fedWant[i])
		}
	}
	return t.fed.silent()
}

// retained finds that the Retained Message is not one that was refused.
func (t *Trouble) retained() error {
	p := newPeer("looks", packet.V50, false)
	if err := p.mustConnect(t.dial); err != nil {
		return err
	}
	defer p.hangUp()
	if r, err := p.subscribe("retained", 1); err != nil || r.Failed() {
		return errors.Join(fmt.Errorf("%s: SUBACK %v", p.id, r), err)
	}
	if err := p.gets(1); err != nil || p.got[0] != "retained" {
		return errors.Join(fmt.Errorf("%s got %q", p.id, p.got), err)
	}
	return nil
}

// HangUp ends all connections, whatever has become of them.
func (t *Trouble) HangUp() {
	if t.feeder.conn != nil {
		_ = t.feeder.conn.Close()
	}
	t.feeding.Wait()
	for _, p := range append([]*peer{t.v5, t.v3, t.passing, t.feeder, t.fed}, append(t.receivers(), t.ending...)...) {
		p.hangUp()
	}
	if t.newcomer != nil {
		t.newcomer.hangUp()
	}
}

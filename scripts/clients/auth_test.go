package clients

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/xdg-go/scram"
)

func user(name, password string) func(*packets.Connect) {
	return func(c *packets.Connect) {
		c.UsernameFlag, c.PasswordFlag, c.Username, c.Password = true, true, name, []byte(password)
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	for _, shards := range []string{"1", "4"} {
		b := startFor(t, "--shards", shards, "--passwords", passwords(t, "alice", "wonderland", "bøb", "påss word:$7$"))
		for _, c := range []struct {
			what   string
			change func(*packets.Connect)
			want   byte
		}{
			{"right", user("alice", "wonderland"), packets.ConnackSuccess},
			{"right, not ASCII", user("bøb", "påss word:$7$"), packets.ConnackSuccess},
			{"wrong", user("alice", "Wonderland"), packets.ConnackBadUsernameOrPassword},
			{"empty", user("alice", ""), packets.ConnackBadUsernameOrPassword},
			{"unknown user", user("carol", "wonderland"), packets.ConnackBadUsernameOrPassword},
			{"anonymous", nil, packets.ConnackNotAuthorized},
			{"unknown method", func(c *packets.Connect) { c.Properties.AuthMethod = "X" }, packets.ConnackBadAuthenticationMethod},
		} {
			w, ack := b.tryConnect(t, "w", c.change)
			if ack.ReasonCode != c.want {
				t.Errorf("%s: CONNACK %#x, want %#x", c.what, ack.ReasonCode, c.want)
			} else if c.want != 0 {
				w.closed()
			} else {
				w.ping()
			}
		}
		for _, v := range versions {
			if err := b.pub(t, "-V", v.word, "-u", "alice", "-P", "wonderland", "-t", "t", "-m", "m", "-q", "1"); err != nil {
				t.Error(err)
			}
			for _, arguments := range [][]string{{"-u", "alice", "-P", "x"}, {"-u", "carol", "-P", "x"}, {}} {
				if err := b.pub(t, append(arguments, "-V", v.word, "-t", "t", "-m", "m")...); err == nil {
					t.Errorf("mosquitto_pub -V %s %q gets in", v.word, arguments)
				}
			}
		}
	}
}

// TestDeclaredListener denies anonymous clients, and lets them in when told to, password file or not.
func TestDeclaredListener(t *testing.T) {
	t.Parallel()
	b := startFor(t, "--shards", "1")
	if _, ack := b.tryConnect(t, "w", nil); ack.ReasonCode != packets.ConnackNotAuthorized {
		t.Errorf("CONNACK %#x for an anonymous client", ack.ReasonCode)
	}
	open := startFor(t, "--shards", "1", "--allow-anonymous", "--passwords", passwords(t, "alice", "wonderland"))
	if _, ack := open.tryConnect(t, "w", nil); ack.ReasonCode != 0 {
		t.Errorf("CONNACK %#x although anonymous clients are allowed", ack.ReasonCode)
	}
	if _, ack := open.tryConnect(t, "w", user("alice", "x")); ack.ReasonCode != packets.ConnackBadUsernameOrPassword {
		t.Errorf("CONNACK %#x for a wrong password where anonymous clients are allowed", ack.ReasonCode)
	}
}

// prover is the client's side of SCRAM-SHA-256 behind paho's hooks.
type prover struct {
	conversation *scram.ClientConversation
	done         chan struct{}
	err          error
}

func newProver(t *testing.T, user, password string) (p *prover, first []byte) {
	t.Helper()
	c, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	p = &prover{conversation: c.NewConversation(), done: make(chan struct{}, 8)}
	return p, p.step(nil)
}

func (p *prover) step(in []byte) []byte {
	out, err := p.conversation.Step(string(in))
	p.err = errors.Join(p.err, err)
	return []byte(out)
}

// Authenticate answers an AUTH.
func (p *prover) Authenticate(a *paho.Auth) *paho.Auth {
	return &paho.Auth{ReasonCode: packets.AuthContinueAuthentication,
		Properties: &paho.AuthProperties{AuthMethod: a.Properties.AuthMethod, AuthData: p.step(a.Properties.AuthData)}}
}

// Authenticated hears that it is over.
func (p *prover) Authenticated() { p.done <- struct{}{} }

const method = "SCRAM-SHA-256"

func TestSCRAM(t *testing.T) {
	t.Parallel()
	file := passwords(t, "alice", "wonderland", "bob", "builder")
	for _, shards := range []string{"1", "4"} {
		t.Run("shards="+shards, func(t *testing.T) {
			t.Parallel()
			b := startFor(t, "--shards", shards, "--passwords", file)
			connect := func(user, password string) (*client, *prover, error) {
				p, first := newProver(t, user, password)
				c, err := b.tryPaho(t, name(t, user), func(s *paho.ClientConfig) { s.AuthHandler = p }, func(c *paho.Connect) {
					c.Properties.AuthMethod, c.Properties.AuthData = method, first
				})
				return c, p, err
			}
			c, p, err := connect("alice", "wonderland")
			if err != nil {
				t.Fatal(err)
			}
			<-p.done
			if p.step(c.ack.Properties.AuthData); p.err != nil || !p.conversation.Valid() || c.ack.Properties.AuthMethod != method {
				t.Errorf("the broker does not prove that it knows the password: %v, %v", p.err, c.ack)
			}
			for user, password := range map[string]string{"alice": "wrong", "carol": "wonderland"} {
				if refused, _, err := connect(user, password); err == nil || refused.ack == nil || refused.ack.ReasonCode < 0x86 || refused.ack.ReasonCode > 0x87 {
					t.Errorf("%s: %v, %v", user, err, refused.ack)
				}
			}
		})
	}
}

// TestReauthentication proves the password again while messages flow; a wrong one ends the connection.
func TestReauthentication(t *testing.T) {
	t.Parallel()
	file := passwords(t, "alice", "wonderland")
	for _, shards := range []string{"1", "4"} {
		t.Run("shards="+shards, func(t *testing.T) {
			t.Parallel()
			b := startFor(t, "--shards", shards, "--passwords", file)
			p, first := newProver(t, "alice", "wonderland")
			c := b.paho(t, name(t, "c"), func(s *paho.ClientConfig) { s.AuthHandler = p }, func(c *paho.Connect) {
				c.Properties.AuthMethod, c.Properties.AuthData = method, first
			})
			<-p.done
			c.subscribe(paho.SubscribeOptions{Topic: "t", QoS: 1})
			for i, password := range []string{"wonderland", "wonderland", "wrong"} {
				again, first := newProver(t, "alice", password)
				p.conversation = again.conversation
				c.publish(&paho.Publish{Topic: "t", QoS: 1, Payload: []byte(numbered(i))})
				r, err := c.Authenticate(t.Context(), &paho.Auth{ReasonCode: packets.AuthReauthenticate,
					Properties: &paho.AuthProperties{AuthMethod: method, AuthData: first}})
				if err != nil || r.Success != (password == "wonderland") {
					t.Fatalf("with %s: %v, %v", password, r, err)
				}
				if got := c.next(); string(got.Payload) != numbered(i) {
					t.Errorf("got %v", got)
				}
			}
			if d := <-c.gone; d.ReasonCode != packets.DisconnectNotAuthorized {
				t.Errorf("DISCONNECT %#x after a wrong password", d.ReasonCode)
			}
		})
	}
}

// TestReload rereads the password file on HUP; clients stay, and a bad file changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	file := passwords(t, "alice", "wonderland", "bob", "builder")
	b := startFor(t, "--shards", "4", "--passwords", file)
	var stay []*wire
	for i := range 8 {
		stay = append(stay, b.connect(t, fmt.Sprint("stays", i), user("bob", "builder")))
	}
	hup := func(words ...string) {
		t.Helper()
		if err := b.process.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		b.await(t, words...)
	}
	setPassword(t, file, "alice", "looking glass", false)
	setPassword(t, file, "carol", "new", false)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	hup("reloaded", "users=3")
	check := func() {
		t.Helper()
		for _, c := range []struct {
			user, password string
			want           byte
		}{{"alice", "looking glass", 0}, {"alice", "wonderland", 0x86}, {"carol", "new", 0}, {"bob", "builder", 0}} {
			if _, ack := b.tryConnect(t, "w", user(c.user, c.password)); ack.ReasonCode != c.want {
				t.Errorf("%s with %s: CONNACK %#x, want %#x", c.user, c.password, ack.ReasonCode, c.want)
			}
		}
	}
	check()
	if err := os.WriteFile(file, append(good, "this line is broken\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	hup("not reloaded", fmt.Sprint(file, ":"))
	check()
	for _, w := range stay {
		w.ping()
	}
}

// TestExchangeTakesOnlyAUTH sends other packets in the middle of an exchange: there is no Session yet that they could
// act on [MQTT-4.12.0-6].
func TestExchangeTakesOnlyAUTH(t *testing.T) {
	t.Parallel()
	b := startFor(t, "--shards", "1", "--passwords", passwords(t, "alice", "wonderland"))
	early := [][]byte{
		{0x82, 7, 0, 1, 0, 0, 1, 't', 0}, // SUBSCRIBE
		{0xA2, 6, 0, 1, 0, 0, 1, 't'},    // UNSUBSCRIBE
		{0x30, 5, 0, 1, 't', 0, 'x'},     // PUBLISH
		{0x34, 6, 0, 1, 't', 0, 1, 0},    // PUBLISH at QoS 2
		{0x40, 2, 0, 1}, {0x50, 2, 0, 1}, // PUBACK, PUBREC
		{0x62, 2, 0, 1}, {0x70, 2, 0, 1}, // PUBREL, PUBCOMP
		{0xC0, 0}, {0x10, 0}, {0xF0, 1, 0}, // PINGREQ, CONNECT, AUTH that says Success
	}
	for _, packet := range early {
		_, first := newProver(t, "alice", "wonderland")
		w := b.dial(t)
		w.send(&packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: "w", CleanStart: true,
			Properties: &packets.Properties{AuthMethod: method, AuthData: first}})
		if a := expect[*packets.Auth](w); a.ReasonCode != packets.AuthContinueAuthentication {
			t.Fatalf("AUTH %#x", a.ReasonCode)
		}
		w.sendBytes(packet...)
		p, err := w.read(patience)
		if ack, ok := p.(*packets.Connack); err == nil && (!ok || ack.ReasonCode < 0x80) {
			t.Errorf("% x in the middle of an exchange is answered with %v", packet, p)
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("% x in the middle of an exchange is ignored", packet)
		}
	}
	if _, ack := b.tryConnect(t, "w", user("alice", "wonderland")); ack.ReasonCode != 0 {
		t.Errorf("CONNACK %#x", ack.ReasonCode)
	}
}

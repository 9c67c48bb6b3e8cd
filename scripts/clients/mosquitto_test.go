package clients

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// versions are what mosquitto's clients call the protocol versions, and what our log calls them.
var versions = [...]struct{ word, ours string }{{"mqttv31", "3.1"}, {"mqttv311", "3.1.1"}, {"mqttv5", "5.0"}}

// mosquitto finds a client program of Debian's package mosquitto-clients; the test skips without it.
func mosquitto(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is missing: apt-get install mosquitto-clients", program)
	}
	return path
}

// pub runs mosquitto_pub to its end.
func (b *broker) pub(t *testing.T, arguments ...string) error {
	t.Helper()
	arguments = append([]string{"-h", b.host, "-p", b.port}, arguments...)
	out, err := exec.Command(mosquitto(t, "mosquitto_pub"), arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mosquitto_pub %q: %w: %s", arguments, err, out)
	}
	return nil
}

func (b *broker) mustPub(t *testing.T, arguments ...string) {
	t.Helper()
	if err := b.pub(t, arguments...); err != nil {
		t.Fatal(err)
	}
}

// subscriber is a running mosquitto_sub.
type subscriber struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	early []string // messages that came before SUBACK
}

// marked begins the lines of mosquitto_sub that are messages and not its -d talk.
const marked = "MESSAGE "

// sub starts mosquitto_sub with an output format and returns when it has subscribed.
func (b *broker) sub(t *testing.T, format string, arguments ...string) *subscriber {
	t.Helper()
	// Into a pipe it writes whole blocks; stdbuf, of Debian's coreutils, makes it lines.
	arguments = append([]string{"-oL", mosquitto(t, "mosquitto_sub"), "-h", b.host, "-p", b.port, "-d", "-F", marked + format}, arguments...)
	s := &subscriber{t: t, cmd: exec.Command("stdbuf", arguments...), lines: make(chan string, 1<<12)}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		in := bufio.NewScanner(out)
		in.Buffer(nil, 4<<20)
		for in.Scan() {
			s.lines <- in.Text()
		}
		close(s.lines)
	}()
	t.Cleanup(func() { s.cmd.Process.Kill(); s.cmd.Wait() })
	s.await("Subscribed (mid")
	return s
}

// await gives the next line that begins with those words; messages before it are kept.
func (s *subscriber) await(words string) string {
	s.t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("mosquitto_sub ended before %q", words)
			}
			if rest, found := strings.CutPrefix(line, words); found {
				return rest
			}
			if rest, found := strings.CutPrefix(line, marked); found {
				s.early = append(s.early, rest)
			}
		case <-deadline:
			s.t.Fatalf("mosquitto_sub says no %q", words)
		}
	}
}

// message gives the next message.
func (s *subscriber) message() string {
	s.t.Helper()
	if len(s.early) > 0 {
		first := s.early[0]
		s.early = s.early[1:]
		return first
	}
	return s.await(marked)
}

// next checks the next message.
func (s *subscriber) next(want string) {
	s.t.Helper()
	if got := s.message(); got != want {
		s.t.Fatalf("mosquitto_sub got %q, want %q", got, want)
	}
}

func TestMosquittoQoS(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		for _, v := range versions {
			for subscribed := range 3 {
				topic := name(t, fmt.Sprint(v.word, subscribed))
				s := b.sub(t, "%q %t %p", "-V", v.word, "-q", fmt.Sprint(subscribed), "-t", topic)
				for published := range 3 {
					for _, from := range versions {
						b.mustPub(t, "-V", from.word, "-q", fmt.Sprint(published), "-t", topic, "-m", from.word)
						s.next(fmt.Sprintf("%d %s %s", min(published, subscribed), topic, from.word))
					}
				}
			}
		}
	})
}

func TestMosquittoRetained(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		for _, v := range versions {
			topic := name(t, v.word)
			live := b.sub(t, "%r %p", "-V", v.word, "-q", "1", "-t", topic)
			b.mustPub(t, "-V", v.word, "-q", "1", "-r", "-t", topic, "-m", "old")
			b.mustPub(t, "-V", v.word, "-q", "1", "-r", "-t", topic, "-m", "new")
			live.next("0 old")
			live.next("0 new")
			b.sub(t, "%r %p", "-V", v.word, "-q", "1", "-t", topic).next("1 new")
			b.mustPub(t, "-V", v.word, "-q", "1", "-r", "-n", "-t", topic)
			live.next("0 ")
			late := b.sub(t, "%r %p", "-V", v.word, "-q", "1", "-t", topic)
			b.mustPub(t, "-V", v.word, "-q", "1", "-t", topic, "-m", "marker")
			late.next("0 marker")
		}
	})
}

func TestMosquittoWill(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		for _, v := range versions {
			topic := name(t, v.word)
			watcher := b.sub(t, "%q %t %p", "-V", v.word, "-q", "2", "-t", topic+"/#")
			will := []string{"-V", v.word, "-t", topic + "-else", "--will-topic", topic + "/will", "--will-payload", "gone", "--will-qos", "1"}
			polite := b.sub(t, "%p", append(will, "-C", "1")...)
			b.mustPub(t, "-t", topic+"-else", "-m", "go") // It gets its message, says DISCONNECT and ends.
			if err := polite.cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			killed := b.sub(t, "%p", will...)
			b.mustPub(t, "-q", "1", "-t", topic+"/marker", "-m", "no will before this")
			watcher.next("1 " + topic + "/marker no will before this")
			if err := killed.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			watcher.next("1 " + topic + "/will gone")
		}
	})
}

// TestMosquittoSession has a subscriber that subscribes and goes away, and gets what came meanwhile, in order.
func TestMosquittoSession(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		for _, v := range versions {
			topic := name(t, v.word)
			arguments := []string{"-V", v.word, "-c", "-i", strings.ReplaceAll(v.word+t.Name(), "/", "")[len("mqtt"):][:20], "-q", "2", "-t", topic}
			first := b.sub(t, "%p", append(arguments, "-E")...)
			if err := first.cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				b.mustPub(t, "-V", v.word, "-q", fmt.Sprint(1+i%2), "-t", topic, "-m", numbered(i))
			}
			second := b.sub(t, "%q %p", append(arguments, "-C", "20")...)
			next := map[byte]int{'1': 0, '2': 1} // It shows QoS 2 messages after PUBREL, so they are in order by QoS.
			for range 20 {
				got := second.message()
				if want := fmt.Sprintf("%c %s", got[0], numbered(next[got[0]])); got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
				next[got[0]] += 2
			}
			if err := second.cmd.Wait(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestMosquittoLargePayload sends a megabyte of noise and compares its hash.
func TestMosquittoLargePayload(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		noise := make([]byte, 1<<20)
		rand.Read(noise)
		path := filepath.Join(t.TempDir(), "noise")
		if err := os.WriteFile(path, noise, 0o600); err != nil {
			t.Fatal(err)
		}
		for qos := range 3 {
			for _, v := range versions {
				topic := name(t, fmt.Sprint(v.word, qos))
				s := b.sub(t, "%x", "-V", v.word, "-q", fmt.Sprint(qos), "-t", topic)
				b.mustPub(t, "-V", v.word, "-q", fmt.Sprint(qos), "-t", topic, "-f", path)
				got, err := hex.DecodeString(s.message())
				if err != nil || sha256.Sum256(got) != sha256.Sum256(noise) {
					t.Errorf("%s, QoS %d: %d bytes of another hash, %v", v.word, qos, len(got), err)
				}
			}
		}
	})
}

func TestMosquittoRequestResponse(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		requests := name(t, "requests")
		for _, qos := range []string{"0", "1", "2"} {
			server := b.connect(t, name(t, "server"+qos), nil)
			server.subscribe(subscription(requests+qos, 0), 0)
			rr := exec.Command(mosquitto(t, "mosquitto_rr"), "-h", b.host, "-p", b.port, "-W", "20", "-q", qos,
				"-t", requests+qos, "-e", name(t, "answers"+qos), "-m", "2+2", "-D", "publish", "correlation-data", "number 7")
			var out bytes.Buffer
			rr.Stdout = &out
			if err := rr.Start(); err != nil {
				t.Fatal(err)
			}
			p := server.message("2+2")
			if p.Properties.ResponseTopic != name(t, "answers"+qos) || string(p.Properties.CorrelationData) != "number 7" {
				t.Errorf("the request's properties are %v", p.Properties)
			}
			answer := text(p.Properties.ResponseTopic, "4", 0)
			answer.Properties.CorrelationData = p.Properties.CorrelationData
			server.publish(answer)
			if err := rr.Wait(); err != nil || out.String() != "4\n" {
				t.Errorf("mosquitto_rr: %v, %q", err, out.String())
			}
		}
	})
}

// TestMosquittoProperties reads with mosquitto_sub what mosquitto_pub set.
func TestMosquittoProperties(t *testing.T) {
	both(t, func(t *testing.T, b *broker) {
		topic := name(t, "t")
		s := b.sub(t, "%C|%D|%F|%R|%P|%S|%p", "-V", "mqttv5", "-q", "1", "-t", topic, "-D", "subscribe", "subscription-identifier", "77")
		b.mustPub(t, "-V", "mqttv5", "-q", "1", "-t", topic, "-m", "x", "-D", "publish", "content-type", "text/plain",
			"-D", "publish", "correlation-data", "corr", "-D", "publish", "payload-format-indicator", "1",
			"-D", "publish", "response-topic", "answers", "-D", "publish", "user-property", "b", "1",
			"-D", "publish", "user-property", "a", "2", "-D", "publish", "user-property", "b", "3")
		s.next("text/plain|corr|1|answers|b:1 a:2 b:3|77|x")
	})
}

package credentials

import (
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// FuzzSCRAM gives a conversation any messages, and then, behind an honest first one, a final message that is changed at one
// place: nobody is let in but who has the password, what is refused is over, and what is said of it fits a log line.
func FuzzSCRAM(f *testing.F) {
	file := scramFile(f)
	client, err := scram.SHA256.NewClient("alice", "s3cret", "")
	if err != nil {
		f.Fatal(err)
	}
	for _, first := range []string{"n,,n=alice,r=x", "n,a=carol,n=alice,r=x", "y,,m=x,n=alice,r=x", "p=tls-unique,,n=a=2Cb,r=\u2168", "n,,n=\u2168,r=x", "n,,n=al\x00ice,r=x,ext"} {
		f.Add([]byte(first), []byte("c=biws,r=x,p=AAAA"), uint16(7), byte(0))
	}
	f.Add([]byte{}, []byte{}, uint16(0), byte(1))
	f.Fuzz(func(t *testing.T, first, final []byte, at uint16, change byte) {
		c := file.SCRAM()
		for range 2 {
			step(t, c, first)
			if step(t, c, final) {
				t.Fatalf("%q and %q prove that one is %q", first, final, c.User())
			}
		}
		c, talk := file.SCRAM(), client.NewConversation()
		message, err := talk.Step("")
		if err != nil {
			t.Fatal(err)
		}
		out, done, err := c.Step([]byte(message))
		if err != nil || done {
			t.Fatalf("the first answer is %q, %v, %v", out, done, err)
		}
		if message, err = talk.Step(string(out)); err != nil {
			t.Fatal(err)
		}
		changed := []byte(message)
		changed[int(at)%len(changed)] ^= change
		if done := step(t, c, changed); done != (c.User() == "alice") || change == 0 && !done {
			t.Errorf("%q for %q: %v, user %q", changed, message, done, c.User())
		}
		if step(t, c, []byte(message)) {
			t.Error("the conversation goes on after its end")
		}
	})
}

// step looks at what every step must keep.
func step(t *testing.T, c *Conversation, message []byte) (done bool) {
	t.Helper()
	out, done, err := c.Step(message)
	switch {
	case err == nil:
	case out != nil || done:
		t.Errorf("%q is refused and answered with %q", message, out)
	case len(err.Error()) > 1000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }):
		t.Errorf("%q gives an error that no log line should have: %v", message, err)
	}
	return done
}

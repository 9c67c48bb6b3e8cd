package credentials

import (
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// scramFile has the users alice and "Ⅸ" (which SASLprep makes "IX") with verifiers, and bob without one.
func scramFile(t testing.TB) *File {
	t.Helper()
	text := "bob:" + cheapPBKDF2 + "\n"
	for _, user := range []string{"alice", "\u2168"} {
		client, err := scram.SHA256.NewClient(user, "s3cret", "")
		if err != nil {
			t.Fatal(err)
		}
		v, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt of " + user[:3] + "........", Iters: scramIterationsMin})
		if err != nil {
			t.Fatal(err)
		}
		text += user + ":" + cheapPBKDF2 + ":" + formatVerifier(v) + "\n"
	}
	return load(t, text)
}

// converse plays the library's client against a conversation of ours and gives the server's first message.
func converse(t *testing.T, c *Conversation, user, password string) (first string, done bool, err error) {
	t.Helper()
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	talk := client.NewConversation()
	message, err := talk.Step("")
	if err != nil {
		t.Fatal(err)
	}
	out, done, err := c.Step([]byte(message))
	if err != nil || done {
		t.Fatalf("%s: first answer %q, %v, %v", user, out, done, err)
	}
	first = string(out)
	if message, err = talk.Step(first); err != nil {
		t.Fatal(err)
	}
	if c.User() != "" {
		t.Errorf("user %q is named before the proof", c.User())
	}
	if out, done, err = c.Step([]byte(message)); err != nil {
		return first, done, err
	}
	if _, err := talk.Step(string(out)); err != nil || !talk.Valid() {
		t.Errorf("%s: the client does not trust the server: %v", user, err)
	}
	return first, done, nil
}

func TestSCRAM(t *testing.T) {
	f := scramFile(t)
	for _, tt := range []struct{ user, want string }{{"alice", "alice"}, {"IX", "\u2168"}, {"\u2168", "\u2168"}} {
		c := f.SCRAM()
		if _, done, err := converse(t, c, tt.user, "s3cret"); !done || err != nil || c.User() != tt.want {
			t.Errorf("%s: done %v, error %v, user %q", tt.user, done, err, c.User())
		}
		if out, done, err := c.Step([]byte("n,,n=alice,r=x")); err == nil || done || out != nil {
			t.Errorf("%s: a third message is answered with %q", tt.user, out)
		}
	}
}

func TestSCRAMRefusesAlike(t *testing.T) {
	f := scramFile(t)
	for _, user := range []string{"alice", "bob", "nobody", strings.Repeat("x", 60000)} {
		c := f.SCRAM()
		if _, done, err := converse(t, c, user, "wrong"); done || err != errSCRAMRefused || c.User() != "" {
			t.Errorf("%.10s: done %v, error %v, user %q", user, done, err, c.User())
		}
	}
}

// What an unknown name is shown looks like a user's: same lengths and iterations, its own salt, the same next time
// and in the next Load.
func TestSCRAMDecoy(t *testing.T) {
	f := scramFile(t)
	factors := func(f *File, user string) string {
		out, _, err := f.SCRAM().Step([]byte("n,,n=" + user + ",r=nonce"))
		if err != nil {
			t.Fatal(err)
		}
		_, factors, _ := strings.Cut(string(out), ",")
		return factors
	}
	again, err := Load(f.path)
	if err != nil {
		t.Fatal(err)
	}
	alice, bob, nobody := factors(f, "alice"), factors(f, "bob"), factors(f, "nobody")
	if len(alice) != len(nobody) || !strings.HasSuffix(nobody, ",i=4096") || nobody == bob {
		t.Errorf("alice is shown %q, bob %q, nobody %q", alice, bob, nobody)
	}
	if factors(f, "nobody") != nobody || factors(again, "nobody") != nobody || factors(again, "bob") != bob {
		t.Error("a decoy changes from one conversation or one load to the next")
	}
}

func TestSCRAMMalformed(t *testing.T) {
	f := scramFile(t)
	for _, message := range []string{
		"", ",", "n,,", "n,,n=alice", "n,,n=al=ice,r=x", "y,,m=x,n=alice,r=x", "p=tls-unique,,n=alice,r=x",
		"n,a=carol,n=alice,r=x", "\x00\xff", strings.Repeat("n,", 30000),
	} {
		c := f.SCRAM()
		if out, done, err := c.Step([]byte(message)); err == nil || done || out != nil {
			t.Errorf("%.20q is answered with %q, %v", message, out, done)
		} else if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x00\n") {
			t.Errorf("%.20q gives an error that no log line should have", message)
		}
		if _, done, err := c.Step([]byte(message)); err == nil || done {
			t.Errorf("%.20q: the conversation goes on after an error", message)
		}
	}
}

func TestSCRAMFinalMalformed(t *testing.T) {
	f := scramFile(t)
	for _, final := range []string{"", "c=biws", "c=biws,r=other,p=AAAA", "c=AAAA,r=x,p=AAAA", "c=biws,r=x,p=!"} {
		c := f.SCRAM()
		if _, _, err := c.Step([]byte("n,,n=alice,r=x")); err != nil {
			t.Fatal(err)
		}
		if out, done, err := c.Step([]byte(final)); err == nil || done || out != nil || c.User() != "" {
			t.Errorf("%q is answered with %q, %v", final, out, done)
		}
	}
}

func TestVerifierOfUnusableText(t *testing.T) {
	if _, err := newVerifier("al\u202eice", []byte("s3cret")); err == nil {
		t.Error("a name that SASLprep forbids has a verifier")
	}
	_, err := newVerifier("alice", []byte("tell\x07tale"))
	if err == nil || strings.Contains(err.Error(), "tell") {
		t.Errorf("a password that SASLprep forbids: %v", err)
	}
}

package credentials

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The lines of these tests are cheap to verify: the password is s3cret everywhere.
const (
	cheapArgon2id = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$Yfqpz3D9obx+eDZ4YPGzZOkiThH/xvASjGPNEVUqxjk"
	cheapPBKDF2   = "$7$2$c29tZXNhbHRzb21l$OGbngnguu+oZVMv3Q75LpH7Icd3eCNpdjjGmnaRGAD+iUfnx+AYcKdAbi1+VvAYWibMvBvMxUujEPk1EsugFIQ=="
	cheapVerifier = "SCRAM-SHA-256$4096:c29tZXNhbHRzb21lc2FsdA==$" + key1 + ":" + key2
	key1          = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	key2          = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, text string) *File {
	t.Helper()
	f, err := Load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLoadTolerates(t *testing.T) {
	f := load(t, "# comment\r\n\r\n  \n#alice:x\nalice:"+cheapArgon2id+"\r\n\t bob smith : "+cheapPBKDF2+" \n"+
		"carol:"+cheapPBKDF2+":\ndave:"+cheapArgon2id+": "+cheapVerifier+"  ")
	for _, user := range []string{"alice", "bob smith", "carol", "dave"} {
		if !f.Verify(user, []byte("s3cret")) {
			t.Errorf("%s is refused", user)
		}
	}
	if f.Len() != 4 || f.MemoryMaxBytes() != 64<<10 {
		t.Errorf("%d users, %d bytes", f.Len(), f.MemoryMaxBytes())
	}
	for _, user := range []string{"", "#alice", "Alice", "alice ", "nobody"} {
		if f.Verify(user, []byte("s3cret")) {
			t.Errorf("%q is accepted", user)
		}
	}
}

func TestLoadEmpty(t *testing.T) {
	if f := load(t, "\n# nobody yet\n"); f.Verify("", nil) || f.Verify("alice", nil) || f.Len() != 0 {
		t.Error("an empty file lets somebody in")
	}
}

func TestLoadRefuses(t *testing.T) {
	good := "alice:" + cheapArgon2id + "\n"
	for _, tt := range []struct{ name, text, want string }{
		{"plain text", good + "\nbob:hello\n", ":3: user \"bob\": the password is not hashed: run ringmq passwd -U"},
		{"no colon", good + "bob\n", ":2: user \"bob\" has no password hash"},
		{"no hash", good + "bob:\n", ":2: user \"bob\" has no password hash"},
		{"no user", ":" + cheapArgon2id, ":1: the user name is empty"},
		{"duplicate", good + "# x\n" + good, ":3: user \"alice\" stands already in line 1: remove one"},
		{"control character", "al\x07ice:" + cheapArgon2id, ":1: user name \"al\\aice\" has a control character"},
		{"not UTF-8", "al\xffice:" + cheapArgon2id, ":1: the user name is not UTF-8"},
		{"byte order mark", "\ufeff" + good, ":1: the user name starts with a byte order mark"},
		{"byte order mark before a comment", "\ufeff# users\n" + good, ":1: the user name starts with a byte order mark"},
		{"too long", strings.Repeat("a", 65536) + ":" + cheapArgon2id, ":1: the user name has 65536 bytes"},
		{"4 GiB", "a:$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHQ", "m=4194304 KiB is more than the 262144"},
		{"other verifier", good[:len(good)-1] + ":SCRAM-SHA-1$4096:x$y:z", "SCRAM-SHA-256$ITERATIONS"},
		{"few iterations", good[:len(good)-1] + ":SCRAM-SHA-256$100:x$y:z", "iterations \"100\" are not 4096"},
		{"not base64", good[:len(good)-1] + ":SCRAM-SHA-256$4096:x$y:z", "not base64"},
		{"short key", good[:len(good)-1] + ":SCRAM-SHA-256$4096:c29tZXNhbHQ=$eA==:eA==", "a key not 32"},
		{"same name for SCRAM", "\u2168:" + cheapArgon2id + ":" + cheapVerifier + "\nIX:" + cheapArgon2id + ":" + cheapVerifier, "are the same name"},
		{"no name for SCRAM", "\u200d:" + cheapArgon2id + ":" + cheapVerifier, "nothing is left"},
	} {
		path := write(t, tt.text)
		_, err := Load(path)
		if err == nil || !strings.HasPrefix(err.Error(), path+":") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v does not say %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hello") {
			t.Errorf("%s: error %v tells a password", tt.name, err)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a folder is loaded")
	}
}

func TestWarnings(t *testing.T) {
	path := write(t, "alice:"+cheapArgon2id+"\nbob:"+cheapPBKDF2+"\ncarol:"+cheapPBKDF2+"\n")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(f.Warnings(), "\n")
	for _, want := range []string{path + ":2: ", "cracked quickly: 2", "chmod o-r " + path} {
		if !strings.Contains(got, want) {
			t.Errorf("warnings %q do not say %q", got, want)
		}
	}
	if f := load(t, "alice:"+cheapArgon2id); len(f.Warnings()) != 0 {
		t.Errorf("warnings of a good file: %q", f.Warnings())
	}
}

// An unknown user costs what most users cost: the decoy has the cost of the most common line.
func TestDecoyHasTheMostCommonCost(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Kind
	}{
		{"a:" + cheapPBKDF2 + "\nb:" + cheapArgon2id + "\nc:" + cheapArgon2id, Argon2id},
		{"a:" + cheapPBKDF2 + "\nb:" + cheapArgon2id + "\nc:" + cheapPBKDF2, PBKDF2},
		{"a:" + cheapPBKDF2 + "\nb:" + cheapArgon2id, PBKDF2},
	} {
		f := load(t, tt.text)
		if f.decoy.cost.kind != tt.want || f.Verify("nobody", []byte("s3cret")) {
			t.Errorf("%q: the decoy is %v", tt.text, f.decoy.cost)
		}
	}
}

func TestVerifyFromManyGoroutines(t *testing.T) {
	f := load(t, "alice:"+cheapArgon2id+"\nbob:"+cheapPBKDF2+":"+cheapVerifier)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				if !f.Verify("alice", []byte("s3cret")) || !f.Verify("bob", []byte("s3cret")) || f.Verify("carol", []byte("s3cret")) {
					t.Error("the wrong answer")
				}
				if _, _, err := f.SCRAM().Step([]byte("n,,n=bob,r=nonce")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("# c\r\nalice:" + cheapArgon2id + ":" + cheapVerifier + "\r\nbob:" + cheapPBKDF2 + "\n"))
	for _, name := range []string{"debian.passwd", "argon2id.passwd"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parse("fuzz", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz:") {
				t.Errorf("error %v names no line", err)
			}
			return
		}
		for user, e := range file.users {
			line := user + ":" + e.hash.String()
			if e.verifier != nil {
				line += ":" + formatVerifier(*e.verifier)
			}
			again, err := parse("again", []byte(line))
			if err != nil || again.users[user].hash.String() != e.hash.String() {
				t.Errorf("%q does not read back: %v", line, err)
			} else if v := again.users[user].verifier; (v == nil) != (e.verifier == nil) || v != nil && formatVerifier(*v) != formatVerifier(*e.verifier) {
				t.Errorf("the verifier of %q does not read back", line)
			}
			if out, found := replaceUser(data, user, line); !found {
				t.Errorf("user %q is not found for replacement in %q", user, out)
			}
		}
	})
}

package credentials

import (
	"strings"
	"testing"
)

func TestVectorsOfOtherPrograms(t *testing.T) {
	for _, tt := range []struct{ file, user, password string }{
		{"debian.passwd", "alice", "wonderland-1865"},
		{"debian.passwd", "bøb", "påss word:$7$"},
		{"debian.passwd", "carol", "tea at six"},
		{"argon2id.passwd", "alice", "wonderland-1865"},
		{"argon2id.passwd", "bøb", "påss word:$7$"},
	} {
		t.Run(tt.file+"/"+tt.user, func(t *testing.T) {
			f, err := Load("testdata/" + tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if !f.Verify(tt.user, []byte(tt.password)) {
				t.Error("the right password is refused")
			}
			for _, wrong := range []string{"", tt.password + " ", tt.password[1:], strings.ToUpper(tt.password)} {
				if f.Verify(tt.user, []byte(wrong)) {
					t.Errorf("the wrong password %q is accepted", wrong)
				}
			}
		})
	}
}

func TestHashRoundTrip(t *testing.T) {
	for _, kind := range []Kind{Argon2id, PBKDF2} {
		h, err := newHash(kind, []byte("s3cret"))
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseHash(h.String())
		if err != nil {
			t.Fatalf("%s: %v", h, err)
		}
		if back.String() != h.String() || back.cost != h.cost {
			t.Errorf("%s became %s", h, back)
		}
		if !back.matches([]byte("s3cret")) || back.matches([]byte("s3cre")) {
			t.Errorf("%v: the wrong password matches or the right one does not", kind)
		}
		if d := h.decoy(); d.cost != h.cost || len(d.digest) != len(h.digest) || string(d.digest) == string(h.digest) {
			t.Errorf("%v: the decoy is the hash or costs something else", kind)
		}
	}
	if _, err := newHash(SHA512, []byte("s3cret")); err == nil {
		t.Error("a single SHA-512 is written")
	}
}

func TestParseKind(t *testing.T) {
	for _, kind := range []Kind{Argon2id, PBKDF2} {
		if got, err := ParseKind(kind.String()); err != nil || got != kind {
			t.Errorf("ParseKind(%q) = %v, %v", kind.String(), got, err)
		}
	}
	for _, name := range []string{"", "sha512", "md5", "Argon2id"} {
		if _, err := ParseKind(name); err == nil {
			t.Errorf("ParseKind(%q) has no error", name)
		}
	}
}

func TestHashRefused(t *testing.T) {
	const salt, digest = "c29tZXNhbHRzb21lc2FsdA", "NjGNGLO4fY/2oBFWUYArvLPf5tmRgZDLPptXGC73uVY"
	argon := func(parameters string) string { return "$argon2id$" + parameters + "$" + salt + "$" + digest }
	for _, tt := range []struct{ text, want string }{
		{"plain", "passwd -U"},
		{"$5$x$y", "none of"},
		{"$argon2id$", "$argon2id$v=19"},
		{"$argon2id$$$", "parameters"},
		{argon("v=16$m=4096,t=3,p=1"), "parameters"},
		{argon("v=19$m=4096,t=3,p=1,x=1"), "parameters"},
		{argon("v=19$m=4096,t=+3,p=1"), "parameters"},
		{argon("v=19$m=4194304,t=3,p=1"), "m=4194304 KiB is more"},
		{argon("v=19$m=99999999999999,t=3,p=1"), "parameters"},
		{argon("v=19$m=4096,t=0,p=1"), "t=0"},
		{argon("v=19$m=4096,t=11,p=1"), "t=11"},
		{argon("v=19$m=4096,t=1,p=0"), "p=0"},
		{argon("v=19$m=4096,t=1,p=17"), "p=17"},
		{argon("v=19$m=15,t=1,p=2"), "8 KiB"},
		{"$argon2id$v=19$m=4096,t=1,p=1$c2FsdA$" + digest, "salt"},
		{"$argon2id$v=19$m=4096,t=1,p=1$" + salt + "$c2FsdA", "digest"},
		{"$argon2id$v=19$m=4096,t=1,p=1$" + salt + "$" + digest + "=", "base64"},
		{"$7$", "$7$ITERATIONS"},
		{"$7$x$y$z", "$7$ITERATIONS"},
		{"$7$0$y$z", "0 iterations"},
		{"$7$4000000$y$z", "4000000 iterations"},
		{"$7$101$c29tZXNhbHRzb21lc2FsdA==", "no digest"},
		{"$7$101$c29tZXNhbHRzb21lc2FsdA==$c29tZXNhbHRzb21lc2FsdA==", "16 bytes, not 64"},
		{"$6$c29tZXNhbHRzb21lc2FsdA==$!", "base64"},
	} {
		if _, err := parseHash(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("parseHash(%q): error %v does not say %q", tt.text, err, tt.want)
		}
	}
}

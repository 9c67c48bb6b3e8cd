package credentials

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSetKeepsTheRest(t *testing.T) {
	const others = "# the kitchen\r\n\r\ncarol : " + cheapPBKDF2 + "\r\n"
	const bob = "bob:" + cheapArgon2id + ":" + cheapVerifier // no newline at the end
	path := write(t, others+"alice:old\r\n"+bob)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "dave"} {
		if err := Set(path, user, []byte("new of "+user), Argon2id); err != nil {
			t.Fatal(err)
		}
	}
	got := text(t, path)
	rest, found := strings.CutPrefix(got, others+"alice:$argon2id$v=19$m=47104,t=1,p=1$")
	if _, end, _ := strings.Cut(rest, "\r\n"); !found || !strings.HasPrefix(end, bob+"\ndave:$argon2id$") || !strings.HasSuffix(end, "\n") {
		t.Errorf("the file became %q", got)
	}
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Verify("alice", []byte("new of alice")) || !f.Verify("dave", []byte("new of dave")) || !f.Verify("carol", []byte("s3cret")) {
		t.Error("a password is refused")
	}
	c := f.SCRAM()
	if _, done, err := converse(t, c, "alice", "new of alice"); !done || c.User() != "alice" {
		t.Errorf("SCRAM with the new password: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	alone(t, path)
}

// alone fails when temporary files are left in the file's folder.
func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}

func TestSetRepairsDuplicates(t *testing.T) {
	path := write(t, "alice:x\nbob:"+cheapPBKDF2+"\nalice:y\n")
	if err := Set(path, "alice", []byte("s3cret"), Argon2id); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil || f.Len() != 2 || !f.Verify("alice", []byte("s3cret")) || f.users["alice"].line != 1 {
		t.Errorf("%v: %q", err, text(t, path))
	}
}

func TestSetFollowsLinks(t *testing.T) {
	path := write(t, "")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := Set(link, "alice", []byte("s3cret"), Argon2id); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 || text(t, path) == "" {
		t.Errorf("the link became a file: %v", err)
	}
	alone(t, path)
}

func TestSetRefuses(t *testing.T) {
	long := strings.Repeat("x", 65536)
	for _, tt := range []struct{ user, password, want string }{
		{"", "p", "user name is empty"},
		{"a:b", "p", "':'"},
		{"#a", "p", "'#'"},
		{" a", "p", "blank"},
		{"a\t", "p", "blank"},
		{"a\nb", "p", "control"},
		{"a\u0085b", "p", "control"},
		{"a\xff", "p", "UTF-8"},
		{long, "p", "65536 bytes"},
		{"alice", "", "password is empty"},
		{"alice", long, "65536 bytes"},
		{"alice", "a\x00b", "SCRAM"},
	} {
		path := write(t, "keep\n")
		err := Set(path, tt.user, []byte(tt.password), Argon2id)
		if err == nil || !strings.Contains(err.Error(), tt.want) || text(t, path) != "keep\n" {
			t.Errorf("%.10q %.10q: error %v does not say %q", tt.user, tt.password, err, tt.want)
		}
	}
	if err := Set(write(t, ""), "alice", []byte("p"), SHA512); err == nil {
		t.Error("a single SHA-512 is written")
	}
	path := filepath.Join(t.TempDir(), "none")
	if err := Set(path, "alice", []byte("p"), Argon2id); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "-c") {
		t.Errorf("missing file: %v", err)
	}
	if err := Set(t.TempDir(), "alice", []byte("p"), Argon2id); err == nil {
		t.Error("a folder is replaced")
	}
}

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	for range 2 { // The second replaces the first.
		if err := Create(path, "alice", []byte("s3cret"), Argon2id); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || strings.Count(text(t, path), "\n") != 1 {
		t.Errorf("%v, %v: %q", info.Mode(), err, text(t, path))
	}
	alone(t, path)
}

func TestDelete(t *testing.T) {
	path := write(t, "# c\nalice:x\nbob:y")
	if err := Delete(path, "alice"); err != nil || text(t, path) != "# c\nbob:y" {
		t.Errorf("%v: %q", err, text(t, path))
	}
	if err := Delete(path, "alice"); !errors.Is(err, ErrNoUser) || text(t, path) != "# c\nbob:y" {
		t.Errorf("%v: %q", err, text(t, path))
	}
}

func TestUpgrade(t *testing.T) {
	path := write(t, "# plain\nalice: wonder land \r\nbob:"+cheapPBKDF2+"\ncarol:$6$x")
	hashed, err := Upgrade(path, Argon2id)
	if err != nil || hashed != 2 {
		t.Fatal(hashed, err)
	}
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for user, password := range map[string]string{"alice": "wonder land", "bob": "s3cret", "carol": "$6$x"} {
		if !f.Verify(user, []byte(password)) {
			t.Errorf("%s is refused", user)
		}
	}
	if !strings.HasPrefix(text(t, path), "# plain\nalice:$argon2id$") || strings.Count(text(t, path), "\r\n") != 1 {
		t.Errorf("the file became %q", text(t, path))
	}
	for _, bad := range []string{"alice:a:b\n", "alice:\n", "al\x01ice:x\n"} {
		path := write(t, bad+"bob:plain\n")
		hashed, err := Upgrade(path, Argon2id)
		if err == nil || hashed != 0 || !strings.HasPrefix(err.Error(), path+":1: ") || text(t, path) != bad+"bob:plain\n" {
			t.Errorf("%q: %d, %v", bad, hashed, err)
		}
	}
}

// Writers at the same time lose nothing.
func TestSetFromManyGoroutines(t *testing.T) {
	path := write(t, "")
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if err := edit(path, func(data []byte) ([]byte, error) {
				return fmt.Appendf(data, "user%d:%s\n", i, cheapPBKDF2), nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if f, err := Load(path); err != nil || f.Len() != 8 {
		t.Errorf("%v: %q", err, text(t, path))
	}
}

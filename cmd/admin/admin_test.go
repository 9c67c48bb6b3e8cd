package admin

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serving(t *testing.T, path string) (*Server, *Client) {
	t.Helper()
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Answer("GET /v1/seven", func(*http.Request) (any, error) { return map[string]int{"n": 7}, nil })
	s.Answer("GET /v1/fails", func(*http.Request) (any, error) { return nil, Errorf(http.StatusConflict, "not %s", "now") })
	s.Answer("POST /v1/echo", func(r *http.Request) (any, error) {
		b, err := io.ReadAll(r.Body)
		return string(b), err
	})
	s.Start()
	c := NewClient(path)
	t.Cleanup(func() {
		c.http.CloseIdleConnections()
		_ = s.Close()
	})
	return s, c
}

func TestAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "a.sock")
	s, c := serving(t, path)
	var got struct{ N int }
	if err := c.Get(t.Context(), "/v1/seven", &got); err != nil || got.N != 7 {
		t.Error(got, err)
	}
	if err := c.Get(t.Context(), "/v1/fails", nil); err == nil || err.Error() != "not now" {
		t.Error(err)
	}
	echo := ""
	if err := c.Post(t.Context(), "/v1/echo", []int{1, 2}, &echo); err != nil || echo != "[1,2]" {
		t.Errorf("%q, %v", echo, err)
	}
	if err := c.Get(t.Context(), "/v2/seven", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
	if err := c.Post(t.Context(), "/v1/echo", strings.Repeat("x", requestMaxBytes+1), nil); err == nil {
		t.Error("a request beyond the limit is taken")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("Close leaves the socket")
	}
}

// TestClosedTwice: a connection that two goroutines close gives one place back.
func TestClosedTwice(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l := &limited{Listener: listener, room: make(chan struct{}, 2)}
	for range 2 {
		c, err := net.Dial("unix", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var accepted []net.Conn
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		accepted = append(accepted, c)
	}
	var closing sync.WaitGroup
	for range 2 {
		closing.Go(func() { _ = accepted[0].Close() })
	}
	closing.Wait()
	if len(l.room) != 1 {
		t.Errorf("%d places are taken by one connection", len(l.room))
	}
}

// TestLeftSocket: one that a crash has left is replaced, one in use and what is no socket are not.
func TestLeftSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	_, c := serving(t, path)
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another broker") {
		t.Error(err)
	}
	if err := c.Get(t.Context(), "/v1/seven", nil); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Error(err)
	}
}

// TestSharedDirectory: a directory in the one for temporary files has to be this user's alone.
func TestSharedDirectory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	directory := sharedDirectory()
	listen := func() error {
		s, err := Listen(pathIn(directory, 1))
		if err == nil {
			_ = s.listener.Close()
		}
		return err
	}
	if err := listen(); err != nil { // which makes it
		t.Fatal(err)
	}
	if err := os.Chmod(directory, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := listen(); err == nil || !strings.Contains(err.Error(), "not this user's alone") {
		t.Errorf("a directory that all may write to: %v", err)
	}
	if err := errors.Join(os.Rename(directory, directory+"-2"), os.Chmod(directory+"-2", 0o750), os.Symlink(directory+"-2", directory)); err != nil {
		t.Fatal(err)
	}
	if err := listen(); err == nil || !strings.Contains(err.Error(), "not this user's alone") {
		t.Errorf("a link: %v", err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	find := func(meant string) (string, error) { return findIn(dir, meant) }
	if _, err := find(""); err == nil || !strings.Contains(err.Error(), "ringmq serve") {
		t.Error(err)
	}
	one, two := pathIn(dir, 1), pathIn(dir, 2)
	serving(t, one)
	if path, err := find(""); err != nil || path != one {
		t.Error(path, err)
	}
	serving(t, two)
	if _, err := find(""); err == nil || !strings.Contains(err.Error(), two) {
		t.Error(err)
	}
	if path, err := find("2"); err != nil || path != two {
		t.Error(path, err)
	}
	if _, err := find("3"); err == nil {
		t.Error("a broker that does not run is found")
	}
}

// TestRunningSweeps removes what a crashed broker has left.
func TestRunningSweeps(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: pathIn(dir, 7), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	serving(t, pathIn(dir, 8))
	crashed := pathIn(t.TempDir(), 9)
	if err := os.Link(pathIn(dir, 7), crashed); err != nil {
		t.Fatal(err)
	}
	if _, err := findIn(filepath.Dir(crashed), ""); err == nil || !strings.Contains(err.Error(), "crashed and left "+crashed) {
		t.Error(err)
	}
	paths, left := runningIn(dir)
	if len(paths) != 1 || len(left) != 1 || left[0] != pathIn(dir, 7) {
		t.Error(paths, left)
	}
	if _, err := os.Stat(pathIn(dir, 7)); !os.IsNotExist(err) {
		t.Error("the left socket is still there")
	}
}

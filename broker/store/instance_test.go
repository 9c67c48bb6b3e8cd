package store

import (
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// closings is a file system that counts how often a manifest that was made is closed, one of the last things that Pebble does when
// it is closed.
type closings struct {
	vfs.FS
	n atomic.Int64
}

// Create makes a file.
func (c *closings) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.Create(name, category)
	if err != nil || !strings.Contains(name, "MANIFEST") {
		return f, err
	}
	return &closing{f, c}, nil
}

// closing is a manifest.
type closing struct {
	vfs.File
	all *closings
}

// Close closes it.
func (c *closing) Close() error {
	c.all.n.Add(1)
	return c.File.Close()
}

// TestDiscardWaitsForUsers fails an instance under a goroutine that uses its database, which ends in each of the ways in which such
// a goroutine ends: the database is closed after that, and not before.
func TestDiscardWaitsForUsers(t *testing.T) {
	ends := map[string]func(){"returns": func() {}, "panics": func() { panic("on purpose") }, "is ended": runtime.Goexit}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			c := &closings{FS: vfs.NewMem()}
			s, _ := open(t, c)
			in, before := s.in, c.n.Load()
			failed, proceed := errors.New("damage"), make(chan struct{})
			if err := in.do(func(db *pebble.DB) error {
				in.fail(failed)
				<-proceed
				_, _ = get(db, []byte("key"))
				end()
				return nil
			}); !errors.Is(err, failed) {
				t.Errorf("do says %v", err)
			}
			in.discard()
			if err := in.do(func(*pebble.DB) error { t.Error("a failed instance is used"); return nil }); !errors.Is(err, failed) {
				t.Errorf("do says %v afterwards", err)
			}
			if isClosed := c.isAbove(before, 50*time.Millisecond); isClosed {
				t.Error("the database was closed while it was in use")
			}
			close(proceed)
			if !c.isAbove(before, 20*time.Second) {
				t.Error("the database was not closed after its last use")
			}
			_ = s.Close() // the writer has opened the store anew
		})
	}
}

// isAbove waits for the count to exceed a number.
func (c *closings) isAbove(n int64, most time.Duration) bool {
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if c.n.Load() > n {
			return true
		}
	}
	return false
}

// TestCloseWaitsForUsers closes a store whose statistics are being read, as an operator's may be at any time.
func TestCloseWaitsForUsers(t *testing.T) {
	s, _ := open(t, vfs.NewMem())
	in, begun, proceed, ended := s.in, make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- in.do(func(db *pebble.DB) error {
			close(begun)
			<-proceed
			return each(db, nil, nil, func([]byte, []byte) error { return nil })
		})
	}()
	<-begun
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		t.Fatal("the store was closed while it was in use: ", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(proceed)
	if err := errors.Join(<-ended, <-closed); err != nil {
		t.Error(err)
	}
	if _, err := s.Stats(false); !errors.Is(err, errClosed) {
		t.Errorf("a closed store says %v", err)
	}
}

// TestCloseWhateverFinishDoes closes an instance in order, and what is last done with it ends in each of the ways in which that ends.
func TestCloseWhateverFinishDoes(t *testing.T) {
	ends := map[string]func(){"returns": func() {}, "panics": func() { panic("on purpose") }, "is ended": runtime.Goexit}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			c := &closings{FS: vfs.NewMem()}
			s, _ := open(t, c)
			before := c.n.Load()
			err := s.in.close(func(*pebble.DB) error { end(); return nil })
			if (err == nil) != (name == "returns") {
				t.Errorf("close says %v", err)
			}
			if !c.isAbove(before, 20*time.Second) {
				t.Error("the database was not closed")
			}
			s.in.fail(errClosed) // what is closed is not closed again
			_ = s.Close()
		})
	}
}

// TestFailedInstanceRests has Pebble try in the background what it cannot do: beside an instance that has failed it waits between two
// tries, where its Open has failed it is ended, and when the instance is closed it is let go at once.
func TestFailedInstanceRests(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*instance)
		ended   bool
		least   time.Duration
	}{
		"failed": {func(*instance) {}, false, failedPace},
		"dead":   {func(in *instance) { close(in.dead) }, true, 0},
		"closes": {func(in *instance) { close(in.closes) }, false, 0},
	} {
		in := &instance{fence: newFence(vfs.NewMem(), "", false, func(error) {}), failed: make(chan struct{}), dead: make(chan struct{}), closes: make(chan struct{})}
		in.fail(errFenced)
		c.happens(in)
		returned, ended, start := false, make(chan struct{}), time.Now()
		go func() {
			defer close(ended)
			new(Store).onBackgroundError(in, errors.New("a table cannot be read"))
			returned = true
		}()
		<-ended
		if took := time.Since(start); returned == c.ended || took < c.least {
			t.Errorf("%s: it goes on: %v, after %v", name, returned, took)
		}
	}
}

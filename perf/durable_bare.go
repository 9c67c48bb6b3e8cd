package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ringmq/ringmq/perf/epoll"
)

// bareSync is a loop of write and fsync on a plain file of its own that grows, on the disk that a broker was just loaded on: as many bytes at a
// time, and as often, as that broker has committed. What a broker's acknowledgement takes is compared with it, because a disk that is
// asked seldom, or for little, or a minute later is another disk. Its time counts from when a write was due, as that of messages does: a
// disk that stands still for a tenth of a second is slow for everything that comes meanwhile and not for one write.
type bareSync struct {
	ctx    context.Context
	socket string // of the broker
	file   *os.File
	poll   *epoll.Poller // for its timer
	before storeCounts
	block  []byte
	took   []time.Duration
	length time.Duration
	warm   bool
}

// storeCounts is what a store has done since it was opened.
type storeCounts struct {
	Commits int64 `json:"commits"`
	Bytes   int64 `json:"bytes"`
}

func newBareSync(ctx context.Context, dir, socket string) (*bareSync, error) {
	b := &bareSync{ctx: ctx, socket: socket}
	err := b.ask(&b.before)
	if err == nil {
		b.file, err = os.Create(filepath.Join(dir, "plain"))
	}
	if err == nil {
		b.poll, err = epoll.New(1)
	}
	return b, err
}

func (b *bareSync) close() error {
	if b.poll != nil {
		b.poll.Close()
	}
	if b.file == nil {
		return nil
	}
	return errors.Join(b.file.Close(), os.Remove(b.file.Name()))
}

func (b *bareSync) ask(to any) error {
	response, err := getUnix(b.ctx, b.socket, "/v1/store")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(to)
}

// slice does as the broker did in the slice of its load that has just ended. The first one is warming up, as it is there.
func (b *bareSync) slice() error {
	var now storeCounts
	if err := b.ask(&now); err != nil {
		return err
	}
	commits, bytes := now.Commits-b.before.Commits, now.Bytes-b.before.Bytes
	b.before = now
	if commits == 0 {
		return errors.New("the store has committed nothing")
	}
	b.block = append(b.block[:0], make([]byte, bytes/commits)...)
	every := pacedSlice / time.Duration(commits)
	next := time.Now()
	for range commits {
		if err := b.sleep(next); err != nil {
			return err
		}
		if _, err := b.file.Write(b.block); err != nil {
			return err
		}
		if err := b.file.Sync(); err != nil {
			return err
		}
		if b.warm {
			b.took = append(b.took, time.Since(next))
		}
		next = next.Add(every)
	}
	if b.warm {
		b.length += pacedSlice
	}
	b.warm = true
	return nil
}

func (b *bareSync) sleep(until time.Time) error {
	for left := time.Until(until); left > 0; left = time.Until(until) {
		if err := b.poll.Arm(left); err != nil {
			return err
		}
		if _, err := b.poll.Wait(pacedSlice); err != nil {
			return err
		}
	}
	return b.ctx.Err()
}

// tellStages prints where the store says that the time went. That of a load at full speed just before counts, too.
func (b *bareSync) tellStages() error {
	type timing struct {
		P50 int64 `json:"p50_us"`
		P99 int64 `json:"p99_us"`
		Max int64 `json:"max_us"`
	}
	var stages struct {
		Wait   timing `json:"wait"`
		Commit timing `json:"commit"`
		Sync   timing `json:"sync"`
	}
	if err := b.ask(&stages); err != nil {
		return err
	}
	_, err := fmt.Fprintf(os.Stderr, "in the store, p50, p99 and longest in µs, of the last 20 s: wait %v, commit %v, of it fsync %v\n", stages.Wait, stages.Commit, stages.Sync)
	return err
}

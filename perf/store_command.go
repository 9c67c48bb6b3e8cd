package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ringmq/ringmq/perf/load"
)

// storeRun is one call of `perf store`: what a broker's store takes on disk and in memory, and how soon it is back.
type storeRun struct {
	sources
	sessions, messages, payload int
	durability                  string
	drain                       bool
	port                        int

	data, socket string
	server       *server
}

// runStore is `perf store`.
func runStore(ctx context.Context, args []string) error {
	r := storeRun{port: portFirst}
	flags := flag.NewFlagSet("perf store", flag.ContinueOnError)
	flags.IntVar(&r.sessions, "sessions", 1000, "Sessions whose clients are away")
	flags.IntVar(&r.messages, "messages", 1_000_000, "messages of QoS 1 queued for them in turn")
	flags.IntVar(&r.payload, "payload", 64, "bytes in each")
	flags.StringVar(&r.durability, "durability", "os", "fsync, os or none")
	flags.BoolVar(&r.drain, "drain", true, "then deliver all, queue a tenth again, and let the Sessions expire")
	on := flags.String("dir", os.TempDir(), "a directory on the disk to be measured")
	flags.StringVar(&r.ringmq, "ringmq", "", "a ringmq program to measure instead of building this checkout's")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if r.sessions < storeClients || r.messages < r.sessions {
		return fmt.Errorf("store: want at least %d sessions and a message for each", storeClients)
	}
	var err error
	if r.dir, err = os.MkdirTemp(*on, "ringmq-store"); err != nil {
		return err
	}
	defer os.RemoveAll(r.dir)
	if r.ringmq == "" {
		if r.ringmq, _, err = r.buildRingMQ(ctx); err != nil {
			return err
		}
	}
	r.data, r.socket = filepath.Join(r.dir, "data"), filepath.Join(r.dir, "admin")
	if err := os.Mkdir(r.data, 0o700); err != nil {
		return err
	}
	defer func() {
		if r.server != nil {
			r.server.stop()
		}
	}()
	return r.run(ctx)
}

func (r *storeRun) run(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"started", func() error { return r.start(ctx) }},
		{fmt.Sprintf("%d sessions", r.sessions), func() error { return r.makeSessions() }},
		{"killed, started again", func() error { return r.restart(ctx) }},
		{fmt.Sprintf("%d messages queued", r.messages), func() error { return r.queue(r.messages) }},
		{"20 s later", func() error { return wait(ctx, reclaimTime) }},
		{"killed, started again", func() error { return r.restart(ctx) }},
		{"all delivered", func() error { return r.deliver() }},
		{"20 s later", func() error { return wait(ctx, reclaimTime) }},
		{fmt.Sprintf("%d messages queued", r.messages/10), func() error { return r.queue(r.messages / 10) }},
		{"sessions expired", func() error { return r.expire() }},
		{"30 s later", func() error { return wait(ctx, reclaimTime+10*time.Second) }},
	} {
		if step.name == "all delivered" && !r.drain {
			return nil
		}
		start := time.Now()
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := r.tell(ctx, step.name, time.Since(start)); err != nil {
			return err
		}
	}
	return nil
}

// reclaimTime is how long the store gets to give space back: its reaper waits ten seconds, its flush of deleted ranges as long.
const reclaimTime = 20 * time.Second

// storeRoom is how many Sessions a broker may have beside those that are counted: at least two for each connection it may have.
const storeRoom = 50_000

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (r *storeRun) address() netip.AddrPort { return netip.AddrPortFrom(loopback(), uint16(r.port)) }

// start starts the broker and waits until it answers.
func (r *storeRun) start(ctx context.Context) (err error) {
	r.port++
	config := filepath.Join(r.dir, "ringmq.toml")
	text := fmt.Sprintf("memory = \"1GiB\"\nmax_sessions = %d\nmax_subscriptions = %d\n", r.sessions+storeRoom, r.sessions+storeRoom)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	r.server, err = startServer(ctx, []string{r.ringmq, "serve", "-c", config, "--mode", "standard", "-p", strconv.Itoa(r.port), "-q", "--admin", r.socket,
		"--data", r.data, "--durability", r.durability}, -1, r.address())
	if err != nil {
		return err
	}
	return awaitAnswer(ctx, r.socket)
}

// restart kills the broker and starts it on what it has left. A store without a log would lose everything, so that one is stopped.
func (r *storeRun) restart(ctx context.Context) error {
	if r.durability == "none" {
		r.server.stop()
	} else {
		_ = r.server.command.Process.Kill()
		<-r.server.ended
	}
	return r.start(ctx)
}

// tell prints a line of the table.
func (r *storeRun) tell(ctx context.Context, what string, took time.Duration) error {
	resident, err := load.ResidentMemory(r.server.command.Process.Pid)
	if err != nil {
		return err
	}
	used, err := r.onDisk()
	if err != nil {
		return err
	}
	response, err := getUnix(ctx, r.socket, "/v1/store")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var stats struct {
		WriteAmplification float64 `json:"write_amplification"`
		Commits            int64   `json:"commits"`
		Bytes              int64   `json:"bytes"`
	}
	if err := json.NewDecoder(response.Body).Decode(&stats); err != nil {
		return err
	}
	_, err = fmt.Printf("%-28s %9.3f s  resident %5d MiB  on disk %7.1f MiB  handed to the store %7.1f MiB in %7d commits, written %.2f times\n", what, took.Seconds(),
		resident>>20, float64(used)/(1<<20), float64(stats.Bytes)/(1<<20), stats.Commits, stats.WriteAmplification)
	return err
}

// onDisk is what the database takes, log included; the ballast is not counted.
func (r *storeRun) onDisk() (int64, error) { return allocatedBelow(filepath.Join(r.data, "db")) }

// allocatedBelow is what the files of a directory take on their disk.
func allocatedBelow(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was in use when the walk began
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += allocated(info)
		}
		return nil
	})
	return sum, err
}

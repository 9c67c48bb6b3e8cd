package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ringmq/ringmq/broker/record"
	"github.com/ringmq/ringmq/broker/store"
	"github.com/ringmq/ringmq/cmd/admin"
)

const storeDescription = `DIR is what ringmq serve --data names. stats and backup without DIR ask the running broker; everything else needs
the directory for itself.

Examples:
  ringmq store stats                             of the running broker: sizes and commits
  ringmq store backup /backup/monday             a copy from the running broker
  ringmq store backup /var/lib/ringmq /backup/x  a copy while no broker runs
  ringmq store check /var/lib/ringmq             read every record; exit 1 when one is damaged, or commits are gone
  ringmq store dump /var/lib/ringmq | jq .       every record as a line of JSON
  ringmq store compact /var/lib/ringmq           give space back`

func storeCommand() *cli.Command {
	return &cli.Command{
		Name:        "store",
		Usage:       "check, measure, print, compact and back up what a broker keeps",
		UsageText:   "ringmq store check|stats|dump|compact|backup [flags] [DIR]",
		Description: storeDescription,
		Subcommands: []*cli.Command{
			{Name: "check", Usage: "read every record", ArgsUsage: "DIR", Action: checkStore},
			{Name: "stats", Usage: "show sizes", ArgsUsage: "[DIR]", Action: showStoreStats,
				Flags: []cli.Flag{adminFlag(), &cli.BoolFlag{Name: "json", Usage: "print JSON"}}},
			{Name: "dump", Usage: "print every record as a line of JSON", ArgsUsage: "DIR", Action: dumpStore},
			{Name: "compact", Usage: "remove garbage and rewrite the tables", ArgsUsage: "DIR", Action: compactStore},
			{Name: "backup", Usage: "copy the store to TO", ArgsUsage: "[DIR] TO", Action: backupStore, Flags: []cli.Flag{adminFlag()}},
		},
	}
}

// withStore runs f on the store in the directory that is the command's one argument.
func withStore(c *cli.Context, readOnly bool, f func(*store.Store) error) error {
	if c.NArg() != 1 {
		return fmt.Errorf("store %s: name one directory, as in ringmq store %s /var/lib/ringmq", c.Command.Name, c.Command.Name)
	}
	return onStore(c, c.Args().First(), readOnly, f)
}

func onStore(c *cli.Context, dir string, readOnly bool, f func(*store.Store) error) error {
	s, err := store.OpenForTools(store.Config{Dir: dir}, readOnly)
	if name := c.Command.Name; errors.Is(err, store.ErrInUse) && (name == "stats" || name == "backup") {
		return fmt.Errorf("store %s: %w; or ask the broker that has it: ringmq store %s without %s", name, err, name, dir)
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", c.Command.Name, err)
	}
	if err := errors.Join(f(s), s.CloseTools()); err != nil {
		return fmt.Errorf("store %s: %w", c.Command.Name, err)
	}
	return nil
}

func checkStore(c *cli.Context) error {
	return withStore(c, true, func(s *store.Store) error {
		found, err := s.Check()
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(found.Records)) {
			fmt.Fprintf(c.App.Writer, "%d %s\n", found.Records[name], name)
		}
		for _, p := range found.Problems {
			fmt.Fprintln(c.App.Writer, p)
		}
		if found.Wrong > 0 {
			return fmt.Errorf("%d problems; ringmq serve starts all the same, skips what is damaged and says so", found.Wrong)
		}
		fmt.Fprintln(c.App.Writer, "the store is good")
		return nil
	})
}

func showStoreStats(c *cli.Context) error {
	var stats store.Stats
	if c.NArg() == 0 {
		client, ctx, stop, err := dialAdmin(c)
		if err != nil {
			return err
		}
		defer stop()
		if err := client.Get(ctx, "/v1/store", &stats); err != nil {
			return fmt.Errorf("store stats: %w", err)
		}
		return printStats(c, &stats)
	}
	return withStore(c, true, func(s *store.Store) (err error) {
		if stats, err = s.Stats(true); err != nil {
			return err
		}
		return printStats(c, &stats)
	})
}

func printStats(c *cli.Context, stats *store.Stats) error {
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(stats)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for _, name := range slices.Sorted(maps.Keys(stats.Records)) {
		k := stats.Records[name]
		fmt.Fprintf(w, "%s\t%d\t%d bytes\n", name, k.Count, k.Bytes)
	}
	if stats.DiskBytes > 0 { // otherwise it cannot be told
		fmt.Fprintf(w, "on disk\t%d\tbytes\nof it log\t%d\tbytes\n", stats.DiskBytes, stats.LogBytes)
	}
	if stats.Commits > 0 {
		fmt.Fprintf(w, "commits\t%d\twith %d batches, %d changes, %d bytes\n", stats.Commits, stats.Batches, stats.Changes, stats.Bytes)
		fmt.Fprintf(w, "write amplification\t%.2f\t\nfailures\t%d\t\n", stats.WriteAmplification, stats.Failures)
		printTimings(w, stats)
	}
	if stats.Expired > 0 {
		fmt.Fprintf(w, "expired\t%d\tmessages removed from queues\n", stats.Expired)
	}
	if stats.Refusing {
		fmt.Fprintf(w, "REFUSING\t\tsince %v: %s\n", stats.Since.Format(time.RFC3339), stats.Why)
	}
	if stats.LostCommits+stats.Salvages > 0 {
		fmt.Fprintf(w, "lost\t%d\tcommits that were made and are gone\nsalvages\t%d\twith %d records saved, %d lost, %d left for want of room, %d files gone or not read to their end\n",
			stats.LostCommits, stats.Salvages, stats.Salvaged, stats.LostRecords, stats.LeftRecords, stats.LostFiles)
		fmt.Fprintf(w, "given up\t%d\tmessages of QoS 2 that may have been delivered\n", stats.Doubted)
	}
	return w.Flush()
}

// printTimings prints where an acknowledgement's time goes; a tool that opened the store has waited for nothing.
func printTimings(w io.Writer, stats *store.Stats) {
	for _, t := range []struct {
		name string
		store.Timing
	}{{"wait for the commit before", stats.Wait}, {"commit", stats.Commit}, {"of it fsync of the log", stats.Sync}} {
		if t.Count > 0 {
			fmt.Fprintf(w, "%s\t%d\tin the last 20 s: p50 %d, p99 %d, longest %d µs\n", t.name, t.Count, t.P50, t.P99, t.Max)
		}
	}
}

func dumpStore(c *cli.Context) error {
	encoder := json.NewEncoder(c.App.Writer)
	return withStore(c, true, func(s *store.Store) error {
		return s.Records(func(key, value []byte) error { return encoder.Encode(describeRecord(key, value)) })
	})
}

// describeRecord is a record as the dump prints it.
func describeRecord(key, value []byte) map[string]any {
	kind := record.Kind(key[0])
	out := map[string]any{"record": store.KindName(kind), "bytes": len(key) + len(value)}
	number := func(name string, i int) {
		if n := record.Number(key, i); n != 0 {
			out[name] = strconv.FormatUint(n, 10) // beyond what a number of JSON holds exactly
		}
	}
	var err error
	switch kind {
	case record.KindSession:
		number("session", 0)
		var v record.Session
		err = v.Decode(value)
		out["client"], out["user"], out["expiry_s"], out["offline_since_ms"], out["will"] = v.ClientID, v.User, v.Expiry, v.Offline, len(v.Will) > 0
	case record.KindSubscription:
		number("session", 0)
		var v record.Subscription
		err = v.Decode(value)
		share, filter, _ := bytes.Cut(record.Rest(key, 1), []byte{0})
		if len(share) > 0 {
			out["share"] = string(share)
		}
		out["filter"], out["qos"], out["id"] = string(filter), v.QoS, v.ID
	case record.KindEntry:
		number("session", 0)
		number("position", 1)
		var v record.Entry
		err = v.Decode(value)
		out["packet_id"], out["qos"], out["released"] = record.PacketID(record.Number(key, 1)), v.Flags&record.EntryQoS, v.Flags&record.EntryReleased != 0
		if v.Mid != 0 {
			out["message"] = strconv.FormatUint(v.Mid, 10)
		} else {
			describeMessage(out, &v.Message)
		}
	case record.KindMessage, record.KindRetained:
		if kind == record.KindMessage {
			number("message", 0)
		}
		var v record.Message
		err = v.Decode(value)
		describeMessage(out, &v)
	case record.KindReference:
		number("message", 0)
		number("session", 1)
		number("position", 2)
	default:
		number("session", 0)
	}
	if err != nil {
		out["damaged"] = true
	}
	return out
}

func describeMessage(out map[string]any, m *record.Message) {
	out["topic"], out["payload_bytes"] = string(m.Topic), len(m.Payload)
	if m.Expires != 0 {
		out["expires_ms"] = m.Expires
	}
}

func compactStore(c *cli.Context) error {
	var before store.Stats
	err := withStore(c, false, func(s *store.Store) (err error) {
		if before, err = s.Stats(false); err != nil {
			return err
		}
		if err := s.Compact(); err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	// What the old tables took is given back when the store is closed.
	return withStore(c, true, func(s *store.Store) error {
		after, err := s.Stats(false)
		fmt.Fprintf(c.App.Writer, "%d bytes on disk, before %d\n", after.DiskBytes, before.DiskBytes)
		return err
	})
}

func backupStore(c *cli.Context) error {
	if c.NArg() < 1 || c.NArg() > 2 {
		return errors.New("store backup: name the directory to write, or the store's and that, as in ringmq store backup /var/lib/ringmq /backup/monday")
	}
	to, err := filepath.Abs(c.Args().Get(c.NArg() - 1))
	if err != nil {
		return fmt.Errorf("store backup: %w", err)
	}
	if c.NArg() == 2 {
		if err := onStore(c, c.Args().First(), false, func(s *store.Store) error { return s.Backup(to) }); err != nil {
			return err
		}
		return checkCopy(c, to)
	}
	path, err := admin.Find(c.String("admin"))
	if err != nil {
		return fmt.Errorf("store backup: %w", err)
	}
	var done struct{}
	if err := admin.NewClient(path).Post(c.Context, "/v1/store/backup", backupRequest{To: to}, &done); err != nil {
		return fmt.Errorf("store backup: %w", err)
	}
	return checkCopy(c, to)
}

// checkCopy reads what was written: a copy of a damaged store is damaged, and better known to be so now than when it is needed.
func checkCopy(c *cli.Context, to string) error {
	return onStore(c, to, true, func(s *store.Store) error {
		found, err := s.Check()
		if err == nil && found.Wrong == 0 {
			return nil
		}
		problem, _, _ := strings.Cut(fmt.Sprint(append(found.Problems, fmt.Sprint(err))[0]), "\n")
		return fmt.Errorf("%s is written, but has problems, the first: %s; ringmq serve starts on it all the same and skips what is damaged", to, problem)
	})
}

// backupRequest asks a running broker for a backup.
type backupRequest struct {
	To string `json:"to"` // an absolute path
}

// handle answers what ringmq store asks of a running broker.
func (d *durable) handle(s *admin.Server) {
	none := func(*http.Request) (any, error) {
		return nil, admin.Errorf(http.StatusNotFound, "this broker keeps nothing: it runs without --data")
	}
	if d == nil {
		s.Answer("GET /v1/store", none)
		s.Answer("POST /v1/store/backup", none)
		return
	}
	s.Answer("GET /v1/store", func(r *http.Request) (any, error) { return d.store.Stats(r.URL.Query().Get("records") == "true") })
	s.Answer("POST /v1/store/backup", func(r *http.Request) (any, error) {
		var in backupRequest
		text, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(text, &in)
		}
		if err != nil || !filepath.IsAbs(in.To) {
			return nil, admin.Errorf(http.StatusBadRequest, "want {\"to\": an absolute path}")
		}
		return struct{}{}, d.store.Backup(in.To)
	})
}

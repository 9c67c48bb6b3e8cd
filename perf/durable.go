package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// durableCase is one broker at one level of durability. config writes what it needs into dir and returns how to start it on a port.
type durableCase struct {
	name   string
	config func(s sources, dir string, port int) ([]string, error)
}

// syncingCase is RingMQ with fsync.
const syncingCase = "ringmq-fsync"

// adminSocket is where a broker with that directory is asked.
func adminSocket(data string) string { return data + ".admin" }

func durableCases() []durableCase {
	ringmq := func(durability string) func(sources, string, int) ([]string, error) {
		return func(s sources, dir string, port int) ([]string, error) {
			return []string{s.ringmq, "serve", "--mode", "standard", "-p", strconv.Itoa(port), "-q", "--admin", adminSocket(dir), "--data", dir, "--durability", durability}, nil
		}
	}
	return []durableCase{
		{syncingCase, ringmq("fsync")}, {"ringmq-os", ringmq("os")}, {"ringmq-none", ringmq("none")},
		{"mosquitto", mosquittoDurable}, {"mochi-sync", mochiDurable}, {"nats-sync", natsDurable},
	}
}

// mosquittoDurable is Mosquitto with its persistence: it writes all of it every 30 minutes and at its end.
func mosquittoDurable(_ sources, dir string, port int) ([]string, error) {
	file := filepath.Join(dir, "mosquitto.conf")
	text := fmt.Sprintf("user root\nlistener %d %s\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n"+
		"persistence true\npersistence_location %s/\nsys_interval 0\nlog_type error\n", port, loopback(), dir)
	return []string{"mosquitto", "-c", file}, os.WriteFile(file, []byte(text), 0o644)
}

// natsDurable is NATS with JetStream that syncs before it acknowledges.
func natsDurable(s sources, dir string, port int) ([]string, error) {
	file := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("server_name: perf\nhost: %[3]s\nport: -1\nmax_connections: 100000\njetstream { store_dir: %[1]q, sync_interval: always }\n"+
		"mqtt { host: %[3]s, port: %[2]d, max_ack_pending: 16000 }\n", dir, port, loopback())
	return []string{filepath.Join(s.dir, "nats-server"), "-c", file}, os.WriteFile(file, []byte(text), 0o644)
}

// mochiDurable is mochi with its Pebble hook, which hands every write to Pebble and asks for a sync.
func mochiDurable(s sources, dir string, port int) ([]string, error) {
	return []string{filepath.Join(s.dir, "mochi", "broker"), fmt.Sprintf("%s:%d", loopback(), port), dir}, nil
}

// runDurable is `perf durable`.
func runDurable(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("perf durable", flag.ContinueOnError)
	names := flags.String("targets", "ringmq-fsync,ringmq-os,mosquitto", "some of ringmq-fsync, ringmq-os, ringmq-none, mosquitto, mochi-sync, nats-sync")
	publishers := flags.String("publishers", "1,100,1000", "how many publish at a time")
	receivers := flags.String("receivers", "absent,present", "some of absent, present, returning: the Sessions that the messages are for; what is measured of the last is how they take their queues up")
	seconds := flags.Float64("seconds", 3, "length of each measured part")
	rounds := flags.Int("rounds", 3, "how often each is run; medians are shown")
	half := flags.Bool("half", false, "then publish at half of that rate: the time until the acknowledgement counts from when a message was due")
	rate := flags.Float64("rate", 0, "instead of that, publish so many messages per second in all")
	on := flags.String("dir", os.TempDir(), "a directory on the disk to be measured")
	payload := flags.Int("payload", 64, "bytes of each message, which are noise")
	window := flags.Int("window", 16, "messages that each publisher has in flight")
	built := flags.String("ringmq", "", "ringmq programs, separated by commas, to measure in turn instead of building this checkout's")
	profiles := flags.String("profiles", "", "a directory for a CPU profile of each measurement of a ringmq at full speed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(*on, "ringmq-durable")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := durableRun{sources: sources{dir: dir}, seconds: *seconds, half: *half, rate: *rate, payload: *payload, window: *window, profiles: *profiles,
		port: portFirst, results: map[string][]durableResult{}}
	if *built != "" {
		d.programs = strings.Split(*built, ",")
	}
	chosen := strings.Split(*names, ",")
	if err := d.prepare(ctx, chosen); err != nil {
		return err
	}
	for range *rounds {
		for _, who := range strings.Split(*receivers, ",") {
			for _, n := range strings.Split(*publishers, ",") {
				count, err := strconv.Atoi(n)
				if err != nil {
					return fmt.Errorf("-publishers: %w", err)
				}
				if err := d.round(ctx, chosen, count, who); err != nil {
					return err
				}
			}
		}
	}
	d.print()
	return nil
}

// durableRun is one call of `perf durable`.
type durableRun struct {
	sources
	programs []string // of RingMQ
	seconds  float64
	half     bool
	rate     float64
	payload  int
	window   int
	profiles string
	port     int
	rows     []string
	results  map[string][]durableResult
}

func (d *durableRun) prepare(ctx context.Context, names []string) error {
	var err error
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "ringmq") && len(d.programs) == 0:
			var program string
			if program, _, err = d.buildRingMQ(ctx); err != nil {
				return err
			}
			d.programs = []string{program}
		case name == "nats-sync":
			_, err = prepareNATS(ctx, d.sources)
		case name == "mochi-sync":
			_, err = prepareMochi(ctx, d.sources)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// round measures the disk and then every target once, so that all saw the same machine.
func (d *durableRun) round(ctx context.Context, names []string, publishers int, receivers string) error {
	load := durableLoad{publishers: publishers, receivers: receivers, window: d.window, payload: d.payload, duration: time.Duration(d.seconds * float64(time.Second))}
	if d.rate == 0 && receivers != returning {
		if err := d.measureBare(load); err != nil {
			return err
		}
	}
	for _, c := range durableCases() {
		if !slices.Contains(names, c.name) {
			continue
		}
		for _, program := range d.programsOf(c) {
			d.ringmq = program
			if err := d.measure(ctx, c, load); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return nil
}

// isRingMQ says whether a case is RingMQ.
func (c durableCase) isRingMQ() bool { return strings.HasPrefix(c.name, "ringmq") }

// programsOf are the programs that a case is measured with: of other brokers, the one that there is.
func (d *durableRun) programsOf(c durableCase) []string {
	if c.isRingMQ() {
		return d.programs
	}
	return []string{""}
}

// rowName is how a case is called in the table.
func (d *durableRun) rowName(c durableCase) string {
	if c.isRingMQ() && len(d.programs) > 1 {
		return c.name + " " + filepath.Base(d.ringmq)
	}
	return c.name
}

// measureBare measures what the disk and Pebble do at full speed.
func (d *durableRun) measureBare(load durableLoad) error {
	for _, c := range [...]struct {
		name string
		size int
	}{{diskSyncs, 4 << 10}, {"disk: write 1 MiB, fsync", 1 << 20}} {
		disk, err := measureDisk(d.dir, c.size, load.duration/2)
		if err != nil {
			return err
		}
		d.note(c.name, load, disk)
	}
	for _, sync := range []bool{true, false} {
		bare, err := measurePebble(d.dir, load.publishers, load, sync)
		if err != nil {
			return err
		}
		d.note(bareName(sync), load, bare)
	}
	return nil
}

// diskSyncs is the row of what the disk syncs in a second.
const diskSyncs = "disk: write 4 KiB, fsync"

// bareName is the row of the bare database.
func bareName(sync bool) string {
	if sync {
		return "bare Pebble, sync"
	}
	return "bare Pebble, no sync"
}

// rowOf is a row of the table.
func rowOf(receivers string, publishers int, name string) string {
	return fmt.Sprintf("%-9s %5d  %s", receivers, publishers, name)
}

func (d *durableRun) note(name string, l durableLoad, r durableResult) {
	row := rowOf(l.receivers, l.publishers, name)
	if !slices.Contains(d.rows, row) {
		d.rows = append(d.rows, row)
	}
	d.results[row] = append(d.results[row], r)
	fmt.Fprintf(os.Stderr, "%-50s %s\n", row, r)
}

// measure starts a broker on an empty directory, loads it, fully and by half, and ends it.
func (d *durableRun) measure(ctx context.Context, c durableCase, load durableLoad) error {
	data, err := os.MkdirTemp(d.dir, c.name)
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	d.port++
	argv, err := c.config(d.sources, data, d.port)
	if err != nil {
		return err
	}
	if path, err := exec.LookPath(argv[0]); err == nil {
		argv[0] = path
	}
	address := netip.AddrPortFrom(loopback(), uint16(d.port))
	s, err := startServer(ctx, argv, -1, address)
	if err != nil {
		return err
	}
	defer s.stop()
	if c.name == syncingCase {
		if err := awaitAnswer(ctx, adminSocket(data)); err != nil {
			return err
		}
	}
	load.rate = d.rate
	if d.rate == 0 {
		var r durableResult
		if r, err = d.fullSpeed(ctx, c, load, s, address, data); err == nil {
			d.note(d.rowName(c), load, r)
		}
		load.rate = r.perSecond / 2
	}
	if err == nil && (d.half || d.rate > 0) {
		err = d.measurePaced(ctx, c, load, address, data)
	}
	if err != nil {
		return errors.Join(err, fmt.Errorf("it said: %s", lastLine(s.output.Bytes())))
	}
	return nil
}

// fullSpeed loads a broker as fast as it acknowledges, and profiles it where that is wanted.
func (d *durableRun) fullSpeed(ctx context.Context, c durableCase, load durableLoad, s *server, address netip.AddrPort, data string) (durableResult, error) {
	load.pid = s.command.Process.Pid
	wait := func() error { return nil }
	if d.profiles != "" && c.isRingMQ() {
		if err := awaitAnswer(ctx, adminSocket(data)); err != nil {
			return durableResult{}, err
		}
		name := fmt.Sprintf("%s-%s-%d.pprof", d.rowName(c), load.receivers, load.payload)
		load.begins = func() { wait = profileDuring(ctx, adminSocket(data), load.duration, filepath.Join(d.profiles, name)) }
	}
	r, err := load.run(address)
	return r, errors.Join(err, wait())
}

// measurePaced loads a broker at a fixed rate. One that syncs shares its time with a bare disk that does the same.
func (d *durableRun) measurePaced(ctx context.Context, c durableCase, load durableLoad, address netip.AddrPort, data string) (err error) {
	if c.name == syncingCase {
		bare, err := newBareSync(ctx, d.dir, adminSocket(data))
		defer func() { err = errors.Join(err, bare.close()) }()
		if err != nil {
			return err
		}
		half, err := load.runPaced(address, bare.slice)
		if err != nil {
			return err
		}
		disk := resultOf(bare.took, bare.length)
		half.ratio = float64(half.p99) / float64(disk.p99)
		d.note("as much, as often, write and fsync", load, disk)
		d.note(d.pacedName(c), load, half)
		return bare.tellStages()
	}
	half, err := load.runPaced(address, ctx.Err)
	if err == nil {
		d.note(d.pacedName(c), load, half)
	}
	return err
}

func (d *durableRun) pacedName(c durableCase) string {
	if d.rate > 0 {
		return fmt.Sprintf("%s, at %.0f/s", d.rowName(c), d.rate)
	}
	return d.rowName(c) + ", at half of it"
}

func (d *durableRun) print() {
	fmt.Println("receivers  publishers  what                       per second       p50       p99   (medians)")
	for _, row := range d.rows {
		fmt.Printf("%-50s %s%s\n", row, d.median(row), d.ratios(row))
	}
}

// median is the middle one of a row's results; zero where there is no such row.
func (d *durableRun) median(row string) durableResult {
	list := slices.Clone(d.results[row])
	if len(list) == 0 {
		return durableResult{}
	}
	slices.SortFunc(list, func(a, b durableResult) int { return int(a.perSecond - b.perSecond) })
	return list[len(list)/2]
}

// ratios says how many messages a broker's row has for each record of the bare database that syncs as it does, and for each sync of the disk.
func (d *durableRun) ratios(row string) string {
	var receivers, name string
	var publishers int
	if _, err := fmt.Sscan(row, &receivers, &publishers, &name); err != nil || strings.Contains(row, ":") || name == "bare" {
		return ""
	}
	bare := d.median(rowOf(receivers, publishers, bareName(strings.Contains(name, "sync"))))
	disk := d.median(rowOf(receivers, publishers, diskSyncs))
	if bare.perSecond == 0 || disk.perSecond == 0 {
		return ""
	}
	n := d.median(row).perSecond
	return fmt.Sprintf("   %.2f of bare Pebble, %.1f per fsync of the disk", n/bare.perSecond, n/disk.perSecond)
}

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/cmd/admin"
	"github.com/ringmq/ringmq/netstack/capture"
	"github.com/urfave/cli/v2"
)

const captureDescription = `Traffic that XDP mode steers past the kernel is invisible to tcpdump, so the broker copies it itself. Frames that do not
fit into 8 MiB per queue until they are written are left out, and the broker's log says how many; it never waits for a capture.

A frame that is kept costs the data path about 0.1 µs, any other about 0.01 µs; writing takes the time of another processor. With
two processors, which the clients shared, a capture of everything left 0.70 of the rate, with --snaplen 96 0.85, and with
--client of a silent client all of it.

Examples:
  ringmq capture -i eth0 -w mqtt.pcapng                       until Ctrl-C; open it in Wireshark
  ringmq capture -i eth0 -w - | tshark -r - -Y mqtt           at once
  ringmq capture -i eth0 -w d7.pcapng --client d7             what one client sends and gets, also when it reconnects
  ringmq capture -i eth0 -w first.pcapng --count 1000 --port 1883`

func captureCommand() *cli.Command {
	return &cli.Command{
		Name:        "capture",
		Usage:       "write the frames that bypass the kernel to a pcapng file",
		UsageText:   "ringmq capture -w FILE [flags]",
		Description: captureDescription,
		Flags: []cli.Flag{
			adminFlag(),
			&cli.StringSliceFlag{Name: "interface", Aliases: []string{"i"}, Usage: "only `IF` (may be repeated)", DefaultText: "all that are steered"},
			&cli.StringFlag{Name: "write", Aliases: []string{"w"}, Usage: "write to `FILE`; - is standard output"},
			&cli.StringFlag{Name: "client", Usage: "only the connection of the client with this Client `ID`"},
			&cli.IntFlag{Name: "port", Usage: "only TCP `PORT`, of either side", DefaultText: "all"},
			&cli.IntFlag{Name: "count", Aliases: []string{"c"}, Usage: "end after `N` frames", DefaultText: "at Ctrl-C"},
			&cli.IntFlag{Name: "snaplen", Aliases: []string{"s"}, Usage: "keep `BYTES` of a frame, 2048 at most", DefaultText: "2048"},
		},
		Action: runCapture,
	}
}

func runCapture(c *cli.Context) (err error) {
	path := c.String("write")
	switch {
	case path == "":
		return errors.New("capture: name a file with -w, or - for standard output")
	case c.IsSet("port") && (c.Int("port") < 1 || c.Int("port") > 65535):
		return fmt.Errorf("capture: --port %d: want 1 to 65535", c.Int("port"))
	case c.IsSet("count") && c.Int("count") < 1 || c.IsSet("snaplen") && c.Int("snaplen") < 1:
		return errors.New("capture: --count and --snaplen: want at least 1")
	}
	client, ctx, stop, err := dialAdmin(c)
	if err != nil {
		return err
	}
	defer stop()
	stream, err := client.Stream(ctx, "/v1/capture?"+captureQuery(c).Encode())
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	defer stream.Close()
	to := os.Stdout
	if path != "-" {
		if to, err = os.Create(path); err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		defer func() { err = errors.Join(err, to.Close()) }()
	}
	signal.Ignore(syscall.SIGPIPE)
	n, err := copyBlocks(to, stream)
	if ctx.Err() != nil || errors.Is(err, syscall.EPIPE) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("capture: after %d bytes: %w", n, err)
	}
	fmt.Fprintf(os.Stderr, "%s bytes\n", thousands(n))
	return nil
}

const (
	// blockHeadBytes are a pcapng block's type and total length.
	blockHeadBytes = 8
	// blockMaxBytes has room for the longest copy of a frame, and what stands around it.
	blockMaxBytes = 64 << 10
)

// copyBlocks passes whole pcapng blocks on, so that a capture that is ended has no half frame at its end. What has come is written
// before it waits for more.
func copyBlocks(to io.Writer, from io.Reader) (written int64, err error) {
	in, out := bufio.NewReaderSize(from, blockMaxBytes), bufio.NewWriterSize(to, blockMaxBytes)
	defer func() { err = cmp.Or(err, out.Flush()) }()
	for {
		if in.Buffered() < blockHeadBytes {
			if err := out.Flush(); err != nil {
				return written, err
			}
		}
		head, err := in.Peek(blockHeadBytes)
		if errors.Is(err, io.EOF) && len(head) == 0 {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		size := binary.LittleEndian.Uint32(head[4:])
		if size <= blockHeadBytes || size > blockMaxBytes {
			return written, fmt.Errorf("the broker sends what is no pcapng: % x", head)
		}
		block, err := in.Peek(int(size))
		if err != nil {
			return written, err
		}
		n, err := out.Write(block)
		if written += int64(n); err != nil {
			return written, err
		}
		_, _ = in.Discard(len(block))
	}
}

func captureQuery(c *cli.Context) url.Values {
	query := url.Values{"interface": c.StringSlice("interface")}
	if id := c.String("client"); id != "" {
		query.Set("client", id)
	}
	for _, name := range []string{"port", "count", "snaplen"} {
		if n := c.Int(name); n > 0 {
			query.Set(name, strconv.Itoa(n))
		}
	}
	return query
}

// serveCapture is the broker's side: pcapng as it comes.
func (p *process) serveCapture(w http.ResponseWriter, r *http.Request) {
	request, err := p.captureRequest(r)
	if err != nil {
		admin.Fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-pcapng")
	out, err := p.bypass.tap.Capture(r.Context(), flusher{w, http.NewResponseController(w)}, request)
	if err != nil && out.Written == 0 {
		status := http.StatusBadRequest
		if errors.Is(err, capture.ErrBusy) {
			status = http.StatusConflict
		}
		admin.Fail(w, admin.Errorf(status, "%v", err))
		return
	}
	p.log.Info("capture ended", "frames", out.Written, "missed", out.Missed)
}

// captureRequest reads ?interface=…&client=…&port=…&count=…&snaplen=….
func (p *process) captureRequest(r *http.Request) (capture.Request, error) {
	query := r.URL.Query()
	request, filter := capture.Request{Devices: query["interface"]}, capture.Filter{}
	port := 0
	for name, to := range map[string]*int{"port": &port, "count": &request.Count, "snaplen": &request.SnapBytes} {
		text := query.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || name == "port" && n > 65535 {
			return request, admin.Errorf(http.StatusBadRequest, "%s %q: want a positive number", name, text)
		}
		*to = n
	}
	filter.Port = uint16(port)
	client := query.Get("client")
	request.Filter = func() capture.Filter {
		if client != "" {
			filter.Remote = p.remoteOf(r.Context(), client, filter.Remote)
		}
		return filter
	}
	if client != "" && !p.remoteOf(r.Context(), client, netip.AddrPort{}).IsValid() {
		return request, admin.Errorf(http.StatusNotFound, "client %q is not connected", client)
	}
	return request, nil
}

// remoteOf is where a client is connected from; while it is not, where it last was.
func (p *process) remoteOf(ctx context.Context, clientID string, last netip.AddrPort) netip.AddrPort {
	_ = p.broker.Connections(ctx, func(c broker.ConnectionInfo) bool {
		if c.ClientID == clientID {
			last = c.Remote
			return false
		}
		return true
	})
	return last
}

// flusher sends each write on at once, so that a reader sees frames as they come.
type flusher struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (f flusher) Write(b []byte) (int, error) {
	n, err := f.ResponseWriter.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Directory is where brokers of this user put their sockets.
func Directory() string {
	if os.Geteuid() == 0 {
		return "/run/ringmq"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "ringmq")
	}
	return sharedDirectory()
}

// sharedDirectory lies where every user of the machine could have made it.
func sharedDirectory() string {
	return filepath.Join(os.TempDir(), "ringmq-"+strconv.Itoa(os.Geteuid()))
}

// PathOf is the socket of the broker with a process id.
func PathOf(pid int) string { return pathIn(Directory(), pid) }

func pathIn(directory string, pid int) string {
	return filepath.Join(directory, strconv.Itoa(pid)+".sock")
}

// Running lists the sockets on which brokers answer, and removes those that crashed brokers have left; left names them.
func Running() (paths, left []string) { return runningIn(Directory()) }

func runningIn(directory string) (paths, left []string) {
	found, _ := filepath.Glob(filepath.Join(directory, "*.sock"))
	sort.Strings(found)
	for _, path := range found {
		if answers(path) {
			paths = append(paths, path)
		} else if os.Remove(path) == nil {
			left = append(left, path)
		}
	}
	return paths, left
}

// Find is the socket that a user means: a path or a process id, or nothing when only one broker runs.
func Find(meant string) (string, error) { return findIn(Directory(), meant) }

func findIn(directory, meant string) (string, error) {
	if pid, err := strconv.Atoi(meant); err == nil {
		meant = pathIn(directory, pid)
	}
	if meant != "" {
		if !answers(meant) {
			return "", fmt.Errorf("no broker answers on %s: is it running, and may this user open it?", meant)
		}
		return meant, nil
	}
	paths, left := runningIn(directory)
	switch len(paths) {
	case 0:
		if len(left) > 0 {
			return "", fmt.Errorf("no broker answers in %s: one has crashed and left %s, which is removed now; start it again (ringmq serve)", directory, strings.Join(left, ", "))
		}
		return "", fmt.Errorf("no broker answers in %s: start one (ringmq serve), or name its socket with --admin", directory)
	case 1:
		return paths[0], nil
	}
	return "", fmt.Errorf("several brokers run: choose with --admin from %s", strings.Join(paths, ", "))
}

// Client asks one broker.
type Client struct {
	path string
	http http.Client
}

// NewClient is for the socket at path, as Find gives it.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Get asks for resource ("/v1/status") and decodes the answer into v.
func (c *Client) Get(ctx context.Context, resource string, v any) error {
	return c.decode(ctx, http.MethodGet, resource, nil, v)
}

// Post sends in as JSON and decodes the answer into v; both may be nil.
func (c *Client) Post(ctx context.Context, resource string, in, v any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.decode(ctx, http.MethodPost, resource, body, v)
}

func (c *Client) decode(ctx context.Context, method, resource string, body []byte, v any) error {
	stream, err := c.do(ctx, method, resource, body)
	if err != nil {
		return err
	}
	defer stream.Close()
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(stream).Decode(v); err != nil {
		return fmt.Errorf("answer of %s: %w", c.path, err)
	}
	return nil
}

// Stream asks for a resource that is no JSON; the caller closes it.
func (c *Client) Stream(ctx context.Context, resource string) (io.ReadCloser, error) {
	return c.do(ctx, http.MethodGet, resource, nil)
}

func (c *Client) do(ctx context.Context, method, resource string, body []byte) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://ringmq"+resource, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the broker on %s: %w", c.path, err)
	}
	if response.StatusCode/100 == 2 {
		return response.Body, nil
	}
	defer response.Body.Close()
	var failure Failure
	if err := json.NewDecoder(io.LimitReader(response.Body, requestMaxBytes)).Decode(&failure); err != nil || failure.Error == "" {
		return nil, fmt.Errorf("the broker on %s answers %s to %s %s: is it another version?", c.path, response.Status, method, resource)
	}
	return nil, fmt.Errorf("%s", failure.Error)
}

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// headerTimeout and idleTimeout keep a client that says nothing from holding a descriptor.
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	// requestMaxBytes bounds what a request may carry.
	requestMaxBytes = 1 << 20
	// connectionsMax bounds the goroutines that requests cost: more wait in the socket's backlog.
	connectionsMax = 32
)

// Server answers on one socket.
type Server struct {
	path     string
	mux      *http.ServeMux
	server   *http.Server
	listener net.Listener
	ended    chan struct{}
}

// Listen opens the socket at path and makes its directory when that is missing. A socket that nobody answers on is
// replaced; one that somebody answers on is an error.
func Listen(path string) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("admin socket: %w; choose another place with --admin", err)
	}
	if filepath.Dir(path) == sharedDirectory() {
		if err := checkOwner(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w; choose another place with --admin", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	s := &Server{path: path, mux: http.NewServeMux(), listener: listener, ended: make(chan struct{})}
	s.server = &http.Server{Handler: http.MaxBytesHandler(s.mux, requestMaxBytes), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	return s, nil
}

// removeStale removes a socket that nobody listens on any more, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("admin socket: %s is no socket: choose another place with --admin", path)
	}
	if answers(path) {
		return fmt.Errorf("admin socket: another broker answers on %s: stop it, or choose another place with --admin", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	return nil
}

// answers says whether somebody listens on the socket.
func answers(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// Path is where the socket lies.
func (s *Server) Path() string { return s.path }

// Handle answers requests for a pattern as net/http has it ("GET /v1/status"). Call it before Start.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Answer is Handle for what returns a value to be sent as JSON. An error is sent as Failure with status 500, or with the
// status that it is wrapped in by Errorf.
func (s *Server) Answer(pattern string, f func(*http.Request) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			Fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(v) // a client that has gone
	})
}

// Failure is the body of an answer that is no success.
type Failure struct {
	Error string `json:"error"`
}

// statusError is an error with an HTTP status.
type statusError struct {
	error
	status int
}

// Errorf makes an error that is answered with an HTTP status.
func Errorf(status int, format string, values ...any) error {
	return statusError{fmt.Errorf(format, values...), status}
}

// Fail answers with an error.
func Fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var s statusError
	if errors.As(err, &s) {
		status = s.status
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(Failure{err.Error()})
}

// Start answers from a goroutine of its own until Close.
func (s *Server) Start() {
	go func() {
		defer close(s.ended)
		_ = s.server.Serve(&limited{Listener: s.listener, room: make(chan struct{}, connectionsMax)})
	}()
}

// Close ends all answers within a second, waits for them, and removes the socket.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = s.server.Close()
	}
	_ = s.listener.Close() // if Start was never called
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
	return err
}

// limited accepts no more connections than there is room for.
type limited struct {
	net.Listener
	room chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	l.room <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &counted{Conn: c, leave: sync.OnceFunc(func() { <-l.room })}, nil
}

// counted gives its place back when it is closed: once, though net/http closes connections of a server that stops beside the goroutines
// that serve them.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

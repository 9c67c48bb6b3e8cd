package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// profileMargin is what a profile's answer may take beyond its seconds.
const profileMargin = 10 * time.Second

// profileDuring has the broker that answers on socket make a CPU profile of the seconds to come, and writes it to file. What it
// returns waits for that.
func profileDuring(ctx context.Context, socket string, length time.Duration, file string) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- fetchProfile(ctx, socket, length, file) }()
	return func() error { return <-done }
}

func fetchProfile(ctx context.Context, socket string, length time.Duration, file string) error {
	seconds := max(1, int(length.Seconds()))
	answer, err := getUnixWithin(ctx, time.Duration(seconds)*time.Second+profileMargin, socket, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds))
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s: %s", answer.Status, lastLine(b))
	}
	return os.WriteFile(file, b, 0o644)
}

// profileFile is where the profile of a measurement goes.
func (c *comparer) profileFile(row comparison, t target) string {
	return filepath.Join(c.profiles, row.name+"-"+t.name+".pprof")
}

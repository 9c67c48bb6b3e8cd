package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bug is a small patch to the engine that breaks it. It is applied to copies that only "go build -overlay" sees: nothing in
// the tree changes, and nothing in the tree is there for it.
type bug struct {
	name  string
	what  string
	in    string // package of the test that finds it; empty: seeds do
	test  string
	hunks []hunk
}

// hunk replaces lines of a file. Instead of by number, its place is found by the lines themselves, which must stand there exactly
// once: so a patch lives as long as they do, and fails loudly when they go.
type hunk struct {
	file     string
	old, new string
}

// bugs reads the patches of a folder: the first line says what is wrong, "--- FILE" names a file, and "@@" begins a hunk
// of lines marked ' ', '-' and '+'. A line "test PACKAGE NAME" before all that names the test that finds it, where seeds would take too
// long.
func bugs(folder string) ([]bug, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.patch"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("%s: no *.patch: %w", folder, errors.Join(err, os.ErrNotExist))
	}
	var list []bug
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		b := bug{name: strings.TrimSuffix(filepath.Base(name), ".patch")}
		if err := b.parse(string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, b)
	}
	return list, nil
}

func (b *bug) parse(text string) error {
	file := ""
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		after, isFile := strings.CutPrefix(line, "--- ")
		test, isTest := strings.CutPrefix(line, "test ")
		switch {
		case i == 0:
			b.what = line
		case i == 1 && isTest:
			if _, err := fmt.Sscan(test, &b.in, &b.test); err != nil {
				return fmt.Errorf("line 2: %q is no package and test: %w", line, err)
			}
		case isFile:
			file = after
		case line == "@@":
			b.hunks = append(b.hunks, hunk{file: file})
		case len(b.hunks) == 0 || line == "":
			return fmt.Errorf("line %d: %q is in no hunk", i+1, line)
		default:
			h := &b.hunks[len(b.hunks)-1]
			if line[0] != '+' {
				h.old += line[1:] + "\n"
			}
			if line[0] != '-' {
				h.new += line[1:] + "\n"
			}
		}
	}
	return nil
}

// apply returns the files as the bug makes them, by path from the root.
func (b *bug) apply(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, h := range b.hunks {
		text, ok := files[h.file]
		if !ok {
			var err error
			if text, err = os.ReadFile(filepath.Join(root, h.file)); err != nil {
				return nil, fmt.Errorf("bug %s: %w", b.name, err)
			}
		}
		if n := bytes.Count(text, []byte(h.old)); n != 1 {
			return nil, fmt.Errorf("bug %s: %s has its lines %d times, not once: write the patch anew\n%s", b.name, h.file, n, h.old)
		}
		files[h.file] = bytes.Replace(text, []byte(h.old), []byte(h.new), 1)
	}
	return files, nil
}

// overlay writes the files with the bug in them to a folder, and what "go build -overlay" is to know of them.
func (b *bug) overlay(root, folder string) (file string, err error) {
	files, err := b.apply(root)
	if err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range files {
		copied := filepath.Join(folder, b.name+"-"+filepath.Base(name))
		if err := os.WriteFile(copied, text, 0o600); err != nil {
			return "", err
		}
		at, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			return "", err
		}
		overlay.Replace[at] = copied
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	file = filepath.Join(folder, b.name+".json")
	return file, os.WriteFile(file, list, 0o600)
}

// build compiles this command with the bug in it.
func (b *bug) build(ctx context.Context, root, folder, overlay string) (program string, err error) {
	program = filepath.Join(folder, b.name)
	build := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", program, "./scripts/sim")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("bug %s: %w\n%s", b.name, err, out)
	}
	return program, nil
}

// fails runs the bug's test, which must find it.
func (b *bug) fails(ctx context.Context, root, overlay string) (bool, error) {
	run := exec.CommandContext(ctx, "go", "test", "-overlay", overlay, "-vet=off", "-v", "-run", "^"+b.test+"$", b.in)
	run.Dir = root
	out, err := run.CombinedOutput()
	switch {
	case bytes.Contains(out, []byte("--- FAIL: "+b.test)):
		return true, nil
	case err == nil && bytes.Contains(out, []byte("--- PASS: "+b.test)):
		return false, nil
	}
	return false, fmt.Errorf("bug %s: %s did not run: %w\n%s", b.name, b.test, errors.Join(err, os.ErrNotExist), out)
}

// hunt builds the bug in, plays up to most seeds, and says which rule of the model found it and after how many seeds; or which test.
func (b *bug) hunt(ctx context.Context, root string, most uint64) (rule string, seeds int, err error) {
	folder, err := os.MkdirTemp("", "sim-bug")
	if err != nil {
		return "", 0, err
	}
	defer os.RemoveAll(folder)
	overlay, err := b.overlay(root, folder)
	if err != nil {
		return "", 0, err
	}
	if b.test != "" {
		if found, err := b.fails(ctx, root, overlay); err != nil || !found {
			return "", 0, err
		}
		return b.test, 0, nil
	}
	program, err := b.build(ctx, root, folder, overlay)
	if err != nil {
		return "", 0, err
	}
	run := exec.CommandContext(ctx, program, "-q", "-seeds", fmt.Sprint(most))
	run.WaitDelay = time.Second
	out, err := run.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", int(most), nil
	case !errors.As(err, &exit):
		return "", 0, err
	case exit.ExitCode() != statusViolated:
		return "panic", 0, nil // The engine's own invariant: which seed it was, nobody says.
	}
	fields := strings.Split(strings.TrimSpace(string(out)), "\t")
	if len(fields) != 3 {
		return "", 0, fmt.Errorf("bug %s: the simulation said %q", b.name, out)
	}
	_, err = fmt.Sscan(fields[2], &seeds)
	return fields[0], seeds, err
}

// plant hunts every bug and prints a table.
func (c *command) plant(ctx context.Context, out, errs io.Writer) int {
	list, err := bugs(filepath.Join(c.root, c.bugFolder))
	if err != nil {
		fmt.Fprintf(errs, "sim: %v\n", err)
		return statusUsage
	}
	status := 0
	fmt.Fprintf(out, "| bug | what it does | found by the rule, or the test | seeds |\n|---|---|---|---|\n")
	for _, b := range list {
		rule, seeds, err := b.hunt(ctx, c.root, c.seeds)
		switch {
		case err != nil:
			fmt.Fprintf(errs, "sim: %v\n", err)
			return statusUsage
		case rule == "":
			rule, status = "NOT FOUND", statusViolated
		}
		after := fmt.Sprint(seeds)
		if b.test != "" {
			after = ""
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", b.name, b.what, rule, after)
	}
	return status
}

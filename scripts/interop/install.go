package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The scripts are part of the program, so that it runs where its sources are not, such as in a network namespace.
var (
	//go:embed mqttjs.mjs
	nodeScript []byte
	//go:embed package.json
	nodePackage []byte
	//go:embed package-lock.json
	nodeLock []byte
	//go:embed paho.py
	pythonScript []byte
)

// pythonName is not paho.py where it runs: Python would take that for the library.
const pythonName = "paho_scenes.py"

// missing is the error of a client that is not installed.
type missing struct{ reason error }

func (m missing) Error() string { return m.reason.Error() }

// startNode starts MQTT.js, which npm installs once for each lock file.
func startNode(folder string) func(context.Context) (player, string, error) {
	return func(ctx context.Context) (player, string, error) {
		node, err := exec.LookPath("node")
		if err != nil {
			return nil, "", missing{err}
		}
		if _, err := os.Lstat(filepath.Join(folder, "node_modules")); errors.Is(err, os.ErrNotExist) {
			modules, err := nodeModules(ctx)
			if err != nil {
				return nil, "", missing{err}
			}
			// Node looks for modules beside the script.
			if err := os.Symlink(modules, filepath.Join(folder, "node_modules")); err != nil && !errors.Is(err, os.ErrExist) {
				return nil, "", err
			}
		}
		return startScript(ctx, node, filepath.Join(folder, "mqttjs.mjs"))
	}
}

// nodeModules gives the folder with what package-lock.json names, in the user's cache directory.
func nodeModules(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append(bytes.Clone(nodePackage), nodeLock...))
	final := filepath.Join(cache, "ringmq-interop", hex.EncodeToString(sum[:8]))
	modules := filepath.Join(final, "node_modules")
	if _, err := os.Stat(modules); err == nil {
		return modules, nil
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(final), "install")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	if err := npmInstall(ctx, scratch); err != nil {
		return "", err
	}
	// Who else has installed meanwhile has installed the same.
	if err := os.Rename(scratch, final); err != nil {
		if _, statErr := os.Stat(modules); statErr != nil {
			return "", err
		}
	}
	return modules, nil
}

func npmInstall(ctx context.Context, folder string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "package.json"), nodePackage, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "package-lock.json"), nodeLock, 0o644); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	command.Dir = folder
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// startPython starts the first Python that has paho: Debian's package is for Debian's Python.
func startPython(folder string) func(context.Context) (player, string, error) {
	return func(ctx context.Context) (player, string, error) {
		var reasons error
		for _, python := range []string{"/usr/bin/python3", "python3"} {
			try := exec.CommandContext(ctx, python, "-c", "import paho.mqtt.client")
			try.Dir = folder // Python looks in the current directory first.
			if out, err := try.CombinedOutput(); err != nil {
				reasons = errors.Join(reasons, fmt.Errorf("%s: %w: %s", python, err, lastLine(out)))
				continue
			}
			return startScript(ctx, python, "-u", filepath.Join(folder, pythonName))
		}
		return nil, "", missing{reasons}
	}
}

func lastLine(out []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return lines[len(lines)-1]
}

// writeScripts puts the scripts where Node and Python find them.
func writeScripts(folder string) error {
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "mqttjs.mjs"), nodeScript, 0o644),
		os.WriteFile(filepath.Join(folder, pythonName), pythonScript, 0o644))
}

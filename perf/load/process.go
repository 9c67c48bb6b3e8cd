package load

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/perf/epoll"
)

// process reads what Linux tells about another process, by its id.
type process int

const (
	// clockTick is the unit of /proc/PID/stat: USER_HZ is 100 on every architecture that Go runs on.
	clockTick = 10 * time.Millisecond
	// fineError is how far the threads' sum may be from the process's total before it is not believed.
	fineError = 3 * clockTick
)

// cpu is the processor time, user and system, that the process has used.
func (p process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
	if err != nil {
		return 0, fmt.Errorf("read the broker's processor time (is %d its process id?): %w", p, err)
	}
	// The second field is the program's name, in brackets, which may hold spaces and brackets itself.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const userField, systemField = 11, 12 // counted from the third field of proc(5)
	if len(fields) <= systemField {
		return 0, fmt.Errorf("read /proc/%d/stat: only %d fields", p, len(fields))
	}
	ticks := int64(0)
	for _, field := range []string{fields[userField], fields[systemField]} {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/%d/stat: %w", p, err)
		}
		ticks += n
	}
	coarse := time.Duration(ticks) * clockTick
	if fine := p.threadsCPU(); (fine - coarse).Abs() <= fineError {
		return fine, nil
	}
	return coarse, nil
}

// threadsCPU is the sum over the living threads, in nanoseconds; those that have ended are missing from it.
func (p process) threadsCPU() time.Duration {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p))
	sum := time.Duration(0)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(b), " ")
		n, _ := strconv.ParseInt(first, 10, 64)
		sum += time.Duration(n)
	}
	return sum
}

// memory is the process's proportional and resident set size in bytes.
func (p process) memory() (pssBytes, rssBytes int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
	if err != nil {
		return 0, 0, fmt.Errorf("read the broker's memory (is %d its process id?): %w", p, err)
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kilobytes, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "Pss:":
			pssBytes = kilobytes << 10
		case "Rss:":
			rssBytes = kilobytes << 10
		}
	}
	return pssBytes, rssBytes, nil
}

// ProcessorTime is what a process has used of the processors, in user and system mode.
func ProcessorTime(pid int) (time.Duration, error) { return process(pid).cpu() }

// PeakMemory is the most that a process has had resident, in bytes.
func PeakMemory(pid int) (int64, error) { return memoryLine(pid, "VmHWM:") }

// ResidentMemory is what it has resident now.
func ResidentMemory(pid int) (int64, error) { return memoryLine(pid, "VmRSS:") }

func memoryLine(pid int, name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read a broker's memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			kilobytes, err := strconv.ParseInt(words[1], 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s has the process ended?", pid, name)
}

// MachineTime is the time that all processors together were not idle, since the machine started.
func MachineTime() (time.Duration, error) { return machineCPU() }

// KernelTime is what the kernel's own threads have used since then.
func KernelTime() (sum time.Duration) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		const parentField, kthreadd = 1, "2"
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && len(fields) > parentField && fields[parentField] == kthreadd {
			used, _ := process(pid).cpu() // zero if it has just ended
			sum += used
		}
	}
	return sum
}

// machineCPU is the time that all processors together were not idle, since the machine started.
func machineCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read the machine's processor time: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	const idleField, waitField, stealField = 4, 5, 8 // of the line "cpu", counted from its name; proc(5)
	if len(fields) <= stealField || fields[0] != "cpu" {
		return 0, fmt.Errorf("read /proc/stat: first line %q", line)
	}
	busy := int64(0)
	for i, field := range fields[1 : stealField+1] {
		if n := i + 1; n == idleField || n == waitField || n == stealField {
			continue
		}
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		busy += n
	}
	return time.Duration(busy) * clockTick, nil
}

// cpuReading is processor time at one moment: both sides', and the whole machine's.
type cpuReading struct{ generator, target, machine time.Duration }

// readCPU reads the generator's from the loop's own thread.
func (l *loop) readCPU() (r cpuReading, err error) {
	if l.cfg.PID != 0 {
		r.target, err = process(l.cfg.PID).cpu()
	}
	r.generator = epoll.ThreadCPU()
	if err == nil && l.cfg.WholeMachine {
		r.machine, err = machineCPU()
	}
	return r, err
}

// cpuTime notes what the measured part has cost.
func (r *Result) cpuTime(before, after cpuReading) {
	r.GeneratorCPU, r.TargetCPU = after.generator-before.generator, after.target-before.target
	r.MachineCPU = after.machine - before.machine
}

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/xdp/probe"
	"golang.org/x/sys/unix"
)

// pinProcess keeps every thread of this process, and those to come, on some processors.
func pinProcess(cpus []int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	pinned := map[int]bool{}
	for news := true; news; { // A new thread inherits from the one that starts it, which may not have been pinned yet.
		news = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("cpus: list this process's threads: %w", err)
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || pinned[tid] {
				continue
			}
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("cpus: pin to %v: %w: are all of them online, and allowed to this process (taskset -p $$)?", cpus, err)
			}
			pinned[tid], news = true, true
		}
	}
	return nil
}

// irqFolder has a folder for each interrupt.
const irqFolder = "/proc/irq"

// pinInterrupts lets some processors take the interrupts of the queues, queue by queue in turn, and returns what puts the
// earlier settings back. Queues without an interrupt of their own, such as a veth's, are left out.
func pinInterrupts(name string, queues, cpus []int) (restore func(), err error) {
	facts, err := probe.Interface(name)
	if err != nil {
		return func() {}, err
	}
	interrupts := map[int]int{}
	for _, queue := range queues {
		if queue < len(facts.Queues.Value) && facts.Queues.Value[queue].IRQ.Known() {
			interrupts[queue] = facts.Queues.Value[queue].IRQ.Value
		}
	}
	return setAffinities(irqFolder, queues, interrupts, cpus)
}

// setAffinities writes what pinInterrupts has found. What it has written before an error is put back by restore, too.
func setAffinities(folder string, queues []int, interrupts map[int]int, cpus []int) (restore func(), err error) {
	earlier := map[string][]byte{}
	restore = func() {
		for path, list := range earlier {
			_ = os.WriteFile(path, list, 0) // the interface may be gone
		}
	}
	for at, queue := range queues {
		irq, ok := interrupts[queue]
		if !ok {
			continue
		}
		path := filepath.Join(folder, strconv.Itoa(irq), "smp_affinity_list")
		before, err := os.ReadFile(path)
		if err != nil {
			return restore, fmt.Errorf("cpus: interrupt of queue %d: %w", queue, err)
		}
		if err := os.WriteFile(path, []byte(strconv.Itoa(cpus[at%len(cpus)])), 0); err != nil {
			return restore, fmt.Errorf("cpus: interrupt of queue %d: %w: is it managed by the kernel?", queue, err)
		}
		earlier[path] = []byte(strings.TrimSpace(string(before)))
	}
	return restore, nil
}

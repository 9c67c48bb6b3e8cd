package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// files is the root of a host's file tree, without the leading slash in names: /proc and /sys of this host, or a recorded tree.
type files struct{ fs.FS }

func (f files) text(name string) (string, error) {
	data, err := fs.ReadFile(f.FS, name)
	return strings.TrimSpace(string(data)), err
}

func (f files) integer(name string) (int, error) {
	text, err := f.text(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

func (f files) setting(name string) Fact[int] {
	value, err := f.integer("proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return unknown[int]("this kernel does not have it, or not in this network namespace")
	}
	return factOf(value, err)
}

func (f files) cpuList(name string) Fact[CPUList] {
	text, err := f.text(name)
	if err != nil {
		return unknown[CPUList](why(err))
	}
	return factOf(parseCPUList(text))
}

// cpuMask gives no CPUs where the file is missing: then nothing is set.
func (f files) cpuMask(name string) CPUList {
	text, err := f.text(name)
	if err != nil {
		return nil
	}
	cpus, err := parseCPUMask(text)
	if err != nil {
		return nil
	}
	return cpus
}

func (f files) readLink(name string) (string, error) { return fs.ReadLink(f.FS, name) }

func (f files) list(name string) ([]string, error) {
	entries, err := fs.ReadDir(f.FS, name)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

const cpusMax = 1 << 16 // More than any kernel is built for: a slip in the text must not fill the memory.

// parseCPUList reads the kernel's list format: 0-3,8.
func parseCPUList(text string) (CPUList, error) {
	var cpus CPUList
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		low, high, isRange := strings.Cut(part, "-")
		first, err := strconv.ParseUint(low, 10, 31)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(high, 10, 31)
		}
		if err != nil || last < first || last >= cpusMax || last-first >= cpusMax-uint64(len(cpus)) {
			return nil, fmt.Errorf("CPU list %q is not understood", text)
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, int(cpu))
		}
	}
	return cpus, nil
}

// parseCPUMask reads the kernel's mask format: words of 32 bits in hexadecimal, the highest first, between commas.
func parseCPUMask(text string) (CPUList, error) {
	words := strings.Split(strings.TrimSpace(text), ",")
	slices.Reverse(words)
	var cpus CPUList
	for at, word := range words {
		bits, err := strconv.ParseUint(word, 16, 32)
		if err != nil || bits != 0 && at >= cpusMax/32 {
			return nil, fmt.Errorf("CPU mask %q is not understood", text)
		}
		for bit := range 32 {
			if bits>>bit&1 != 0 {
				cpus = append(cpus, at*32+bit)
			}
		}
	}
	return cpus, nil
}

// chosenWord is the one in brackets: always [madvise] never.
func chosenWord(text string) (string, error) {
	_, rest, _ := strings.Cut(text, "[")
	word, _, found := strings.Cut(rest, "]")
	if !found {
		return "", fmt.Errorf("%q has no word in brackets", text)
	}
	return word, nil
}

// field is the rest of the line that starts with the name and a colon, as in /proc/meminfo and /proc/self/status.
func field(text, name string) (string, error) {
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, name+":"); found {
			return strings.TrimSpace(rest), nil
		}
	}
	return "", fmt.Errorf("no line %q: %w", name, fs.ErrNotExist)
}

// kibibytes is a field of /proc/meminfo in bytes.
func kibibytes(text, name string) Fact[Bytes] {
	value, err := field(text, name)
	if err != nil {
		return unknown[Bytes](why(err))
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(value, " kB"), 10, 53) // In bytes it must fit 63 bits.
	return factOf(Bytes(n<<10), err)
}

// kernelVersion gives major and minor of a release such as 6.18.44-amd64, and whether it could be read.
func kernelVersion(release string) (major, minor int, ok bool) {
	n, err := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major, minor, err == nil && n == 2 && major >= 0 && minor >= 0
}

// interrupt is a line of /proc/interrupts: its number and what names it.
type interrupt struct {
	number int
	names  string // chip, hardware number and actions
}

// parseInterrupts reads /proc/interrupts. Lines of interrupts without a number (NMI, LOC) are left out.
func parseInterrupts(text string) []interrupt {
	head, rest, _ := strings.Cut(text, "\n")
	counters := len(strings.Fields(head))
	var found []interrupt
	for line := range strings.Lines(rest) {
		fields := strings.Fields(line)
		if len(fields) < counters+2 {
			continue
		}
		number, err := strconv.ParseUint(strings.TrimSuffix(fields[0], ":"), 10, 31)
		if err == nil {
			found = append(found, interrupt{int(number), strings.Join(fields[counters+1:], " ")})
		}
	}
	return found
}

// queueInterrupts finds the interrupt of each RX queue by the names that drivers give them: the interface's name or the
// device's address, and the queue's number at the end (eth0-TxRx-3, virtio2-input.0, mlx5_comp1@pci:0000:03:00.0). A queue
// with none or several candidates is left out.
func queueInterrupts(all []interrupt, owners []string) map[int]int {
	found, doubted := map[int]int{}, map[int]bool{}
	for _, i := range all {
		action := i.names[strings.LastIndexByte(i.names, ' ')+1:]
		if !isOwned(action, owners) {
			continue
		}
		name, _, _ := strings.Cut(action, "@")
		queue, ok := trailingNumber(name)
		if !ok || isOfNoQueue(name) || slices.Contains(owners, name) {
			continue
		}
		if _, double := found[queue]; double {
			doubted[queue] = true
		}
		found[queue] = i.number
	}
	for queue := range doubted {
		delete(found, queue)
	}
	return found
}

// isOwned looks for an owner as a whole word: eth1 does not own eth10-TxRx-0.
func isOwned(action string, owners []string) bool {
	for _, owner := range owners {
		for rest := action; owner != ""; {
			at := strings.Index(rest, owner)
			if at < 0 {
				break
			}
			end := at + len(owner)
			if (at == 0 || !isWordByte(rest[at-1])) && (end == len(rest) || !isWordByte(rest[end])) {
				return true
			}
			rest = rest[end:]
		}
	}
	return false
}

func isWordByte(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b == '_'
}

// isOfNoQueue knows transmit queues, and what drivers call interrupts about the device itself.
func isOfNoQueue(name string) bool {
	lower := strings.ToLower(name)
	about := []string{"async", "misc", "mgmt", "config", "ctrl", "output"}
	return slices.ContainsFunc(about, func(word string) bool { return strings.Contains(lower, word) }) || strings.Contains(lower, "tx") && !strings.Contains(lower, "rx")
}

func trailingNumber(name string) (int, bool) {
	start := len(name)
	for start > 0 && '0' <= name[start-1] && name[start-1] <= '9' {
		start--
	}
	n, err := strconv.Atoi(name[start:])
	return n, err == nil && start > 0
}

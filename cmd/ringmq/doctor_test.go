package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/xdp/probe"
)

// TestDoctorRefused: what cannot be examined gets one line and exit status 1.
func TestDoctorRefused(t *testing.T) {
	for _, r := range []refusal{
		{"no such interface", []string{"-i", "missing0"}, []string{"missing0"}},
		{"no such interface among others", []string{"--interface", "lo,missing0", "--json"}, []string{"missing0"}},
		{"empty name", []string{"--interface", ""}, []string{"--interface"}},
		{"argument", []string{"eth0"}, []string{"eth0", "--help"}},
		{"mode", []string{"--mode", "fast"}, []string{"--mode", "fast"}},
		{"requirement", []string{"--mode", "xdp", "--xdp-require", "fast"}, []string{"--xdp-require", "fast"}},
		{"requirement of mode auto", []string{"--xdp-require", "native"}, []string{"--xdp-require", "--mode xdp"}},
		{"limit", []string{"--xdp-limit", "fast"}, []string{"--xdp-limit", "fast"}},
		{"queues", []string{"--queues", "0,x"}, []string{"--queues", "0,x"}},
		{"frames", []string{"--frame-size", "1024"}, []string{"--frame-size", "1024", "4096"}},
		{"port", []string{"-p", "0"}, []string{"--port", "0"}},
		{"port too large", []string{"-p", "65536"}, []string{"65536"}},
		{"unknown flag", []string{"--lisen"}, []string{"lisen"}},
	} {
		stdout, stderr, code := plainly(t, append([]string{"doctor"}, r.arguments...)...)
		t.Run(r.name, func(t *testing.T) { checkRefusal(t, r.words, stdout, stderr, code) })
	}
}

// TestDoctorTriesEveryFlag: nothing of this host is judged but what every host has.
func TestDoctorTriesEveryFlag(t *testing.T) {
	used := map[string]bool{}
	free := "-p " + unusedPort(t)
	for _, line := range []string{
		free, free + " --json", free + " --frame-size 4096 --queues 0,2-3 --xdp-limit native --allow-unbound-queues",
		free + " --mode standard --queues all",
	} {
		arguments := strings.Fields(line)
		for _, a := range arguments {
			used[strings.TrimLeft(a, "-")] = true
		}
		stdout, stderr, code := plainly(t, append([]string{"doctor"}, arguments...)...)
		if code != 0 && code != doctorWarns || stderr != "" || !strings.Contains(stdout, "standard") {
			t.Errorf("%s: exit code %d, %q\n%s", line, code, stderr, stdout)
		}
	}
	stdout, stderr, code := plainly(t, "doctor", "--mode", "xdp", "--xdp-require", "any")
	if code != doctorRefuses || stderr != "" || !strings.Contains(stdout, "would not start: mode xdp needs an interface") {
		t.Errorf("exit code %d, %q\n%s", code, stderr, stdout)
	}
	used["mode"], used["xdp-require"] = true, true
	used["interface"], used["port"] = true, true // TestDoctorRefused, TestDoctorVeth
	checkUsed(t, doctorCommand(), used)
}

// TestDoctorJSON: a program reads it back.
func TestDoctorJSON(t *testing.T) {
	port := unusedPort(t)
	stdout, stderr, code := plainly(t, "doctor", "--json", "--port", port)
	var r doctorReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || stderr != "" {
		t.Fatalf("%v, %q\n%s", err, stderr, stdout)
	}
	if r.ExitStatus != code || fmt.Sprint(r.Plan.Port) != port || r.Plan.Wish != probe.WishAuto || r.Choice.Mode != probe.Standard || r.Choice.Reason == "" {
		t.Errorf("exit code %d: %+v", code, r)
	}
	if r.Host.System == "" || strings.Contains(stdout, `"findings": null`) || strings.Contains(stdout, `"interfaces": null`) {
		t.Errorf("%s", stdout)
	}
}

// TestDoctorStatus: the exit status follows choice and findings.
func TestDoctorStatus(t *testing.T) {
	finding := func(s probe.Severity) []probe.Finding { return []probe.Finding{{Severity: probe.OK}, {Severity: s}} }
	for _, c := range []struct {
		mode     probe.Mode
		running  bool
		findings []probe.Finding
		want     int
	}{
		{probe.Standard, false, nil, 0}, {probe.ZeroCopy, false, finding(probe.Note), 0}, {probe.Native, false, finding(probe.Warning), doctorWarns},
		{probe.Standard, false, finding(probe.Problem), doctorWarns}, {probe.Standard, false, finding(probe.Running), doctorWarns},
		{probe.None, false, nil, doctorRefuses}, {probe.None, false, finding(probe.Problem), doctorRefuses},
		{probe.None, true, finding(probe.Running), doctorRunning}, {probe.None, true, finding(probe.Warning), doctorRunning},
	} {
		r := doctorReport{Choice: probe.Choice{Mode: c.mode, Running: c.running}, Findings: c.findings}
		if got := r.status(); got != c.want {
			t.Errorf("%v with %+v: %d, not %d", c.mode, c.findings, got, c.want)
		}
	}
}

// TestDoctorPrints a report with everything that can be said, once plain and once for a terminal.
func TestDoctorPrints(t *testing.T) {
	r := doctorReport{
		Plan: probe.Plan{}.Complete(),
		Host: probe.HostFacts{System: "linux", Kernel: "6.12.1", Architecture: "amd64", UserID: 1000, UserNamespace: true,
			LockedMemory: probe.Limit{Soft: 8 << 20, Hard: probe.Unlimited}, Descriptors: probe.Limit{Soft: 1024, Hard: 1024},
			Capabilities: []probe.Capability{{Name: "CAP_BPF", Held: true}, {Name: "CAP_NET_RAW"}},
			Memory:       probe.MemoryFacts{HugePages: probe.Fact[[]probe.HugePages]{Value: []probe.HugePages{{SizeBytes: 2 << 20, Total: 4, Free: 3}, {SizeBytes: 1 << 30}}}},
			Firewall:     probe.FirewallFacts{Chains: probe.Fact[[]probe.Chain]{Unknown: "nft shows its rules to root only"}}},
		Interfaces: []probe.InterfaceFacts{{
			Name: "eth0", Kind: "device", Driver: "ice", Version: "1.2", Bus: "0000:03:00.0", Up: true, Master: "bond0", VLANs: []string{"eth0.5"},
			NUMANode: probe.Fact[int]{Value: 1}, NodeCPUs: probe.Fact[probe.CPUList]{Value: probe.CPUList{2, 3}},
			Programs: []probe.Program{{ID: 9, Mode: "native", Name: probe.Fact[string]{Value: "filter"}}},
			Queues:   probe.Fact[[]probe.Queue]{Value: []probe.Queue{{Index: 0}, {Index: 1}, {Index: 2, Socket: true}}},
			Rules:    probe.Fact[[]probe.FlowRule]{Value: make([]probe.FlowRule, 8)},
		}},
		Findings: []probe.Finding{
			{Severity: probe.Problem, Interface: "eth0", Topic: "mtu", Says: "too large", Remedy: "ip link set dev eth0 mtu 1500", Alternative: "larger frames"},
			{Severity: probe.Running, Topic: "port", Says: "taken", NoCommand: "nobody knows"},
			{Severity: probe.Warning, Topic: "privileges", Says: "first", Remedy: "setcap all"},
			{Severity: probe.Warning, Topic: "privileges", Says: "second", Remedy: "setcap all"},
			{Severity: probe.Note, Topic: "cpu", Says: "third"}, {Severity: probe.OK, Topic: "kernel", Says: "fourth"},
		},
		Choice: probe.Choice{Mode: probe.Standard, Reason: "the MTU", Remedy: "ip link set dev eth0 mtu 1500"},
		named:  true,
	}
	var plain, painted bytes.Buffer
	if err := (&doctorPrinter{to: &plain}).print(r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Linux 6.12.1 on amd64", "1000, in a user namespace", "has            CAP_BPF", "lacks          CAP_NET_RAW", "8 MiB, may be raised to unlimited",
		"4 of 2 MiB, 3 free;", "unknown (nft shows its rules to root only)", "interface eth0", "no carrier, device, belongs to bond0, VLANs eth0.5",
		"ice 1.2 at 0000:03:00.0", "1, CPUs 2-3", "id 9, native mode, filter", "queues 0-1 ", "queue 2 ", "and 2 more",
		"  problem  eth0 mtu    too large\n                       -> ip link set dev eth0 mtu 1500\n                       or larger frames\n",
		"  running  port        taken\n                       no command: nobody knows\n",
		"first\n  warning  privileges  second\n                       -> setcap all\n", "  note     cpu         third\n", "  ok       kernel      fourth\n",
		"verdict: mode auto would choose standard: the MTU\n         -> ip link set dev eth0 mtu 1500\n",
	} {
		if !strings.Contains(plain.String(), want) {
			t.Errorf("no %q in\n%s", want, &plain)
		}
	}
	r.Choice = probe.Choice{Running: true, Reason: "the MTU", Remedy: "kill 7"}
	var beside bytes.Buffer
	if err := (&doctorPrinter{to: &beside}).print(r); err != nil {
		t.Fatal(err)
	}
	if want := "verdict: a ringmq runs already; beside it mode auto would not start: the MTU\n         -> kill 7\n"; !strings.HasSuffix(beside.String(), want) {
		t.Errorf("no %q in\n%s", want, &beside)
	}
	if err := (&doctorPrinter{to: &painted, colour: true}).print(r); err != nil {
		t.Fatal(err)
	}
	bare := painted.String()
	for _, code := range []string{"0", "1", "31", "32", "33", "36"} {
		if !strings.Contains(bare, "\x1b["+code+"m") {
			t.Errorf("nothing in colour %s", code)
		}
		bare = strings.ReplaceAll(bare, "\x1b["+code+"m", "")
	}
	if bare != beside.String() {
		t.Errorf("without colours it is not the same:\n%s\n%s", bare, &beside)
	}
}

// closedPipe is where nobody reads any more.
type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestDoctorPrintsIntoNothing(t *testing.T) {
	for _, system := range []string{"linux", "darwin"} {
		r := doctorReport{Host: probe.HostFacts{System: system}}
		if err := (&doctorPrinter{to: closedPipe{}}).print(r); err == nil {
			t.Errorf("%s: no error", system)
		}
	}
}

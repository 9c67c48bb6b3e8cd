package probe

import (
	"strings"
	"testing"
)

// steered is an interface that a ringmq has.
func steered(i InterfaceFacts, holder Fact[Process]) InterfaceFacts {
	i.Programs = []Program{{ID: 17, Mode: "native", Name: known(ProgramName), LinkID: known(uint32(5)), Holder: holder}}
	for n := range i.Queues.Value {
		i.Queues.Value[n].Socket = true
	}
	return i
}

func takenRows() []findingRow {
	ringmq := known(Process{ID: 812, Command: "ringmq", Admin: "/run/ringmq/812.sock"})
	mosquitto := known(Process{ID: 9, Command: "mosquitto", Unit: "mosquitto.service"})
	return []findingRow{
		{"a ringmq runs", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { *i = steered(*i, ringmq) },
			Running, "ringmq", "a ringmq runs here, process 812 (ringmq, admin socket /run/ringmq/812.sock)|program 17 in native mode|this host works|refused", "sudo kill 812"},
		{"a ringmq runs as a service, on a driver without zero-copy", func(_ *HostFacts, i *InterfaceFacts, p *Plan) {
			i.Features.Value.ZeroCopy, p.Wish = false, WishAuto
			*i = steered(*i, known(Process{ID: 812, Command: "ringmq", Unit: "ringmq.service"}))
		}, Running, "ringmq", "process 812 (ringmq, ringmq.service)", "sudo systemctl stop ringmq.service"},
		{"a ringmq runs, of somebody", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			*i = steered(*i, unknown[Process]("not permitted to this user"))
		}, Running, "ringmq", "its process unknown (not permitted to this user)", ""},
		{"a queue is taken", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) { i.Queues.Value[2].Socket = true },
			Problem, "queues", "another process has queue 2", "sudo grep -ls socket: /proc/[0-9]*/maps"},
		{"queues are taken", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			for _, n := range []int{0, 1, 3} {
				i.Queues.Value[n].Socket, i.Queues.Value[n].Holder = true, known(Process{ID: 77, Command: "suricata"})
			}
		}, Problem, "queues", "process 77 (suricata) has queues 0-1,3", "sudo kill 77"},
		{"a ringmq has detached its program", func(_ *HostFacts, i *InterfaceFacts, _ *Plan) {
			i.Queues.Value[1].Socket, i.Queues.Value[1].Holder = true, ringmq
		}, Running, "queues", "process 812 (ringmq, admin socket /run/ringmq/812.sock) has queue 1", "sudo kill 812"},
		{"the port is taken", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.Listeners = known([]Listener{{"127.0.0.1:1883", mosquitto}, {"[::1]:1883", mosquitto}})
		}, Problem, "port", "port 1883 is taken by process 9 (mosquitto, mosquitto.service)|127.0.0.1:1883 and [::1]:1883", "sudo systemctl stop mosquitto.service"},
		{"the port is taken, of somebody", func(h *HostFacts, _ *InterfaceFacts, _ *Plan) {
			h.Listeners = known([]Listener{{"0.0.0.0:1883", unknown[Process]("not permitted to this user")}})
		}, Problem, "port", "port 1883 is taken by another process", "sudo ss --listening --tcp --processes sport = :1883"},
	}
}

// TestChooseBesideAnother: what another broker on this host means for each mode, and whether it is all that stands in the way.
func TestChooseBesideAnother(t *testing.T) {
	listening := func(command string, id int) HostFacts {
		h := goodHost()
		h.Listeners = known([]Listener{{"0.0.0.0:1883", known(Process{ID: id, Command: command})}})
		return h
	}
	free := goodInterface()
	taken := steered(goodInterface(), known(Process{ID: 812, Command: "ringmq"}))
	renamed := steered(goodInterface(), known(Process{ID: 812, Command: "broker"}))
	large := taken
	large.MTU = 9000
	for _, c := range []struct {
		name    string
		host    HostFacts
		on      InterfaceFacts
		wish    Wish
		mode    Mode
		running bool
		reason  string
	}{
		{"xdp, on its interface, at another port", goodHost(), taken, WishXDP, None, true, "eth0: a ringmq runs here"},
		{"auto, on its interface, at another port", goodHost(), taken, WishAuto, Standard, false, "eth0: a ringmq runs here"},
		{"standard, at another port", goodHost(), taken, WishStandard, Standard, false, "asks for it"},
		{"xdp, on its interface and at its port", listening("ringmq", 812), taken, WishXDP, None, true, "eth0: a ringmq runs here"},
		{"auto, on its interface and at its port", listening("ringmq", 812), taken, WishAuto, None, true, "port 1883 is taken by process 812"},
		{"auto, under another name", listening("broker", 812), renamed, WishAuto, None, true, "port 1883 is taken by process 812"},
		{"standard, at its port", listening("ringmq", 812), free, WishStandard, None, true, "port 1883 is taken by process 812"},
		{"xdp, elsewhere, at its port", listening("ringmq", 812), free, WishXDP, None, true, "port 1883 is taken by process 812"},
		{"auto, at the port of another broker", listening("mosquitto", 9), free, WishAuto, None, false, "port 1883 is taken by process 9 (mosquitto)"},
		{"xdp, on its interface, at the port of another broker", listening("mosquitto", 9), taken, WishXDP, None, false, "port 1883 is taken by process 9 (mosquitto)"},
		{"xdp, and it would not start again", goodHost(), large, WishXDP, None, false, "eth0: the MTU is 9000"},
	} {
		got := Choose(c.host, []InterfaceFacts{c.on}, Plan{Wish: c.wish})
		if got.Mode != c.mode || got.Running != c.running || !strings.Contains(got.Reason, c.reason) || c.mode == None && got.Remedy == "" {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// TestAlternatives: where there are two ways, both are offered.
func TestAlternatives(t *testing.T) {
	drops := goodHost()
	drops.Firewall.Chains = known([]Chain{{Tool: "nftables", Name: "inet filter input", Hook: "input", Policy: "drop"}})
	mtu := func(i InterfaceFacts, n int) InterfaceFacts { i.MTU = n; return i }
	const frames = "frame_size = 4096 in the table [xdp] of the configuration, for packets of up to 3818"
	for _, c := range []struct {
		host  HostFacts
		on    InterfaceFacts
		plan  Plan
		topic string
		want  string
	}{
		{goodHost(), mtu(goodInterface(), 3818), Plan{}, "mtu", frames},
		{goodHost(), mtu(goodInterface(), 3819), Plan{}, "mtu", ""},
		{goodHost(), mtu(goodInterface(), 3900), Plan{FrameSizeBytes: 4096}, "mtu", ""},
		{goodHost(), mtu(goodVeth(), 3506), Plan{}, "mtu", frames},
		{goodHost(), mtu(goodVeth(), 3507), Plan{}, "mtu", ""},
		{goodHost(), goodInterface(), Plan{Queues: []int{0, 5}}, "queues", "sudo ethtool -L eth0 combined 6"},
		{goodHost(), goodInterface(), Plan{Queues: []int{0, 8}}, "queues", ""},
		{goodHost(), steered(goodInterface(), known(Process{ID: 812})), Plan{}, "ringmq", "ringmq xdp status --admin 812 shows how it does"},
		{drops, goodInterface(), Plan{}, "firewall", "ringmq xdp deny and ringmq xdp allow filter what XDP takes, by source"},
	} {
		c.plan.Wish = WishXDP
		found := 0
		for _, f := range Findings(c.host, []InterfaceFacts{c.on}, c.plan) {
			if f.Topic == c.topic && f.Severity != OK {
				found++
				if f.Alternative != c.want {
					t.Errorf("%s: alternative %q, want %q", f.Says, f.Alternative, c.want)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d findings about %s", found, c.topic)
		}
	}
}

package probe

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	good, veth, plain := goodInterface(), goodVeth(), goodInterface()
	plain.Name, plain.Driver, plain.Features = "eth9", "r8169", known(Features{})
	old, large, refused := goodInterface(), goodInterface(), goodInterface()
	old.Features = unknown[Features]("kernels before Linux 6.3 do not list what a driver can do")
	large.Name, large.MTU = "eth1", 9000
	refused.NativeRefused = "the hypervisor merges segments"
	oldVeth := goodVeth()
	oldVeth.Features = unknown[Features]("before Linux 6.3")
	poor := goodHost()
	lose(&poor, "CAP_NET_RAW")
	for _, c := range []struct {
		name       string
		host       HostFacts
		interfaces []InterfaceFacts
		plan       Plan
		mode       Mode
		trial      bool
		reason     string // its words
		remedy     string
	}{
		{"standard is asked for", goodHost(), []InterfaceFacts{good}, Plan{Wish: WishStandard}, Standard, false, "asks for it", ""},
		{"auto, none named", goodHost(), nil, Plan{}, Standard, false, "only on interfaces that --interface names", ""},
		{"auto, zero-copy", goodHost(), []InterfaceFacts{good}, Plan{}, ZeroCopy, false, "eth0 (ice) offers it", ""},
		{"auto, no zero-copy", goodHost(), []InterfaceFacts{veth}, Plan{}, Standard, false,
			"veth0 (veth) has no zero-copy|needs --mode xdp", "ringmq serve --mode xdp --interface veth0 --listen :1883"},
		{"auto, one of two", goodHost(), []InterfaceFacts{good, veth}, Plan{}, Standard, false, "veth0 (veth) has no zero-copy",
			"ringmq serve --mode xdp --interface eth0 --interface veth0 --listen :1883"},
		{"auto, MTU", goodHost(), []InterfaceFacts{good, large}, Plan{}, Standard, false, "eth1: the MTU is 9000", "sudo ip link set dev eth1 mtu 1500"},
		{"auto, no privilege", poor, []InterfaceFacts{good}, Plan{}, Standard, false, "CAP_NET_RAW is missing",
			"sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep /usr/bin/ringmq"},
		{"auto, driver before MTU", goodHost(), []InterfaceFacts{large, veth}, Plan{}, Standard, false, "veth0 (veth) has no zero-copy",
			"ringmq serve --mode xdp --interface eth1 --interface veth0 --listen :1883"},
		{"auto takes no less, whatever is required", goodHost(), []InterfaceFacts{veth}, Plan{Require: Generic}, Standard, false, "no zero-copy",
			"ringmq serve --mode xdp --interface veth0 --listen :1883"},
		{"auto, kernel does not tell", goodHost(), []InterfaceFacts{old}, Plan{}, ZeroCopy, true, "to be tried on eth0 (ice)", ""},
		{"auto, limited", goodHost(), []InterfaceFacts{good}, Plan{Limit: Native}, Standard, false, "limited to xdp native copy by --xdp-limit",
			"ringmq serve --mode xdp --interface eth0 --listen :1883"},
		{"auto, refused", goodHost(), []InterfaceFacts{refused}, Plan{}, Standard, false, "refuses native XDP: the hypervisor",
			"ringmq serve --mode xdp --xdp-require any --interface eth0 --listen :1883"},
		{"another system", HostFacts{System: "freebsd"}, []InterfaceFacts{good}, Plan{}, Standard, false, "needs Linux", ""},
		{"xdp on another system", HostFacts{System: "freebsd"}, nil, Plan{Wish: WishXDP}, None, false, "needs an interface", "ringmq serve --mode xdp --interface NAME --listen :1883"},
		{"xdp, none named", goodHost(), nil, Plan{Wish: WishXDP}, None, false, "needs an interface", "ringmq serve --mode xdp --interface NAME --listen :1883"},
		{"xdp, zero-copy", goodHost(), []InterfaceFacts{good}, Plan{Wish: WishXDP}, ZeroCopy, false, "offers it", ""},
		{"xdp, native", goodHost(), []InterfaceFacts{veth}, Plan{Wish: WishXDP}, Native, false, "veth0 (veth) offers it", ""},
		{"xdp, the weakest of two", goodHost(), []InterfaceFacts{good, veth}, Plan{Wish: WishXDP}, Native, false, "eth0 (ice) and veth0 (veth) offer it", ""},
		{"xdp, zero-copy required", goodHost(), []InterfaceFacts{veth}, Plan{Wish: WishXDP, Require: ZeroCopy}, None, false, "takes no less",
			"ringmq serve --mode xdp --interface veth0 --listen :1883"},
		{"xdp, generic only", goodHost(), []InterfaceFacts{plain}, Plan{Wish: WishXDP}, None, false, "only generic",
			"ringmq serve --mode xdp --xdp-require any --interface eth9 --listen :1883"},
		{"xdp, generic is enough", goodHost(), []InterfaceFacts{plain}, Plan{Wish: WishXDP, Require: Generic}, Generic, false, "eth9 (r8169) offers it", ""},
		{"xdp, limited", goodHost(), []InterfaceFacts{good}, Plan{Wish: WishXDP, Limit: Generic, Require: Generic}, Generic, false, "offers it", ""},
		{"xdp, kernel does not tell", goodHost(), []InterfaceFacts{oldVeth}, Plan{Wish: WishXDP}, ZeroCopy, true, "to be tried on veth0 (veth)", ""},
		{"xdp, limited and the kernel does not tell", goodHost(), []InterfaceFacts{oldVeth}, Plan{Wish: WishXDP, Limit: Native}, Native, true, "to be tried", ""},
		{"xdp, unbound queue", goodHost(), []InterfaceFacts{good}, Plan{Wish: WishXDP, Queues: []int{0}}, None, false, "eth0: RSS delivers to queues 1-3",
			"sudo ethtool -X eth0 equal 1"},
		{"xdp, unbound queue allowed", goodHost(), []InterfaceFacts{good}, Plan{Wish: WishXDP, Queues: []int{0}, AllowUnbound: true}, ZeroCopy, false, "offers it", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Choose(c.host, c.interfaces, c.plan)
			if got.Mode != c.mode || got.Trial != c.trial || got.Remedy != c.remedy {
				t.Errorf("%+v", got)
			}
			for word := range strings.SplitSeq(c.reason, "|") {
				if !strings.Contains(got.String(), word) || strings.Contains(got.String(), "\n") {
					t.Errorf("no %q in %q", word, got)
				}
			}
		})
	}
}

// TestUnbound: where RSS is not told, it may deliver anywhere.
func TestUnbound(t *testing.T) {
	told, untold := goodInterface(), goodVeth()
	told.RSS.Value.Slots = []int{64, 0, 64, 0}
	blind := goodVeth()
	blind.Queues = unknown[[]Queue]("sysfs shows another network namespace")
	for _, c := range []struct {
		i     InterfaceFacts
		bound []int
		want  string
	}{
		{told, nil, "none"}, {told, []int{0, 2}, "none"}, {told, []int{0}, "2"}, {told, []int{1}, "0,2"},
		{untold, []int{0, 2}, "1,3"}, {untold, nil, "none"}, {blind, []int{0, 1}, "2-3"},
	} {
		if got := CPUList(c.i.Unbound(c.bound)).String(); got != c.want {
			t.Errorf("%v bound on %s: %s unbound, not %s", c.bound, c.i.Name, got, c.want)
		}
	}
}

func TestModeText(t *testing.T) {
	for m := None; m <= ZeroCopy; m++ {
		var back Mode
		text, err := json.Marshal(m)
		if err != nil || json.Unmarshal(text, &back) != nil || back != m {
			t.Errorf("%v becomes %s becomes %v", m, text, back)
		}
	}
	var m Mode
	if err := m.UnmarshalText([]byte("fast")); err == nil || !strings.Contains(err.Error(), "fast") {
		t.Error(err)
	}
	for text, want := range map[string]Mode{"any": Generic, "generic": Generic, "native": Native, "zerocopy": ZeroCopy} {
		if got, err := ParseRequire(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	if _, err := ParseRequire("fast"); err == nil {
		t.Error("fast is no requirement")
	}
	if _, err := ParseWish("fast"); err == nil {
		t.Error("fast is no mode")
	}
	for _, w := range []Wish{WishAuto, WishXDP, WishStandard} {
		if got, err := ParseWish(string(w)); got != w || err != nil {
			t.Errorf("%s: %s, %v", w, got, err)
		}
	}
}

// TestFactJSON: a value is itself, a reason an object, and both come back.
func TestFactJSON(t *testing.T) {
	for want, f := range map[string]Fact[[]int]{`[1,2]`: known([]int{1, 2}), `[]`: {}, `{"unknown":"not permitted"}`: unknown[[]int]("not permitted")} {
		data, err := json.Marshal(f)
		if err != nil || string(data) != want {
			t.Errorf("%s, not %s: %v", data, want, err)
		}
		var back Fact[[]int]
		if err := json.Unmarshal(data, &back); err != nil || back.Unknown != f.Unknown || len(back.Value) != len(f.Value) {
			t.Errorf("%s comes back as %+v: %v", data, back, err)
		}
	}
	var back Fact[Channels]
	if err := json.Unmarshal([]byte(`{"combined":4}`), &back); err != nil || back.Value.Combined != 4 {
		t.Errorf("%+v: %v", back, err)
	}
}

package probe

import "testing"

// TestUnit reads what both versions of cgroups write.
func TestUnit(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/ringmq.service\n":                                                 "ringmq.service",
		"0::/system.slice/system-ringmq.slice/ringmq@eth0.service\n":                        "ringmq@eth0.service",
		"12:pids:/system.slice/mosquitto.service\n1:name=systemd:/system.slice/x.service\n": "mosquitto.service",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/mqtt.service\n":         "mqtt.service",
		"0::/user.slice/user-1000.slice/session-1.scope\n":                                  "",
		"0::/\n": "",
		"":       "",
	} {
		if got := unitOf(text); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

// TestProcessText: what is not known of a process is left out.
func TestProcessText(t *testing.T) {
	for want, p := range map[string]Process{
		"no process": {}, "process 7": {ID: 7}, "process 7 (ringmq)": {ID: 7, Command: "ringmq"},
		"process 7 (ringmq, ringmq.service, admin socket /a)": {ID: 7, Command: "ringmq", Unit: "ringmq.service", Admin: "/a"},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

package main

import (
	"strings"
	"testing"
)

// TestAuto: mode auto serves, over the host's TCP where XDP cannot be, says why in one line and leaves nothing on the interface.
func TestAuto(t *testing.T) {
	for _, c := range []struct{ name, program, before, arguments, address, words string }{
		{"no zero-copy", "1", "", "--listen :1883", "198.18.0.1", "doctora (veth) has no zero-copy|remedy=\"ringmq serve --mode xdp --interface doctora --listen :1883"},
		{"zero-copy refused at the opening", promised, "", "--listen :1883", "198.18.0.1", "doctora\\\" has no zero-copy, and mode auto takes no less|queue 0|remedy=\"--mode xdp takes native copy mode"},
		{"locked memory", promised, "ulimit -l 64; DROP='capsh --drop=cap_ipc_lock --'", "--listen :1883", "198.18.0.1", "RLIMIT_MEMLOCK|remedy=\"prlimit"},
		{"another ringmq", promised, `"$0" serve --allow-anonymous --admin none -q --mode xdp -i doctora --listen :1884 2> /dev/null & other=$!
until ip link show doctora | grep -q prog/xdp; do sleep .05; done`, "--listen :1883", "198.18.0.1", "another ringmq"},
		{"listeners on loopback", "1", "", "", "127.0.0.1", "all listeners are on loopback|remedy=\"add --listen ADDR:PORT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout := inDoctorLab(t, `mount -t tmpfs tmpfs /mnt; other=; DROP=
`+c.before+`
run="`+asProgram+`=`+c.program+` exec '$0' serve -i doctora --admin /mnt/admin --allow-anonymous `+c.arguments+`"
${DROP:-sh} -c "$run" 2> /mnt/log & broker=$!
until grep -qs msg=listening /mnt/log; do sleep .05; kill -0 $broker || { cat /mnt/log; exit 1; }; done
"$0" pub -h `+c.address+` -t a -m 1
"$0" status --admin /mnt/admin
test -n "$other" || ! ip link show doctora | grep xdp || echo "left behind"
kill $broker $other; wait
grep "mode standard" /mnt/log`)
			for word := range strings.SplitSeq(c.words+"|mode standard", "|") {
				if !strings.Contains(stdout, word) {
					t.Errorf("no %q in\n%s", word, stdout)
				}
			}
			if strings.Contains(stdout, "left behind") {
				t.Error(stdout)
			}
		})
	}
}

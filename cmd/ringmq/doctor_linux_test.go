package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/ringmq/ringmq/xdp/probe"
)

// doctorLab is a shell script that makes a veth pair in namespaces of its own, with all as XDP wants it; "$0" is ringmq.
const doctorLab = `mount -t sysfs sysfs /sys
ip link set lo up
ip link add doctora numrxqueues 4 numtxqueues 4 type veth peer name doctorb numrxqueues 4 numtxqueues 4
ip address add 198.18.0.1/24 dev doctora
ip link set doctora up
ip link set doctorb up
ethtool -K doctorb tx off > /dev/null
`

// inDoctorLab runs a script behind doctorLab and gives what it prints.
func inDoctorLab(t *testing.T, script string) (stdout string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: CAP_SYS_ADMIN and CAP_NET_ADMIN for namespaces and veth pairs")
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", doctorLab+script, os.Args[0])
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("%v, %s\n%s", err, &errs, &out)
	}
	return out.String()
}

// TestDoctorVeth: what each mode would do on a veth pair, and its exit status.
func TestDoctorVeth(t *testing.T) {
	for _, c := range []struct{ before, arguments, exit, words string }{
		{"", "-i doctora", "2", "mode auto would choose standard: doctora (veth) has no zero-copy|-> ringmq serve --mode xdp --interface doctora --listen :1883"},
		{"", "--interface doctora --mode xdp", "0", "mode xdp would choose xdp native copy: doctora (veth) offers it|queues 0-3|native, redirect, no zero-copy"},
		{"", "-i doctora --mode xdp --xdp-require zerocopy", "3", "mode xdp would not start: doctora (veth) has no zero-copy"},
		{"", "-i doctora,doctorb --mode standard", "0", "mode standard would choose standard: --mode standard asks for it"},
		{"ip link set dev doctora mtu 9000", "-i doctora --mode xdp", "3", "problem|the MTU is 9000|-> ip link set dev doctora mtu 1500"},
		{"", "-i doctora --mode xdp --queues 0-1", "3", "RSS delivers to queues 2-3, not bound"},
		{"", "-i doctora --mode xdp --queues 0-1 --allow-unbound-queues", "2", "RSS delivers to queues 2-3, not bound: the host's TCP"},
		{"", "", "0", "interfaces (--interface NAME examines one)|strongest mode: xdp native copy|only on interfaces that --interface names"},
	} {
		// A host that gives huge pages always and runs irqbalance has two notes more, and no other exit status.
		stdout := inDoctorLab(t, c.before+`
code=0; "$0" doctor `+c.arguments+` || code=$?
echo "exit $code"`)
		for word := range strings.SplitSeq(c.words+"|exit "+c.exit+"\n", "|") {
			if !strings.Contains(stdout, word) {
				t.Errorf("%s: no %q in\n%s", c.arguments, word, stdout)
			}
		}
	}
}

// TestDoctorRemediesWork: a veth pair with all that can be wrong, then the commands that doctor prints, then nothing is.
func TestDoctorRemediesWork(t *testing.T) {
	stdout := inDoctorLab(t, `ip link set dev doctora mtu 9000
ip link set dev doctora down
ethtool -K doctorb tx on > /dev/null
ethtool -L doctora rx 2
run() { code=0; "$0" doctor -i doctora --mode xdp --queues 0 > report || code=$?; echo "exit $code"; cat report; }
mount -t tmpfs tmpfs /mnt; cd /mnt
run
sed '/^verdict/,$d' report | grep -o -- '-> .*doctor[ab].*' | grep -v ringmq | cut -c4- > remedies
grep -q . remedies
sh -eux remedies 2>&1
run`)
	before, after, _ := strings.Cut(stdout, "\nexit 0\n")
	for _, want := range []string{"exit 3", "the MTU is 9000", "the interface is down", "its peer doctorb has 4 TX queues, and itself 2 RX queues",
		"leaves checksums", "RSS delivers to queue 1", "+ ip link set dev doctora mtu 1500", "+ ip link set dev doctora up", "+ ethtool -K doctorb tx off"} {
		if !strings.Contains(before, want) {
			t.Errorf("no %q in\n%s", want, before)
		}
	}
	if !strings.Contains(after, "mode xdp would choose xdp native copy") || strings.Contains(after, "warning") || strings.Contains(after, "problem") {
		t.Errorf("after the remedies:\n%s", stdout)
	}
}

// TestDoctorAsNobody: without privileges it says which are missing, and what it could not read.
func TestDoctorAsNobody(t *testing.T) {
	stdout := inDoctorLab(t, `mount -t tmpfs -o mode=755 tmpfs /mnt
cp "$0" /mnt/ringmq
code=0; setpriv --reuid 65534 --regid 65534 --clear-groups /mnt/ringmq doctor -i doctora --mode xdp --json || code=$?
test $code = 3`)
	var r doctorReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	missing := map[string]string{}
	for _, f := range r.Findings {
		if f.Severity == probe.Problem && f.Topic == "privileges" {
			name, _, _ := strings.Cut(f.Says, " ")
			missing[name] = f.Remedy
		}
	}
	for _, name := range []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"} {
		if missing[name] != "sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep /mnt/ringmq" {
			t.Errorf("%s: %q", name, missing[name])
		}
	}
	if r.Choice.Mode != probe.None || r.Host.UserID != 65534 || r.Host.Firewall.IPsecPolicies.Known() || len(r.Interfaces) != 1 {
		t.Errorf("%+v", r)
	}
}

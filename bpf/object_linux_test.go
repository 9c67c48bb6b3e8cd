//go:build amd64 || arm64

package bpf

import (
	"bytes"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// generated are the files that go generate makes of steer.c.
var generated = []string{"steer_bpfel.o", "steer_bpfel.go"}

// TestObjectIsOfThisSource builds the object again, from a copy elsewhere, so that no folder's name may be in it. Another
// version of clang builds another object: it is compared only where the version is the one that built what is committed.
func TestObjectIsOfThisSource(t *testing.T) {
	for _, tool := range []string{"clang", "llvm-strip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("this test needs %s: apt-get install clang llvm libbpf-dev linux-libc-dev", tool)
		}
	}
	if err := exec.Command("clang", "-E", "-xc", "-include", "bpf/bpf_endian.h", os.DevNull).Run(); err != nil {
		t.Skip("this test needs libbpf's headers: apt-get install libbpf-dev")
	}
	recorded, err := os.ReadFile("clang-version")
	must(t, err)
	version, err := exec.Command("clang", "--version").Output()
	must(t, err)
	here, _, _ := strings.Cut(string(version), "\n")
	if want := strings.TrimSpace(string(recorded)); here != want {
		t.Skipf("the committed object is of %q (clang-version), here is %q: not compared", want, here)
	}
	generator := filepath.Join(t.TempDir(), "bpf2go")
	command(t, ".", "go", "build", "-o", generator, "github.com/cilium/ebpf/cmd/bpf2go")
	elsewhere := t.TempDir()
	source, err := os.ReadFile("steer.c")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(elsewhere, "steer.c"), source, 0o600))
	command(t, elsewhere, generator, generatorArguments(t)...)
	for _, name := range generated {
		fresh, err := os.ReadFile(filepath.Join(elsewhere, name))
		must(t, err)
		committed, err := os.ReadFile(name)
		must(t, err)
		if !bytes.Equal(fresh, committed) {
			t.Errorf("%s is not what clang makes of steer.c: go generate ./bpf", name)
		}
	}
}

func command(t *testing.T, folder, name string, arguments ...string) {
	t.Helper()
	c := exec.Command(name, arguments...)
	c.Dir = folder
	if output, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, output)
	}
}

// generatorArguments are what doc.go gives bpf2go.
func generatorArguments(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	must(t, err)
	for _, group := range file.Comments {
		for _, comment := range group.List {
			if arguments, found := strings.CutPrefix(comment.Text, "//go:generate go run github.com/cilium/ebpf/cmd/bpf2go "); found {
				return strings.Fields(arguments)
			}
		}
	}
	t.Fatal("doc.go does not say how the object is made")
	return nil
}

// TestVerdictsAreThoseOfTheProgram compares names and numbers with the enumeration in steer.c.
func TestVerdictsAreThoseOfTheProgram(t *testing.T) {
	source, err := os.ReadFile("steer.c")
	must(t, err)
	_, rest, _ := strings.Cut(string(source), "enum verdict {")
	body, _, found := strings.Cut(rest, "VERDICTS,")
	if !found {
		t.Fatal("steer.c has no enum verdict that ends with VERDICTS")
	}
	names := regexp.MustCompile(`\b[A-Z0-9_]+\b`).FindAllString(body, -1)
	if len(names) != Verdicts {
		t.Fatalf("steer.c has %d verdicts, verdict.go %d", len(names), Verdicts)
	}
	for i, name := range names {
		// The kernel's names break words where Go's do not.
		if got := strings.ToUpper(Verdict(i).String()); got != name {
			t.Errorf("verdict %d is %s in steer.c, %s here", i, name, got)
		}
	}
}

// TestNumbersAreThoseOfTheProgram compares what else both sides must say alike.
func TestNumbersAreThoseOfTheProgram(t *testing.T) {
	for name, pair := range map[string][2]uint32{
		"deny":   {uint32(Deny.set()), uint32(steerListLIST_DENY)},
		"allow":  {uint32(Allow.set()), uint32(steerListLIST_ALLOW)},
		"exempt": {uint32(Exempt.set()), uint32(steerListLIST_EXEMPT)},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %d here, %d in steer.c", name, pair[0], pair[1])
		}
	}
	spec, err := loadSteer()
	must(t, err)
	if spec.Programs[ProgramName] == nil || len(ProgramName) > 15 {
		t.Errorf("steer.c has no program %s of at most 15 bytes", ProgramName)
	}
}

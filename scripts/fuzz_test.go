package scripts

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestFuzzTargetsAreTold: every fuzz target has its place in broker/testdata/README.md, under its package, and keeps inputs in testdata/fuzz.
func TestFuzzTargetsAreTold(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "broker/testdata/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	target, targets := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`), 0
	for _, s := range goFiles(t) {
		for _, m := range target.FindAllSubmatch(s.data, -1) {
			targets++
			name := string(m[1])
			if !regexp.MustCompile("`" + s.folder() + "` [^`|]*\\b" + name + "\\b").Match(page) {
				t.Errorf("%s: %s has no place in the table of broker/testdata/README.md", s.path, name)
			}
			if inputs, err := os.ReadDir(filepath.Join(root, s.folder(), "testdata/fuzz", name)); len(inputs) == 0 {
				t.Errorf("%s: %s keeps no inputs: %v", s.path, name, err)
			}
		}
	}
	if targets < 10 {
		t.Errorf("only %d targets", targets)
	}
}

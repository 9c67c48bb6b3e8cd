package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestBugsAreTold compares the table of planted bugs in broker/testdata/README.md with the patches: each has one row, which says what it does
// as the patch says it, and which test finds it.
func TestBugsAreTold(t *testing.T) {
	list, err := bugs(bugFolder)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../broker/testdata/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "\n| bug | what it does | found by the rule, or the test | seeds |\n|---|---|---|---|\n")
	if !found {
		t.Fatal("there is no table of planted bugs")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := map[string][]string{}
	for line := range strings.Lines(table) {
		cells := regexp.MustCompile(` *\| *`).Split(strings.Trim(line, "| \n"), -1)
		if name := cells[0]; rows[name] != nil || len(cells) < 3 || cells[2] == "" {
			t.Errorf("the row of %q stands there twice, or is not whole", name)
		}
		rows[cells[0]] = cells
	}
	for _, b := range list {
		row := rows[b.name]
		if delete(rows, b.name); row == nil {
			t.Errorf("%s has no row", b.name)
			continue
		}
		if strings.TrimSuffix(b.what, ".") != row[1] {
			t.Errorf("%s: the patch says %q, the table %q", b.name, b.what, row[1])
		}
		if want := "`" + b.test + "`"; b.test != "" && row[2] != want || b.test == "" && strings.HasPrefix(row[2], "`") {
			t.Errorf("%s: the patch names test %q, the table %s", b.name, b.test, row[2])
		}
	}
	for name := range rows {
		t.Errorf("%s has a row and no patch", name)
	}
}

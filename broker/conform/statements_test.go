package conform_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/broker/conform"
	"github.com/ringmq/ringmq/broker/packet"
)

var updateFlag = flag.Bool("update", false, "write the conversations that prove a statement into statements.md")

// statementsProvedMin is how many percent of the statements that concern a server must be proved.
const statementsProvedMin = 95

// TestStatements holds the table to what it says of itself.
func TestStatements(t *testing.T) {
	statements, err := conform.Statements()
	if err != nil {
		t.Fatal(err)
	}
	checks, err := conform.Checks()
	if err != nil {
		t.Fatal(err)
	}
	rewritten := conform.StatementsFile
	proved, concern := map[packet.Version]int{}, map[packet.Version]int{}
	for _, s := range statements {
		want := withConversations(s, checks)
		if *updateFlag {
			table := strings.Index(rewritten, "\n## MQTT "+s.Version.String()+"\n") // The other may have the same row.
			rewritten = rewritten[:table] + strings.Replace(rewritten[table:], s.Row()+"\n", want.Row()+"\n", 1)
			s = want
		}
		if !slices.Equal(s.Proofs, want.Proofs) {
			t.Errorf("%s %s: the table says %q, the conversations say %q: run with -update", s.Version, s.ID, s.Proofs, want.Proofs)
		}
		checkStatement(t, s)
		if s.Whom == conform.Server || s.Whom == conform.Both {
			concern[s.Version]++
			if len(s.Proofs) > 0 {
				proved[s.Version]++
			}
		}
	}
	checkKnown(t, statements, checks)
	for v, n := range concern {
		t.Logf("%s: %d of %d statements that concern a server are proved", v, proved[v], n)
		if proved[v]*100 < n*statementsProvedMin {
			t.Errorf("%s: that is less than %d %%", v, statementsProvedMin)
		}
	}
	if *updateFlag && rewritten != conform.StatementsFile {
		if err := os.WriteFile("statements.md", []byte(rewritten), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// withConversations is the statement with the conversations that say they prove it, before its other proofs.
func withConversations(s conform.Statement, checks []conform.Check) conform.Statement {
	var proofs []string
	for _, c := range checks {
		if c.Version == s.Version && slices.Contains(c.Statements, s.ID) {
			proofs = append(proofs, c.Name)
		}
	}
	for _, p := range s.Proofs {
		if strings.HasPrefix(p, "scene ") || strings.HasPrefix(p, "test ") {
			proofs = append(proofs, p)
		}
	}
	s.Proofs = proofs
	return s
}

// checkStatement looks at one row.
func checkStatement(t *testing.T, s conform.Statement) {
	t.Helper()
	name := fmt.Sprint(s.Version, " ", s.ID)
	if !slices.Contains([]string{conform.Server, conform.Client, conform.Both, conform.Neither}, s.Whom) || s.Says == "" {
		t.Errorf("%s: concerns %q and says %q", name, s.Whom, s.Says)
	}
	if (len(s.Proofs) == 0) == (s.WhyNot == "") {
		t.Errorf("%s: has proofs %q and the reason %q: want one of the two", name, s.Proofs, s.WhyNot)
	}
	for _, proof := range s.Proofs {
		var err error
		if scene, found := strings.CutPrefix(proof, "scene "); found {
			err = sceneProves(scene, s.ID)
		} else if test, found := strings.CutPrefix(proof, "test "); found {
			err = testProves(test, s.ID)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sceneProves looks for a scene, FILE/TITLE, and for the statement in it.
func sceneProves(name, id string) error {
	file, title, _ := strings.Cut(name, "/")
	text, err := os.ReadFile(filepath.Join("..", "testdata", file+".txt"))
	if err != nil {
		return err
	}
	_, scene, found := strings.Cut("\n"+string(text), "\n=== "+title+"\n")
	if !found {
		return fmt.Errorf("there is no scene %q", name)
	}
	scene, _, _ = strings.Cut(scene, "\n=== ")
	if !strings.Contains(title+scene, "["+id+"]") {
		return fmt.Errorf("scene %q does not cite [%s]", name, id)
	}
	return nil
}

// testProves looks for a test function, "FOLDER NAME", and for the statement in its comment or body.
func testProves(name, id string) error {
	folder, function, _ := strings.Cut(name, " ")
	paths, err := filepath.Glob(filepath.Join("..", "..", folder, "*_test.go"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			if f, isFunction := d.(*ast.FuncDecl); isFunction && f.Recv == nil && f.Name.Name == function {
				from := f.Pos()
				if f.Doc != nil {
					from = f.Doc.Pos()
				}
				if said := text[set.Position(from).Offset:set.Position(f.End()).Offset]; !strings.Contains(string(said), "["+id+"]") {
					return fmt.Errorf("%s: test %s does not cite [%s]", path, function, id)
				}
				return nil
			}
		}
	}
	return fmt.Errorf("there is no test %s in %s", function, folder)
}

// checkKnown compares the table's statements with those of the standards, and with what conversations say they prove.
func checkKnown(t *testing.T, statements []conform.Statement, checks []conform.Check) {
	t.Helper()
	for v, text := range map[packet.Version]string{packet.V311: numbers311, packet.V50: numbers50} {
		want, got := numbered(text), []string{}
		for _, s := range statements {
			if s.Version == v {
				got = append(got, s.ID)
			}
		}
		for _, id := range want {
			if !slices.Contains(got, id) {
				t.Errorf("%s: statement %s is missing", v, id)
			}
		}
		for i, id := range got {
			if !slices.Contains(want, id) || slices.Index(got, id) != i {
				t.Errorf("%s: statement %s is unknown, or there twice", v, id)
			}
		}
		for _, c := range checks {
			for _, id := range c.Statements {
				if c.Version == v && !slices.Contains(want, id) {
					t.Errorf("%s: conversation %q proves %s, which is unknown", v, c.Name, id)
				}
			}
		}
	}
}

// TestPeers: where the table of brokers stands, all statements that conversations prove have held here.
func TestPeers(t *testing.T) {
	statements, err := conform.Statements()
	if err != nil {
		t.Fatal(err)
	}
	peers, err := os.ReadFile("peers.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []packet.Version{packet.V311, packet.V50} {
		n := 0
		for _, s := range statements {
			if s.Version == v && s.HasConversation() {
				n++
			}
		}
		if row := fmt.Sprintf("| ringmq | this checkout | %s | %d | 0 | 0 | 0 | no |", v, n); !strings.Contains(string(peers), row) {
			t.Errorf("no %q in peers.md: go run ./perf conform > broker/conform/peers.md", row)
		}
	}
}

// numbers311 and numbers50 are the statements of the standards, by section: the numbers that there are.
const (
	numbers311 = `1.5.3 1-3; 2.2.2 1-2; 2.3.1 1-7; 3.1.0 1-2; 3.1.2 1-24; 3.1.3 1-11; 3.1.4 1-5; 3.2.0 1; 3.2.2 1-6; 3.3.1 1-12;
		3.3.2 1-3; 3.3.4 1; 3.3.5 1-2; 3.6.1 1; 3.8.1 1; 3.8.3 1-4; 3.8.4 1-6; 3.9.3 1-2; 3.10.1 1; 3.10.3 1-2;
		3.10.4 1-6; 3.12.4 1; 3.14.1 1; 3.14.4 1-3; 4.1.0 1-2; 4.3.1 1; 4.3.2 1-2; 4.3.3 1-2; 4.4.0 1; 4.5.0 1-2;
		4.6.0 1-6; 4.7.1 1-3; 4.7.2 1; 4.7.3 1-4; 4.8.0 1-2; 6.0.0 1-4; 7.0.0 1-2; 7.1.1 1; 7.1.2 1`
	numbers50 = `1.5.4 1-3; 1.5.5 1; 1.5.7 1; 2.1.3 1; 2.2.1 2-6; 2.2.2 1; 3.1.0 1-2; 3.1.2 1-30; 3.1.3 1-12; 3.1.4 1-6;
		3.2.0 1-2; 3.2.2 1-22; 3.3.1 1-13; 3.3.2 1-20; 3.3.4 1-10; 3.4.2 1-3; 3.5.2 1-3; 3.6.1 1; 3.6.2 1-3;
		3.7.2 1-3; 3.8.1 1; 3.8.3 1-5; 3.8.4 1-8; 3.9.2 1-2; 3.9.3 1-2; 3.10.1 1; 3.10.3 1-2; 3.10.4 1-6; 3.11.2 1-2;
		3.11.3 1-2; 3.12.4 1; 3.14.0 1; 3.14.1 1; 3.14.2 1-4; 3.14.4 1-3; 3.15.1 1; 3.15.2 1-3; 4.1.0 1-2; 4.2 1;
		4.3.1 1; 4.3.2 1-5; 4.3.3 1-13; 4.4.0 1-2; 4.5.0 1-2; 4.6.0 1-6; 4.7.0 1; 4.7.1 1-2; 4.7.2 1; 4.7.3 1-4;
		4.8.2 1-6; 4.9.0 1-3; 4.12.0 1-7; 4.12.1 1-2; 4.13.1 1; 4.13.2 1; 6.0.0 1-4`
)

// numbered spells ranges out: "3.1.0 1-2" is MQTT-3.1.0-1 and MQTT-3.1.0-2.
func numbered(text string) (ids []string) {
	for section := range strings.SplitSeq(text, ";") {
		words := strings.Fields(section)
		for _, r := range words[1:] {
			var from, to int
			if n, _ := fmt.Sscanf(r, "%d-%d", &from, &to); n == 1 {
				to = from
			}
			for ; from <= to; from++ {
				ids = append(ids, fmt.Sprintf("MQTT-%s-%d", words[0], from))
			}
		}
	}
	return ids
}

// standards holds both standards as text; it is no part of the repository.
const standards = "../../../shared/spec"

// TestStatementsOfTheStandards compares the numbers with the texts themselves, where they are at hand.
func TestStatementsOfTheStandards(t *testing.T) {
	if _, err := os.Stat(standards); os.IsNotExist(err) {
		t.Skipf("%s is not there", standards)
	}
	for file, text := range map[string]string{"mqtt-v3.1.1.md": numbers311, "mqtt-v5.0.md": numbers50} {
		standard, err := os.ReadFile(filepath.Join(standards, file))
		if err != nil {
			t.Fatal(err)
		}
		want := numbered(text)
		got, odd := identifiers(string(standard))
		if len(odd) > 0 {
			t.Errorf("%s: is that a statement, garbled? %q", file, odd)
		}
		for _, id := range got {
			if !slices.Contains(want, id) {
				t.Errorf("%s: statement %s is not in the table", file, id)
			}
		}
		for _, id := range want {
			if !slices.Contains(got, id) {
				t.Errorf("%s: there is no statement %s", file, id)
			}
		}
	}
}

// identifiers finds the statements in a standard's text, those that its conversion has garbled too: links within them, dots
// and hyphens in the wrong place, and one whose beginning is gone. What looks like the end of one, and is none, stands in odd.
func identifiers(text string) (ids, odd []string) {
	text = strings.ReplaceAll(text, `\`, "")
	text = regexp.MustCompile(`\[\[MQTT-3\]\([^)]*\)\.`).ReplaceAllString(text, "[MQTT-3.")
	text = strings.NewReplacer("MQTT-3.1.2.7", "MQTT-3.1.2-7", "MQTT-3.3.1.-1", "MQTT-3.3.1-1", "MQTT-3-8.3-4", "MQTT-3.8.3-4",
		"valuesT-3.2.2-8]", "values [MQTT-3.2.2-8]").Replace(text)
	for _, id := range regexp.MustCompile(`MQTT-\d+(?:\.\d+)+-\d+`).FindAllString(text, -1) {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, end := range regexp.MustCompile(`\S*[.-]\d+-\d+\]`).FindAllString(text, -1) {
		if !regexp.MustCompile(`MQTT-\d+(\.\d+)+-\d+\]$`).MatchString(end) {
			odd = append(odd, end)
		}
	}
	return ids, odd
}

package scripts

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	root   = ".."
	module = "github.com/ringmq/ringmq/"

	functionMaxLines     = 70 // Lines between a function's braces, here and below.
	testFunctionMaxLines = 120
	shortLines           = 10 // Half of all functions have no more,
	middleLines          = 40 // and nine in ten no more than this.
	fileMaxLines         = 700
	textMaxBytes         = 1 << 20 // A larger file is data.
)

// The tables of what is allowed. Whoever needs more changes a table in a commit that says why.
var (
	topLevel = strings.Fields("xdp bpf netstack broker cmd scripts perf go.mod go.sum README.md LICENSE")

	// imports says which folders of ours a folder's packages may import; tests may also import the second list.
	imports = map[string]struct{ code, tests string }{
		"bpf":                {},
		"xdp":                {code: "bpf", tests: "bpf"},
		"xdp/probe":          {},
		"netstack":           {code: "broker", tests: "broker/planetest broker/memnet netstack/cable"},
		"netstack/cable":     {},
		"netstack/capture":   {code: "netstack"},
		"broker":             {code: "broker/packet broker/topic broker/record", tests: "broker broker/memnet broker/planetest broker/script broker/conform broker/crashtest broker/store"},
		"broker/packet":      {},
		"broker/record":      {},
		"broker/store":       {code: "broker broker/record", tests: "broker/crashtest broker/packet"},
		"broker/topic":       {},
		"broker/script":      {code: "broker/packet"},
		"broker/conform":     {code: "broker/packet broker/script"},
		"broker/kernel":      {code: "broker", tests: "broker/planetest broker/packet"},
		"broker/memnet":      {code: "broker", tests: "broker/planetest broker/packet"},
		"broker/planetest":   {code: "broker", tests: "broker/memnet"},
		"broker/sim":         {code: "broker broker/memnet broker/packet broker/record", tests: "broker/sim"},
		"broker/crashtest":   {code: "broker broker/memnet broker/packet"},
		"broker/credentials": {},
		"cmd":                {code: "*"},
		"perf":               {code: "broker broker/packet broker/conform netstack perf/epoll perf/load perf/overload perf/relay scripts/lab xdp"},
		"perf/load":          {code: "broker/packet perf/epoll", tests: "broker/packet perf/load perf/epoll perf/relay"},
		"perf/epoll":         {},
		"perf/overload":      {code: "broker/packet perf/epoll", tests: "perf/relay"},
		"perf/relay":         {code: "broker/packet perf/epoll"},
		"scripts":            {},
		"scripts/clients":    {code: "broker/packet", tests: "broker/packet scripts/clients scripts/lab"},
		"scripts/lab":        {tests: "broker/crashtest scripts/lab"},
		"scripts/interop":    {},
		"scripts/sim":        {code: "broker broker/sim", tests: "scripts/sim"},
	}

	vagueNames = strings.Fields("util utils common helper helpers manager managers base misc")

	// constantCalls make package variables that nobody can change afterwards; so do arrays, embedded files and
	// var _ Interface = …, which changesLater knows.
	constantCalls = strings.Fields("errors.New regexp.MustCompile")

	// unsafeFolders may import unsafe; elsewhere under broker a file must say why in a comment "// Unsafe: …".
	unsafeFolders = strings.Fields("xdp xdp/probe broker/kernel perf/epoll")

	// Names of registries are cut in two, so that this file does not have them.
	registries = []string{"proxy." + "golang.org", "sum." + "golang.org", "registry." + "npmjs.org", "deb." + "debian.org",
		"security." + "debian.org", "py" + "pi.org", "crates" + ".io"}
)

// source is one file of the tree. The Go fields are nil and false for other files.
type source struct {
	path      string // slashes, from the root
	data      []byte
	syntax    *ast.File
	positions *token.FileSet
	generated bool
}

func (s source) folder() string { return path.Dir(s.path) }
func (s source) isTest() bool   { return strings.HasSuffix(s.path, "_test.go") }

// at gives file:line for messages.
func (s source) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", s.path, s.positions.Position(pos).Line)
}

// tree reads what git tracks or would track, once for all tests.
var tree = sync.OnceValues(func() ([]source, error) {
	out, err := exec.Command("git", "-C", root, "ls-files", "-coz", "--exclude-standard").Output()
	if err != nil {
		return nil, fmt.Errorf("list the tree's files (is git installed, is this a checkout?): %w", err)
	}
	var sources []source
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		s, err := open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Deleted, not committed yet.
		}
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, nil
})

func open(name string) (source, error) {
	s := source{path: name}
	info, err := os.Lstat(filepath.Join(root, name))
	if err != nil || !info.Mode().IsRegular() {
		return s, err
	}
	if s.data, err = os.ReadFile(filepath.Join(root, name)); err != nil || path.Ext(name) != ".go" {
		return s, err
	}
	s.positions = token.NewFileSet()
	if s.syntax, err = parser.ParseFile(s.positions, name, s.data, parser.ParseComments|parser.SkipObjectResolution); err != nil {
		return s, err
	}
	s.generated = ast.IsGenerated(s.syntax)
	return s, nil
}

func files(t *testing.T) []source {
	t.Helper()
	sources, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

func goFiles(t *testing.T) []source {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(files(t)), func(s source) bool { return s.syntax == nil })
}

// code is what people wrote and users run.
func code(t *testing.T) []source {
	t.Helper()
	return slices.DeleteFunc(goFiles(t), func(s source) bool { return s.isTest() || s.generated })
}

func TestTopLevel(t *testing.T) {
	for _, s := range files(t) {
		top, _, _ := strings.Cut(s.path, "/")
		if !strings.HasPrefix(top, ".") && !slices.Contains(topLevel, top) {
			t.Errorf("%s:1: the top level is fixed to %s: move it into one of these", s.path, strings.Join(topLevel, " "))
		}
	}
}

func TestGofmt(t *testing.T) {
	for _, s := range goFiles(t) {
		want, err := format.Source(s.data)
		if err != nil {
			t.Errorf("%s:1: %v", s.path, err)
			continue
		}
		if !bytes.Equal(want, s.data) {
			line := 1 + bytes.Count(commonStart(want, s.data), []byte("\n"))
			t.Errorf("%s:%d: not as gofmt writes it: gofmt -w %s", s.path, line, s.path)
		}
	}
}

func commonStart(a, b []byte) []byte {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

func TestImportDirections(t *testing.T) {
	for _, s := range goFiles(t) {
		rule := s.folder()
		if strings.HasPrefix(rule, "cmd/") {
			rule = "cmd"
		}
		row, known := imports[rule]
		if !known {
			t.Errorf("%s:1: folder %s has no row in the imports table of scripts/tidy_test.go: add one", s.path, rule)
			continue
		}
		allowed := strings.Fields(row.code)
		if s.isTest() {
			allowed = append(allowed, append(strings.Fields(row.tests), rule)...)
		}
		for _, spec := range s.syntax.Imports {
			name, ours := strings.CutPrefix(importPath(spec), module)
			if ours && row.code != "*" && !slices.Contains(allowed, name) {
				t.Errorf("%s: %s may not import %s, only %q: turn the dependency round or move the code",
					s.at(spec.Pos()), rule, name, allowed)
			}
		}
	}
}

func importPath(spec *ast.ImportSpec) string {
	name, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(err) // The parser has accepted it.
	}
	return name
}

func TestFunctionLength(t *testing.T) {
	total, short, middle := 0, 0, 0
	for _, s := range goFiles(t) {
		for _, declaration := range s.syntax.Decls {
			function, isFunction := declaration.(*ast.FuncDecl)
			if !isFunction || function.Body == nil || s.generated {
				continue
			}
			lines := bodyLines(s, function.Body)
			limit := functionMaxLines
			if s.isTest() {
				limit = testFunctionMaxLines
			}
			if lines > limit {
				t.Errorf("%s: %s has %d lines, more than %d: move straight-line work out, keep the branches",
					s.at(function.Pos()), function.Name.Name, lines, limit)
			}
			if s.isTest() {
				continue
			}
			total++
			if lines <= shortLines {
				short++
			}
			if lines <= middleLines {
				middle++
			}
		}
	}
	t.Logf("%d functions: %d of at most %d lines, %d of at most %d", total, short, shortLines, middle, middleLines)
	if short*2 < total {
		t.Errorf("tree:0: %d of %d functions have at most %d lines, less than half: split the longest", short, total, shortLines)
	}
	if middle*10 < total*9 {
		t.Errorf("tree:0: %d of %d functions have at most %d lines, less than nine in ten: split the longest", middle, total, middleLines)
	}
}

func bodyLines(s source, body *ast.BlockStmt) int {
	return max(1, s.positions.Position(body.Rbrace).Line-s.positions.Position(body.Lbrace).Line-1)
}

func TestFileLength(t *testing.T) {
	for _, s := range code(t) {
		if lines := bytes.Count(s.data, []byte("\n")); lines > fileMaxLines {
			t.Errorf("%s:%d: the file has %d lines, more than %d (aim at 400): one noun, one file", s.path, fileMaxLines, lines, fileMaxLines)
		}
	}
}

func TestNames(t *testing.T) {
	separators := regexp.MustCompile(`[/_.-]`)
	for _, s := range files(t) {
		words := separators.Split(s.path, -1)
		if s.syntax != nil {
			words = append(words, strings.TrimSuffix(s.syntax.Name.Name, "_test"))
		}
		for _, word := range words {
			if slices.Contains(vagueNames, strings.ToLower(word)) {
				t.Errorf("%s:1: %q says nothing: name the file and the package by what is in it", s.path, word)
			}
		}
	}
}

func TestNoInitAndNoMutableVariables(t *testing.T) {
	for _, s := range goFiles(t) {
		if s.generated {
			continue
		}
		for _, declaration := range s.syntax.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s: func init runs unseen: call it from where it is needed", s.at(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR && !s.isTest() {
					checkVariables(t, s, d)
				}
			}
		}
	}
}

func checkVariables(t *testing.T, s source, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		if embeds(d.Doc) || embeds(v.Doc) {
			continue
		}
		for i, name := range v.Names {
			if name.Name != "_" && (i >= len(v.Values) || changesLater(v.Values[i])) {
				t.Errorf("%s: package variable %s can change: make it a constant, an array, a function's result or a field "+
					"(what may stand here: constantCalls in scripts/tidy_test.go)", s.at(name.Pos()), name.Name)
			}
		}
	}
}

// embeds looks at the raw comments: CommentGroup.Text leaves directives out.
func embeds(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

func changesLater(value ast.Expr) bool {
	switch v := value.(type) {
	case *ast.CallExpr:
		selector, isSelector := v.Fun.(*ast.SelectorExpr)
		if !isSelector {
			return true
		}
		from, isName := selector.X.(*ast.Ident)
		return !isName || !slices.Contains(constantCalls, from.Name+"."+selector.Sel.Name)
	case *ast.CompositeLit:
		array, isArray := v.Type.(*ast.ArrayType)
		return !isArray || array.Len == nil
	}
	return true
}

func TestUnsafe(t *testing.T) {
	for _, s := range goFiles(t) {
		for _, spec := range s.syntax.Imports {
			if importPath(spec) != "unsafe" || slices.Contains(unsafeFolders, s.folder()) {
				continue
			}
			says := slices.ContainsFunc(s.syntax.Comments, func(c *ast.CommentGroup) bool {
				return c.Pos() < spec.Pos() && strings.Contains(c.Text(), "Unsafe:")
			})
			if !says || !strings.HasPrefix(s.path, "broker/") && !strings.HasPrefix(s.path, "netstack/") {
				t.Errorf("%s: unsafe belongs into %s, or under broker/ and netstack/ into a file that says why above its imports (// Unsafe: …)",
					s.at(spec.Pos()), strings.Join(unsafeFolders, " and "))
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range goFiles(t) {
		if !s.isTest() {
			documented[s.folder()] = documented[s.folder()] || s.syntax.Doc != nil
		}
	}
	for folder, ok := range documented {
		if !ok {
			t.Errorf("%s/doc.go:1: the package has no comment: say what it is, what it is not, and its words", folder)
		}
	}
}

// TestExportedIsDocumented leaves out the stubs in x_other.go: their comments stand in the file of the platform.
func TestExportedIsDocumented(t *testing.T) {
	for _, s := range code(t) {
		if strings.HasSuffix(s.path, "_other.go") {
			continue
		}
		for _, declaration := range s.syntax.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || exportedReceiver(d.Recv.List[0].Type)) {
					undocumented(t, s, d.Name)
				}
			case *ast.GenDecl:
				checkDocs(t, s, d)
			}
		}
	}
}

func exportedReceiver(expr ast.Expr) bool {
	switch e := expr.(type) {
	case *ast.StarExpr:
		return exportedReceiver(e.X)
	case *ast.IndexExpr:
		return exportedReceiver(e.X)
	case *ast.IndexListExpr:
		return exportedReceiver(e.X)
	case *ast.Ident:
		return e.IsExported()
	}
	return false
}

// checkDocs takes a comment above a group of constants or variables for all of them.
func checkDocs(t *testing.T, s source, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		switch v := spec.(type) {
		case *ast.TypeSpec:
			if v.Name.IsExported() && d.Doc == nil && v.Doc == nil && v.Comment == nil {
				undocumented(t, s, v.Name)
			}
		case *ast.ValueSpec:
			for _, name := range v.Names {
				if name.IsExported() && d.Doc == nil && v.Doc == nil && v.Comment == nil {
					undocumented(t, s, name)
				}
			}
		}
	}
}

func undocumented(t *testing.T, s source, name *ast.Ident) {
	t.Helper()
	t.Errorf("%s: exported %s has no comment: say shapes, units and errors, or do not export it", s.at(name.Pos()), name.Name)
}

// TestNoTraceOfTheMachine finds what is true on one machine only.
func TestNoTraceOfTheMachine(t *testing.T) {
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{here, "/ro" + "ot/", "/ho" + "me/"} // cut in two, so that this file does not have them
	if parent := filepath.Dir(here); !slices.Contains([]string{"/", "/tmp", "/var/tmp"}, parent) {
		paths = append(paths, parent+"/") // Where nothing but checkouts is.
	}
	traces := slices.Clone(registries)
	literals := append(slices.Clone(paths), traces...)
	for i, p := range paths {
		paths[i] = regexp.QuoteMeta(p)
	}
	for i, r := range traces {
		traces[i] = regexp.QuoteMeta(r)
	}
	pattern := regexp.MustCompile(`(?:^|[^\w./-])(?:` + strings.Join(paths, "|") + `)|` + strings.Join(traces, "|"))
	for _, s := range files(t) {
		if s.path == "scripts/tidy_test.go" || len(s.data) > textMaxBytes || bytes.IndexByte(s.data, 0) >= 0 {
			continue
		}
		if !slices.ContainsFunc(literals, func(literal string) bool { return bytes.Contains(s.data, []byte(literal)) }) {
			continue // The pattern is slow, and hardly a file needs it.
		}
		number := 0
		for line := range bytes.Lines(s.data) {
			number++
			if found := pattern.Find(line); found != nil {
				t.Errorf("%s:%d: %q is of one machine or names a package registry: use a relative path or leave it out", s.path, number, found)
			}
		}
	}
}

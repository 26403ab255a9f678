package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// words are the words that comments, messages and documents do not use, because the
// field has a better one. See "How code reads" in CONTRIBUTING.md.
var words = []struct {
	not *regexp.Regexp
	use string
	in  string // only in files whose path contains it
}{
	{regexp.MustCompile(`(?i)\bparagraphs?\b`), "stanza (deb822), package entry (rpm-md)", ""},
	{regexp.MustCompile(`(?i)\binstants?\b`), "timestamp", ""},
	{regexp.MustCompile(`(?i)\b(compression|plain|compressed|other|its|one|each|first) forms?\b`), "compression variant", "internal/repo"},
	{regexp.MustCompile(`(?i)\b(rotten|rots)\b`), "corrupt", ""},
	{regexp.MustCompile(`(?i)\bsuspects?\b`), "collection candidate", ""},
	{regexp.MustCompile(`(?i)\belsewhere\b`), "alternate base URL", "internal/mirror"},
	{regexp.MustCompile(`(?i)(^|[^-n])[- ](flights?|fly|flies)\b`), "in-flight download", ""},
	{regexp.MustCompile(`(?i)\bpassing troubles?\b`), "transient error", ""},
	{regexp.MustCompile(`(?i)\btime is over\b`), "expired, unreferenced", ""},
	{regexp.MustCompile(`(?i)\bfrozen snapshots?\b`), "freeze", ""},
	{regexp.MustCompile(`(?i)\bfrozen manifests?\b`), "freeze manifest", ""},
}

// allowed are texts with such words that stay, each with the reason.
var allowed = []struct{ text, file, why string }{
	{`paragraph`, "internal/freeze/", "field of the freeze manifest, a published format"},
	{`paragraph`, "cmd/snapctl/hostile_test.go", "a freeze manifest"},
	{`paragraph`, "cmd/snapctl/cli.go", "paragraphs of help texts"},
	{`paragraph`, "internal/manpage/", "paragraphs of manual pages"},
	{`instant`, "internal/meta/", "field of the database"},
	{`instant`, "internal/api/", "field of the control API"},
	{`suspect`, "internal/meta/", "bucket of the database"},
	{`rotten`, "internal/meta/", "bucket of the database"},
	{`rotten`, "internal/cas/", "file name in the quarantine"},
	{`suspect`, "internal/daemon/", "bucket of the database"},
	{`rotten`, "internal/daemon/", "bucket of the database, and file name in the quarantine"},
	{`frozen snapshot`, "internal/freeze/sbom/", "text in published bills of materials"},
	{``, "internal/words_test.go", "the list itself"},
	{``, "CONTRIBUTING.md", "examples from the list"},
	{``, "CHANGELOG.md", "history"},
}

// checkWords reports the words in a text that it should not use.
func checkWords(t *testing.T, file string, line int, text string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(file, w.in) {
			continue
		}
		for _, found := range w.not.FindAllString(text, -1) {
			if slices.ContainsFunc(allowed, func(a struct{ text, file, why string }) bool {
				return strings.HasPrefix(file, a.file) && strings.Contains(strings.ToLower(found), a.text)
			}) {
				continue
			}
			t.Errorf("%s:%d: %q: use %s", file, line, strings.TrimSpace(found), w.use)
		}
	}
}

// TestWords checks the words of comments, string literals and documents.
func TestWords(t *testing.T) {
	eachFile(t, func(file string) {
		switch filepath.Ext(file) {
		case ".go":
			fset := token.NewFileSet()
			f := parseFile(t, fset, file)
			for _, g := range f.Comments {
				checkWords(t, file, fset.Position(g.Pos()).Line, strings.ReplaceAll(g.Text(), "\n", " "))
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					s, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					checkWords(t, file, fset.Position(lit.Pos()).Line, s)
				}
				return true
			})
		case ".md", ".html", ".toml":
			data, err := os.ReadFile(filepath.Join("..", file))
			if err != nil {
				t.Fatal(err)
			}
			for i, l := range strings.Split(string(data), "\n") {
				checkWords(t, file, i+1, l)
			}
		}
	})
}

// The limits of a file and of a function, in lines.
const (
	maxFile = 600
	maxFunc = 80
)

// longBecause finds the reason for a long function in its doc comment.
var longBecause = regexp.MustCompile(`(?i)\blong\s+(function\s+)?because\b`)

// TestLimits holds files and functions to their limits. A longer function says why in
// its doc comment: "Long because …".
func TestLimits(t *testing.T) {
	eachFile(t, func(file string) {
		if filepath.Ext(file) != ".go" {
			return
		}
		fset := token.NewFileSet()
		f := parseFile(t, fset, file)
		if n := fset.Position(f.FileEnd).Line; n > maxFile {
			t.Errorf("%s has %d lines, expected at most %d", file, n, maxFile)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || longBecause.MatchString(fn.Doc.Text()) {
				continue
			}
			if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > maxFunc {
				t.Errorf("%s: %s has %d lines, expected at most %d, or a doc comment that says: Long because …", file, fn.Name.Name, n, maxFunc)
			}
		}
	})
}

func parseFile(t *testing.T, fset *token.FileSet, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(fset, filepath.Join("..", file), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// eachFile calls f for each file of the repository, by its path from the top.
func eachFile(t *testing.T, f func(file string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testdata" || name == "bin" || name == "run" || p != ".." && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() {
			f(strings.TrimPrefix(filepath.ToSlash(p), "../"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

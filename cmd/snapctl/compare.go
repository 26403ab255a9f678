package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/compare"
	"example.org/snapd/internal/regfile"
)

// explainOptions are the options that compare and rebuild share.
var explainOptions = []option{
	{name: "explain", value: "PATH", usage: "show how this path differs; \".\" is the image itself"},
	{name: "expected", value: "FILE", usage: "expected differences: lines of GLOB CODE"},
}

func compareVerb() *verb {
	return &verb{
		name: "compare", args: "FILE FILE", min: 2, max: 2,
		usage: "explain how two images, packages or directories differ",
		about: `compare compares SquashFS and ISO 9660 images, tar archives (also compressed),
.deb and .rpm packages, other files, and directories, without unpacking them and
without snapd. Each path that differs is listed with the package that owns it
and with the codes of its causes, such as mtime or build-path; docs/COMPARE.md
lists the codes. A code is given only if it explains every byte that differs;
the code of any other difference is "contents".

The exit code is 0 if both are equal or every difference is expected, and 4
otherwise. A path in an archive within the image follows "//":
/data.tar//usr/bin/tool.`,
		examples: []string{
			"snapctl compare 5.0.squashfs again.squashfs",
			"snapctl compare a.deb b.deb --explain /data.tar//usr/bin/tool --export differ",
			"snapctl compare a.iso b.iso --expected expected-differences --html report.html",
		},
		options: append([]option{
			{name: "export", value: "DIR", usage: "write both versions of the file of --explain below this directory"},
			{name: "html", value: "FILE", usage: "also write the result as a page of HTML"},
		}, explainOptions...),
		result: new(api.CompareResult),
		run:    runCompare,
	}
}

// compareOptions reads the options that compare and rebuild share.
func (c *call) compareOptions() (o compare.Options, err error) {
	o.Explain = c.str("explain")
	if name := c.str("expected"); name != "" {
		f, err := regfile.OpenInput(name)
		if err != nil {
			return o, err
		}
		defer f.Close()
		if o.Expected, err = compare.ReadExpected(f, name); err != nil {
			return o, err
		}
	}
	return o, nil
}

func runCompare(ctx context.Context, c *call) error {
	o, err := c.compareOptions()
	if err != nil {
		return err
	}
	if o.Export = c.str("export"); o.Export != "" && o.Explain == "" {
		return c.usagef("--export needs --explain PATH")
	}
	c.boundMemory()
	r, err := compare.Compare(ctx, c.arg(0), c.arg(1), o)
	if err != nil {
		return err
	}
	if name := c.str("html"); name != "" {
		if r.HTML, err = writeReport(name, r); err != nil {
			return err
		}
	}
	show(c.ui, r, c.ui.compared)
	return exitCode(r.Exit)
}

// writeReport writes the page of a result, and returns its path.
func writeReport(name string, r *api.CompareResult) (string, error) {
	name, err := absolute(name)
	if err != nil {
		return "", err
	}
	var page strings.Builder
	if err := compare.WriteHTML(&page, r); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := replaceFile(root, filepath.Base(name), []byte(page.String()), 0o644); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return name, nil
}

// maxCompared is how many paths are listed in the output for people.
const maxCompared = 200

// compared shows the result of a comparison.
func (u *ui) compared(r *api.CompareResult) {
	switch r.Verdict {
	case "equal":
		u.printf("equal: %s and %s\n", r.A.Name, r.B.Name)
	case "layout":
		u.printf("layout only: %s and %s have the same files in other bytes\n", r.A.Name, r.B.Name)
	case "metadata":
		u.printf("metadata differ: %s and %s have the same contents\n", r.A.Name, r.B.Name)
	default:
		u.printf("contents differ: %s and %s\n", r.A.Name, r.B.Name)
	}
	for _, s := range []api.CompareSide{r.A, r.B} {
		if r.Verdict != "equal" && s.SHA256 != "" {
			u.printf("  %s: %s, %s, sha256:%s\n", s.Name, s.Format, bytesText(s.Size), s.SHA256)
		}
	}
	if len(r.Codes) > 0 {
		u.heading("Causes:")
		rows := [][]string{{"  CODE", "PATHS", "EXPECTED"}}
		for _, n := range r.Codes {
			rows = append(rows, []string{"  " + n.Code, strconv.Itoa(n.Paths), some(n.Expected)})
		}
		u.table(rows...)
	}
	if len(r.Packages) > 0 {
		u.heading("Packages:")
		rows := [][]string{{"  PACKAGE", "A", "B", "PATHS", "CODES"}}
		for _, p := range r.Packages {
			rows = append(rows, []string{"  " + p.Package, p.A, p.B, strconv.Itoa(p.Paths), strings.Join(p.Codes, " ")})
		}
		u.table(rows...)
	}
	u.comparedPaths(r)
	for _, x := range r.Unused {
		u.printf("\nno difference matches line %d of the expected ones: %s\n", x.Line, x.Text)
	}
	for _, n := range r.Notes {
		u.printf("\n%s\n", n)
	}
	if e := r.Explained; e != nil {
		u.heading(e.Path + ":")
		for l := range strings.Lines(e.Text) {
			u.printf("  %s\n", strings.TrimSuffix(l, "\n"))
		}
		for _, f := range e.Files {
			u.printf("wrote %s\n", f)
		}
	}
	if r.HTML != "" {
		u.printf("wrote %s\n", r.HTML)
	}
	if r.Hint != "" {
		u.printf("\nMore about the remaining differences: %s\n", r.Hint)
	}
}

// comparedPaths lists the paths that differ, unexpected differences first.
func (u *ui) comparedPaths(r *api.CompareResult) {
	rows := [][]string{{"  CODE", "PATH", "A", "B", "DETAIL"}}
	listed, expected, paths := 0, 0, 0
	for _, d := range r.Differences {
		if d.Expected {
			expected++
			continue
		}
		if paths++; paths > maxCompared {
			continue
		}
		listed++
		for _, k := range d.Causes {
			if !k.Expected {
				rows = append(rows, []string{"  " + k.Code, d.Path, k.A, k.B, k.Detail})
			}
		}
	}
	if listed > 0 {
		u.heading("Differences:")
		u.table(rows...)
	}
	if n := paths - listed + r.More; n > 0 {
		u.printf("  and %s more (--json lists them)\n", count(n, "path", "paths"))
	}
	if expected > 0 {
		u.printf("\n%s as expected\n", count(expected, "path differs", "paths differ"))
	}
}

// Package internal_test holds what concerns all packages at once.
package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/meta/postgres"
)

const module = "example.org/snapd/"

// layers are the packages from the top down, by their path below internal/, or that
// of client and cmd beside it: a package imports only what stands in a lower line, or
// lies in a directory of its own. A directory stands for what is below it, unless
// that has its own line.
var layers = [][]string{
	{"cmd"},
	{"daemon"},
	{"httpd"},
	{"control"},
	{"freeze/freezer", "gc", "webhook", "iuk", "image", "backup", "migrate", "buildenv", "compare"},
	{"freeze/bundle"},
	{"freeze/build"},
	{"freeze/plan", "freeze/client", "freeze/proof"},
	{"mirror"},
	{"history"},
	{"catalog"},
	{"acquire"},
	{"freeze/tree"},
	{"freeze"},
	{"meta/bolt", "meta/postgres", "meta/follow", "tlog/sequencer", "tlog/monitor", "indices"},
	{"meta/compact"},
	{"retention"},
	{"meta", "tlog/witness", "repo/deb", "repo/rpm", "aptconf", "freeze/sbom", "freeze/lockfile"},
	{"client", "repo", "tlog", "attest", "fetch", "repo/deb/deb822", "repo/rpm/rpmmd", "repo/rpm/rpmpkg", "yumconf", "buildlist", "console", "query"},
	{"config", "sign", "cas/dir", "cas/s3", "cas/cache", "api", "squashfs"},
	{"cas/spool", "cas/objects"},
	{"freeze/stream"},
	{"cas"},
	{"durable", "lzma", "iso9660", "purl", "canonical", "repo/rpm/nevra", "fetch/remote", "webhook/signature"},
	{"regfile", "fetch/internal/reveal", "cas/s3/location", "manpage", "example"},
	{"errclass", "excerpt", "latency", "lazyregexp", "silent"},
}

// programs break or measure the whole from outside, and import what they need.
var programs = []string{"torture", "bench", "demo", "story", "iuk/iukbench", "dist"}

// helpers are for tests, and for the programs.
func helper(pkg string) bool {
	base := path.Base(pkg)
	return strings.HasSuffix(base, "test") && base != "attest"
}

// owners are the only packages that know a dependency.
var owners = map[string]string{
	"go.etcd.io/bbolt":                   "meta/bolt",
	"github.com/jackc/pgx":               "meta/postgres",
	"github.com/ProtonMail/go-crypto":    "sign",
	"github.com/gorilla/mux":             "httpd",
	"github.com/urfave/cli":              "cmd",
	"filippo.io/torchwood":               "tlog",
	"golang.org/x/mod":                   "tlog",
	"github.com/hanwen/go-fuse":          "torture/cutfs",
	"github.com/coreos/go-systemd":       "daemon",
	"github.com/prometheus":              "httpd",
	"github.com/sassoftware/go-rpmutils": "repo/rpm",
	"github.com/minio/minio-go":          "cas/s3",
	"github.com/package-url":             "purl",
}

// sharers are the only packages that import a dependency that several need.
var sharers = map[string][]string{
	"github.com/pelletier/go-toml": {"config", "buildlist"},
}

type listed struct {
	Dir, ImportPath                             string
	GoFiles, Imports, TestImports, XTestImports []string
	Standard                                    bool
}

func list(t *testing.T) (out []listed) {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), "go", "list", "-json=Dir,ImportPath,GoFiles,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		if x := new(exec.ExitError); errors.As(err, &x) {
			t.Fatalf("go list: %v\n%s", err, x.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	for {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
}

// short is a package's path below internal/, or cmd, or example: the package at
// the top, which holds the documented configuration.
func short(p string) string {
	if p == strings.TrimSuffix(module, "/") {
		return "example"
	}
	p = strings.TrimPrefix(p, module)
	if strings.HasPrefix(p, "cmd/") {
		return "cmd"
	}
	return strings.TrimPrefix(p, "internal/")
}

func within(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return p == d || strings.HasPrefix(p, d+"/") })
}

// layer is the line of a package: of its own name, or of the nearest directory.
func layer(p string) int {
	for ; p != "."; p = path.Dir(p) {
		for i, l := range layers {
			if slices.Contains(l, p) {
				return i
			}
		}
	}
	return -1
}

func TestImports(t *testing.T) {
	for _, p := range list(t) {
		from := short(p.ImportPath)
		if from == "" || helper(from) || within(from, programs) {
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) {
				continue
			}
			to := short(imp)
			switch {
			case helper(to):
				t.Errorf("%s imports %s, which is for tests", from, to)
			case within(to, programs):
				t.Errorf("%s imports the program %s", from, to)
			case from == "cmd" && to == "cmd", strings.HasPrefix(to, from+"/"):
			case layer(from) < 0:
				t.Errorf("%s has no layer", from)
			case layer(to) <= layer(from):
				t.Errorf("%s imports %s, which is not below it", from, to)
			}
		}
	}
}

func TestOwners(t *testing.T) {
	for _, p := range list(t) {
		from := short(p.ImportPath)
		if helper(from) || within(from, programs) && from != "torture/cutfs" {
			continue
		}
		for _, imp := range p.Imports {
			for dep, owner := range owners {
				if within(imp, []string{dep}) && !within(from, []string{owner}) {
					t.Errorf("%s imports %s, which %s keeps to itself", from, imp, owner)
				}
			}
			for dep, those := range sharers {
				if within(imp, []string{dep}) && !within(from, those) {
					t.Errorf("%s imports %s, which %s keep to themselves", from, imp, strings.Join(those, " and "))
				}
			}
		}
	}
}

// Only the engines of the metadata open transactions: they offer no method that
// runs a function in one, and nobody else, tests included, imports what they are
// made of.
func TestTransactionsStayInEngines(t *testing.T) {
	for _, engine := range []reflect.Type{reflect.TypeFor[*bolt.Store](), reflect.TypeFor[*postgres.Store]()} {
		for m := range engine.Methods() {
			for _, typ := range slices.Concat(slices.Collect(m.Type.Ins()), slices.Collect(m.Type.Outs())) {
				if s := typ.String(); strings.Contains(strings.ToLower(s), "tx") {
					t.Errorf("%s.%s has a %s: callers use named operations", engine, m.Name, s)
				}
			}
		}
	}
	for _, p := range list(t) {
		from := short(p.ImportPath)
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for _, dep := range []string{"go.etcd.io/bbolt", "github.com/jackc/pgx"} {
				if owner := owners[dep]; within(imp, []string{dep}) && !within(from, []string{owner}) {
					t.Errorf("%s imports %s, in which only %s opens transactions", from, imp, owner)
				}
			}
		}
	}
}

// deb and rpm never meet, nor do their helpers.
func TestFormatsApart(t *testing.T) {
	for _, p := range list(t) {
		from := short(p.ImportPath)
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			to := short(imp)
			if within(from, []string{"repo/deb"}) && within(to, []string{"repo/rpm"}) || within(from, []string{"repo/rpm"}) && within(to, []string{"repo/deb"}) {
				t.Errorf("%s imports %s", from, to)
			}
		}
	}
}

// The values of a URL's query, which may be secret, leave package fetch in one place.
func TestWholeURLs(t *testing.T) {
	var found []string
	for _, p := range list(t) {
		for _, name := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, []byte("fetch.Whole(")) {
				found = append(found, short(p.ImportPath)+"/"+name)
			}
		}
	}
	if want := []string{"mirror/attempt.go"}; !slices.Equal(found, want) {
		t.Errorf("fetch.Whole is called in %v, expected %v", found, want)
	}
}

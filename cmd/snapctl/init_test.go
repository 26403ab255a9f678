package main

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// The release of a machine applies only to its own files, and only if it is a
// distribution that uses rpm.
func TestReleaseOfMachine(t *testing.T) {
	const repo = "[x]\nbaseurl=https://mirror.example.org/$releasever/$arch/$basearch\ngpgcheck=1\ngpgkey=file:///etc/key.asc\n"
	for name, c := range map[string]struct{ release, file, given, want string }{
		"its own file":          {"ID=fedora\nVERSION_ID=42\n", "", "", "https://mirror.example.org/42/x86_64/x86_64"},
		"its own file, named":   {"ID=fedora\nVERSION_ID=42\n", "/etc/yum.repos.d/x.repo", "", "https://mirror.example.org/42/x86_64/x86_64"},
		"another's file":        {"ID=fedora\nVERSION_ID=42\n", "/srv/x.repo", "", ""},
		"another's file, given": {"ID=fedora\nVERSION_ID=42\n", "/srv/x.repo", "9", "https://mirror.example.org/9/x86_64/x86_64"},
		"Debian":                {"ID=debian\nVERSION_ID=12\n", "", "", ""},
		"Debian, given":         {"ID=debian\nVERSION_ID=12\n", "", "9", "https://mirror.example.org/9/x86_64/x86_64"},
	} {
		m := machine{architectures: func() []string { return []string{"amd64"} }, root: fstest.MapFS{
			"etc/os-release": {Data: []byte(c.release)}, "etc/key.asc": {}, "etc/yum.repos.d/x.repo": {Data: []byte(repo)}, "srv/x.repo": {Data: []byte(repo)},
			"etc/yum.repos.d": {Mode: fs.ModeDir},
		}}
		mirrors, skipped, err := fromDNF(m, []string{c.file}, c.given)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		switch {
		case c.want == "" && (len(mirrors) > 0 || len(skipped) != 1 || !strings.Contains(skipped[0].Reason, "$releasever: use --releasever")):
			t.Errorf("%s: %+v, skipped %+v", name, mirrors, skipped)
		case c.want != "" && (len(mirrors) != 1 || mirrors[0].urls[0] != c.want):
			t.Errorf("%s: %+v, skipped %+v, expected %s", name, mirrors, skipped, c.want)
		}
	}
}

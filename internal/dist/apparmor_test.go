package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// profile is what an AppArmor profile allows, with everything that it includes.
type profile struct {
	files   []fileRule
	network []string // "inet stream"
}

type fileRule struct {
	path  *regexp.Regexp
	perms string
}

var (
	variableRE = regexp.MustCompile(`^@\{(\w+)\}\s*=\s*(.*)$`)
	usesRE     = regexp.MustCompile(`@\{(\w+)\}(/?)`)
	fileRuleRE = regexp.MustCompile(`^(?:owner )?(["/@]\S*)\s+([a-zA-Z]+),$`)
	networkRE  = regexp.MustCompile(`^network (\w+ \w+),$`)
)

// readProfile has apparmor_parser put together a profile with its includes, and reads its
// rules for files and the network.
func readProfile(t *testing.T, file string) *profile {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "apparmor_parser", "--skip-kernel-load", "--skip-cache", "--preprocess", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	variables := map[string][]string{}
	p := &profile{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if m := variableRE.FindStringSubmatch(line); m != nil {
			variables[m[1]] = strings.Fields(m[2])
		} else if m := fileRuleRE.FindStringSubmatch(line); m != nil {
			p.files = append(p.files, fileRule{globRE(t, m[1], variables), m[2]})
		} else if m := networkRE.FindStringSubmatch(line); m != nil {
			p.network = append(p.network, m[1])
		} else if strings.HasPrefix(line, "deny ") {
			t.Fatalf("this test does not know how to read: %s", line)
		}
	}
	if len(p.files) < 50 || len(p.network) < 2 {
		t.Fatalf("%d rules for files and %d for the network in\n%s", len(p.files), len(p.network), text)
	}
	return p
}

// globRE is a path of a profile as a regular expression: see "Globbing" of apparmor.d(5).
func globRE(t *testing.T, glob string, variables map[string][]string) *regexp.Regexp {
	t.Helper()
	for range 10 { // values have variables
		glob = usesRE.ReplaceAllStringFunc(glob, func(use string) string {
			m := usesRE.FindStringSubmatch(use)
			values := slices.Clone(variables[m[1]])
			if len(values) == 0 {
				return "/no-such-variable" + m[2]
			}
			for i := range values {
				if m[2] != "" {
					values[i] = strings.TrimSuffix(values[i], "/")
				}
			}
			return "{" + strings.Join(values, ",") + "}" + m[2]
		})
	}
	var b strings.Builder
	depth := 0
	glob = strings.Trim(glob, `"`)
	for i := 0; i < len(glob); i++ {
		after := i > 0 && glob[i-1] == '/' // where a star stands for something
		switch c := glob[i]; {
		case c == '*' && i+1 < len(glob) && glob[i+1] == '*':
			i++
			if b.WriteString(`.*`); after {
				b.WriteString(`[^/].*`)
			}
		case c == '*' && after:
			b.WriteString(`[^/]+`)
		case c == '*':
			b.WriteString(`[^/]*`)
		case c == '?':
			b.WriteString(`[^/]`)
		case c == '{':
			depth++
			b.WriteString(`(?:`)
		case c == '}':
			depth--
			b.WriteString(`)`)
		case c == ',' && depth > 0:
			b.WriteString(`|`)
		case c == '[' || c == ']' || c == '-':
			b.WriteByte(c)
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return regexp.MustCompile(`^(?:` + b.String() + `)$`)
}

// allows reports whether rules together allow all of some permissions for a path.
func (p *profile) allows(file, perms string) bool {
	for _, perm := range perms {
		if !slices.ContainsFunc(p.files, func(r fileRule) bool { return strings.ContainsRune(r.perms, perm) && r.path.MatchString(file) }) {
			return false
		}
	}
	return true
}

// Calls as strace -y prints them: with the paths of descriptors.
var (
	callRE   = regexp.MustCompile(`^(\w+)\((.*)\)\s+= (\d+)(?:<(.*)>)?$`)
	atRE     = regexp.MustCompile(`(?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)"`)
	nameRE   = regexp.MustCompile(`^"([^"]*)"(?:, "([^"]*)")?`)
	fdRE     = regexp.MustCompile(`^\d+<(/[^>]*)>`)
	sunRE    = regexp.MustCompile(`sun_path="(/[^"]*)"`)
	socketRE = regexp.MustCompile(`^AF_(\w+), SOCK_(\w+)`)
)

// use is what a call needs: permissions for a path, or a kind of socket.
type use struct{ path, perms string }

// usesOf returns what a call needs by the rules of AppArmor, which asks for nothing where
// only the attributes of a file are read.
func usesOf(line string) (out []use) {
	m := callRE.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	name, args, to := m[1], m[2], m[4]
	var paths []string // that are named
	for _, at := range atRE.FindAllStringSubmatch(args, -1) {
		if paths = append(paths, at[2]); !path.IsAbs(at[2]) {
			paths[len(paths)-1] = path.Join(at[1], at[2])
		}
	}
	if n := nameRE.FindStringSubmatch(args); n != nil && len(paths) == 0 {
		paths = slices.DeleteFunc(n[1:], func(s string) bool { return s == "" })
	}
	all := func(perms, suffix string) {
		for _, p := range paths {
			out = append(out, use{path.Clean(p) + suffix, perms})
		}
	}
	switch name {
	case "open", "openat", "openat2", "creat":
		perms := "r"
		switch {
		case strings.Contains(args, "O_PATH"):
			return nil
		case strings.Contains(args, "O_RDWR"):
			perms = "rw"
		case strings.Contains(args, "O_WRONLY") || strings.Contains(args, "O_CREAT"):
			perms = "w"
		}
		if strings.Contains(args, "O_DIRECTORY") {
			to += "/"
		}
		return []use{{to, perms}}
	case "execve":
		return []use{{paths[0], "x"}}
	case "mkdir", "mkdirat", "rmdir":
		all("w", "/")
	case "unlinkat":
		if strings.Contains(args, "AT_REMOVEDIR") {
			all("w", "/")
			return out
		}
		all("w", "")
	case "unlink", "rename", "renameat", "renameat2", "chmod", "fchmodat", "chown", "fchownat", "utimensat", "truncate":
		all("w", "")
	case "link", "linkat":
		all("l", "")
	case "fchmod", "fchown", "ftruncate", "fallocate":
		if fd := fdRE.FindStringSubmatch(args); fd != nil {
			return []use{{fd[1], "w"}}
		}
	case "flock", "fcntl":
		if fd := fdRE.FindStringSubmatch(args); fd != nil && (name == "flock" || strings.Contains(args, "F_SETLK") || strings.Contains(args, "F_OFD_SETLK")) {
			return []use{{fd[1], "k"}}
		}
	case "bind":
		if sun := sunRE.FindStringSubmatch(args); sun != nil {
			return []use{{sun[1], "w"}}
		}
	case "connect":
		if sun := sunRE.FindStringSubmatch(args); sun != nil {
			return []use{{sun[1], "rw"}}
		}
	case "socket":
		if s := socketRE.FindStringSubmatch(args); s != nil && s[1] != "UNIX" {
			return []use{{"", strings.ToLower(s[1] + " " + s[2])}}
		}
	}
	return out
}

// The profile allows what snapd does: every file that it opens, makes, locks and removes,
// every program that it starts and every socket, in a job that has it sync, freeze, serve,
// make old indices again, collect and reload. The test needs no AppArmor in the kernel,
// because strace reports the calls. Long because the job has many steps.
func TestProfileAllows(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a system")
	}
	t.Parallel()
	needs.Root(t, "to boot a system")
	needs.Programs(t, "apparmor_parser", "strace", "nsenter", "unshare", "setpriv", "xz", "gzip")
	p := readProfile(t, filepath.Join(checkout, "contrib/apparmor/frozen-snapd"))
	for _, c := range []struct {
		path, perms string
		want        bool
	}{
		{"/var/lib/frozen-snapd/blobs/ab/x", "rw", true}, {"/var/lib/frozen-snapd/", "r", true}, {"/var/lib/other", "r", false}, {"/etc/shadow", "r", false},
		{"/usr/bin/xz", "x", true}, {"/bin/sh", "x", false}, {"/etc/frozen-snapd/config.toml", "w", false}, {"/home/a/x", "r", false}, {"/proc/12/status", "r", true}, {"/etc/hosts", "r", true},
	} {
		if p.allows(c.path, c.perms) != c.want {
			t.Fatalf("%s %s: allowed %v: the profile is read wrongly", c.path, c.perms, !c.want)
		}
	}
	a := debtest.New(t)
	publish := func(version string) {
		a.Suite("bookworm").Add(debtest.Package{Name: "hello", Version: version})
		a.AddSource(debtest.Source{Name: "hello", Version: version})
		a.Publish(time.Now().Add(-time.Hour))
	}
	publish("1.0")
	upstream := httptest.NewServer(a.Handler())
	defer upstream.Close()
	b := boot(t, packagedConfig(t, upstream.URL)+"\n[store]\nkeep_indices = 1\n", a)
	b.run(`mkdir -m 777 /run/trace; install -d -o _frozen-snapd -g _frozen-snapd -m 700 /var/lib/frozen-snapd; install -d -o _frozen-snapd -g _frozen-snapd -m 750 /run/frozen-snapd
setpriv --reuid _frozen-snapd --regid _frozen-snapd --clear-groups strace -ff -y -s 4096 -o /run/trace/t -e trace=%file,%network,%desc snapd --config /etc/frozen-snapd/config.toml </dev/null >/run/frozen-snapd.log 2>&1 &`)
	b.within("it serves", func() error { _, err := b.try(ctl + "status"); return err })
	b.run(ctl + "sync && " + ctl + "freeze 1.0 --all && " + ctl + "verify 1.0 --deep")
	old := b.run(ctl + "show debian@latest --json | sed -n 's/.*\"id\": *\"debian@\\([0-9TZ]*\\)\".*/\\1/p' | head -n 1")
	for _, version := range []string{"2.0", "3.0"} {
		publish(version)
		time.Sleep(time.Second) // the Release has another date
		b.run(ctl + "sync")
	}
	b.run(ctl + "gc --compact && pkill -HUP -x snapd && " + ctl + "channel set stable 1.0 && " + ctl + "record start build && " + ctl + "record stop build && " + ctl + "rm 1.0 --yes || true; " + ctl + "channel rm stable; " + ctl + "rm 1.0 --yes; " + ctl + "gc; " + ctl + "fsck")
	for _, path := range []string{"/", "/metrics", "/package/hello", "/archive/debian/latest/pool/", "/archive/debian/" + old + "/dists/bookworm/main/binary-amd64/Packages.xz", "/archive/debian/" + old + "/dists/bookworm/main/binary-amd64/Packages.gz"} {
		resp, err := http.Get("http://" + b.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", path, resp.StatusCode)
		}
	}
	b.run("pkill -TERM -x snapd; while pgrep -x snapd; do sleep 0.1; done")
	b.allowed(p)
}

// allowed compares what was traced with a profile.
func (b *booted) allowed(p *profile) {
	b.t.Helper()
	tried := map[use]string{}
	for line := range strings.Lines(b.run("cat /run/trace/t.*")) {
		line = strings.TrimSpace(line)
		for _, u := range usesOf(line) {
			tried[u] = line
		}
	}
	programs := 0
	for u, line := range tried {
		switch {
		case u.path == "":
			if !slices.Contains(p.network, u.perms) {
				b.t.Errorf("no rule allows a socket %s: %s", u.perms, line)
			}
		case !strings.HasPrefix(u.path, "/") || strings.HasPrefix(u.path, "/run/trace/"): // a pipe, or strace's
		case u.path == "/usr/sbin/snapd" && u.perms == "x": // which makes the profile apply
		case !p.allows(u.path, u.perms) && !(b.isDir(u.path) && p.allows(u.path+"/", u.perms)): // as AppArmor names directories
			b.t.Errorf("no rule allows %s of %s: %s", u.perms, u.path, line)
		}
		if u.perms == "x" {
			programs++
		}
	}
	if len(tried) < 100 || programs < 2 {
		b.t.Errorf("the job did %d things and started %d programs: too few to say anything", len(tried), programs)
	}
}

func (b *booted) isDir(path string) bool {
	_, err := b.try("test -d '" + path + "'")
	return err == nil
}

// Package image builds root file systems from frozen snapshots, as SquashFS
// images that are the same bytes wherever and whenever they are built, and
// tells how two images differ.
//
// mmdebstrap installs from the frozen repositories as snapd signs them anew:
// those indices never expire, so apt needs no option that weakens its checks.
// (Replayed through snapd as a proxy, upstream's own Release files would have
// passed their Valid-Until.) What apt was told for the build is taken out
// again at the end, and the distribution's own source lines are put in. A tar
// stream leaves mmdebstrap and goes straight into the image.
package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.org/snapd/internal/squashfs"
)

var (
	// ErrSpec means that a description of an image cannot be built.
	ErrSpec = errors.New("image cannot be built")
	// ErrTools means that a program that building needs is missing.
	ErrTools = errors.New("tool is missing")
	// ErrBuild means that mmdebstrap failed; the message ends with its last
	// words.
	ErrBuild = errors.New("mmdebstrap failed")
)

// Builder is how a build is named in what describes it.
const Builder = "mmdebstrap"

// Packing is how the image is packed: one form for all, so that images of two
// releases have blocks in common.
const Packing = "squashfs zstd 128KiB"

// HostName stands in /etc/hostname of every image, and is what maintainer
// scripts see.
const HostName = "localhost"

// Spec is all that decides an image's bytes, beside the tools.
type Spec struct {
	Variant      string    // mmdebstrap's; "" means apt
	Include      []string  // packages, NAME[:ARCH][=VERSION], in the order in which apt is given them
	Architecture string    // Debian's name for it
	Epoch        time.Time // no file is younger
	Upstream     string    // the image's /etc/apt/sources.list
	// Sources is what apt installs from, deb822 with keys inline. It leaves no
	// trace in the image.
	Sources string
}

var (
	variants  = []string{"extract", "custom", "essential", "apt", "required", "minbase", "buildd", "important", "debootstrap", "standard"}
	packageRE = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]*(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?$`)
	archRE    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
)

// Check says what in s cannot be built.
func (s *Spec) Check() error {
	if s.Variant == "" {
		s.Variant = "apt"
	}
	if !slices.Contains(variants, s.Variant) {
		return fmt.Errorf("%w: variant %q: expected one of %s", ErrSpec, s.Variant, strings.Join(variants, ", "))
	}
	for _, p := range s.Include {
		if !packageRE.MatchString(p) {
			return fmt.Errorf("%w: package %q: expected NAME, NAME:ARCH or NAME=VERSION", ErrSpec, p)
		}
	}
	if !archRE.MatchString(s.Architecture) {
		return fmt.Errorf("%w: architecture %q", ErrSpec, s.Architecture)
	}
	if e := s.Epoch.Unix(); s.Epoch.IsZero() || e < 0 || e > 1<<32-1 {
		return fmt.Errorf("%w: date %v is not from 1970 to 2106", ErrSpec, s.Epoch)
	}
	if strings.ContainsRune(s.Upstream, 0) {
		return fmt.Errorf("%w: source lines hold NUL", ErrSpec)
	}
	return nil
}

// How describes the build for the image's signed statement: the tools'
// versions and all that SpecOf needs.
func (s *Spec) How(t Tools) map[string]string {
	how := map[string]string{
		"builder":      Builder,
		"packing":      Packing,
		"variant":      s.Variant,
		"include":      strings.Join(s.Include, ","),
		"architecture": s.Architecture,
		"epoch":        strconv.FormatInt(s.Epoch.Unix(), 10),
		"sources":      s.Upstream,
	}
	for k, v := range t {
		how["version."+k] = v
	}
	return how
}

// SpecOf reads the spec back out of a description; Sources is not in it.
// ErrSpec when the image was not built here.
func SpecOf(how map[string]string) (Spec, error) {
	if how["builder"] != Builder || how["packing"] != Packing {
		return Spec{}, fmt.Errorf("%w: it was built with %q, packed as %q, expected %q and %q", ErrSpec, how["builder"], how["packing"], Builder, Packing)
	}
	n, err := strconv.ParseInt(how["epoch"], 10, 64)
	if err != nil {
		return Spec{}, fmt.Errorf("%w: epoch %q", ErrSpec, how["epoch"])
	}
	s := Spec{Variant: how["variant"], Architecture: how["architecture"], Epoch: time.Unix(n, 0).UTC(), Upstream: how["sources"]}
	if i := how["include"]; i != "" {
		s.Include = strings.Split(i, ",")
	}
	return s, s.Check()
}

// Repository is one upstream repository as an image's source lines name it.
type Repository struct {
	URL        string
	Suites     []string
	Components []string // none for flat suites, which end in a slash
}

// SourceLines are upstream's own lines for /etc/apt/sources.list, without
// credentials.
func SourceLines(list []Repository) string {
	var b strings.Builder
	for _, r := range list {
		base := r.URL
		if u, err := url.Parse(r.URL); err == nil {
			u.User = nil
			base = u.String()
		}
		for _, s := range r.Suites {
			line := "deb " + base + " " + s
			if !strings.HasSuffix(s, "/") {
				line += " " + strings.Join(r.Components, " ")
			}
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// Tools are versions of programs that decide an image's bytes, by name.
type Tools map[string]string

// FindTools asks the programs for their versions. ErrTools when one is missing.
func FindTools(ctx context.Context) (Tools, error) {
	t := Tools{}
	for _, p := range []struct {
		name string
		args []string
		re   string
	}{
		{"mmdebstrap", []string{"mmdebstrap", "--version"}, `^mmdebstrap (\S+)`},
		{"apt", []string{"apt-get", "--version"}, `^apt (\S+)`},
		{"dpkg", []string{"dpkg", "--version"}, `version (\S+)`},
	} {
		cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
		cmd.Env = []string{"PATH=" + toolPath, "LC_ALL=C.UTF-8"}
		if path, err := exec.LookPath(p.args[0]); err == nil {
			cmd.Path = path
		}
		out, err := cmd.Output()
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("%w: %s: %w", ErrTools, p.name, err)
		}
		m := regexp.MustCompile(p.re).FindSubmatch(out)
		if m == nil {
			return nil, fmt.Errorf("%w: %s does not tell its version: %q", ErrTools, p.name, firstLine(out))
		}
		t[p.name] = string(m[1])
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/klauspost/compress" {
				t["zstd"] = d.Path + " " + d.Version
			}
		}
	}
	return t, nil
}

// CompareTools gives the tools whose version in a description is not the one
// here, as tool, recorded, here; sorted by tool.
func (t Tools) CompareTools(how map[string]string) [][3]string {
	var out [][3]string
	for name, here := range t {
		if was := how["version."+name]; was != here {
			out = append(out, [3]string{name, was, here})
		}
	}
	slices.SortFunc(out, func(a, b [3]string) int { return strings.Compare(a[0], b[0]) })
	return out
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(line)
}

// Architecture is this machine's, as dpkg names it.
func Architecture(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "dpkg", "--print-architecture").Output()
	if err != nil {
		return "", fmt.Errorf("%w: dpkg: %w", ErrTools, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// toolPath is where programs are looked for, whatever the caller's PATH: they
// decide bytes.
const toolPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Options are what does not decide the image's bytes.
type Options struct {
	// Mode is mmdebstrap's; "" finds one: without root where the machine
	// allows it.
	Mode string
	// TempDir is where the root file system is made. Default: os.TempDir.
	TempDir string
	// Log gets what mmdebstrap says. It may be nil.
	Log io.Writer
	// Progress is told of the bytes of file content packed.
	Progress func(done int64)
}

// mode finds mmdebstrap's mode.
func mode() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	u, err := user.Current()
	if err == nil && hasSubIDs("/etc/subuid", u) && hasSubIDs("/etc/subgid", u) {
		if exec.Command("unshare", "--user", "--map-root-user", "true").Run() == nil {
			return "unshare"
		}
	}
	return "fakechroot"
}

// hasSubIDs tells whether a user has ids to map (subuid(5)).
func hasSubIDs(file string, u *user.User) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for l := range strings.Lines(string(data)) {
		if strings.HasPrefix(l, u.Username+":") || strings.HasPrefix(l, u.Uid+":") {
			return true
		}
	}
	return false
}

// Build makes the image of s at the start of w, which is truncated if it can
// be. Cancelling ctx ends mmdebstrap.
func Build(ctx context.Context, w io.WriterAt, s Spec, o Options) (squashfs.Stats, error) {
	if err := s.Check(); err != nil {
		return squashfs.Stats{}, err
	}
	if strings.TrimSpace(s.Sources) == "" {
		return squashfs.Stats{}, fmt.Errorf("%w: nothing to install from", ErrSpec)
	}
	if o.Mode == "" {
		o.Mode = mode()
	}
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	ns, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		return squashfs.Stats{}, fmt.Errorf("build image: %w", err)
	}
	args := []string{
		"-c", `umask 022 && exec "$@"`, "sh",
		"mmdebstrap", "--mode=" + o.Mode, "--variant=" + s.Variant, "--format=tar", "--architectures=" + s.Architecture,
		"--setup-hook=" + setupHook(ns),
	}
	if s.Variant != "extract" && s.Variant != "custom" {
		args = append(args, "--setup-hook="+mergeHook(s.Architecture))
	}
	// The last hook that there is: nothing is customized where nothing is
	// installed.
	if s.Variant == "extract" {
		args = append(args, "--extract-hook="+customizeHook(s.Upstream))
	} else {
		args = append(args, "--customize-hook="+customizeHook(s.Upstream))
	}
	if len(s.Include) > 0 {
		args = append(args, "--include="+strings.Join(s.Include, ","))
	}
	// No suite; the tar goes to standard output, sources come from standard input.
	args = append(args, "", "-", "-")

	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	cmd.Env = []string{
		"PATH=" + toolPath, "HOME=/nonexistent", "LC_ALL=C.UTF-8", "TZ=UTC", "TMPDIR=" + o.TempDir,
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(s.Epoch.Unix(), 10),
	}
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(s.Sources)
	said := &tail{max: 16 << 10}
	cmd.Stderr = said
	if o.Log != nil {
		cmd.Stderr = io.MultiWriter(said, o.Log)
	}
	// A group of its own: a Ctrl-C at the terminal reaches it once, from us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second // it unmounts and removes what it made
	out, err := cmd.StdoutPipe()
	if err != nil {
		return squashfs.Stats{}, fmt.Errorf("build image: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return squashfs.Stats{}, fmt.Errorf("build image: %w: %w", ErrTools, err)
	}
	opts := squashfs.Options{
		Compressor: squashfs.Zstd, BlockSize: 128 << 10, Epoch: s.Epoch, Clamp: true,
		// SquashFS has no POSIX ACLs; packages set none.
		DropXattrs: func(string, string) {},
	}
	if o.Progress != nil {
		opts.Progress = func(done, _ int64) { o.Progress(done) }
	}
	stats, packErr := squashfs.FromTar(ctx, w, out, opts)
	if packErr != nil {
		cancel()
	} else {
		// Padding after the end of the archive.
		_, packErr = io.Copy(io.Discard, out)
	}
	err = cmd.Wait()
	switch {
	case caller.Err() != nil:
		return stats, fmt.Errorf("build image: %w", caller.Err())
	case packErr != nil && err != nil && !said.failed():
		return stats, fmt.Errorf("pack image: %w", packErr)
	case err != nil:
		return stats, fmt.Errorf("build image: %w: %w: %s", ErrBuild, err, said.last())
	case packErr != nil:
		return stats, fmt.Errorf("pack image: %w", packErr)
	}
	return stats, checkInstalled(w, stats.Size, s.Variant)
}

// checkInstalled refuses an image without packages: from repositories that have
// no essential package mmdebstrap makes one and is content.
func checkInstalled(w io.WriterAt, size int64, variant string) error {
	at, ok := w.(io.ReaderAt)
	if !ok || variant == "extract" || variant == "custom" {
		return nil
	}
	r, err := squashfs.Open(at, size, squashfs.Limits{})
	if err != nil {
		return fmt.Errorf("read image back: %w", err)
	}
	n, err := r.Lookup("var/lib/dpkg/status")
	if err != nil || n.Size == 0 {
		return fmt.Errorf("build image: %w: nothing was installed: the repositories hold no essential package", ErrBuild)
	}
	return nil
}

// setupHook runs before anything is installed. mmdebstrap has just copied the
// host's name and resolver into the image; maintainer scripts must not see
// them. hostNS is the host's UTS namespace: only another one is renamed.
func setupHook(hostNS string) string {
	return `set -eu; ` +
		`[ "$(readlink /proc/self/ns/uts)" = ` + quote(hostNS) + ` ] || hostname ` + HostName + `; ` + fixedFiles
}

// mergeHook makes the top-level directories of programs and libraries links into
// /usr, as debootstrap does, when the repositories have usr-is-merged, which
// refuses to be installed otherwise, but not usrmerge, which would make them: that
// is what a system has which was installed with a merged /usr. mmdebstrap looks up
// no packages before this hook.
func mergeHook(arch string) string {
	return `set -eu; ` +
		`run() { env --chdir="$root" APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" "$@"; }; ` +
		`root=$1; run apt-get update -q --error-on=any >&2; ` +
		// The exit code says nothing about packages that others only depend on.
		`has() { run apt-cache show "$1" 2>/dev/null | grep -qx "Package: $1"; }; ` +
		`if has usr-is-merged && ! has usrmerge; then ` +
		`for d in ` + strings.Join(mergedDirs(arch), " ") + `; do mkdir -p "$root/usr/$d"; [ -e "$root/$d" ] || ln -s "usr/$d" "$root/$d"; done; ` +
		`fi`
}

// mergedDirs returns the directories that debootstrap links into /usr. Those that
// no package uses are removed again by usr-is-merged.
func mergedDirs(arch string) []string {
	dirs := []string{"bin", "sbin", "lib"}
	switch arch {
	case "amd64", "x32":
		return append(dirs, "lib32", "lib64", "libx32")
	case "i386":
		return append(dirs, "lib64", "libx32")
	case "loong64", "mips", "mipsel", "ppc64", "sparc64":
		return append(dirs, "lib32", "lib64")
	case "mips64", "mips64el", "mipsn32", "mipsn32el":
		return append(dirs, "lib32", "lib64", "libo32")
	case "powerpc", "ppc64el", "sparc":
		return append(dirs, "lib64")
	case "s390x":
		return append(dirs, "lib32")
	}
	return dirs
}

// fixedFiles writes the host name and an empty resolv.conf, but for links that
// packages made of them.
const fixedFiles = `mkdir -p "$1/etc"; ` +
	`for f in hostname resolv.conf; do [ -L "$1/etc/$f" ] || rm -f "$1/etc/$f"; done; ` +
	`[ -L "$1/etc/hostname" ] || echo ` + HostName + ` > "$1/etc/hostname"; ` +
	`[ -L "$1/etc/resolv.conf" ] || : > "$1/etc/resolv.conf"`

// customizeHook runs at the end: it takes out what apt was told for the build
// and puts upstream's own lines in. mmdebstrap itself removes package lists,
// logs and ids.
func customizeHook(upstream string) string {
	return `set -eu; ` + fixedFiles + `; ` +
		`rm -f "$1/etc/apt/sources.list.d/0000main.sources"; ` +
		`if [ -d "$1/etc/apt" ]; then printf %s ` + quote(upstream) + ` > "$1/etc/apt/sources.list"; fi; ` +
		`if [ -e "$1/etc/machine-id" ] && [ ! -L "$1/etc/machine-id" ]; then : > "$1/etc/machine-id"; fi`
}

// quote makes one shell word of s.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// tail keeps the end of what is written to it.
type tail struct {
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - t.max; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	return len(p), nil
}

var errorLine = regexp.MustCompile(`(?m)^(E:|W:|dpkg: error|mmdebstrap: ).*$`)

// failed tells whether an error was said.
func (t *tail) failed() bool { return bytes.Contains(t.buf, []byte("E: ")) }

// last gives the errors that were said, else the last lines.
func (t *tail) last() string {
	var lines []string
	for _, m := range errorLine.FindAll(t.buf, -1) {
		lines = append(lines, string(m))
	}
	if len(lines) == 0 {
		lines = strings.Split(strings.TrimSpace(string(t.buf)), "\n")
	}
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

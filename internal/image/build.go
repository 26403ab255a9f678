// Package image builds root file systems from freezes, as SquashFS, tar or OCI images
// whose bytes do not depend on where and when they are built.
//
// mmdebstrap installs from the frozen repositories that snapd signs. Their signatures
// never expire, so that apt needs no option that weakens its checks. (Upstream's own
// Release files, which snapd serves as a proxy, would be past their Valid-Until.) At
// the end, the distribution's own source lines replace the build's configuration of
// apt. The package packs mmdebstrap's tar stream into the image without storing it.
package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
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

	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/squashfs"
)

var (
	// ErrSpec means that an image cannot be built from its description.
	ErrSpec = errors.New("image cannot be built")
	// ErrTools means that a required program is missing.
	ErrTools = errors.New("tool is missing")
	// ErrBuild means that mmdebstrap failed; the message ends with its errors.
	ErrBuild = errors.New("mmdebstrap failed")
	// ErrLacks is an ErrBuild: the repositories lack packages to install.
	ErrLacks = errclass.New(ErrBuild, "mmdebstrap failed")
)

// Builder is the name of the builder in an image's description.
const Builder = "mmdebstrap"

// Packing describes the packing of SquashFS in an image's description. It is the same
// for all of them, so that images of two releases share blocks.
const Packing = "squashfs zstd 128KiB"

// HostName is the content of /etc/hostname in every image, and the host name that
// maintainer scripts see.
const HostName = "localhost"

// Spec describes an image. Together with the tools it determines the image's bytes.
type Spec struct {
	Variant      string    // of mmdebstrap; "" means apt
	Format       string    // one of Formats; "" means the first
	Freeze       string    // name that an OCI image has in its index
	Include      []string  // additional packages, NAME[:ARCH][=VERSION], in apt's order
	Architecture string    // as Debian names it
	Epoch        time.Time // the latest time of a file
	Upstream     string    // the image's /etc/apt/sources.list
	// Sources are the repositories to install from, in deb822 with inline keys. The
	// image does not contain them.
	Sources string
}

var (
	variants  = []string{"extract", "custom", "essential", "apt", "required", "minbase", "buildd", "important", "debootstrap", "standard"}
	packageRE = lazyregexp.New(`^[a-z0-9][a-z0-9.+-]*(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?$`)
	archRE    = lazyregexp.New(`^[a-z0-9][a-z0-9-]*$`)
)

// Check returns an error when s cannot be built, and sets the default variant.
func (s *Spec) Check() error {
	if s.Variant == "" {
		s.Variant = "apt"
	}
	if !slices.Contains(variants, s.Variant) {
		return fmt.Errorf("%w: variant %q: expected one of %s", ErrSpec, s.Variant, strings.Join(variants, ", "))
	}
	if s.Format == "" {
		s.Format = Formats[0]
	}
	if !slices.Contains(Formats, s.Format) {
		return fmt.Errorf("%w: format %q: expected one of %s", ErrSpec, s.Format, strings.Join(Formats, ", "))
	}
	for _, p := range s.Include {
		if !packageRE().MatchString(p) {
			return fmt.Errorf("%w: package %q: expected NAME, NAME:ARCH or NAME=VERSION", ErrSpec, p)
		}
	}
	if !archRE().MatchString(s.Architecture) {
		return fmt.Errorf("%w: architecture %q", ErrSpec, s.Architecture)
	}
	if e := s.Epoch.Unix(); s.Epoch.IsZero() || e < 0 || e > 1<<32-1 {
		return fmt.Errorf("%w: date %v is not from 1970 to 2106", ErrSpec, s.Epoch)
	}
	if strings.ContainsRune(s.Upstream, 0) {
		return fmt.Errorf("%w: source lines contain NUL", ErrSpec)
	}
	return nil
}

// How describes the build for the image's signed statement: the versions of the tools,
// and the fields that SpecOf needs.
func (s *Spec) How(t Tools) map[string]string {
	how := map[string]string{
		"builder":      Builder,
		"packing":      packings[cmp.Or(s.Format, Formats[0])],
		"variant":      s.Variant,
		"include":      strings.Join(s.Include, ","),
		"architecture": s.Architecture,
		"epoch":        strconv.FormatInt(s.Epoch.Unix(), 10),
		"sources":      s.Upstream,
	}
	if s.Format == "oci" {
		how["freeze"] = s.Freeze
	}
	for k, v := range t {
		how["version."+k] = v
	}
	return how
}

// SpecOf returns the Spec of a description, without Sources. The error wraps ErrSpec if
// this package did not build the image.
func SpecOf(how map[string]string) (Spec, error) {
	format := formatOf(how["packing"])
	if how["builder"] != Builder || format == "" {
		return Spec{}, fmt.Errorf("%w: it was built with %q, packed as %q, expected %q, and packed as one of %q", ErrSpec, how["builder"], how["packing"], Builder, slices.Sorted(maps.Values(packings)))
	}
	n, err := strconv.ParseInt(how["epoch"], 10, 64)
	if err != nil {
		return Spec{}, fmt.Errorf("%w: epoch %q", ErrSpec, how["epoch"])
	}
	s := Spec{Variant: how["variant"], Format: format, Freeze: how["freeze"], Architecture: how["architecture"], Epoch: time.Unix(n, 0).UTC(), Upstream: how["sources"]}
	if i := how["include"]; i != "" {
		s.Include = strings.Split(i, ",")
	}
	return s, s.Check()
}

// Repository is one upstream repository in an image's source lines.
type Repository struct {
	URL        string
	Suites     []string
	Components []string // empty for flat suites, which end in a slash
}

// SourceLines returns upstream's lines for /etc/apt/sources.list, without
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

// Tools are the versions of programs on which an image's bytes depend, by name.
type Tools map[string]string

// FindTools gets the versions of the programs. The error wraps ErrTools if one is
// missing.
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
			return nil, fmt.Errorf("%w: %s does not print its version: %q", ErrTools, p.name, firstLine(out))
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

// CompareTools returns the tools whose version differs from the one in a description:
// name, recorded version, version here; sorted by name.
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

// Architecture returns the architecture of this machine, as dpkg names it.
func Architecture(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "dpkg", "--print-architecture").Output()
	if err != nil {
		return "", fmt.Errorf("%w: dpkg: %w", ErrTools, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// toolPath is the PATH of mmdebstrap, independent of the caller's.
const toolPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Options do not affect the image's bytes.
type Options struct {
	// Mode is the mode of mmdebstrap. The default is a mode without root, if the
	// machine allows it.
	Mode string
	// TempDir is the directory for the root file system. Default: os.TempDir.
	TempDir string
	// Log receives the messages of mmdebstrap. It may be nil.
	Log io.Writer
	// Progress is called with the number of bytes of file content packed.
	Progress func(done int64)
}

// mode returns the mode of mmdebstrap that suits this machine and user.
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

// hasSubIDs reports whether a user has subordinate ids (subuid(5)).
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

// Build builds the image of s at the start of w. For SquashFS, it truncates w if w has
// a method Truncate; for other formats, w must be empty. Cancelling ctx stops
// mmdebstrap. Errors wrap ErrSpec, ErrTools, ErrBuild or ErrLacks, or are errors of w
// or ctx.
func Build(ctx context.Context, w io.WriterAt, s Spec, o Options) error {
	var size int64
	err := install(ctx, &s, o, func(ctx context.Context, stream io.Reader) error {
		switch s.Format {
		case "tar":
			return packTar(ctx, io.NewOffsetWriter(w, 0), stream, &s, o)
		case "oci":
			return packOCI(ctx, io.NewOffsetWriter(w, 0), stream, &s, o)
		}
		stats, err := pack(ctx, w, stream, s.Epoch, o.Progress)
		size = stats.Size
		return err
	})
	if err != nil || s.Format != Formats[0] {
		return err
	}
	return s.checkInstalled(w, size)
}

// install runs mmdebstrap for s and calls consume with its tar stream.
func install(ctx context.Context, s *Spec, o Options, consume func(context.Context, io.Reader) error) error {
	if err := s.Check(); err != nil {
		return err
	}
	if strings.TrimSpace(s.Sources) == "" {
		return fmt.Errorf("%w: nothing to install from", ErrSpec)
	}
	if o.Mode == "" {
		o.Mode = mode()
	}
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	args, err := arguments(s, o.Mode)
	if err != nil {
		return fmt.Errorf("build image: %w", err)
	}
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := &tail{max: 16 << 10}
	cmd := command(ctx, args, s, o, said)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("build image: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("build image: %w: %w", ErrTools, err)
	}
	packErr := consume(ctx, out)
	if packErr != nil {
		cancel()
	}
	err = cmd.Wait()
	switch {
	case caller.Err() != nil:
		return fmt.Errorf("build image: %w", caller.Err())
	case packErr != nil && err != nil && !said.failed():
		return fmt.Errorf("pack image: %w", packErr)
	case err != nil:
		is := ErrBuild
		if lackLine().Match(said.buf) {
			is = ErrLacks
		}
		return fmt.Errorf("build image: %w: %w: %s", is, err, said.last())
	case packErr != nil:
		return fmt.Errorf("pack image: %w", packErr)
	}
	return nil
}

// arguments returns the arguments of a shell that runs mmdebstrap. It reads the
// sources from standard input and writes a tar stream to standard output.
func arguments(s *Spec, mode string) ([]string, error) {
	ns, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		return nil, err
	}
	args := []string{
		"-c", `umask 022 && exec "$@"`, "sh",
		"mmdebstrap", "--mode=" + mode, "--variant=" + s.Variant, "--format=tar", "--architectures=" + s.Architecture,
		"--setup-hook=" + setupHook(ns),
	}
	if s.Variant != "extract" && s.Variant != "custom" {
		args = append(args, "--setup-hook="+mergeHook(s.Architecture))
	}
	// customizeHook must be the last hook. The variant extract has no customize hooks,
	// because it installs nothing.
	if s.Variant == "extract" {
		args = append(args, "--extract-hook="+customizeHook(s.Upstream))
	} else {
		args = append(args, "--customize-hook="+customizeHook(s.Upstream))
	}
	if len(s.Include) > 0 {
		args = append(args, "--include="+strings.Join(s.Include, ","))
	}
	return append(args, "", "-", "-"), nil // suite, target, mirror
}

// command returns the command that builds s. It does not depend on the environment of
// this process.
func command(ctx context.Context, args []string, s *Spec, o Options, said io.Writer) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	cmd.Env = []string{
		"PATH=" + toolPath, "HOME=/nonexistent", "LC_ALL=C.UTF-8", "TZ=UTC", "TMPDIR=" + o.TempDir,
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(s.Epoch.Unix(), 10),
	}
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(s.Sources)
	cmd.Stderr = said
	if o.Log != nil {
		cmd.Stderr = io.MultiWriter(said, o.Log)
	}
	// In a separate process group, it gets a Ctrl-C at the terminal only once, from
	// this process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second // to unmount and remove its files
	return cmd
}

// pack packs a tar stream, and reads it to its end.
func pack(ctx context.Context, w io.WriterAt, stream io.Reader, epoch time.Time, progress func(int64)) (squashfs.Stats, error) {
	opts := squashfs.Options{
		Compressor: squashfs.Zstd, BlockSize: 128 << 10, Epoch: epoch, Clamp: true,
		// SquashFS does not support POSIX ACLs; no package sets any.
		DropXattrs: func(string, string) {},
	}
	if progress != nil {
		opts.Progress = func(done, _ int64) { progress(done) }
	}
	stats, err := squashfs.FromTar(ctx, w, stream, opts)
	if err == nil {
		_, err = io.Copy(io.Discard, stream) // padding behind the archive
	}
	return stats, err
}

// mayBeEmpty reports whether the variant installs only included packages.
func (s *Spec) mayBeEmpty() bool { return s.Variant == "extract" || s.Variant == "custom" }

var errNothingInstalled = fmt.Errorf("%w: nothing was installed: the repositories have no essential package", ErrLacks)

// checkInstalled returns an error for an image without packages, which mmdebstrap makes
// without an error if the repositories have no essential package.
func (s *Spec) checkInstalled(w io.WriterAt, size int64) error {
	at, ok := w.(io.ReaderAt)
	if !ok || s.mayBeEmpty() {
		return nil
	}
	r, err := squashfs.Open(at, size, squashfs.Limits{})
	if err != nil {
		return fmt.Errorf("read image back: %w", err)
	}
	n, err := r.Lookup("var/lib/dpkg/status")
	if err != nil || n.Size == 0 {
		return fmt.Errorf("build image: %w", errNothingInstalled)
	}
	return nil
}

// setupHook runs before the installation. It removes the host's name and resolver
// configuration, which mmdebstrap copied, so that maintainer scripts do not see
// them. hostNS is the host's UTS namespace, whose name must not change.
func setupHook(hostNS string) string {
	return `set -eu; ` +
		`[ "$(readlink /proc/self/ns/uts)" = ` + quote(hostNS) + ` ] || hostname ` + HostName + `; ` + fixedFiles
}

// mergeHook merges /usr as debootstrap does, with links from /bin and the like, when
// the repositories have usr-is-merged but not usrmerge. usr-is-merged cannot be
// installed without these links, and usrmerge would make them, but systems that
// were installed with a merged /usr do not have it. mmdebstrap fetches the package
// lists only after this hook, so it does so itself.
func mergeHook(arch string) string {
	return `set -eu; ` +
		`run() { env --chdir="$root" APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" "$@"; }; ` +
		`root=$1; run apt-get update -q --error-on=any >&2; ` +
		// apt-cache's exit code does not distinguish packages that only occur as
		// dependencies.
		`has() { run apt-cache show "$1" 2>/dev/null | grep -qx "Package: $1"; }; ` +
		`if has usr-is-merged && ! has usrmerge; then ` +
		`for d in ` + strings.Join(mergedDirs(arch), " ") + `; do mkdir -p "$root/usr/$d"; [ -e "$root/$d" ] || ln -s "usr/$d" "$root/$d"; done; ` +
		`fi`
}

// mergedDirs returns the directories that debootstrap links into /usr. usr-is-merged
// removes those that no package uses.
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

// fixedFiles writes the host name and an empty resolv.conf, unless packages replaced
// these files by links.
const fixedFiles = `mkdir -p "$1/etc"; ` +
	`for f in hostname resolv.conf; do [ -L "$1/etc/$f" ] || rm -f "$1/etc/$f"; done; ` +
	`[ -L "$1/etc/hostname" ] || echo ` + HostName + ` > "$1/etc/hostname"; ` +
	`[ -L "$1/etc/resolv.conf" ] || : > "$1/etc/resolv.conf"`

// customizeHook runs at the end. It replaces the build's apt sources by upstream's
// lines. mmdebstrap itself removes package lists, logs and ids.
func customizeHook(upstream string) string {
	return `set -eu; ` + fixedFiles + `; ` +
		`rm -f "$1/etc/apt/sources.list.d/0000main.sources"; ` +
		`if [ -d "$1/etc/apt" ]; then printf %s ` + quote(upstream) + ` > "$1/etc/apt/sources.list"; fi; ` +
		`if [ -e "$1/etc/machine-id" ] && [ ! -L "$1/etc/machine-id" ]; then : > "$1/etc/machine-id"; fi`
}

// quote returns s as one word of the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// tail keeps the end of the data written to it.
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

// lackLine matches apt's messages about missing packages.
var lackLine = lazyregexp.New(`(?m)^E: (Unable to locate package |Package '.*' has no installation candidate|Version '.*' for '.*' was not found|Unable to correct problems)`)

var errorLine = lazyregexp.New(`(?m)^(E:|W:|dpkg: error|mmdebstrap: ).*$`)

// failed reports whether mmdebstrap printed an error.
func (t *tail) failed() bool { return bytes.Contains(t.buf, []byte("E: ")) }

// last returns the errors that mmdebstrap printed, or else its last lines.
func (t *tail) last() string {
	var lines []string
	for _, m := range errorLine().FindAll(t.buf, -1) {
		lines = append(lines, string(m))
	}
	if len(lines) == 0 {
		lines = strings.Split(strings.TrimSpace(string(t.buf)), "\n")
	}
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

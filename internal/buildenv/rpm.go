package buildenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	// ErrInstall means that dnf failed; the message ends with its errors.
	ErrInstall = errors.New("dnf failed")
	// ErrRPMTools means that programs for installing rpm packages are missing.
	ErrRPMTools = errors.New("dnf and rpm are needed")
)

// RPMTools returns the versions of the programs that install rpm packages, and their
// name for this machine's architecture. It returns ErrRPMTools if one is missing.
func RPMTools(ctx context.Context) (map[string]string, string, error) {
	// Both programs make a database in the home directory if the system has none.
	home, err := os.MkdirTemp("", "snapctl-rpm-")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(home)
	tools, arch := map[string]string{}, ""
	for _, p := range []struct {
		name, arg string
		to        func(line string)
	}{
		{"dnf", "--version", func(line string) { tools["dnf"] = line }},
		{"rpm", "--eval=%{rpmversion} %{_arch}", func(line string) { tools["rpm"], arch, _ = strings.Cut(line, " ") }},
	} {
		cmd := exec.CommandContext(ctx, p.name, p.arg)
		cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C.UTF-8", "HOME=" + home}
		out, err := cmd.Output()
		if err != nil {
			if ctx.Err() != nil {
				return nil, "", ctx.Err()
			}
			return nil, "", fmt.Errorf("%w: %s: %w", ErrRPMTools, p.name, err)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		p.to(strings.TrimSpace(line))
	}
	return tools, arch, nil
}

// An RPMRoot describes a root that dnf installs.
type RPMRoot struct {
	File     string // gets the root, a tar stream
	WorkDir  string // an empty directory
	Repo     string // the repositories, as a .repo file
	Packages []string
	Epoch    int64     // the latest time of a file, in Unix seconds
	Log      io.Writer `json:"-"` // gets dnf's messages; may be nil
}

// A Package is an rpm package of a root.
type Package struct{ Name, Version, Architecture string }

// maxRPMs bounds the list of installed packages, in bytes.
const maxRPMs = 64 << 20

// InstallRPM makes a root, and returns its packages, sorted by name. dnf runs as root
// in namespaces with this machine's network, until ctx is done. InstallRPM returns
// ErrInstall if dnf fails.
func InstallRPM(ctx context.Context, r RPMRoot) ([]Package, error) {
	for name, text := range map[string]string{
		"repos/snapd.repo": r.Repo,
		"dnf.conf":         "[main]\nplugins=0\nbest=1\ninstall_weak_deps=0\nkeepcache=0\n",
		// Debian's rpm has its database elsewhere. /proc and /dev are mounted.
		"home/.rpmmacros": "%_dbpath " + rpmDatabase + "\n%_netsharedpath /proc:/dev:/sys\n",
	} {
		p := filepath.Join(r.WorkDir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	said := &lastBytes{max: 4 << 10}
	var log io.Writer = said
	if r.Log != nil {
		log = io.MultiWriter(said, r.Log)
	}
	if _, err := start(ctx, order{Task: "install", Install: &r}, r.Log, log, nil); err != nil {
		if errors.Is(err, ErrSetup) {
			return nil, fmt.Errorf("%w: %w: %s", ErrInstall, err, strings.TrimSpace(string(said.buf)))
		}
		return nil, err
	}
	f, err := os.Open(r.list())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRPMs))
	if err != nil {
		return nil, err
	}
	return parseRPMs(string(text)), nil
}

// lastBytes is a writer that keeps the last bytes.
type lastBytes struct {
	max int
	buf []byte
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.buf = append(l.buf, p...)
	if n := len(l.buf) - l.max; n > 0 {
		l.buf = append([]byte(nil), l.buf[n:]...)
	}
	return len(p), nil
}

// rpmDatabase is the directory of rpm's database during the installation, and
// afterwards in a root without rpm.
const rpmDatabase = "/usr/lib/sysimage/rpm"

// RPMFiles returns files for the root of an environment: the repositories, the keys by
// file name in KeysDir, and macros, so that rpmbuild writes neither the time nor the
// host name to packages.
func RPMFiles(repo string, keys map[string]string) map[string]string {
	out := map[string]string{
		"etc/yum.repos.d/snapd.repo": repo,
		"etc/rpm/macros.snapd":       "%use_source_date_epoch_as_buildtime 1\n%clamp_mtime_to_source_date_epoch 1\n%_buildhost localhost\n",
	}
	for name, text := range keys {
		out[path.Join(KeysDir[1:], name)] = text
	}
	return out
}

// KeysDir is the directory with the keys of repositories in a root of rpm packages.
const KeysDir = "/etc/pki/rpm-gpg"

// rpmFormat is the query format for the packages of the root.
const rpmFormat = `%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t%{ARCH}\n`

// list is the file with the packages of the root.
func (r *RPMRoot) list() string { return filepath.Join(r.WorkDir, "installed") }

// parseRPMs parses the list. Imported keys are in it like packages.
func parseRPMs(text string) []Package {
	var out []Package
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) == 3 && f[0] != "gpg-pubkey" {
			out = append(out, Package{f[0], strings.TrimPrefix(f[1], "0:"), f[2]})
		}
	}
	slices.SortFunc(out, func(a, b Package) int {
		return slices.Compare([]string{a.Name, a.Architecture, a.Version}, []string{b.Name, b.Architecture, b.Version})
	})
	return out
}

// install makes the root. It is the work of the environment's first process.
func (r *RPMRoot) install() error {
	if err := syscall.Setgroups([]int{0}); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	syscall.Umask(0o022)
	if err := private(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("localhost")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	dir := filepath.Join(r.WorkDir, "root")
	for _, d := range []string{"proc", "dev"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := mountProc(dir + "/proc"); err != nil {
		return err
	}
	if err := mountDev(dir + "/dev"); err != nil {
		return err
	}
	args := []string{
		"--assumeyes", "--quiet", "--config=" + filepath.Join(r.WorkDir, "dnf.conf"), "--setopt=reposdir=" + filepath.Join(r.WorkDir, "repos"),
		"--installroot=" + dir, "--releasever=1", "install", "--",
	}
	if err := r.command("dnf", append(args, r.Packages...)...).Run(); err != nil {
		return err
	}
	list, err := os.Create(r.list())
	if err != nil {
		return err
	}
	defer list.Close()
	cmd := r.command("rpm", "--root", dir, "--query", "--all", "--queryformat", rpmFormat)
	cmd.Stdout = list
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("list the packages: %w", err)
	}
	if err := r.moveDatabase(dir); err != nil {
		return fmt.Errorf("move rpm's database: %w", err)
	}
	if err := removeTraces(dir); err != nil {
		return err
	}
	// Without --one-file-system, the root would contain /proc and /dev.
	if err := r.command("tar", "--create", "--file="+r.File, "--directory="+dir, "--one-file-system", "--sort=name", "--numeric-owner",
		"--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
		"--xattrs", "--xattrs-include=security.capability", "--clamp-mtime", "--mtime=@"+strconv.FormatInt(r.Epoch, 10), ".").Run(); err != nil {
		return fmt.Errorf("pack the root: %w", err)
	}
	return nil
}

// command returns a command of this machine.
func (r *RPMRoot) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{
		"PATH=" + searchPath, "HOME=" + filepath.Join(r.WorkDir, "home"), "LC_ALL=C.UTF-8", "TZ=UTC", "TMPDIR=" + r.WorkDir,
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(r.Epoch, 10),
	}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// moveDatabase moves rpm's database to the directory that the rpm in the root uses.
func (r *RPMRoot) moveDatabase(dir string) error {
	cmd := r.command("/usr/bin/rpm", "--eval", "%{_dbpath}")
	cmd.Env = append(cmd.Env, "HOME=/root")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	var out bytes.Buffer
	cmd.Stdout = &out
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/rpm")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := cmd.Run(); err != nil {
		return err
	}
	to := path.Clean("/" + strings.TrimSpace(out.String()))
	if to == "/" {
		return fmt.Errorf("the rpm in the root has no %%_dbpath")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	have, err := root.Stat(rpmDatabase[1:])
	if err != nil {
		return err
	}
	if st, err := root.Stat(to[1:]); err == nil && os.SameFile(st, have) {
		return nil // a link leads there
	}
	if err := root.MkdirAll(path.Dir(to)[1:], 0o755); err != nil {
		return err
	}
	if err := root.RemoveAll(to[1:]); err != nil {
		return err
	}
	return root.Rename(rpmDatabase[1:], to[1:])
}

// removeTraces removes dnf's caches and logs, and the distribution's own repositories,
// which the environment cannot reach.
func removeTraces(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, pattern := range []string{"etc/yum.repos.d/*.repo", "var/cache/dnf/*", "var/cache/libdnf5/*", "var/log/dnf*", "var/log/hawkey.log"} {
		found, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return err
		}
		for _, p := range found {
			if err := root.RemoveAll(p); err != nil {
				return fmt.Errorf("remove /%s from the root: %w", p, err)
			}
		}
	}
	return nil
}

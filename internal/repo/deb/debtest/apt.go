package debtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/needs"
)

// Apt is a real apt in an empty root. It ignores the configuration of the
// machine, and always checks dates and expiry.
type Apt struct {
	tb   testing.TB
	Root string
	// Env contains additional environment variables, "NAME=value", and Options
	// additional apt options, "Acquire::Languages=none".
	Env, Options []string
}

// NewApt makes an empty root whose sources are the text of a .sources file
// (deb822) or, if it begins with "deb", of a .list file. It skips the test if apt
// is not installed.
func NewApt(tb testing.TB, sources string) *Apt {
	tb.Helper()
	for _, name := range []string{"apt-get", "dpkg"} {
		needs.Program(tb, name)
	}
	a := &Apt{tb: tb, Root: tb.TempDir()}
	for _, d := range []string{
		"etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d",
		"var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg/updates", "var/lib/dpkg/info",
		"var/lib/dpkg/triggers", "var/lib/dpkg/alternatives", "var/log/apt", "tmp",
	} {
		if err := os.MkdirAll(filepath.Join(a.Root, d), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	os.Chmod(a.Root, 0o755)
	a.write("var/lib/dpkg/status", "")
	a.write("var/lib/dpkg/available", "")
	a.write("etc/apt/apt.conf", fmt.Sprintf(`Dir %q;
Dir::State::status %q;
Dir::Etc::main "apt.conf.none";
Dir::Etc::parts "apt.conf.d";
Dir::Bin::dpkg "dpkg";
Dir::Log::Terminal "";
Dir::Log::History "";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
Acquire::Check-Valid-Until "true";
Acquire::Check-Date "true";
Acquire::AllowInsecureRepositories "false";
Acquire::Retries "0";
Acquire::Languages { "en"; };
DPkg::Options { "--root=%s"; "--force-script-chrootless"; "--log=/dev/null"; };
DPkg::Path "/usr/sbin:/usr/bin:/sbin:/bin";
DPkg::Use-Pty "false";
`, a.Root, filepath.Join(a.Root, "var/lib/dpkg/status"), a.Root))
	a.SetSources(sources)
	return a
}

func (a *Apt) write(name, text string) {
	a.tb.Helper()
	if err := os.WriteFile(filepath.Join(a.Root, name), []byte(text), 0o644); err != nil {
		a.tb.Fatal(err)
	}
}

// SetSources replaces the root's sources.
func (a *Apt) SetSources(text string) {
	a.tb.Helper()
	dir := filepath.Join(a.Root, "etc/apt/sources.list.d")
	os.Remove(filepath.Join(dir, "test.list"))
	os.Remove(filepath.Join(dir, "test.sources"))
	name := "test.sources"
	if strings.HasPrefix(text, "deb") {
		name = "test.list"
	}
	a.write("etc/apt/sources.list.d/"+name, text)
}

// Try runs one of apt's programs, such as apt-get or apt-cache, and returns its
// standard output and standard error together.
func (a *Apt) Try(argv ...string) (string, error) {
	a.tb.Helper()
	args := slices.Clone(argv[1:])
	for _, o := range a.Options {
		args = append(args, "-o", o)
	}
	cmd := needs.AsRoot(exec.CommandContext(a.tb.Context(), argv[0], args...))
	cmd.Env = append([]string{
		"APT_CONFIG=" + filepath.Join(a.Root, "etc/apt/apt.conf"), "LC_ALL=C", "TZ=UTC", "DEBIAN_FRONTEND=noninteractive",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + a.Root, "TMPDIR=" + filepath.Join(a.Root, "tmp"),
	}, a.Env...)
	cmd.Dir = a.Root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Run is like Try, but fails the test if the program fails or prints a warning or
// an error.
func (a *Apt) Run(argv ...string) string {
	a.tb.Helper()
	out, err := a.Try(argv...)
	if err != nil {
		a.tb.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "W:") || strings.HasPrefix(line, "E:") || strings.HasPrefix(line, "Err:") {
			a.tb.Fatalf("%s: warned\n%s", strings.Join(argv, " "), out)
		}
	}
	return out
}

// Installed returns "name version" for each installed package, sorted.
func (a *Apt) Installed() []string {
	a.tb.Helper()
	out, err := exec.Command("dpkg-query", "--admindir="+filepath.Join(a.Root, "var/lib/dpkg"), "-W", "-f", "${Package} ${Version} ${Status}\n").Output()
	if err != nil {
		return nil // dpkg-query fails when nothing is installed
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), " install ok installed"); ok {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

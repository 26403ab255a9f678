package rpmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/needs"
)

// Install has dnf install packages from the repository at url into an empty root, with
// gpgcheck and, if repoCheck is true, repo_gpgcheck. keys are armored. It returns the
// sorted list of installed packages as "name-version-release.arch", without keys. It
// skips the test in short mode. Without dnf, it skips the test, or fails it in CI.
func Install(t testing.TB, url string, keys []string, repoCheck bool, packages ...string) []string {
	t.Helper()
	out, err := TryInstall(t, url, keys, repoCheck, packages...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryInstall is like Install, but the installation may fail. The error contains the
// output of dnf.
func TryInstall(t testing.TB, url string, keys []string, repoCheck bool, packages ...string) ([]string, error) {
	t.Helper()
	return InstallFrom(t, []string{url}, keys, repoCheck, packages...)
}

// InstallFrom is like TryInstall, with several repositories.
func InstallFrom(t testing.TB, urls []string, keys []string, repoCheck bool, packages ...string) ([]string, error) {
	t.Helper()
	if testing.Testing() && testing.Short() {
		t.Skip("dnf is not run in short mode")
	}
	needs.Program(t, "dnf")
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	var keyURLs []string
	for i, k := range keys {
		name := filepath.Join(dir, fmt.Sprintf("key%d.asc", i))
		if err := os.WriteFile(name, []byte(k), 0o600); err != nil {
			t.Fatal(err)
		}
		keyURLs = append(keyURLs, "file://"+name)
	}
	check := map[bool]int{true: 1}[repoCheck]
	repos := filepath.Join(dir, "repos")
	if err := os.MkdirAll(repos, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := ""
	for i, url := range urls {
		conf += fmt.Sprintf("[test%[1]d]\nname=test%[1]d\nbaseurl=%[2]s\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=%[3]d\ngpgkey=%[4]s\n", i, url, check, strings.Join(keyURLs, "\n       "))
	}
	if err := os.WriteFile(filepath.Join(repos, "test.repo"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	main := fmt.Sprintf("[main]\nreposdir=%s\ncachedir=%s/cache\nlogdir=%s/log\npersistdir=%s/persist\npluginconfpath=%s/plugins\nvarsdir=%s/vars\nplugins=0\ngpgcheck=1\nlocalpkg_gpgcheck=1\ninstall_weak_deps=0\nretries=1\nmodule_platform_id=platform:f42\n",
		repos, dir, dir, dir, dir, dir)
	dnfConf := filepath.Join(dir, "dnf.conf")
	if err := os.WriteFile(dnfConf, []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-y", "-c", dnfConf, "--installroot", root, "--releasever", "42", "install"}, packages...)
	cmd := needs.AsRoot(exec.CommandContext(t.Context(), "dnf", args...))
	cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8", "http_proxy=", "https_proxy=", "HTTP_PROXY=", "HTTPS_PROXY=", "no_proxy=*")
	log, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("dnf install %s: %w\n%s", strings.Join(packages, " "), err, log)
	}
	// Debian's rpm has its database below HOME, so HOME must be the same for dnf and rpm.
	qa := needs.AsRoot(exec.CommandContext(t.Context(), "rpm", "--root", root, "-qa"))
	qa.Env = cmd.Env
	list, err := qa.Output()
	if err != nil {
		t.Fatalf("rpm -qa: %v", err)
	}
	var got []string
	for line := range strings.Lines(string(list)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "gpg-pubkey-") {
			got = append(got, line)
		}
	}
	slices.Sort(got)
	if len(got) == 0 {
		return nil, fmt.Errorf("nothing is installed; dnf said:\n%s", log)
	}
	return got, nil
}

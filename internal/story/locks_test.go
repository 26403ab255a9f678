package story

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze/lockfile"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// curl downloads the URLs in the lock files of a freeze, sha256sum verifies the digests in
// them, and apt installs from a freeze of each lock file.
func TestLockFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs apt")
	}
	needs.Programs(t, "curl", "sha256sum")
	s := ownServer(t, "")
	hello := dpkgDeb(t, "hello_1.0~rc1+b1-1_amd64.deb", "Package: hello", "Version: 2:1.0~rc1+b1-1", "Architecture: amd64", "Depends: hello-data")
	data := dpkgDeb(t, "hello-data_1.0-1_all.deb", "Package: hello-data", "Version: 1.0-1", "Architecture: all", "Section: contrib/misc", "Source: hello")
	s.Ctl("add", "own", hello, data, "--suite", "stable")
	s.Ctl("freeze", "4.1", "--mirror", "own", "--package", "hello", "--with-deps")
	want := s.Ctl("packages", "4.1")
	for _, f := range lockfile.Formats() {
		if f == lockfile.RPMsLock {
			if _, err := s.Try("sources", "4.1", "--format", string(f)); code(err) != api.ExitUsage {
				t.Errorf("%s of debs: %v", f, err)
			}
			continue
		}
		text := s.Ctl("sources", "4.1", "--format", string(f))
		lock := filepath.Join(t.TempDir(), "lock")
		if err := os.WriteFile(lock, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		fetched(t, f, text)
		name := "again-" + string(f)
		s.Ctl("freeze", name, "--mirror", "own", "--manifest", lock)
		if got := s.Ctl("packages", name); got != want {
			t.Errorf("%s: a freeze of the lock file has\n%s\nexpected\n%s", f, got, want)
		}
		apt := debtest.NewApt(t, s.Ctl("sources", name))
		apt.Run("apt-get", "update")
		apt.Run("apt-get", "install", "hello")
		if got := fmt.Sprint(apt.Installed()); got != "[hello 2:1.0~rc1+b1-1 hello-data 1.0-1]" {
			t.Errorf("%s: apt installed %s", f, got)
		}
	}
	if out := s.Ctl("sources", "own@latest", "--format", "repro-env", "--container", "debian@sha256:00"); !strings.HasPrefix(out, "[container]\nimage = \"debian@sha256:00\"\n") {
		t.Errorf("with a container:\n%s", out)
	}
}

// fetched downloads the two packages of a lock file with curl and verifies them with
// sha256sum.
func fetched(t *testing.T, f lockfile.Format, text string) {
	t.Helper()
	dir := t.TempDir()
	var sums strings.Builder
	n := 0
	get := func(url, sum string) {
		n++
		file := fmt.Sprintf("%d.deb", n)
		if out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--fail", "--path-as-is", "-o", filepath.Join(dir, file), url).CombinedOutput(); err != nil {
			t.Fatalf("%s: curl %s: %v\n%s", f, url, err, out)
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, file)
	}
	provider, url, sum := "", "", ""
	value := regexp.MustCompile(`^\s*"?(url|uris|urls|sha256|filename)"?( =|:) (\[$|"([^"]*)")`)
	uri := regexp.MustCompile(`"uris": \[\s*"([^"]*)"`).FindStringSubmatch(text)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if p, ok := strings.CutPrefix(line, "# repro-get --provider="); ok {
			provider = strings.TrimSuffix(p, "{{.Name}}")
		} else if f == lockfile.SHA256Sums {
			digest, path, _ := strings.Cut(line, "  ")
			get(provider+path, digest)
			continue
		}
		m := value.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		switch {
		case m[1] == "sha256":
			sum = m[4]
		case m[1] == "filename":
			url = uri[1] + "/" + m[4]
		case m[1] == "urls" && m[3] == "[":
			lines.Scan()
			url = strings.Trim(lines.Text(), "\t\",")
		case m[1] == "url":
			url = m[4]
		}
		if url != "" && sum != "" {
			get(url, sum)
			url, sum = "", ""
		}
	}
	if n != 2 {
		t.Fatalf("%s: %d packages in\n%s", f, n, text)
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "-")
	check.Dir, check.Stdin = dir, strings.NewReader(sums.String())
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", f, err, out)
	}
}

package story

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// bisectScript runs snapd on port 80 of a network of its own, whose only host is
// snapshot.debian.org, and debbisect there: it uses no proxy.
const bisectScript = `
ip link set lo up
echo "127.0.0.1 localhost snapshot.debian.org" >hosts
mount --bind hosts /etc/hosts
"$1" --config config.toml 2>>snapd.log &
for i in $(seq 400); do
	! curl --fail --silent --output /dev/null http://snapshot.debian.org/readyz || break
	sleep 0.05
done
exec debbisect "$2" "$3" ./check`

// checkScript installs nothing: it fails from version 4 of a package on, and lists that
// package as debbisect does itself if it makes the root.
const checkScript = `#!/bin/sh
set -e
export APT_CONFIG="%[1]s/etc/apt/apt.conf" TMPDIR="%[1]s/tmp"
echo "deb [check-valid-until=no signed-by=%[2]s] $DEBIAN_BISECT_MIRROR stable main" >"%[1]s/etc/apt/sources.list.d/test.list"
apt-get update --error-on=any
version=$(apt-cache policy tool | sed -n 's/^  Candidate: //p')
printf 'tool\t%%s\n' "$version" >"debbisect.$DEBIAN_BISECT_TIMESTAMP.pkglist"
test "$version" -lt 4
`

// After upstream is gone, debbisect finds the snapshot in which a package broke.
func TestDebbisect(t *testing.T) {
	if testing.Short() {
		t.Skip("runs devscripts")
	}
	needs.Root(t, "to make a network namespace")
	needs.Programs(t, "debbisect", "apt-get", "apt-cache", "unshare", "mount", "ip", "curl", "sed")
	a := newArchive(t)
	s := start(t, head+"act_as = [\"snapshot.debian.org\"]\n"+a.stanza("bookworm", "archive = \"debian\"\ndownload = \"all\"\n"))
	// debbisect never ends where half of the time between two snapshots is no whole
	// number of seconds.
	var at []string
	for i, v := range []string{"1", "2", "3", "4", "5"} {
		a.Default().Remove("tool", "")
		a.Add(debtest.Package{Name: "tool", Version: v})
		a.publish()
		tree := filepath.Join(t.TempDir(), "copy")
		a.WriteTo(tree)
		at = append(at, time.Date(2026, 1, 20, 6*i, 0, 0, 0, time.UTC).Format("20060102T150405Z"))
		s.Ctl("sync", "bookworm", "--from-url", "file://"+tree, "--as", at[i])
	}
	a.Server.Close()
	s.Stop()

	apt := debtest.NewApt(t, "")
	check := fmt.Sprintf(checkScript, apt.Root, a.KeyringFile())
	if err := os.WriteFile(filepath.Join(s.Dir, "check"), []byte(check), 0o700); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Config, bytes.Replace(config, []byte(s.Addr), []byte("127.0.0.1:80"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	isolated := []string{"--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if out, err := exec.CommandContext(t.Context(), "unshare", append(isolated, "ip", "link", "set", "lo", "up")...).CombinedOutput(); err != nil {
		needs.Missing(t, "a network namespace: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", append(isolated, "sh", "-ec", bisectScript, "sh", filepath.Join(bin, "snapd"), at[0], at[4])...)
	cmd.Dir = s.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	want := fmt.Sprintf("bisection finished successfully\n  last good timestamp: %s\n  first bad timestamp: %s\nonly one package differs: tool 3 -> 4\n", at[2], at[3])
	if err != nil || !strings.HasSuffix(string(out), want) {
		log, _ := os.ReadFile(filepath.Join(s.Dir, "debbisect.log.bad"))
		t.Errorf("debbisect: %v\n%s\nexpected at the end:\n%s\nthe script:\n%s\nsnapd:\n%s", err, out, want, log, s.Log())
	}
}

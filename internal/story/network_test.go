package story

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A team makes two releases over a network, by tokens alone and with the commands of
// docs/CI.md: own packages, recordings, freezes, images, a kit, a channel that moves on
// and back, the audit list. Server, builder and release manager are network namespaces,
// and nothing but snapd runs on the server. Long because it writes the files of three
// hosts.
func TestReleaseOverNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs apt")
	}
	needs.Programs(t, "apt-get", "dpkg", "ip", "nsenter", "unshare", "mount", "mksquashfs", "make", "curl", "sh")
	namespaces := []string{"unshare", "--mount", "--net"}
	if os.Geteuid() != 0 {
		namespaces = append(namespaces, "--user", "--map-root-user")
	}
	if out, err := exec.Command(namespaces[0], append(namespaces[1:], "true")...).CombinedOutput(); err != nil {
		needs.Refused(t, fmt.Errorf("namespaces: %w %s", err, out))
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range []string{"server", "builder", "manager"} {
		if err := os.Mkdir(filepath.Join(work, host), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("hosts", "127.0.0.1 localhost\n10.77.0.1 mirror.example.org\n")
	writeCertificate(t, filepath.Join(work, "ca.pem"), filepath.Join(work, "server/api.key"), "mirror.example.org")
	write("server/config.toml", `data_dir = "data"
[server]
listen = "10.77.0.1:8080"
public_url = "http://mirror.example.org:8080"
[api]
listen = "10.77.0.1:8443"
tls_cert = "../ca.pem"
tls_key = "api.key"
[[mirror]]
name = "own"
type = "deb"
local = true
suites = ["stable"]
components = ["main"]
architectures = ["amd64"]
`)
	write("builder/Makefile", "image.squashfs:\n\trm -rf tree image.squashfs\n\tmkdir -p tree/live\n"+
		"\tcp -r $$(dirname $$APT_CONFIG)/../../usr/share/own tree/\n\tmksquashfs tree image.squashfs -quiet -no-progress -all-root -mkfs-time 0 -all-time 0 >/dev/null\n.PHONY: image.squashfs\n")
	manager := "export SNAPCTL_SERVER=https://mirror.example.org:8443 SNAPCTL_TOKEN_FILE=release.token\n"
	doc := ciScripts(t)
	write("tokens.sh", "export SNAPCTL_SOCKET=data/snapd.sock\n"+doc["server"]+doc["admin"])
	for _, release := range []string{"1", "2"} {
		number := strings.NewReplacer("4.1", "4.0", "4.2", "4."+release, "build-42", "build-"+release).Replace
		deb := dpkgDeb(t, "build-essential_"+release+"_amd64.deb", "Package: build-essential", "Version: "+release, "Architecture: amd64")
		write("add"+release+".sh", manager+"snapctl add own "+deb+" --suite stable\n")
		write("build"+release+".sh", number(doc["builder"]))
		write("freeze"+release+".sh", number(doc["manager"]))
	}
	write("publish1.sh", manager+"snapctl image add 4.1 4.1.squashfs\nsnapctl channel set stable 4.1\n")
	write("publish2.sh", manager+doc["publish"])
	write("withdraw.sh", manager+doc["withdraw"])
	write("audit.sh", manager+doc["audit"])
	write("follow.sh", manager+"snapctl sources stable > /etc/apt/sources.list.d/stable.sources\n")
	write("update.sh", "apt-get -q update\napt-cache policy build-essential\n")
	for _, root := range []string{"root1", "root2", "client"} {
		apt := debtest.NewApt(t, "")
		if err := os.Symlink(apt.Root, filepath.Join(work, root)); err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs("testdata/network.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), namespaces[0], append(namespaces[1:], "sh", script)...)
	cmd.Env = append(os.Environ(), "work="+work, "PATH="+bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	data, err := cmd.CombinedOutput()
	out := string(data)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(work, "server/snapd.log"))
		t.Fatalf("%v\n%s\nsnapd:\n%s", err, out, log)
	}
	var candidates []string
	for _, m := range regexp.MustCompile(`Candidate: (\S+)`).FindAllStringSubmatch(out, -1) {
		candidates = append(candidates, m[1])
	}
	if got := strings.Join(candidates, " "); got != "1 2 1" {
		t.Errorf("apt saw the versions %s, expected 1 2 1\n%s", got, out)
	}
	for _, want := range []string{`record/start +build-2 +ok`, `freeze +4\.2 +ok`, `kit/publish .* ok`, `channel/set +stable to 4\.1 +ok`, `10\.77\.1\.2`, `10\.77\.2\.2`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("the audit list has no %q:\n%s", want, out)
		}
	}
	if kits, err := filepath.Glob(filepath.Join(work, "manager/kits/Example_amd64_4.1_to_4.2.iuk")); err != nil || len(kits) != 1 {
		t.Errorf("kits: %v, %v", kits, err)
	}
}

// ciScripts returns the scripts of docs/CI.md, by the host that they are for.
func ciScripts(t *testing.T) map[string]string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/CI.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```sh (\\w+)\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		out[m[1]] += m[2]
	}
	for _, name := range []string{"server", "builder", "manager", "publish", "withdraw", "admin", "audit"} {
		if out[name] == "" {
			t.Fatalf("docs/CI.md has no script %q", name)
		}
	}
	return out
}

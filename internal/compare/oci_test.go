package compare

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
)

// ociArchive makes an OCI image with a layer of each directory, as GNU tar packs it.
func ociArchive(t *testing.T, dir, name string, layers ...string) string {
	t.Helper()
	root := name + ".layout"
	blob := func(data string) string {
		d := fmt.Sprintf("%x", sha256.Sum256([]byte(data)))
		put(t, dir, root+"/blobs/sha256/"+d, data)
		return fmt.Sprintf(`"digest":"sha256:%s","size":%d`, d, len(data))
	}
	var list []string
	for i, l := range layers {
		packed := fmt.Sprintf("%s.%d.tar", name, i)
		run(t, dir, "tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-C", l, "-cf", packed, ".")
		data, err := os.ReadFile(filepath.Join(dir, packed))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, `{"mediaType":"application/vnd.oci.image.layer.v1.tar",`+blob(string(data))+"}")
	}
	config := blob(`{"architecture":"amd64","os":"linux","config":{"Cmd":["/bin/` + name + `"]},"rootfs":{"type":"layers","diff_ids":[]}}`)
	manifest := blob(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json",` + config + `},"layers":[` + strings.Join(list, ",") + "]}")
	put(t, dir, root+"/index.json", `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",`+manifest+"}]}")
	put(t, dir, root+"/oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	settle(t, filepath.Join(dir, root), day)
	run(t, dir, "tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-C", root, "-cf", name+".oci", "blobs", "index.json", "oci-layout")
	return filepath.Join(dir, name+".oci")
}

// The blobs of OCI images are named by digests, so they have other names in another
// image. Corresponding blobs are compared, and the files of layers are listed.
func TestOCI(t *testing.T) {
	needs.Programs(t, "tar")
	dir := t.TempDir()
	files := map[string][2]string{
		"usr/bin/tool":             {"one\n", "two\n"},
		"usr/share/date":           {"2026-11-22\n", "2026-11-23\n"},
		"var/lib/dpkg/status":      {"Package: tool\nStatus: install ok installed\nVersion: 1\n", "Package: tool\nStatus: install ok installed\nVersion: 2\n"},
		"var/lib/dpkg/info/t.list": {"same", "same"},
		"var/lib/dpkg/info/tool.list": {
			"/.\n/bin/tool\n", "/.\n/bin/tool\n",
		},
	}
	for i, d := range []string{"a", "b"} {
		for name, text := range files {
			put(t, dir, "root-"+d+"/"+name, text[i])
		}
		put(t, dir, "base/etc/motd", "welcome\n")
		settle(t, filepath.Join(dir, "root-"+d), day)
	}
	settle(t, filepath.Join(dir, "base"), day)
	a, b := ociArchive(t, dir, "a", "base", "root-a"), ociArchive(t, dir, "b", "base", "root-b")
	const layer = "/blobs/layer-2/"
	r := compare(t, a, b, Options{Explain: layer + "/usr/bin/tool"})
	got := codes(r)
	delete(got, ".") // the order of the blobs follows their digests
	for _, doc := range []string{"/blobs/config", "/blobs/manifest", "/index.json"} {
		if got[doc] == "" {
			t.Errorf("no difference in %s", doc)
		}
		delete(got, doc)
	}
	if d := cmp.Diff(map[string]string{layer + "/usr/bin/tool": codeContents, layer + "/usr/share/date": codeDate, layer + "/var/lib/dpkg/status": codeContents}, got); d != "" {
		t.Errorf("codes (-expected +found):\n%s", d)
	}
	if d := cmp.Diff([]api.ComparePackage{{Package: "tool", A: "1", B: "2", Paths: 1, Codes: []string{codeContents}}}, r.Packages); d != "" {
		t.Errorf("packages (-expected +found):\n%s", d)
	}
	if r.Explained == nil || !strings.Contains(r.Explained.Text, "-one\n+two\n") {
		t.Errorf("explained: %+v", r.Explained)
	}
	if same := compare(t, a, a, Options{}); same.Verdict != "equal" {
		t.Errorf("the same image: %+v", same)
	}
	// An archive that only looks like an image is a tar archive.
	put(t, dir, "odd/oci-layout", "{}")
	put(t, dir, "odd/index.json", `{"manifests":[{"digest":"sha256:../../etc/passwd"}]}`)
	settle(t, filepath.Join(dir, "odd"), day)
	run(t, dir, "tar", "-C", "odd", "-cf", "odd.oci", ".")
	if r := compare(t, a, filepath.Join(dir, "odd.oci"), Options{}); r.Verdict == "equal" || len(r.Differences) == 0 {
		t.Errorf("an image and another archive: %+v", r)
	}
}

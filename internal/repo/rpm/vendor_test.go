package rpm

import (
	"testing"

	"example.org/snapd/internal/repo"
)

func TestVendor(t *testing.T) {
	md := func(tags string) *repo.Root {
		return &repo.Root{Docs: []repo.Doc{{Path: "repodata/repomd.xml", Data: []byte(`<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision>` + tags +
			`<data type="primary"><checksum type="sha256">e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855</checksum><location href="repodata/primary.xml.gz"/></data></repomd>`)}}}
	}
	for _, tt := range []struct {
		name      string
		root      *repo.Root
		versions  []string
		namespace string
		distro    string
	}{
		{"URI", md(`<tags><distro cpeid="cpe:/o:fedoraproject:fedora:40">Fedora 40</distro></tags>`), []string{"1-1.fc39"}, "fedora", "fedora-40"},
		{"formatted string", md(`<tags><content>x</content><distro cpeid="cpe:2.3:o:centos:centos:9:*:*:*:*:*:*:*">CentOS</distro></tags>`), nil, "centos", "centos-9"},
		{"no version", md(`<tags><distro cpeid="cpe:/o:fedoraproject:fedora">Fedora</distro></tags>`), nil, "fedora", ""},
		{"releases", md(""), []string{"1-1.fc39", "1-1.fc40", "2-3.fc40_1", "5-1", "1-1.fcx"}, "fedora", "fedora-40"},
		{"equally many", md(""), []string{"1-1.fc40", "1-1.fc39"}, "fedora", "fedora-40"},
		{"nothing", md(""), []string{"1-1.el9"}, "fedora", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			namespace, distro := (Format{}).Vendor(tt.root, tt.versions)
			if namespace != tt.namespace || distro != tt.distro {
				t.Errorf("got %q, %q, want %q, %q", namespace, distro, tt.namespace, tt.distro)
			}
		})
	}
}

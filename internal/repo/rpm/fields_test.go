package rpm_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm"
)

func TestField(t *testing.T) {
	rec := &repo.Record{Bytes: []byte(`<package type="rpm"><name>bash</name><summary>A &lt;shell&gt;</summary><url/><format><rpm:license>GPLv3+</rpm:license><rpm:group>
 System </rpm:group></format></package>`)}
	for name, want := range map[string]string{"Summary": "A <shell>", "license": "GPLv3+", "GROUP": "System"} {
		if got, ok := (rpm.Format{}).Field(rec, name); !ok || got != want {
			t.Errorf("%s: %q, %v, expected %q", name, got, ok, want)
		}
	}
	for _, name := range []string{"url", "format", "package", "vendor", ""} {
		if got, ok := (rpm.Format{}).Field(rec, name); ok {
			t.Errorf("%s: %q, expected none", name, got)
		}
	}
	if got, ok := (rpm.Format{}).Field(&repo.Record{Bytes: []byte("<package><summary>cut")}, "summary"); ok && got != "cut" {
		t.Errorf("cut: %q", got)
	}
}

func TestFields(t *testing.T) {
	rec := &repo.Record{Bytes: []byte(`<package type="rpm"><name>bash</name><version epoch="0" ver="5.2" rel="1"/><summary>A &lt;shell&gt;</summary><url/>
<location href="b/bash.rpm"/><format><rpm:license>GPLv3+</rpm:license>
<rpm:requires><rpm:entry name="libc" flags="GE" epoch="1" ver="2" rel="3"/><rpm:entry name="/bin/sh"/></rpm:requires><file>/bin/bash</file><file type="dir">/etc</file></format></package>`)}
	want := []repo.Field{
		{Name: "name", Value: "bash"}, {Name: "version", Value: "epoch=0 ver=5.2 rel=1"}, {Name: "summary", Value: "A <shell>"}, {Name: "location", Value: "href=b/bash.rpm"},
		{Name: "license", Value: "GPLv3+"}, {Name: "requires", Value: "libc >= 1:2-3, /bin/sh"}, {Name: "file", Value: "/bin/bash\n/etc"},
	}
	if d := cmp.Diff(want, (rpm.Format{}).Fields(rec)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	for _, text := range []string{"", "<package><summary>cut", "text"} {
		if got := (rpm.Format{}).Fields(&repo.Record{Bytes: []byte(text)}); got != nil {
			t.Errorf("%q: %v, expected none", text, got)
		}
	}
}

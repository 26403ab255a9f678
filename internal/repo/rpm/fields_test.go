package rpm_test

import (
	"testing"

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

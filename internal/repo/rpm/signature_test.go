package rpm_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// A sync accepts and refuses the same variants of repomd.xml.asc as the real dnf.
func TestSameVerdictAsDNF(t *testing.T) {
	const asc = "repodata/repomd.xml.asc"
	binary := func(s string) string {
		_, s, _ = strings.Cut(s, "\n\n")
		s, _, _ = strings.Cut(s, "\n=")
		b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(s, "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	armored := func(s string) string {
		return "-----BEGIN PGP SIGNATURE-----\n\n" + base64.StdEncoding.EncodeToString([]byte(s)) + "\n-----END PGP SIGNATURE-----\n"
	}
	for _, c := range []struct {
		name   string
		accept bool
		form   func(good, bad, stranger string) string
	}{
		{"as made", true, func(good, _, _ string) string { return good }},
		{"binary", true, func(good, _, _ string) string { return binary(good) }},
		{"blank line behind", true, func(good, _, _ string) string { return good + "\n" }},
		{"two blocks", true, func(good, _, stranger string) string { return good + stranger }},
		{"another key first", true, func(good, _, stranger string) string { return stranger + good }},
		{"over other data last", true, func(good, bad, _ string) string { return good + bad }},
		{"over other data first", false, func(good, bad, _ string) string { return bad + good }},
		{"packet over other data first", false, func(good, bad, _ string) string { return armored(binary(bad) + binary(good)) }},
		{"over other data alone", false, func(_, bad, _ string) string { return bad }},
		{"empty", false, func(_, _, _ string) string { return "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, rpmtest.Options{}, nil)
			w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
			w.up.Publish(start)
			md, good := bytes.Clone(w.up.File("repodata/repomd.xml")), bytes.Clone(w.up.File(asc))
			w.up.SetFile(asc, []byte(c.form(string(good), string(signtest.Detach(t, w.theirs, []byte("other"), start)),
				string(signtest.Detach(t, signtest.NewKey(t, "stranger"), md, start)))))
			_, err := rpmtest.TryInstall(t, w.srv.URL, []string{string(w.theirs.Keyring().ExportArmored())}, true, "app")
			if (err == nil) != c.accept {
				t.Fatalf("dnf accepts: %t, expected %t: %v", err == nil, c.accept, err)
			}
			if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); (err == nil) != c.accept {
				t.Errorf("accepted: %t, expected %t: %v", err == nil, c.accept, err)
			}
		})
	}
}

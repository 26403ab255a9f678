package proof_test

import (
	"cmp"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// unproven are the fields that cannot be checked against anything in a freeze if the
// owner of the key signs everything again, with the reason. All other fields are
// recomputed or compared.
var unproven = map[string]string{
	"missing":              "what is missing is nowhere else: the entry comes from a build manifest, which is not part of the freeze",
	"missing.name":         "as missing",
	"missing.version":      "as missing",
	"missing.architecture": "as missing",
	"missing.source":       "as missing",
}

// indirect are fields for which another valid value exists, such as the digest of another
// state's document, so that a fault names another field. The value is the prefix of that
// field's name.
var indirect = map[string]string{
	"mirrors.suites.documents.sha256": "mirrors.",
}

// jsonName returns the name of a struct's field in JSON.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// isLeaf reports whether a value of the type is one JSON value. Digests and times are,
// too.
func isLeaf(t reflect.Type) bool {
	return t == reflect.TypeFor[cas.Digest]() || t == reflect.TypeFor[time.Time]() || t.Kind() != reflect.Struct && t.Kind() != reflect.Slice && t.Kind() != reflect.Pointer
}

// fieldsOf lists the fields of a type and of the types in it: "mirrors", "mirrors.name".
func fieldsOf(t reflect.Type, prefix string) (out []string) {
	switch {
	case isLeaf(t):
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			name := prefix + jsonName(t.Field(i))
			out = append(append(out, name), fieldsOf(t.Field(i).Type, name+".")...)
		}
	default:
		out = fieldsOf(t.Elem(), prefix)
	}
	return out
}

// each calls f for each field of each element below v. f may change the value, which each
// then restores.
func each(v reflect.Value, prefix string, f func(field string, v reflect.Value)) {
	switch {
	case isLeaf(v.Type()):
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			name := prefix + jsonName(v.Type().Field(i))
			f(name, v.Field(i))
			each(v.Field(i), name+".", f)
		}
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			each(v.Elem(), prefix, f)
		}
	default:
		for i := range v.Len() {
			each(v.Index(i), prefix, f)
		}
	}
}

// words are values that are valid in some field. The first ones are tried in every field.
var words = []string{"", "0", "x", "openpgp", "metalink", "none", "exact", "whole", "deb", "rpm"}

// others returns other values for a field. known are the values of that field in the
// whole manifest.
func others(field string, v reflect.Value, known []reflect.Value) (out []reflect.Value) {
	t := v.Type()
	add := func(x any) { out = append(out, reflect.ValueOf(x).Convert(t)) }
	switch {
	case t == reflect.TypeFor[cas.Digest]():
		d := v.Interface().(cas.Digest)
		d[3] ^= 4
		add(d)
		add(cas.Digest{})
	case t == reflect.TypeFor[time.Time]():
		at := v.Interface().(time.Time)
		add(at.Add(time.Second))
		add(at.AddDate(-1, 0, 0))
		add(time.Time{})
	case t.Kind() == reflect.String:
		some := words[:3]
		if slices.Contains([]string{"trust", "kind", "type"}, field[strings.LastIndexByte(field, '.')+1:]) {
			some = words
		}
		for _, w := range some {
			add(w)
		}
		add(v.String() + "x")
	case t.Kind() == reflect.Bool:
		add(!v.Bool())
	case v.CanInt():
		for _, n := range []int64{0, -1, 1 << 40, v.Int() + 1} {
			add(n)
		}
	case t.Kind() == reflect.Pointer:
		out = append(out, reflect.Zero(t))
		if v.IsNil() {
			out = append(out, reflect.New(t.Elem()))
		}
	case t.Kind() == reflect.Slice:
		out = append(out, changedLists(v)...)
	}
	out = append(out, known...)
	return slices.DeleteFunc(out, func(o reflect.Value) bool { return reflect.DeepEqual(o.Interface(), v.Interface()) })
}

// changedLists returns the list without its first and its last element, with one of them
// twice, and reversed.
func changedLists(v reflect.Value) (out []reflect.Value) {
	n := v.Len()
	if n == 0 {
		return nil
	}
	list := func(index ...int) {
		s := reflect.MakeSlice(v.Type(), 0, n)
		for _, i := range index {
			s = reflect.Append(s, v.Index(i))
		}
		out = append(out, s)
	}
	var all, back []int
	for i := range n {
		all, back = append(all, i), append(back, n-1-i)
	}
	list(all[1:]...)
	list(all[:n-1]...)
	list(append([]int{0}, all...)...)
	list(back...)
	return out
}

// TestManifestFields changes every field of the manifests of several freezes to every
// value that others suggests. An attacker who does so can sign the manifest again: verify
// must find the change, and name the field. A new field of freeze.Document fails this
// test until verify checks it.
func TestManifestFields(t *testing.T) {
	met := map[string]bool{}
	for _, x := range []struct {
		name   string
		export func(*testing.T) *freezertest.Export
	}{
		{"deb, exact, two states", exactDeb},
		{"deb, with missing entries", missingDeb},
		{"deb, whole", wholeDeb},
		{"deb, by SHA-512", sha512Deb},
		{"rpm, exact, signed", func(t *testing.T) *freezertest.Export { return rpmExport(t, false) }},
		{"rpm, whole, by a metalink", func(t *testing.T) *freezertest.Export { return rpmExport(t, true) }},
	} {
		t.Run(x.name, func(t *testing.T) { changeFields(t, x.export(t), met) })
	}
	for _, f := range fieldsOf(reflect.TypeFor[freeze.Document](), "") {
		if !met[f] {
			t.Errorf("no export has a %s to change", f)
		}
	}
	for f := range unproven {
		if !met[f] {
			t.Errorf("%s is not a field of a manifest", f)
		}
	}
}

func changeFields(t *testing.T, e *freezertest.Export, met map[string]bool) {
	o := proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}, rpm.Format{}), Ours: e.Signer.Keyring()}
	verify := func(t *testing.T) *api.VerifyResult {
		v, err := proof.VerifyDir(t.Context(), e.Dir, o)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	original, err := os.ReadFile(filepath.Join(e.Dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	e.Manifest(t, original)
	if v := verify(t); len(v.Faults) > 0 {
		t.Fatalf("signed again without a change: %+v", v.Faults)
	}
	doc, err := freeze.ParseDocument(original)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string][]reflect.Value{}
	each(reflect.ValueOf(doc).Elem(), "", func(field string, v reflect.Value) {
		if v.Kind() != reflect.Slice && !slices.ContainsFunc(known[field], v.Equal) {
			known[field] = append(known[field], reflect.ValueOf(v.Interface()))
		}
	})
	limit, tried := 8, map[string]int{}
	if testing.Short() {
		limit = 3
	}
	each(reflect.ValueOf(doc).Elem(), "", func(field string, v reflect.Value) {
		met[field] = true
		if tried[field] >= limit {
			return
		}
		old := reflect.ValueOf(v.Interface())
		defer v.Set(old)
		for _, other := range others(field, v, known[field]) {
			v.Set(other)
			data, err := doc.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if string(data) == string(original) {
				continue
			}
			tried[field]++
			e.Manifest(t, data)
			if field == "mirrors.suites.indices" && redundant(t, original, data) {
				continue
			}
			checkNamed(t, verify(t), field, v.Kind() == reflect.Slice, fmt.Sprintf("%#v instead of %#v", other.Interface(), old.Interface()))
		}
	})
	t.Logf("changes tried: %v", tried)
}

// redundant reports whether a manifest only lacks indices of an exact mirror that other
// states of the suite contain with the same bytes, and which prove the same packages.
func redundant(t *testing.T, original, changed []byte) bool {
	t.Helper()
	var lists [2]map[cas.Digest]bool
	var n [2]int
	for i, data := range [][]byte{original, changed} {
		doc, err := freeze.ParseDocument(data)
		if err != nil {
			t.Fatal(err)
		}
		lists[i] = map[cas.Digest]bool{}
		for _, m := range doc.Mirrors {
			for _, s := range m.Suites {
				for _, x := range s.Indices {
					lists[i][x.SHA256] = true
					n[i]++
				}
			}
			if m.Kind != freeze.Exact {
				return false
			}
		}
	}
	return n[1] < n[0] && maps.Equal(lists[0], lists[1])
}

// checkNamed checks that verify names the changed field.
func checkNamed(t *testing.T, v *api.VerifyResult, field string, isList bool, change string) {
	t.Helper()
	if _, ok := unproven[field]; ok {
		if v.Exit == api.ExitVerify && !slices.ContainsFunc(v.Faults, func(f api.VerifyFault) bool { return strings.HasPrefix(f.Field, "missing") }) {
			t.Errorf("%s: %s is found: %+v, so that it is no exception", field, change, v.Faults)
		}
		return
	}
	if v.Exit != api.ExitVerify {
		t.Errorf("%s: %s was not found", field, change)
		return
	}
	if isList {
		return // the fault for a missing or repeated element names what refers to it
	}
	named := slices.ContainsFunc(v.Faults, func(f api.VerifyFault) bool {
		return f.Field == field || strings.HasPrefix(f.Field, cmp.Or(indirect[field], field+"."))
	})
	if !named {
		t.Errorf("%s: %s: no fault names the field: %+v", field, change, v.Faults)
	}
}

// exactDeb exports a freeze from two states of one suite and from another suite, with an
// image.
func exactDeb(t *testing.T) *freezertest.Export {
	w := freezertest.NewEmpty(t, func(m *config.Mirror) { m.Suites = []string{"stable", "extra"}; m.Components = nil })
	w.Archive.Add(
		debtest.Package{Name: "a", Version: "1", Source: "src-a (0.9)"}, debtest.Package{Name: "b", Version: "1", Source: "src-b"},
		debtest.Package{Name: "c", Version: "1", Arch: "all"}, debtest.Package{Name: "d", Version: "1", Component: "contrib"})
	w.Archive.AddSource(debtest.Source{Name: "src-a", Version: "0.9"}, debtest.Source{Name: "src-b", Version: "1"}, debtest.Source{Name: "c", Version: "1"})
	w.Archive.Default().Components = []string{"main", "contrib"}
	w.Archive.Suite("extra").Add(debtest.Package{Name: "e", Version: "1"})
	w.Archive.AddSource(debtest.Source{Name: "d", Version: "1", Component: "contrib"})
	w.Archive.Suite("extra").AddSource(debtest.Source{Name: "e", Version: "1"})
	w.Publish()
	w.Freeze(t, api.FreezeRequest{Name: "4.0", Manifests: freezertest.List("a=1", "b=1", "c=1", "d=1", "e=1"), Format: "list"})
	w.Archive.Default().Remove("a", "1")
	w.Archive.Add(debtest.Package{Name: "a", Version: "2", Source: "src-a"})
	w.Archive.AddSource(debtest.Source{Name: "src-a", Version: "2"})
	w.Archive.Publish(mirrortest.Start.Add(time.Hour))
	w.SetNow(w.Now().Add(2 * time.Hour))
	w.MustSync()
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Base: "4.0", Replace: []string{"a@debian@latest"}})
	if _, err := w.Freezer.AddImage(t.Context(), &api.ImageAdd{Name: "4.1"}, strings.NewReader("hsqs")); err != nil {
		t.Fatal(err)
	}
	return w.Export(t, "4.1")
}

func missingDeb(t *testing.T) *freezertest.Export {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("b=1", "gone:amd64=3", "lost=4"), Format: "list", AllowMissing: true})
	return w.Export(t, "4.1")
}

func sha512Deb(t *testing.T) *freezertest.Export {
	w := freezertest.NewEmpty(t, nil)
	w.Archive.Default().SHA512 = true
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.AddSource(debtest.Source{Name: "a", Version: "1"})
	w.Publish()
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	return w.Export(t, "4.1")
}

func wholeDeb(t *testing.T) *freezertest.Export {
	w := freezertest.NewEmpty(t, func(m *config.Mirror) { m.Components, m.Contents, m.Languages = nil, true, []string{"*"} })
	s := w.Archive.Default()
	s.Contents, s.Languages, s.Components = true, []string{"en"}, []string{"main", "contrib"}
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "d", Version: "1", Component: "contrib"})
	w.Archive.AddSource(debtest.Source{Name: "a", Version: "1"})
	w.Publish()
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Mirrors: []string{"debian"}})
	return w.Export(t, "4.1")
}

// rpmExport exports a freeze of an rpm-md repository: an exact one that is signed, or a
// whole one that is verified by a metalink.
func rpmExport(t *testing.T, metalink bool) *freezertest.Export {
	theirs := signtest.Signer(t, signtest.NewKey(t, "fedora"))
	opts := rpmtest.Options{PackageSigner: theirs}
	if !metalink {
		opts.Signer = theirs
	}
	up := rpmtest.New(opts)
	mux := http.NewServeMux()
	srv := httptest.NewTLSServer(mux)
	t.Cleanup(srv.Close)
	mux.Handle("/f/", http.StripPrefix("/f", up))
	mux.HandleFunc("/metalink", func(rw http.ResponseWriter, _ *http.Request) { rw.Write(up.Metalink(srv.URL + "/f")) })
	plain := httptest.NewServer(mux)
	t.Cleanup(plain.Close)
	m := config.Mirror{Name: "fedora", Type: "rpm", URL: remote.NewURL(plain.URL + "/f"), Download: config.OnDemand, Sources: true}
	m.Keyring = config.Strings{filepath.Join(t.TempDir(), "keys.asc")}
	if err := os.WriteFile(m.Keyring[0], theirs.Keyring().ExportArmored(), 0o600); err != nil {
		t.Fatal(err)
	}
	if metalink {
		m.URL, m.Metalink = remote.URL{}, remote.NewURL(srv.URL+"/metalink")
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("SSL_CERT_FILE", ca)
	}
	now := func() time.Time { return mirrortest.Start }
	e := mirrortest.ComposeTemp(t, mirrortest.Config{Mirrors: []config.Mirror{m}, Formats: []repo.Format{rpm.Format{}}, Now: now})
	up.Add(
		rpmtest.Package{Name: "app", Version: "1.0", Epoch: 1, Arch: "x86_64"}, rpmtest.Package{Name: "app", Version: "1.0", Epoch: 1, Arch: "src"},
		rpmtest.Package{Name: "lib", Version: "1.0", SourceRPM: "app-1.0-1.src.rpm"})
	up.Publish(mirrortest.Start)
	if _, err := e.Sync(t.Context(), "fedora", mirror.SyncOptions{AcceptClock: true}); err != nil {
		t.Fatal(err)
	}
	signer := signtest.Signer(t, signtest.NewKey(t, "freezer"))
	z := freezertest.For(e, signer, now)
	req := &api.FreezeRequest{Name: "4.1", All: true}
	if !metalink {
		req = &api.FreezeRequest{Name: "4.1", Packages: []string{"app", "lib"}}
	}
	if _, err := z.Freeze(t.Context(), req, nil); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "x")
	if _, err := z.Export(t.Context(), "4.1", out, nil); err != nil {
		t.Fatal(err)
	}
	return &freezertest.Export{Dir: out, Signer: signer}
}

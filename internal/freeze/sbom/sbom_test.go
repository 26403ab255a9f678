package sbom

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
)

var update = flag.Bool("update", false, "write the golden documents")

func file(path string) File {
	return File{Path: path, Size: int64(len(path)), SHA256: cas.Sum([]byte(path))}
}

func document() *Document {
	return &Document{
		Name:        "4.1",
		Digest:      cas.Sum([]byte("manifest")),
		Created:     time.Date(2026, 11, 22, 17, 0, 0, 0, time.FixedZone("", 3600)),
		ToolVersion: "1.0",
		Complete:    true,
		Mirrors: []Mirror{
			{Name: "fedora", Ecosystem: buildlist.RPM, Namespace: "fedora",
				Indices: []Index{{"repodata/repomd.xml", cas.Sum([]byte("repomd"))}}},
			{Name: "debian", Ecosystem: buildlist.Deb, Namespace: "debian",
				Indices: []Index{{"dists/bookworm/InRelease", cas.Sum([]byte("b"))}, {"dists/bookworm-updates/InRelease", cas.Sum([]byte("u"))}}},
			{Name: "empty", Ecosystem: buildlist.Deb},
		},
		Packages: []Package{
			{Mirror: "fedora", Name: "bind", Version: "32:9.18-1.fc40", Distro: "fedora-40", Arch: "x86_64", Files: []File{file("Packages/b/bind-9.18-1.fc40.x86_64.rpm")},
				Sources: []Ref{{"bind", "32:9.18-1.fc40"}}},
			{Mirror: "fedora", Name: "bind", Version: "32:9.18-1.fc40", Distro: "fedora-40", Arch: "src", Source: true, Files: []File{file("Packages/b/bind-9.18-1.fc40.src.rpm")}},
			{Mirror: "debian", Name: "libstdc++6", Version: "12.2.0-14+deb12u1", Distro: "debian-12", Arch: "amd64", Files: []File{file("pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1_amd64.deb")},
				Sources: []Ref{{"gcc-12", "12.2.0-14+deb12u1"}, {"gone", "1:1.0"}}},
			{Mirror: "debian", Name: "gcc-12", Version: "12.2.0-14+deb12u1", Distro: "debian-12", Arch: "source", Source: true, Files: []File{
				file("pool/main/g/gcc-12/gcc-12_12.2.0.orig.tar.xz"), file("pool/main/g/gcc-12/gcc-12_12.2.0-14+deb12u1.dsc"), file("pool/main/g/gcc-12/gcc-12_12.2.0-14+deb12u1.debian.tar.xz")}},
			{Mirror: "debian", Name: "adduser", Version: "3.134", Distro: "debian-12", Arch: "all", Files: []File{file("pool/main/a/adduser/adduser_3.134_all.deb")}, Sources: []Ref{{"adduser", "3.134"}}},
			// The same package in a second suite.
			{Mirror: "debian", Name: "adduser", Version: "3.134", Distro: "debian-12", Arch: "all", Files: []File{file("pool/main/a/adduser/adduser_3.134_all.deb")}, Sources: []Ref{{"adduser", "3.134"}}},
		},
	}
}

func write(t testing.TB, d *Document, f Format) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, d, f); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	for file, url := range map[string]string{
		"bom-1.5.SNAPSHOT.schema.json":  "http://cyclonedx.org/schema/bom-1.5.schema.json",
		"spdx.SNAPSHOT.schema.json":     "http://cyclonedx.org/schema/spdx.SNAPSHOT.schema.json",
		"jsf-0.82.SNAPSHOT.schema.json": "http://cyclonedx.org/schema/jsf-0.82.SNAPSHOT.schema.json",
		"spdx-2.3.schema.json":          "http://spdx.org/rdf/terms/2.3",
	} {
		data, err := os.ReadFile(filepath.Join("testdata", "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(url, doc); err != nil {
			t.Fatal(err)
		}
	}
	c.AssertFormat()
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var formats = []struct {
	format Format
	schema string
	golden string
	read   buildlist.Format
}{
	{SPDX, "http://spdx.org/rdf/terms/2.3", "sample.spdx.json", buildlist.SPDX},
	{CycloneDX, "http://cyclonedx.org/schema/bom-1.5.schema.json", "sample.cdx.json", buildlist.CycloneDX},
}

func TestGoldenAndSchema(t *testing.T) {
	for _, f := range formats {
		t.Run(string(f.format), func(t *testing.T) {
			s := schema(t, f.schema)
			got := write(t, document(), f.format)
			golden := filepath.Join("testdata", f.golden)
			if *update {
				if err := os.WriteFile(golden, got, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("%s (-golden +got):\n%s", golden, d)
			}
			bare := &Document{Name: "bare", Digest: cas.Sum(nil), Created: time.Unix(0, 0)}
			for _, data := range [][]byte{got, write(t, bare, f.format)} {
				doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Validate(doc); err != nil {
					t.Errorf("the format's schema refuses it: %v", err)
				}
			}
			// The schema refuses bad documents.
			doc, err := jsonschema.UnmarshalJSON(strings.NewReader(strings.Replace(string(got), `"name":`, `"nome":`, 1)))
			if err != nil {
				t.Fatal(err)
			}
			if s.Validate(doc) == nil {
				t.Error("the schema takes a document without a name")
			}
		})
	}
}

// Equal contents, in any order or time zone, or repeated, give equal bytes. Other
// contents have another name.
func TestDeterministic(t *testing.T) {
	for _, f := range formats {
		want := write(t, document(), f.format)
		d := document()
		r := rand.New(rand.NewPCG(1, 2))
		r.Shuffle(len(d.Packages), func(i, j int) { d.Packages[i], d.Packages[j] = d.Packages[j], d.Packages[i] })
		r.Shuffle(len(d.Mirrors), func(i, j int) { d.Mirrors[i], d.Mirrors[j] = d.Mirrors[j], d.Mirrors[i] })
		d.Created = d.Created.UTC()
		if diff := cmp.Diff(string(want), string(write(t, d, f.format))); diff != "" {
			t.Errorf("%s depends on order or time zone:\n%s", f.format, diff)
		}

		names := make(map[string]bool)
		for _, change := range []func(*Document){
			func(*Document) {},
			func(d *Document) { d.Digest = cas.Sum([]byte("other")) },
			func(d *Document) { d.Created = d.Created.Add(time.Second) },
			func(d *Document) { d.ToolVersion = "" },
		} {
			d := document()
			change(d)
			var doc struct {
				Namespace string `json:"documentNamespace"`
				Serial    string `json:"serialNumber"`
			}
			if err := json.Unmarshal(write(t, d, f.format), &doc); err != nil {
				t.Fatal(err)
			}
			names[doc.Namespace+doc.Serial] = true
		}
		if len(names) != 4 {
			t.Errorf("%s: %d names for 4 documents: %v", f.format, len(names), names)
		}
	}
}

// buildlist parses every entry that Write writes.
func TestRoundTrip(t *testing.T) {
	want := []buildlist.Entry{
		{Ecosystem: buildlist.Deb, Name: "adduser", Version: "3.134", Arch: "all", Origin: "debian-12", Path: "pool/main/a/adduser/adduser_3.134_all.deb"},
		{Ecosystem: buildlist.Deb, Name: "gcc-12", Version: "12.2.0-14+deb12u1", Arch: "source", Source: true, Origin: "debian-12", Path: "pool/main/g/gcc-12/gcc-12_12.2.0-14+deb12u1.dsc"},
		{Ecosystem: buildlist.Deb, Name: "libstdc++6", Version: "12.2.0-14+deb12u1", Arch: "amd64", Origin: "debian-12", Path: "pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1_amd64.deb"},
		{Ecosystem: buildlist.RPM, Name: "bind", Version: "32:9.18-1.fc40", Arch: "src", Source: true, Origin: "fedora-40", Path: "Packages/b/bind-9.18-1.fc40.src.rpm"},
		{Ecosystem: buildlist.RPM, Name: "bind", Version: "32:9.18-1.fc40", Arch: "x86_64", Origin: "fedora-40", Path: "Packages/b/bind-9.18-1.fc40.x86_64.rpm"},
	}
	for i := range want {
		f := file(want[i].Path)
		want[i].SHA256, want[i].Size = f.SHA256.String(), f.Size
	}
	for _, f := range formats {
		t.Run(string(f.format), func(t *testing.T) {
			m, err := buildlist.Parse("bom", bytes.NewReader(write(t, document(), f.format)), "")
			if err != nil {
				t.Fatal(err)
			}
			if m.Format != f.read {
				t.Errorf("recognised as %s", m.Format)
			}
			ignore := []string{"Line", "Raw"}
			if f.format == SPDX {
				ignore = append(ignore, "Size") // the format has no field for it
			}
			if d := cmp.Diff(want, m.Entries, cmpopts.IgnoreFields(buildlist.Entry{}, ignore...)); d != "" {
				t.Errorf("(-want +read):\n%s", d)
			}
		})
	}
}

func TestRelationships(t *testing.T) {
	var doc struct {
		Packages []struct {
			ID   string `json:"SPDXID"`
			File string `json:"packageFileName"`
			Name string `json:"name"`
		} `json:"packages"`
		Relationships []struct {
			From string `json:"spdxElementId"`
			Type string `json:"relationshipType"`
			To   string `json:"relatedSpdxElement"`
		} `json:"relationships"`
	}
	if err := json.Unmarshal(write(t, document(), SPDX), &doc); err != nil {
		t.Fatal(err)
	}
	name := map[string]string{"SPDXRef-DOCUMENT": "document"}
	for _, p := range doc.Packages {
		if name[p.ID] != "" {
			t.Errorf("id %s twice", p.ID)
		}
		name[p.ID] = p.Name
		if p.File != "" {
			name[p.ID] = filepath.Base(p.File)
		}
	}
	var got []string
	for _, r := range doc.Relationships {
		if name[r.From] == "" || name[r.To] == "" {
			t.Errorf("%v refers to nothing", r)
		}
		got = append(got, fmt.Sprintf("%s %s %s", name[r.From], r.Type, name[r.To]))
	}
	want := []string{
		"document DESCRIBES manifest.json",
		"manifest.json CONTAINS debian",
		"InRelease METAFILE_OF debian",
		"InRelease METAFILE_OF debian",
		"manifest.json CONTAINS empty",
		"manifest.json CONTAINS fedora",
		"repomd.xml METAFILE_OF fedora",
		"debian CONTAINS adduser_3.134_all.deb",
		"debian CONTAINS gcc-12_12.2.0-14+deb12u1.dsc",
		"gcc-12_12.2.0-14+deb12u1.dsc CONTAINS gcc-12_12.2.0-14+deb12u1.debian.tar.xz",
		"gcc-12_12.2.0-14+deb12u1.dsc CONTAINS gcc-12_12.2.0.orig.tar.xz",
		"debian CONTAINS libstdc++6_12.2.0-14+deb12u1_amd64.deb",
		"libstdc++6_12.2.0-14+deb12u1_amd64.deb GENERATED_FROM gcc-12_12.2.0-14+deb12u1.dsc",
		"fedora CONTAINS bind-9.18-1.fc40.src.rpm",
		"fedora CONTAINS bind-9.18-1.fc40.x86_64.rpm",
		"bind-9.18-1.fc40.x86_64.rpm GENERATED_FROM bind-9.18-1.fc40.src.rpm",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		change func(*Document)
		want   string
	}{
		{func(d *Document) { d.Name = "" }, "write spdx of : expected a name, found none: invalid bill of materials"},
		{func(d *Document) { d.Digest = cas.Digest{} }, "write spdx of 4.1: expected the manifest's digest, found none: invalid bill of materials"},
		{func(d *Document) { d.Created = time.Time{} }, "write spdx of 4.1: expected a date, found none: invalid bill of materials"},
		{func(d *Document) { d.Mirrors[2].Name = "debian" }, "write spdx of 4.1: expected each mirror once, found debian twice: invalid bill of materials"},
		{func(d *Document) { d.Mirrors[2].Ecosystem = "" }, `write spdx of 4.1: mirror empty: expected deb or rpm, found "": invalid bill of materials`},
		{func(d *Document) { d.Packages[0].Mirror = "x" }, `write spdx of 4.1: package bind: expected a mirror of the document, found "x": invalid bill of materials`},
		{func(d *Document) { d.Packages[0].Arch = "" }, `write spdx of 4.1: package "bind" of mirror fedora: expected name, version and architecture, found "bind", "32:9.18-1.fc40", "": invalid bill of materials`},
		{func(d *Document) { d.Packages[0].Files = nil }, "write spdx of 4.1: package bind of mirror fedora: expected a file, found none: invalid bill of materials"},
	} {
		d := document()
		tt.change(d)
		err := Write(new(bytes.Buffer), d, SPDX)
		if err == nil || err.Error() != tt.want || !errors.Is(err, ErrInvalid) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	if err := Write(new(bytes.Buffer), document(), "zip"); !errors.Is(err, ErrInvalid) {
		t.Errorf("format zip: %v", err)
	}
	if err := Write(full{}, document(), CycloneDX); !errors.Is(err, errFull) || errors.Is(err, ErrInvalid) {
		t.Errorf("full disk: %v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	d := document()
	d.Packages = nil
	for i := range 2000 {
		name := fmt.Sprintf("sample%d", i)
		d.Packages = append(d.Packages, Package{Mirror: "debian", Name: name, Version: "1.0-1", Arch: "amd64", Files: []File{file("pool/" + name + ".deb")}, Sources: []Ref{{name, "1.0-1"}}})
	}
	for _, f := range formats {
		b.Run(string(f.format), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				write(b, d, f.format)
			}
		})
	}
}

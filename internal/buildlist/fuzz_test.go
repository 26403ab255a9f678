package buildlist

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// check checks the invariants of every result.
func check(t *testing.T, m *Manifest, data []byte) {
	t.Helper()
	if m.Size != int64(len(data)) {
		t.Fatalf("size %d, want %d", m.Size, len(data))
	}
	if len(m.Entries) == 0 {
		t.Fatal("no entries and no error")
	}
	for _, e := range m.Entries {
		switch {
		case e.Name == "":
			t.Fatalf("entry without a name: %+v", e)
		case e.Version == "" && e.SHA256+e.SHA512+e.SHA1+e.MD5 == "" && !slices.Contains([]Format{List, DpkgSelections, Debootstrap, PrintURIs}, m.Format):
			t.Fatalf("entry with neither version nor digest: %+v", e)
		case e.Line < 1 || e.Size < -1:
			t.Fatalf("entry of nowhere: %+v", e)
		case strings.ContainsAny(e.Name+e.Version+e.Arch, "/ \n\t\x00"):
			t.Fatalf("entry that is no package: %+v", e)
		case len(e.Raw) > maxRaw+len("…"):
			t.Fatalf("raw of %d bytes", len(e.Raw))
		}
	}
}

func fuzz(f *testing.F, formats ...Format) {
	for name, format := range samples {
		for _, want := range formats {
			if format == want || want == "" {
				f.Add(sample(f, name))
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, format := range formats {
			m, err := Parse("m", bytes.NewReader(data), format)
			if err != nil {
				if format != "" && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
					t.Fatalf("%s: %v", format, err)
				}
				continue
			}
			check(t, m, data)
			if format == "" {
				again, err := Parse("m", bytes.NewReader(data), m.Format)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(m, again); d != "" {
					t.Fatal(d)
				}
			}
		}
	})
}

func FuzzRecognise(f *testing.F)       { fuzz(f, "") }
func FuzzList(f *testing.F)            { fuzz(f, List) }
func FuzzTails(f *testing.F)           { fuzz(f, Tails) }
func FuzzBuildinfo(f *testing.F)       { fuzz(f, Buildinfo) }
func FuzzDpkgStatus(f *testing.F)      { fuzz(f, DpkgStatus) }
func FuzzDpkgQuery(f *testing.F)       { fuzz(f, DpkgQuery) }
func FuzzAptList(f *testing.F)         { fuzz(f, AptList) }
func FuzzMmdebstrap(f *testing.F)      { fuzz(f, Mmdebstrap) }
func FuzzDebootstrap(f *testing.F)     { fuzz(f, Debootstrap) }
func FuzzPrintURIs(f *testing.F)       { fuzz(f, PrintURIs) }
func FuzzSHA256Sums(f *testing.F)      { fuzz(f, SHA256Sums) }
func FuzzSPDX(f *testing.F)            { fuzz(f, SPDX) }
func FuzzCycloneDX(f *testing.F)       { fuzz(f, CycloneDX) }
func FuzzRPMQA(f *testing.F)           { fuzz(f, RPMQA) }
func FuzzDpkgSelections(f *testing.F)  { fuzz(f, DpkgSelections) }
func FuzzAptHistory(f *testing.F)      { fuzz(f, AptHistory) }
func FuzzSyft(f *testing.F)            { fuzz(f, Syft) }
func FuzzRPMQI(f *testing.F)           { fuzz(f, RPMQI) }
func FuzzDNFHistory(f *testing.F)      { fuzz(f, DNFHistory) }
func FuzzRPMsLock(f *testing.F)        { fuzz(f, RPMsLock) }
func FuzzReproEnv(f *testing.F)        { fuzz(f, ReproEnv) }
func FuzzRulesDistroless(f *testing.F) { fuzz(f, RulesDistroless) }
func FuzzMkosi(f *testing.F)           { fuzz(f, Mkosi) }

package deb

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/repo"
)

func TestExpand(t *testing.T) {
	const sums, diff = "main/installer-amd64/current/images/SHA256SUMS", "main/binary-amd64/Packages.diff/Index"
	for _, tt := range []struct {
		index, in string
		want      []repo.Listed
	}{
		{sums, sumA + "  ./netboot/mini.iso\n" + sumB + " *cdrom/initrd.gz\n", []repo.Listed{
			{Path: "main/installer-amd64/current/images/netboot/mini.iso", Size: -1, SHA256: digest(t, sumA),
				Alternates: []string{"main/installer-amd64/current/images/netboot/by-hash/SHA256/" + sumA}},
			{Path: "main/installer-amd64/current/images/cdrom/initrd.gz", Size: -1, SHA256: digest(t, sumB),
				Alternates: []string{"main/installer-amd64/current/images/cdrom/by-hash/SHA256/" + sumB}},
		}},
		{diff, "SHA256-Current: " + sumA + " 100\nSHA256-Patches:\n " + sumB + " 5 T-2-F-1\nSHA256-Download:\n " + sumA + " 4 T-2-F-1.gz\n", []repo.Listed{
			{Path: "main/binary-amd64/Packages.diff/T-2-F-1.gz", Size: 4, SHA256: digest(t, sumA),
				Alternates: []string{"main/binary-amd64/Packages.diff/by-hash/SHA256/" + sumA}},
		}},
		{diff, "", nil},
	} {
		if !(Format{}).Expands(tt.index) {
			t.Errorf("%s lists nothing", tt.index)
		}
		got, err := Format{}.Expand(tt.index, strings.NewReader(tt.in))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.index, d)
		}
	}
	for _, tt := range []struct {
		index, in, want string
		is              error
	}{
		{sums, sumA + "  ../../x\n", `read ` + sums + `: line 1: path "../../x": leaves its directory: hostile path`, repo.ErrHostile},
		{sums, "\nabcd  x\n", `read ` + sums + `: line 2: SHA256 "abcd": 4 characters, expected 64: malformed`, repo.ErrMalformed},
		{sums, "<html>\n", `read ` + sums + `: line 1: "<html>": expected digest and name: malformed`, repo.ErrMalformed},
		{sums, strings.Repeat("x", 1<<17), `read ` + sums + `: line of more than 65536 bytes: malformed`, repo.ErrMalformed},
		{diff, "SHA256-Download:\n " + sumA + " 4 ../x.gz\n", `read ` + diff + `: SHA256-Download: path "../x.gz": leaves its directory: hostile path`, repo.ErrHostile},
	} {
		if _, err := (Format{}).Expand(tt.index, strings.NewReader(tt.in)); !errors.Is(err, tt.is) || err.Error() != tt.want {
			t.Errorf("error %v\nexpected %s", err, tt.want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("SHA256SUMS", []byte(sumA+"  ./a\n"))
	f.Add("Packages.diff/Index", []byte("SHA256-Download:\n "+sumA+" 4 a.gz\n"))
	f.Fuzz(func(t *testing.T, index string, data []byte) {
		index = "main/" + map[bool]string{true: "x/SHA256SUMS", false: "Packages.diff/Index"}[strings.HasSuffix(index, "SHA256SUMS")]
		files, err := Format{}.Expand(index, strings.NewReader(string(data)))
		if err != nil {
			return
		}
		for _, l := range files {
			if c, err := cleanPath(l.Path); err != nil || c != l.Path || !strings.HasPrefix(l.Path, "main/") {
				t.Fatalf("path %q", l.Path)
			}
		}
	})
}

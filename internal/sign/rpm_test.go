package sign_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// rpmHeader splits a header structure off data: its index entries by tag, as
// (type, offset, count), its data area and its length with padding left out
// (the RPM file format, section "Header").
func rpmHeader(t testing.TB, data []byte) (tags map[uint32][3]uint32, store, whole []byte) {
	t.Helper()
	if len(data) < 16 || !bytes.Equal(data[:4], []byte{0x8e, 0xad, 0xe8, 1}) {
		t.Fatalf("no header at % x", data[:min(len(data), 8)])
	}
	n, size := binary.BigEndian.Uint32(data[8:]), binary.BigEndian.Uint32(data[12:])
	tags = make(map[uint32][3]uint32)
	for i := range n {
		e := data[16+16*i:]
		tags[binary.BigEndian.Uint32(e)] = [3]uint32{binary.BigEndian.Uint32(e[4:]), binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:])}
	}
	end := 16 + 16*n + size
	return tags, data[16+16*n : end], data[:end]
}

// TestRPM verifies the signature header of a package that rpmbuild made and
// rpmsign signed with our key.
func TestRPM(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages")
	}
	for _, name := range []string{"rpmbuild", "rpmsign", "rpmkeys"} {
		needs.Program(t, name)
	}
	for _, k := range []*sign.PrivateKey{signtest.NewRSAKey(t, "rsa"), signtest.NewKey(t, "eddsa")} {
		g := newGnuPG(t)
		g.run(day, k.Armored(), "--import")
		dir := t.TempDir()
		spec := write(t, "x.spec", []byte("Name: x\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n%description\nx\n%install\nmkdir -p %{buildroot}/x\n%files\n/x\n"))
		run := func(name string, args ...string) string {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), name, args...)
			cmd.Env = append(os.Environ(), "LC_ALL=C", "GNUPGHOME="+g.home)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
			return string(out)
		}
		run("rpmbuild", "-bb", "--define", "_topdir "+dir, "--define", "_build_id_links none", spec)
		path := filepath.Join(dir, "RPMS/noarch/x-1-1.noarch.rpm")
		run("rpmsign", "--define", "__gpg "+needs.Program(t, "gpg"), "--define", "_gpg_name "+string(k.Fingerprint()), "--rpmv3", "--addsign", path)
		db := filepath.Join(dir, "db")
		run("rpmkeys", "--dbpath", db, "--import", signtest.ArmoredKeyringFile(t, k))
		t.Logf("%s", run("rpmkeys", "--dbpath", db, "--checksig", "-v", path))

		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tags, store, sigs := rpmHeader(t, data[96:]) // after the lead
		rest := data[96+(len(sigs)+7)/8*8:]
		_, _, header := rpmHeader(t, rest)
		opts := sign.VerifyOptions{Keyring: k.Keyring()}
		checked := 0
		for tag, signed := range map[uint32][]byte{
			268: header, 267: header, // RSAHEADER, DSAHEADER
			1002: rest, 1005: rest, // PGP, GPG: header and payload
		} {
			e, ok := tags[tag]
			if !ok {
				continue
			}
			packet := store[e[1] : e[1]+e[2]]
			v, err := sign.VerifyPacket(t.Context(), packet, bytes.NewReader(signed), opts)
			if err != nil {
				t.Errorf("tag %d: %v", tag, err)
			} else {
				checked++
				t.Logf("tag %d: %+v", tag, v.Good[0])
			}
			bad := bytes.Clone(signed)
			bad[len(bad)/2] ^= 1
			if _, err := sign.VerifyPacket(t.Context(), packet, bytes.NewReader(bad), opts); !errors.Is(err, sign.ErrBadSignature) {
				t.Errorf("tag %d over changed bytes: %v", tag, err)
			}
		}
		if checked < 2 {
			t.Error("expected signatures of the header and of header and payload: " + fmt.Sprint(tags))
		}
	}
}

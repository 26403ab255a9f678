package rpmpkg_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/repo/rpm/rpmpkg"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

func expect(b *rpmtest.Built) rpmpkg.Expect {
	return rpmpkg.Expect{Object: b.FileName(), NEVRA: b.NEVRA(), Size: int64(len(b.Bytes)),
		HeaderStart: b.HeaderStart, HeaderEnd: b.HeaderEnd, Hash: sha256.New, Digest: b.SHA256}
}

func TestVerify(t *testing.T) {
	ed, rsa, stranger := signtest.NewKey(t, "ed"), signtest.NewRSAKey(t, "rsa"), signtest.NewKey(t, "stranger")
	ring := signtest.Keyring(ed, rsa)
	s := func(keys ...*sign.PrivateKey) (out []*sign.Signer) {
		for _, k := range keys {
			out = append(out, signtest.Signer(t, k))
		}
		return out
	}
	base := rpmtest.Package{Name: "sample", Version: "1.0~rc1", Epoch: 2, Arch: "x86_64"}
	with := func(f func(*rpmtest.Package)) rpmtest.Package { p := base; f(&p); return p }
	for name, c := range map[string]struct {
		p     rpmtest.Package
		keys  []*sign.Signer
		want  string // of the error, "" for a good package
		is    error
		signs int
	}{
		"eddsa":      {p: base, keys: s(ed), signs: 1},
		"rsa":        {p: base, keys: s(rsa), signs: 1},
		"both":       {p: base, keys: s(ed, rsa), signs: 2},
		"one known":  {p: base, keys: s(stranger, rsa), signs: 1},
		"legacy too": {p: with(func(p *rpmtest.Package) { p.Legacy = true }), keys: s(rsa), signs: 2},
		"old":        {p: with(func(p *rpmtest.Package) { p.Legacy, p.NoPayloadDigest = true, true }), keys: s(rsa), signs: 2},
		"oldest":     {p: with(func(p *rpmtest.Package) { p.LegacyOnly, p.NoPayloadDigest = true, true }), keys: s(ed), signs: 1},
		"v6":         {p: with(func(p *rpmtest.Package) { p.V6 = true }), keys: s(ed, rsa), signs: 2},
		"source":     {p: with(func(p *rpmtest.Package) { p.Arch = "src" }), keys: s(ed), signs: 1},
		"unsigned": {p: base, want: "package sample-1.0~rc1-1.x86_64.rpm: no signature: the package is not signed",
			is: sign.ErrNoSignature},
		"stranger": {p: base, keys: s(stranger), is: sign.ErrUnknownKey},
		"bad signature": {p: with(func(p *rpmtest.Package) { p.BadSignature = true }), keys: s(rsa),
			is: sign.ErrBadSignature},
		"payload not covered": {p: with(func(p *rpmtest.Package) { p.NoPayloadDigest = true }), keys: s(rsa), is: sign.ErrWeak,
			want: "package sample-1.0~rc1-1.x86_64.rpm: weak signature: the signature covers the header, and no digest in it covers the payload"},
		"bad payload":        {p: with(func(p *rpmtest.Package) { p.BadPayload = true }), keys: s(rsa), is: rpmpkg.ErrDigest},
		"bad payload, v6":    {p: with(func(p *rpmtest.Package) { p.BadPayload, p.V6 = true, true }), keys: s(rsa), is: rpmpkg.ErrDigest},
		"bad header digest":  {p: with(func(p *rpmtest.Package) { p.BadHeaderDigest = true }), keys: s(rsa), is: rpmpkg.ErrDigest},
		"old signature, bad": {p: with(func(p *rpmtest.Package) { p.LegacyOnly, p.BadSignature = true, true }), keys: s(rsa), is: sign.ErrBadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.p.Build(c.keys...)
			for _, slow := range []bool{false, true} {
				var src = bytes.NewReader(b.Bytes)
				opts := rpmpkg.Options{Keyring: ring, Expect: expect(b)}
				var res *rpmpkg.Result
				var err error
				if slow {
					res, err = rpmpkg.Verify(iotest.OneByteReader(src), opts)
				} else {
					res, err = rpmpkg.Verify(src, opts)
				}
				if c.want != "" && (err == nil || err.Error() != c.want) {
					t.Fatalf("got  %v\nwant %s", err, c.want)
				}
				if c.is != nil {
					if !errors.Is(err, c.is) {
						t.Fatalf("got %v, want %v", err, c.is)
					}
					t.Log(err)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if len(res.Signatures) != c.signs || res.NEVRA != b.NEVRA() {
					t.Errorf("%d signatures of %s", len(res.Signatures), res.NEVRA)
				}
			}
		})
	}
}

// Packages that differ from Expect are refused.
func TestVerifyDisagrees(t *testing.T) {
	key := signtest.NewKey(t, "ed")
	p := rpmtest.Package{Name: "sample", Version: "1.0", Arch: "x86_64"}
	b := p.Build(signtest.Signer(t, key))
	for name, c := range map[string]struct {
		change func(*rpmpkg.Expect)
		want   string
		is     error
	}{
		"version": {func(e *rpmpkg.Expect) { e.Version = "1.1" },
			"package x.rpm: the header disagrees with the metadata: it is sample-1.0-1.x86_64, expected sample-1.1-1.x86_64", rpmpkg.ErrDisagrees},
		"epoch": {func(e *rpmpkg.Expect) { e.NEVRA.Epoch = 1 },
			"package x.rpm: the header disagrees with the metadata: it is sample-1.0-1.x86_64, expected sample-1:1.0-1.x86_64", rpmpkg.ErrDisagrees},
		"arch": {func(e *rpmpkg.Expect) { e.Arch = "src" },
			"package x.rpm: the header disagrees with the metadata: it is sample-1.0-1.x86_64, expected sample-1.0-1.src", rpmpkg.ErrDisagrees},
		"header": {func(e *rpmpkg.Expect) { e.HeaderEnd++ },
			fmt.Sprintf("package x.rpm: the header disagrees with the metadata: the header is at bytes %d to %d, expected %d to %d", b.HeaderStart, b.HeaderEnd, b.HeaderStart, b.HeaderEnd+1), rpmpkg.ErrDisagrees},
		"too long": {func(e *rpmpkg.Expect) { e.Size-- },
			fmt.Sprintf("package x.rpm: digest mismatch: more than %d bytes, the size in the metadata", len(b.Bytes)-1), rpmpkg.ErrDigest},
		"too short": {func(e *rpmpkg.Expect) { e.Size++ },
			fmt.Sprintf("package x.rpm: digest mismatch: %d bytes, the metadata say %d", len(b.Bytes), len(b.Bytes)+1), rpmpkg.ErrDigest},
		"digest": {func(e *rpmpkg.Expect) { e.Digest = strings.Repeat("0", 64) },
			"package x.rpm: digest mismatch: the file has " + b.SHA256 + ", the metadata say " + strings.Repeat("0", 64), rpmpkg.ErrDigest},
	} {
		e := expect(b)
		e.Object = "x.rpm"
		c.change(&e)
		_, err := rpmpkg.Verify(bytes.NewReader(b.Bytes), rpmpkg.Options{Keyring: signtest.Keyring(key), Expect: e})
		if err == nil || err.Error() != c.want || !errors.Is(err, c.is) {
			t.Errorf("%s:\ngot  %v\nwant %s", name, err, c.want)
		}
	}
}

// TestVerifyFlips flips each byte in turn. Only changes of bytes that no signature
// covers may be accepted.
func TestVerifyFlips(t *testing.T) {
	key := signtest.NewKey(t, "ed")
	ring := signtest.Keyring(key)
	for name, p := range map[string]rpmtest.Package{
		"v4": {Name: "sample", Version: "1.0"}, "v6": {Name: "sample", Version: "1.0", V6: true},
		"old": {Name: "sample", Version: "1.0", LegacyOnly: true, NoPayloadDigest: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := p.Build(signtest.Signer(t, key))
			for i := range b.Bytes {
				bad := bytes.Clone(b.Bytes)
				bad[i] ^= 1
				_, err := rpmpkg.Verify(bytes.NewReader(bad), rpmpkg.Options{Keyring: ring})
				if err == nil && int64(i) >= b.HeaderStart {
					t.Fatalf("byte %d of %d (header %d to %d) flipped and accepted", i, len(bad), b.HeaderStart, b.HeaderEnd)
				}
			}
			for _, n := range []int{0, 50, 96, 150, int(b.HeaderStart), int(b.HeaderEnd) - 1, int(b.HeaderEnd), len(b.Bytes) - 1} {
				if _, err := rpmpkg.Verify(bytes.NewReader(b.Bytes[:n]), rpmpkg.Options{Keyring: ring}); err == nil {
					t.Errorf("%d of %d bytes were accepted", n, len(b.Bytes))
				}
			}
		})
	}
}

// TestRPMSign verifies packages from rpmbuild that rpmsign has signed with each kind of
// key. Long because of its table.
func TestRPMSign(t *testing.T) {
	needs.Program(t, "rpmbuild")
	needs.Program(t, "rpmsign")
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		needs.Program(t, "gpg")
	}
	dir := t.TempDir()
	home := filepath.Join(dir, "g")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "GNUPGHOME="+home, "HOME="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	t.Cleanup(func() { _ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	spec := filepath.Join(dir, "sample.spec")
	if err := os.WriteFile(spec, []byte(`Name: sample
Epoch: 1
Version: 2.0^git1
Release: 3
Summary: A sample
License: MIT
BuildArch: noarch
%description
A sample.
%install
mkdir -p %{buildroot}/usr/share/sample
head -c 100000 /dev/zero > %{buildroot}/usr/share/sample/data
%files
/usr/share/sample
`), 0o600); err != nil {
		t.Fatal(err)
	}
	run("rpmbuild", "-ba", "--define", "_topdir "+dir+"/top", spec)
	bin := filepath.Join(dir, "top/RPMS/noarch/sample-2.0^git1-3.noarch.rpm")
	src := filepath.Join(dir, "top/SRPMS/sample-2.0^git1-3.src.rpm")
	want := nevra.NEVRA{Name: "sample", EVR: nevra.EVR{Epoch: 1, Version: "2.0^git1", Release: "3"}, Arch: "noarch"}

	unsigned, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rpmpkg.Verify(bytes.NewReader(unsigned), rpmpkg.Options{}); err != nil {
		t.Errorf("digests of an unsigned package: %v", err)
	}
	// rpmsign in rpm 4.18 does not support ECDSA, so sign with gpg.
	t.Run("nistp256", func(t *testing.T) {
		const uid = "nistp256@example.org"
		run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", uid, "nistp256", "sign", "never")
		ring, err := sign.ParseKeyring([]byte(run("gpg", "--armor", "--export", uid)))
		if err != nil {
			t.Fatal(err)
		}
		for _, v6 := range []bool{false, true} {
			p := rpmtest.Package{Name: "sample", Version: "1.0", V6: v6, Sign: func(head []byte) []byte {
				file := filepath.Join(t.TempDir(), "head")
				if err := os.WriteFile(file, head, 0o600); err != nil {
					t.Fatal(err)
				}
				run("gpg", "--batch", "-u", uid, "--detach-sign", file)
				sig, err := os.ReadFile(file + ".sig")
				if err != nil {
					t.Fatal(err)
				}
				return sig
			}}
			if res, err := rpmpkg.Verify(bytes.NewReader(p.Build().Bytes), rpmpkg.Options{Keyring: ring}); err != nil || len(res.Signatures) != 1 {
				t.Errorf("v6 %v: %v", v6, err)
			}
		}
	})
	for _, algo := range []string{"rsa2048", "ed25519", "dsa2048"} {
		t.Run(algo, func(t *testing.T) {
			uid := algo + "@example.org"
			run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", uid, algo, "sign", "never")
			pub := run("gpg", "--armor", "--export", uid)
			ring, err := sign.ParseKeyring([]byte(pub))
			if err != nil {
				t.Fatal(err)
			}
			for file, arch := range map[string]string{bin: "noarch", src: "src"} {
				for _, extra := range [][]string{nil, {"--rpmv3"}} {
					signed := filepath.Join(t.TempDir(), "signed.rpm")
					data, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(signed, data, 0o600); err != nil {
						t.Fatal(err)
					}
					cmd := exec.CommandContext(t.Context(), "rpmsign", append([]string{"--addsign", "--define", "_gpg_name " + uid, "--define", "__gpg " + gpg}, append(extra, signed)...)...)
					cmd.Env = append(os.Environ(), "GNUPGHOME="+home, "HOME="+dir)
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Fatalf("rpmsign: %v\n%s", err, out)
					}
					f, err := os.Open(signed)
					if err != nil {
						t.Fatal(err)
					}
					res, err := rpmpkg.Verify(f, rpmpkg.Options{Keyring: ring})
					f.Close()
					if err != nil {
						t.Fatal(err)
					}
					w := want
					w.Arch = arch
					if res.NEVRA != w || len(res.Signatures) != 1+len(extra) {
						t.Errorf("%s with %d signatures, want %s with %d", res.NEVRA, len(res.Signatures), w, 1+len(extra))
					}
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	key := signtest.NewKey(b, "ed")
	p := rpmtest.Package{Name: "sample", Version: "1.0", Files: []rpmtest.File{{Path: "/a", Body: strings.Repeat("0123456789abcdef", 1<<16)}}}
	built := p.Build(signtest.Signer(b, key))
	ring := signtest.Keyring(key)
	b.SetBytes(int64(len(built.Bytes)))
	for b.Loop() {
		if _, err := rpmpkg.Verify(bytes.NewReader(built.Bytes), rpmpkg.Options{Keyring: ring}); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := signtest.NewKey(f, "ed")
	signer := signtest.Signer(f, key)
	for _, p := range []rpmtest.Package{{Name: "a", Version: "1"}, {Name: "a", Version: "1", V6: true}, {Name: "a", Version: "1", Legacy: true, Arch: "src"}} {
		f.Add(p.Build(signer).Bytes)
	}
	ring := signtest.Keyring(key)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = rpmpkg.Read(bytes.NewReader(b))
		res, err := rpmpkg.Verify(bytes.NewReader(b), rpmpkg.Options{Keyring: ring})
		if err == nil && (len(res.Signatures) == 0 || res.Name == "") {
			t.Fatalf("accepted %+v", res)
		}
		_, _ = rpmpkg.Verify(bytes.NewReader(b), rpmpkg.Options{})
	})
}

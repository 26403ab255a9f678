package sign_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

func seeds(f *testing.F) {
	paths, err := filepath.Glob("testdata/[IRpr]*.*")
	if err != nil || len(paths) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		if filepath.Ext(p) != ".eddsa" && filepath.Ext(p) != ".rsa" { // not InRelease
			f.Add(sign.Dearmor(data))
		}
	}
	for _, name := range []string{"eddsa", "rsa"} {
		data, err := os.ReadFile("testdata/test-only-" + name + ".key")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sign.Dearmor(data))
	}
}

// fuzzKey is one of the committed keys, so that inputs found stay meaningful.
func fuzzKeyring(f *testing.F) *sign.Keyring {
	var all []*sign.Keyring
	for _, name := range []string{"eddsa", "rsa"} {
		kr, err := sign.LoadKeyring("testdata/public." + name + ".asc")
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, kr)
	}
	return sign.Merge(all...)
}

func FuzzKeyring(f *testing.F) {
	seeds(f)
	f.Add(fuzzKeyring(f).Export())
	clear, err := os.ReadFile("testdata/InRelease.eddsa")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		kr, err := sign.ParseKeyring(data)
		if err != nil {
			return
		}
		kr.Keys()
		sign.VerifyClearsigned(clear, sign.VerifyOptions{Keyring: kr, At: day})
		for _, exported := range [][]byte{kr.Export(), kr.ExportArmored()} {
			again, err := sign.ParseKeyring(exported)
			if err != nil {
				t.Fatalf("its own export does not read: %v", err)
			}
			if !bytes.Equal(again.Export(), kr.Export()) {
				t.Fatal("export changes when read again")
			}
		}
	})
}

func FuzzClearsigned(f *testing.F) {
	seeds(f)
	kr := fuzzKeyring(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := sign.VerifyClearsigned(data, sign.VerifyOptions{Keyring: kr, At: day})
		if err == nil && string(v.Text)+"\n" != release {
			t.Fatalf("a text that was never signed: %q", v.Text)
		}
	})
}

func FuzzPacket(f *testing.F) {
	seeds(f)
	k := signtest.NewRSAKey(f, "v3")
	f.Add(v3(f, k, []byte(release), day, 5))
	kr := sign.Merge(fuzzKeyring(f), k.Keyring())
	f.Fuzz(func(t *testing.T, data []byte) {
		opts := sign.VerifyOptions{Keyring: kr, At: day}
		sign.VerifyDetached([]byte(release), data, opts)
		if v, err := sign.VerifyPacket(t.Context(), data, bytes.NewReader([]byte("never signed")), opts); err == nil {
			t.Fatalf("a signature over what was never signed: %+v", v)
		}
		if k, err := sign.ParsePrivateKey(sign.EncodeArmor("PGP PRIVATE KEY BLOCK", data)); err == nil {
			if s, err := sign.NewSigner(k); err == nil {
				s.SignDetached(data, day)
			}
			k.Renew(day.AddDate(20, 0, 0), day.AddDate(30, 0, 0))
		}
	})
}

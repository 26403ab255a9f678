package sign_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

var update = flag.Bool("update", false, "write golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestDeterministic: the bytes are part of the product's promise. A library
// upgrade that changes them must be noticed here.
func TestDeterministic(t *testing.T) {
	for _, name := range []string{"eddsa", "rsa"} {
		armored, err := os.ReadFile("testdata/test-only-" + name + ".key")
		if errors.Is(err, os.ErrNotExist) && *update {
			k := signtest.NewKey(t, "test-only")
			if name == "rsa" {
				k = signtest.NewRSAKey(t, "test-only")
			}
			armored, err = k.Armored(), os.WriteFile("testdata/test-only-"+name+".key", k.Armored(), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, procs := range []int{1, 2, 8} {
			zone := []string{"UTC", "Asia/Kathmandu", "America/St_Johns"}[i]
			t.Run(name+" "+zone, func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				loc, err := time.LoadLocation(zone)
				if err != nil {
					t.Skip(err)
				}
				at := day.Add(999 * time.Millisecond).In(loc)
				k := mustParse(t, armored)
				golden(t, "InRelease."+name, signtest.ClearSign(t, k, release, at))
				golden(t, "Release."+name+".gpg", signtest.Detach(t, k, []byte(release), at))
				golden(t, "public."+name+".asc", []byte(signtest.Signer(t, k).PublicKeyArmored()))
				renewed, err := k.Renew(at, at.AddDate(1, 0, 0))
				if err != nil {
					t.Fatal(err)
				}
				golden(t, "renewed."+name+".asc", renewed.Keyring().ExportArmored())
				// Dated before the key: the key's creation stands in.
				early := signtest.Detach(t, k, []byte(release), time.Date(2001, 1, 1, 0, 0, 0, 0, loc))
				v, err := sign.VerifyDetached([]byte(release), early, sign.VerifyOptions{Keyring: k.Keyring()})
				if err != nil || !v.Good[0].Created.Equal(signtest.Created) {
					t.Errorf("%v, %+v", err, v)
				}
				if _, status, err := gpgv(t, signtest.KeyringFile(t, k), write(t, "sig", early), write(t, "data", []byte(release))); err != nil {
					t.Errorf("gpgv: %v\n%s", err, status)
				}
			})
		}
	}
}

// TestClearsignedForms: whatever is accepted, gpgv accepts and reads alike. Long
// because of its table of cases.
func TestClearsignedForms(t *testing.T) {
	k := signtest.NewKey(t, "key")
	keyring := signtest.KeyringFile(t, k)
	good := string(signtest.ClearSign(t, k, release, day))
	head, rest, _ := strings.Cut(good, "\n\n")
	i := strings.Index(rest, "-----BEGIN PGP SIGNATURE")
	text, sig := rest[:i], rest[i:]
	begin := "-----BEGIN PGP SIGNED MESSAGE-----\n"
	other := string(signtest.ClearSign(t, k, "Origin: Evil\n", day))
	for _, tt := range []struct {
		name string
		data string
		err  error
	}{
		{"as made", good, nil},
		{"without its last line feed", strings.TrimSuffix(good, "\n"), nil},
		{"blank lines after it", good + "\n \r\n", nil},
		{"white space at line ends", head + "\n\n" + strings.ReplaceAll(text, "\n", " \t\n") + sig, nil},
		{"CR LF", strings.ReplaceAll(good, "\n", "\r\n"), nil},
		{"another hash header too", begin + "Hash: SHA256\nHash: SHA512\n\n" + text + sig, nil},
		{"headers in one", begin + "Hash: SHA256,SHA512\n\n" + text + sig, nil},
		{"comment in the signature's armor", head + "\n\n" + text + strings.Replace(sig, "-----\n\n", "-----\nVersion: x\nComment: \n\n", 1), nil},
		{"checksum left out", head + "\n\n" + text + sig[:strings.LastIndex(sig, "\n=")] + "\n-----END PGP SIGNATURE-----\n", nil},

		{"no Hash header", begin + "\n" + text + sig, sign.ErrMalformed},
		{"another Hash header", begin + "Hash: SHA256\n\n" + text + sig, sign.ErrMalformed},
		{"an unknown digest in the Hash header", begin + "Hash: SHA512, FOO\n\n" + text + sig, sign.ErrMalformed},
		{"Hash header without a space", begin + "Hash:SHA512\n\n" + text + sig, sign.ErrMalformed},
		{"text before", "Origin: Evil\n" + good, sign.ErrNoSignature},
		{"blank line before", "\n" + good, sign.ErrNoSignature},
		{"byte order mark", "\xef\xbb\xbf" + good, sign.ErrNoSignature},
		{"text after", good + "Origin: Evil\n", sign.ErrMalformed},
		{"text in place of the end", strings.TrimSuffix(good, "\n") + "Origin: Evil\n", sign.ErrMalformed},
		{"another message after", good + other, sign.ErrMalformed},
		{"another message before", other + good, sign.ErrMalformed},
		{"unsigned text between message and signature", head + "\n\n" + text + "-----END PGP SIGNED MESSAGE-----\nOrigin: Evil\n" + sig, sign.ErrMalformed},
		{"a signature of another message", head + "\n\n" + text + other[strings.Index(other, "-----BEGIN PGP SIGNATURE"):], sign.ErrBadSignature},
		{"another header", begin + "Origin: Evil\nHash: SHA512\n\n" + text + sig, sign.ErrMalformed},
		{"NotDashEscaped", begin + "Hash: SHA512\nNotDashEscaped: GnuPG\n\n" + text + sig, sign.ErrMalformed},
		{"white space in place of the blank line", head + "\n \nOrigin: Evil\n\n" + text + sig, sign.ErrMalformed},
		{"no blank line", begin + text + sig, sign.ErrMalformed},
		{"unescaped dash", head + "\n\n" + strings.Replace(text, "- - dashes", "- dashes", 1) + sig, sign.ErrBadSignature},
		{"unescaped dashes", head + "\n\n" + strings.Replace(text, "- -----BEGIN", "-----BEGIN", 1) + sig, sign.ErrMalformed},
		{"NUL", head + "\n\n" + strings.Replace(text, "stable", "st\x00ble", 1) + sig, sign.ErrMalformed},
		{"CR in a line", head + "\n\n" + strings.Replace(text, "stable", "st\rble", 1) + sig, sign.ErrMalformed},
		{"long line", head + "\n\n" + strings.Replace(text, "stable", strings.Repeat("x", 20000), 1) + sig, sign.ErrMalformed},
		{"wrong checksum", head + "\n\n" + text + sig[:strings.LastIndex(sig, "\n=")] + "\n=AAAA\n-----END PGP SIGNATURE-----\n", sign.ErrMalformed},
		{"empty", "", sign.ErrNoSignature},
		{"only a signature", sig, sign.ErrNoSignature},
		{"signature of nothing", head + "\n\n" + text + "-----BEGIN PGP SIGNATURE-----\n\n\n-----END PGP SIGNATURE-----\n", sign.ErrNoSignature},
		{"a public key in place of the signature", head + "\n\n" + text + string(k.Keyring().ExportArmored()), sign.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := sign.VerifyClearsigned([]byte(tt.data), sign.VerifyOptions{Keyring: k.Keyring(), At: day})
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				if v.Text != nil {
					t.Error("text in spite of the error")
				}
				return
			}
			out, status, err := gpgv(t, keyring, write(t, "InRelease", []byte(tt.data)))
			if err != nil {
				t.Fatalf("gpgv: %v\n%s", err, status)
			}
			// gpgv writes trailing white space as it stands.
			var lines []string
			for line := range strings.SplitSeq(strings.TrimSuffix(out, "\n"), "\n") {
				lines = append(lines, strings.TrimRight(line, " \t\r"))
			}
			if diff := cmp.Diff(strings.Join(lines, "\n"), string(v.Text)); diff != "" {
				t.Errorf("text (-gpgv +ours):\n%s", diff)
			}
		})
	}
	for n := range len(good) - 1 {
		if _, err := sign.VerifyClearsigned([]byte(good[:n]), sign.VerifyOptions{Keyring: k.Keyring(), At: day}); err == nil {
			t.Fatalf("accepted when cut to %d of %d bytes", n, len(good))
		}
	}
}

// TestClearSignForms: texts that are awkward to clear-sign.
func TestClearSignForms(t *testing.T) {
	k := signtest.NewKey(t, "key")
	keyring := signtest.KeyringFile(t, k)
	for _, text := range []string{"", "\n", "a", "a\n", "a\n\n", "\na\n", "-\n", "- -\n--\n", "a \nb\t\n \n", "From me\n", "-----END PGP SIGNATURE-----\n", strings.Repeat("x", 19990) + "\n", "ü\n"} {
		clear := signtest.ClearSign(t, k, text, day)
		if _, status, err := gpgv(t, keyring, write(t, "InRelease", clear)); err != nil {
			t.Errorf("%.20q: gpgv: %v\n%s", text, err, status)
		}
	}
	for _, text := range []string{"a\r\n", "a\x00", strings.Repeat("x", 19991)} {
		if _, err := signtest.Signer(t, k).ClearSign([]byte(text), day); !errors.Is(err, sign.ErrMalformed) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func TestKeyrings(t *testing.T) {
	a, b, c := signtest.NewKey(t, "a"), signtest.NewKey(t, "b"), signtest.NewKey(t, "c")
	all := signtest.Keyring(a, b, c)
	fprs := []sign.Fingerprint{a.Fingerprint(), b.Fingerprint(), c.Fingerprint()}
	for _, paths := range [][]string{
		{signtest.KeyringFile(t, a, b, c)},
		{signtest.ArmoredKeyringFile(t, a, b, c)},
		{signtest.KeyringFile(t, a), signtest.ArmoredKeyringFile(t, b, c)},
		{signtest.KeyringFile(t, a, b), signtest.KeyringFile(t, b, c, a)},
		{write(t, "k", []byte("pub ed25519\n\n"+string(all.ExportArmored())+"\ntext\n"))},
		{write(t, "k", []byte(strings.ReplaceAll(string(all.ExportArmored()), "\n", "\r\n")))},
	} {
		kr, err := sign.LoadKeyring(paths...)
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(fprs, kr.Fingerprints()); diff != "" {
			t.Errorf("%q: (-want +got):\n%s", paths, diff)
		}
		if !bytes.Equal(kr.Export(), all.Export()) {
			t.Errorf("%q: exports other bytes", paths)
		}
	}
	f, err := all.Filter(c.Fingerprint(), sign.ParseFingerprint("0x"+strings.ToLower(string(a.Fingerprint()))))
	if err != nil || !cmp.Equal(f.Fingerprints(), []sign.Fingerprint{fprs[0], fprs[2]}) {
		t.Errorf("filter: %v, %v", f.Fingerprints(), err)
	}
	if _, err := all.Filter(sign.Fingerprint(strings.Repeat("0", 40))); !errors.Is(err, sign.ErrUnknownKey) {
		t.Errorf("filter: %v", err)
	}
	// A revocation in any copy counts, whichever comes first.
	clear := signtest.ClearSign(t, a, release, day)
	revoked := signtest.Revoked(t, a, day, true)
	for _, kr := range []*sign.Keyring{signtest.Keyring(a, revoked), signtest.Keyring(revoked, a)} {
		if kr.Len() != 1 {
			t.Errorf("%d certificates", kr.Len())
		}
		if _, err := sign.VerifyClearsigned(clear, sign.VerifyOptions{Keyring: kr, At: day}); !errors.Is(err, sign.ErrRevoked) {
			t.Errorf("merged: %v", err)
		}
	}
	bin := all.Export()
	for name, data := range map[string][]byte{
		"empty":        nil,
		"text":         []byte("hello\n"),
		"cut":          bin[:len(bin)-1],
		"garbage":      append(bin[:len(bin):len(bin)], 1, 2, 3),
		"no key first": bin[60:],
		"keybox":       []byte("\x00\x00\x00\x20\x01\x01\x00\x02KBXf\x00\x00"),
		"partial":      {0xc6, 0xe1, 1, 2},
		"signature":    signtest.Detach(t, a, []byte("x"), day),
		"armor cut":    all.ExportArmored()[:200],
	} {
		if _, err := sign.ParseKeyring(data); !errors.Is(err, sign.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := write(t, "bad.gpg", []byte("hello\n"))
	_, err = sign.LoadKeyring(path)
	if want := "keyring " + path + ": malformed OpenPGP data: expected a binary or armored keyring, found neither"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := sign.LoadKeyring("/nonexistent.gpg"); !errors.Is(err, os.ErrNotExist) || err.Error() != "keyring /nonexistent.gpg: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

// TestConcurrent shares a keyring and a signer between goroutines.
func TestConcurrent(t *testing.T) {
	k, l := signtest.NewKey(t, "k"), signtest.NewRSAKey(t, "l")
	kr, err := sign.LoadKeyring(signtest.KeyringFile(t, k, l))
	if err != nil {
		t.Fatal(err)
	}
	s := signtest.Signer(t, k)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			clear, err := s.ClearSign([]byte(release), day)
			if err != nil {
				t.Error(err)
			}
			if _, err := sign.VerifyClearsigned(clear, sign.VerifyOptions{Keyring: kr, At: day}); err != nil {
				t.Error(err)
			}
			kr.Keys()
		})
	}
	wg.Wait()
}

// TestApt: apt-get update takes what is signed here, inline key included.
func TestApt(t *testing.T) {
	apt := needs.Program(t, "apt-get")
	for _, k := range []*sign.PrivateKey{signtest.NewKey(t, "ed"), signtest.NewRSAKey(t, "rsa")} {
		s := signtest.Signer(t, k)
		dir, err := os.MkdirTemp("", "apt") // readable for apt's own user
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		os.Chmod(dir, 0o755)
		put := func(name string, data []byte) {
			p := filepath.Join(dir, name)
			os.MkdirAll(filepath.Dir(p), 0o755)
			if err := os.WriteFile(p, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text := "Origin: Example\nSuite: stable\nCodename: stable\nComponents: main\nArchitectures: amd64\nDate: Sat, 29 Feb 2020 12:00:00 UTC\nSHA256:\n" +
			" e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages\nDescription: x\n"
		for _, form := range []string{"InRelease", "Release.gpg"} {
			os.RemoveAll(filepath.Join(dir, "repo"))
			os.RemoveAll(filepath.Join(dir, "state"))
			put("repo/dists/stable/main/binary-amd64/Packages", nil)
			if form == "InRelease" {
				clear, err := s.ClearSign([]byte(text), day)
				if err != nil {
					t.Fatal(err)
				}
				put("repo/dists/stable/InRelease", clear)
			} else {
				det, err := s.SignDetached([]byte(text), day)
				if err != nil {
					t.Fatal(err)
				}
				put("repo/dists/stable/Release", []byte(text))
				put("repo/dists/stable/Release.gpg", det)
			}
			key := " " + strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(s.PublicKeyArmored()), "\n\n", "\n.\n"), "\n", "\n ")
			put("etc/sources.list.d/test.sources", []byte("Types: deb\nURIs: file:"+dir+"/repo\nSuites: stable\nComponents: main\nSigned-By:\n"+key+"\n"))
			put("state/lists/partial/.keep", nil)
			put("cache/archives/partial/.keep", nil)
			put("etc/status", nil)
			put("apt.conf", []byte(`Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "`+dir+`/etc/sources.list.d"; Dir::Etc::parts "/dev/null"; Dir::Etc::main "/dev/null";
Dir::Etc::trusted "/dev/null"; Dir::Etc::trustedparts "/dev/null"; Dir::State "`+dir+`/state"; Dir::State::status "`+dir+`/etc/status"; Dir::Cache "`+dir+`/cache";
APT::Architecture "amd64"; APT::Architectures "amd64"; Acquire::Check-Valid-Until "true"; Acquire::Check-Date "true"; Acquire::Languages "none"; APT::Sandbox::User "root"; APT::Update::Error-Mode "any";
`))
			cmd := exec.CommandContext(t.Context(), apt, "update")
			cmd.Env = append(os.Environ(), "APT_CONFIG="+dir+"/apt.conf", "LC_ALL=C")
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), "W:") || !strings.Contains(string(out), "stable "+form) {
				t.Errorf("%s by %s: %v\n%s", form, k.Public().Algorithm, err, out)
			}
		}
	}
}

package attest_test

import (
	"bytes"
	"errors"
	"testing"

	"example.org/snapd/internal/attest"
)

// Parsing terminates for any input, and accepted input is the same after it is written
// and read again.
func FuzzParse(f *testing.F) {
	for _, c := range hostile(f) {
		if len(c.data) < 10000 {
			f.Add([]byte(c.data))
		}
	}
	key, _ := edKey(f, 0)
	good, err := signed(f, load(f, key), sample()).Envelope.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		for _, statement := range []func() ([]byte, error){
			func() ([]byte, error) {
				a, err := attest.Parse(data)
				if err != nil {
					return nil, err
				}
				once := must(a.Envelope.Encode())(t)
				again, err := attest.Parse(once)
				if err != nil {
					t.Fatalf("%v in %s", err, once)
				}
				if twice := must(again.Envelope.Encode())(t); !bytes.Equal(once, twice) {
					t.Fatalf("%s\nis read as\n%s", once, twice)
				}
				return a.Envelope.Payload, nil
			},
			func() ([]byte, error) { return data, nil },
		} {
			payload, err := statement()
			if err == nil {
				var s *attest.Statement
				if s, err = attest.ParseStatement(payload); err == nil {
					once := must(s.Encode())(t)
					again, err := attest.ParseStatement(once)
					if err != nil {
						t.Fatalf("%v in %s", err, once)
					}
					if twice := must(again.Encode())(t); !bytes.Equal(once, twice) {
						t.Fatalf("%s\nis read as\n%s", once, twice)
					}
				}
			}
			if err != nil && (!errors.Is(err, attest.ErrMalformed) || len(err.Error()) > 2000) {
				t.Fatalf("%v", err)
			}
		}
	})
}

// must returns a value, or fails the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Every builder in an accepted list has a name.
func FuzzBuilders(f *testing.F) {
	_, ed := edKey(f, 0)
	_, pgp := pgpKey(f, "a")
	f.Add([]byte("# c\nbuilder a\n" + ed + "builder b\n" + pgp))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := attest.ParseBuilders(data)
		if err != nil {
			if !errors.Is(err, attest.ErrBuilders) {
				t.Fatal(err)
			}
			return
		}
		seen := map[string]bool{}
		for _, name := range b.Names() {
			if name == "" || seen[name] {
				t.Fatalf("name %q in %q", name, b.Names())
			}
			seen[name] = true
		}
	})
}

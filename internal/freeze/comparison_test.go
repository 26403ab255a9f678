package freeze

import (
	"bytes"
	"errors"
	"testing"
)

// A comparison that is read is written again as the same bytes, and anything else is
// refused.
func FuzzComparison(f *testing.F) {
	const one = `{"a":{"format":"","name":"the published image","sha256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5","size":0},` +
		`"b":{"format":"","name":"the rebuilt image","sha256":"d70e9a40aac1a0eef0a1b9a9e8c0a2d0fa8b5a4e3ce9e4ee7a0a1c0ffb8d1b2c","size":0},` +
		`"codes":[],"differences":[],"exit":4,"packages":[],"verdict":"layout"}`
	if _, err := ParseComparison([]byte(one)); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(one))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseComparison(data)
		if err != nil {
			if !errors.Is(err, ErrUsage) {
				t.Errorf("error %v, expected ErrUsage", err)
			}
			return
		}
		if again, err := EncodeComparison(r); err != nil || !bytes.Equal(again, data) {
			t.Errorf("encoded again: %q, %v, expected %q", again, err, data)
		}
	})
}

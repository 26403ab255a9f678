package sign_test

import (
	"os"
	"strings"
	"testing"

	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// BenchmarkVerifyClearsigned checks an InRelease of the size of Debian's.
func BenchmarkVerifyClearsigned(b *testing.B) {
	armored, err := os.ReadFile("testdata/test-only-rsa.key")
	if err != nil {
		b.Fatal(err)
	}
	k := mustParse(b, armored)
	clear := signtest.ClearSign(b, k, strings.Repeat(" e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 1234567 main/binary-amd64/Packages\n", 1500), day)
	b.SetBytes(int64(len(clear)))
	for b.Loop() {
		if _, err := sign.VerifyClearsigned(clear, sign.VerifyOptions{Keyring: k.Keyring(), At: day}); err != nil {
			b.Fatal(err)
		}
	}
}

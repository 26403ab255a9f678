package indices

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// The recipe writes the same bytes as zlib at level 6.
func TestZlibRecipe(t *testing.T) {
	if _, err := exec.LookPath("perl"); err != nil {
		t.Skip(err)
	}
	var plain bytes.Buffer
	for i := range 3000 {
		fmt.Fprintf(&plain, "Package: package%d\nType: desktop-application\n---\n", i)
	}
	r, err := recipeNamed("zlib 6")
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.run(t.Context(), func(_ context.Context, w io.Writer) error {
		_, err := w.Write(plain.Bytes())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	sum := sha256.New()
	if n, err := io.Copy(sum, p); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	const want = "daeeb413626dca6f4767e702749152c5aa1882305d98071fec82a0f4e0c83b45"
	if got := fmt.Sprintf("%x", sum.Sum(nil)); got != want {
		t.Errorf("SHA-256 %s, expected %s", got, want)
	}
	if v, err := r.version(t.Context()); err != nil || !strings.HasPrefix(v, "zlib 1.") {
		t.Errorf("version %q, %v", v, err)
	}
}

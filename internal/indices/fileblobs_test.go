package indices

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/cas"
)

// fileBlobs is a store of blobs in a directory.
type fileBlobs struct{ dir string }

func (b fileBlobs) put(t *testing.T, write func(io.Writer) error) cas.Digest {
	t.Helper()
	f, err := os.CreateTemp(b.dir, "new")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if err := write(io.MultiWriter(f, sum)); err != nil {
		t.Fatal(err)
	}
	d := cas.Digest(sum.Sum(nil))
	if err := os.Rename(f.Name(), filepath.Join(b.dir, d.String())); err != nil {
		t.Fatal(err)
	}
	return d
}

type openFile struct {
	*os.File
	info cas.Info
}

func (o openFile) Info() cas.Info { return o.info }

func (b fileBlobs) Open(_ context.Context, d cas.Digest) (cas.Blob, error) {
	f, err := os.Open(filepath.Join(b.dir, d.String()))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	return openFile{f, cas.Info{Digest: d, Size: st.Size()}}, err
}

func (b fileBlobs) ReadInto(context.Context, cas.Digest, []byte) (int, error) { panic("not used") }

func (b fileBlobs) Stat(context.Context, cas.Digest) (cas.Info, error) { panic("not used") }

package stream

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A packed file is unpacked with the same bytes, even under a long name.
func TestStream(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	long := filepath.Join(strings.Repeat("d", 200), strings.Repeat("f", 200))
	for name, text := range map[string]string{"manifest.json": "{}", long: "long", "a/empty": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	if err := Pack(t.Context(), from, &buf); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(t.Context(), bytes.NewReader(buf.Bytes()), to, nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"manifest.json": "{}", long: "long", "a/empty": ""} {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if err := Unpack(t.Context(), bytes.NewReader(buf.Bytes()[:1000]), t.TempDir(), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stream that was cut: %v", err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := Pack(t.Context(), from, io.Discard); err == nil {
		t.Error("a symbolic link is packed")
	}
}

// A stream may only contain regular files below its directory, each once.
func TestHostileStream(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	for name, headers := range map[string][]tar.Header{
		"parent":        {file("../x")},
		"inner parent":  {file("a/../../x")},
		"absolute":      {file("/x")},
		"no name":       {file(".")},
		"twice":         {file("x"), file("x")},
		"symbolic link": {{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "/etc"}},
		"link":          {{Typeflag: tar.TypeLink, Name: "x", Linkname: "/etc/passwd"}},
		"device":        {{Typeflag: tar.TypeChar, Name: "x"}},
		"nothing":       nil,
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range headers {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := Unpack(t.Context(), &buf, dir, nil); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if there, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(there) != 1 {
			t.Errorf("%s: %v, %v", name, there, err)
		}
	}
	if err := Unpack(t.Context(), strings.NewReader(strings.Repeat("x", 1024)), t.TempDir(), nil); !errors.Is(err, ErrFormat) {
		t.Errorf("no tar: %v", err)
	}
}

// A file with holes is refused, because the stream does not contain their bytes. Free
// space is also checked within large files.
func TestLargeFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "large"), 3*piece); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"0.0", "0.1", "1.0"} {
		sparse, err := exec.CommandContext(t.Context(), "tar", "--format=posix", "--sparse", "--sparse-version="+version, "-C", dir, "-c", "large").Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := Unpack(t.Context(), bytes.NewReader(sparse), t.TempDir(), nil); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "sparse") {
			t.Errorf("version %s: %v", version, err)
		}
	}
	var buf bytes.Buffer
	if err := Pack(t.Context(), dir, &buf); err != nil {
		t.Fatal(err)
	}
	full, asked, to := errors.New("full"), 0, t.TempDir()
	err := Unpack(t.Context(), &buf, to, func() error {
		if asked++; asked > 2 {
			return full
		}
		return nil
	})
	if st, err2 := os.Stat(filepath.Join(to, "large")); err2 != nil || st.Size() != 2*piece || !errors.Is(err, full) {
		t.Errorf("%v, %v after %d questions: expected an end after two pieces", err, err2, asked)
	}
}

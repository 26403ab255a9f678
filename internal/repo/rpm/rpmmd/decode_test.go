package rpmmd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/needs"
)

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestDecode decodes the output of the real compressors.
func TestDecode(t *testing.T) {
	plain := []byte(primaryDoc(50, 5))
	for ext, cmd := range map[string][]string{
		".gz": {"gzip", "-k"}, ".bz2": {"bzip2", "-k"}, ".xz": {"xz", "-k"}, ".zst": {"zstd", "-q"}, "": nil,
		".zck": {"zck"},
	} {
		t.Run("ext"+ext, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "primary.xml")
			if err := os.WriteFile(file, plain, 0o600); err != nil {
				t.Fatal(err)
			}
			if cmd != nil {
				needs.Program(t, cmd[0])
				args := append(cmd[1:], file)
				if ext == ".zck" {
					args = []string{"-o", file + ".zck", file}
				}
				run(t, cmd[0], args...)
			}
			packed, err := os.ReadFile(file + ext)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeAll(file+ext, packed)
			if err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%v, equal: %v", err, bytes.Equal(got, plain))
			}
			if ext == "" {
				return
			}
			if _, err := decodeAll(file+ext, packed[:len(packed)-9]); err == nil {
				t.Error("a truncated file was accepted")
			}
			if _, err := decodeAll(file+ext, []byte("<html>not found</html>")); err == nil {
				t.Error("HTML was accepted")
			}
		})
	}
}

func decodeAll(name string, packed []byte) ([]byte, error) {
	r, err := Decode(name, bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestZchunk(t *testing.T) {
	needs.Program(t, "zck")
	dir := t.TempDir()
	plain := []byte(filelistsDoc(80, 40))
	file := filepath.Join(dir, "filelists.xml")
	dict := filepath.Join(dir, "dict")
	if err := os.WriteFile(file, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dict, plain[:4000], 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"dictionary":   {"-D", dict},
		"split":        {"-m", "-s", "<package"},
		"uncompressed": {"--compression-format=none"},
		"open sums":    {"-u"},
		"sha512":       {"-h", "sha512"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.zck")
			run(t, "zck", append(args, "-o", out, file)...)
			packed, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeAll(out, packed)
			if err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%v, equal: %v", err, bytes.Equal(got, plain))
			}
			h, err := ReadZchunkHeader(bufio.NewReader(bytes.NewReader(packed)))
			if err != nil {
				t.Fatal(err)
			}
			if h.OpenSize != int64(len(plain)) || h.Size+h.DataSize != int64(len(packed)) {
				t.Errorf("sizes: header %d, data %d, plain %d", h.Size, h.DataSize, h.OpenSize)
			}
			// A change of any byte is detected.
			for i := 0; i < len(packed); i += 1 + len(packed)/200 {
				bad := bytes.Clone(packed)
				bad[i] ^= 0x20
				if got, err := decodeAll(out, bad); err == nil && !bytes.Equal(got, plain) {
					t.Fatalf("byte %d flipped: other content was accepted", i)
				}
			}
			bad := bytes.Clone(packed)
			bad[len(bad)-3] ^= 1
			if _, err := decodeAll(out, bad); !errors.Is(err, ErrMismatch) {
				t.Errorf("a flipped byte of data: %v", err)
			}
			bad = bytes.Clone(packed)
			bad[h.Size-1] ^= 1
			if _, err := decodeAll(out, bad); !errors.Is(err, ErrMismatch) {
				t.Errorf("a flipped byte of the header: %v", err)
			}
		})
	}
}

// The checksum of a zchunk header equals the one that createrepo_c writes to repomd.xml.
func TestZchunkHeaderChecksum(t *testing.T) {
	needs.Program(t, "createrepo_c")
	dir := t.TempDir()
	run(t, "createrepo_c", "--zck", "-q", dir)
	doc, err := os.ReadFile(filepath.Join(dir, "repodata/repomd.xml"))
	if err != nil {
		t.Fatal(err)
	}
	md, err := ParseRepoMD(doc)
	if err != nil {
		t.Fatal(err)
	}
	d := md.Find("primary_zck")
	if d == nil {
		t.Skip("this createrepo_c writes no zchunk files")
	}
	f, err := os.Open(filepath.Join(dir, d.Path))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := ReadZchunkHeader(bufio.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	if h.Checksum != d.HeaderChecksum || h.Size != d.HeaderSize {
		t.Errorf("header %s of %d bytes, repomd.xml says %s, %d", h.Checksum, h.Size, d.HeaderChecksum, d.HeaderSize)
	}
}

func FuzzZchunk(f *testing.F) {
	// A file without compression, written by hand.
	f.Add([]byte("\x00ZCK1"))
	f.Add([]byte(fmt.Sprintf("\x00ZCK1\x81%032d\x85abcde", 1)))
	for _, name := range []string{"plain.zck", "dict.zck", "none.zck"} {
		if b, err := os.ReadFile("testdata/" + name); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewZchunkReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<26))
	})
}

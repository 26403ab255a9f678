package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/repo/rpm/rpmtest"
)

// Numbers of packages that change between the states of the deb upstream: changed1 from
// the first to the second, and changed2 others from the second to the third.
const (
	changed1 = 63
	changed2 = 100
)

// stanzas returns at most max stanzas of an index like Debian bookworm, main, amd64, and
// a description of their source. It reads apt's list on this machine if there is one, and
// otherwise generates them.
func stanzas(max int) ([]string, string, error) {
	files, _ := filepath.Glob("/var/lib/apt/lists/*_main_binary-amd64_Packages*")
	best, size := "", int64(0)
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && st.Size() > size {
			best, size = f, st.Size()
		}
	}
	if size > 10<<20 {
		f, err := os.Open(best)
		if err != nil {
			return nil, "", err
		}
		defer f.Close()
		var r io.Reader
		switch filepath.Ext(best) {
		case ".lz4":
			r = lz4.NewReader(f)
		default:
			if strings.HasSuffix(best, "_Packages") {
				r = f
			}
		}
		if r != nil {
			data, err := io.ReadAll(bufio.NewReaderSize(r, 1<<20))
			if err != nil {
				return nil, "", err
			}
			out := strings.Split(strings.TrimRight(string(data), "\n"), "\n\n")
			return out[:min(max, len(out))], "this machine's apt lists", nil
		}
	}
	return synthetic(max), "made up in Debian's shape", nil
}

// synthetic generates n stanzas of about 800 bytes, the size of Debian's.
func synthetic(n int) []string {
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4000)
	for i := range words {
		w := make([]byte, 3+r.IntN(8))
		for k := range w {
			w[k] = "etaoinshrdlucmfwypvbgk"[r.IntN(22)]
		}
		words[i] = string(w)
	}
	word := func() string { return words[min(r.IntN(len(words)), r.IntN(len(words)))] }
	out := make([]string, n)
	for i := range out {
		name := fmt.Sprintf("%s-%s%d", word(), word(), i)
		var deps []string
		for range 1 + r.IntN(12) {
			deps = append(deps, fmt.Sprintf("lib%s%d (>= %d.%d.%d)", word(), r.IntN(9), r.IntN(9), r.IntN(40), r.IntN(9)))
		}
		var tags []string
		for range r.IntN(8) {
			tags = append(tags, word()+"::"+word())
		}
		version := fmt.Sprintf("%d.%d.%d-%d", r.IntN(9), r.IntN(30), r.IntN(20), 1+r.IntN(5))
		sum := sha256.Sum256([]byte(name))
		out[i] = fmt.Sprintf("Package: %s\nSource: %s\nVersion: %s\nInstalled-Size: %d\nMaintainer: Debian %s Team <%s@lists.example.org>\nArchitecture: amd64\nDepends: %s\nDescription: %s %s %s %s\nHomepage: https://%s.example.org/%s\nDescription-md5: %x\nTag: %s\nSection: %s\nPriority: optional\nFilename: pool/main/%c/%s/%s_%s_amd64.deb\nSize: 1\nMD5sum: 0\nSHA256: 0",
			name, name, version, 10+r.IntN(90000), word(), word(), strings.Join(deps, ", "), word(), word(), word(), word(), word(), word(), sum[:16], strings.Join(tags, ", "), word(), name[0], name, name, version)
	}
	return out
}

// bump appends a suffix to the version in a stanza and in its file name.
func bump(p, suffix string) string {
	lines := strings.Split(p, "\n")
	for i, l := range lines {
		switch {
		case strings.HasPrefix(l, "Version: "):
			lines[i] += suffix
		case strings.HasPrefix(l, "Filename: "):
			at := strings.LastIndexByte(l, '_')
			lines[i] = l[:at] + suffix + l[at:]
		}
	}
	return strings.Join(lines, "\n")
}

// withTinyBody sets the size and digests in a stanza to those of the body that the
// upstream serves.
func withTinyBody(p string) string {
	lines := strings.Split(p, "\n")
	out := lines[:0]
	file := ""
	for _, l := range lines {
		k, v, _ := strings.Cut(l, ": ")
		switch k {
		case "Filename":
			file = v
			out = append(out, l)
		case "Size", "MD5sum", "SHA1", "SHA256", "SHA512":
		default:
			out = append(out, l)
		}
	}
	body := tinyBody(file)
	return strings.Join(append(out, fmt.Sprintf("Size: %d\nMD5sum: %x\nSHA256: %x", len(body), md5.Sum(body), sha256.Sum256(body))), "\n")
}

// makeDeb writes the states of the deb upstream, unless they exist.
func (b *bench) makeDeb(ctx context.Context) error {
	dir := filepath.Join(b.fixtures, "deb")
	done := filepath.Join(dir, fmt.Sprintf("done-%d", b.packages))
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	pars, from, err := stanzas(b.packages)
	if err != nil {
		return err
	}
	fmt.Printf("  making the upstream of %d deb packages (%s), once\n", len(pars), from)
	base := time.Now().UTC().Truncate(time.Second).Add(-24 * time.Hour)
	var eg errgroup.Group
	for state := range 3 {
		if state > 0 {
			n, suffix, first := changed1, "+b1", 7
			if state == 2 {
				n, suffix, first = changed2, "+b2", 11
			}
			for i := range n {
				k := first + i*(len(pars)/n)
				pars[k%len(pars)] = bump(pars[k%len(pars)], suffix)
			}
		}
		var text bytes.Buffer
		for _, p := range pars {
			text.WriteString(withTinyBody(p))
			text.WriteString("\n\n")
		}
		eg.Go(func() error {
			return b.suite(ctx, filepath.Join(dir, fmt.Sprint(state)), "stable", text.Bytes(), base.Add(time.Duration(state)*time.Hour), "-6")
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	var list strings.Builder
	for i, p := range pars {
		if i%(max(1, len(pars)/2000)) != 0 {
			continue
		}
		var name, version, arch string
		for l := range strings.SplitSeq(p, "\n") {
			switch k, v, _ := strings.Cut(l, ": "); k {
			case "Package":
				name = v
			case "Version":
				version = v
			case "Architecture":
				arch = v
			}
		}
		fmt.Fprintf(&list, "%s:%s=%s\n", name, arch, version)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest"), firstLines(list.String(), 2000), 0o600); err != nil {
		return err
	}
	return os.WriteFile(done, nil, 0o600)
}

func firstLines(s string, n int) []byte {
	lines := strings.SplitAfter(s, "\n")
	return []byte(strings.Join(lines[:min(n, len(lines))], ""))
}

// suite writes a signed suite with one index, in the variants that Debian has: xz and gz,
// by hash.
func (b *bench) suite(ctx context.Context, dir, name string, packages []byte, date time.Time, level string) error {
	sub := filepath.Join(dir, "dists", name, "main", "binary-amd64")
	if err := os.MkdirAll(filepath.Join(sub, "by-hash", "SHA256"), 0o700); err != nil {
		return err
	}
	var list strings.Builder
	entry := func(suffix string, data []byte) error {
		sum := sha256.Sum256(data)
		fmt.Fprintf(&list, " %x %d main/binary-amd64/Packages%s\n", sum, len(data), suffix)
		if suffix == "" {
			return nil
		}
		file := filepath.Join(sub, "Packages"+suffix)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return err
		}
		if err := os.Chtimes(file, date, date); err != nil {
			return err
		}
		return os.Link(file, filepath.Join(sub, "by-hash", "SHA256", hex.EncodeToString(sum[:])))
	}
	if err := entry("", packages); err != nil {
		return err
	}
	for _, c := range [][]string{{".xz", "xz", level, "-c"}, {".gz", "gzip", "-n", "-9", "-c"}} {
		cmd := exec.CommandContext(ctx, c[1], c[2:]...)
		cmd.Stdin = bytes.NewReader(packages)
		data, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%s: %w", c[1], err)
		}
		if err := entry(c[0], data); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("Origin: Bench\nLabel: Bench\nSuite: %s\nCodename: %s\nDate: %s\nAcquire-By-Hash: yes\nArchitectures: amd64\nComponents: main\nDescription: benchmark\nSHA256:\n%s",
		name, name, date.Format("Mon, 02 Jan 2006 15:04:05 UTC"), list.String())
	signed, err := b.key.signer.ClearSign([]byte(text), date)
	if err != nil {
		return err
	}
	detached, err := b.key.signer.SignDetached([]byte(text), date)
	if err != nil {
		return err
	}
	for file, data := range map[string][]byte{"InRelease": signed, "Release": []byte(text), "Release.gpg": detached} {
		file = filepath.Join(dir, "dists", name, file)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return err
		}
		if err := os.Chtimes(file, date, date); err != nil {
			return err
		}
	}
	return nil
}

// Numbers and sizes in bytes of the packages in the upstream of section "files".
const (
	largeFiles = 64
	largeSize  = 16 << 20
	smallFiles = 2000
	smallSize  = 10_000
)

// makeFiles writes an upstream of packages with larger bodies, unless it exists.
func (b *bench) makeFiles(ctx context.Context) error {
	dir := filepath.Join(b.fixtures, "files")
	done := filepath.Join(dir, "done-1")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	fmt.Printf("  making an upstream of %d files of %d MiB and %d of %d bytes, once\n", largeFiles, largeSize>>20, smallFiles, smallSize)
	r := rand.NewChaCha8([32]byte{1})
	var text bytes.Buffer
	put := func(name string, size int) error {
		data := make([]byte, size)
		if _, err := r.Read(data); err != nil {
			return err
		}
		file := "pool/main/" + name[:1] + "/" + name + "/" + name + "_1.0_amd64.deb"
		fmt.Fprintf(&text, "Package: %s\nVersion: 1.0\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\nDescription: a file\nFilename: %s\nSize: %d\nMD5sum: %x\nSHA256: %x\n\n", name, file, size, md5.Sum(data), sha256.Sum256(data))
		full := filepath.Join(dir, "0", filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			return err
		}
		return os.WriteFile(full, data, 0o600)
	}
	for i := range largeFiles {
		if err := put(fmt.Sprintf("large%02d", i), largeSize); err != nil {
			return err
		}
	}
	for i := range smallFiles {
		if err := put(fmt.Sprintf("small%04d", i), smallSize); err != nil {
			return err
		}
	}
	if err := b.suite(ctx, filepath.Join(dir, "0"), "stable", text.Bytes(), time.Now().UTC().Truncate(time.Second).Add(-24*time.Hour), "-6"); err != nil {
		return err
	}
	return os.WriteFile(done, nil, 0o600)
}

// makeRPM writes an upstream like Fedora, unless it exists.
func (b *bench) makeRPM(context.Context) error {
	dir := filepath.Join(b.fixtures, "rpm")
	done := filepath.Join(dir, fmt.Sprintf("done-2-%d", b.rpms))
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	fmt.Printf("  making the upstream of %d rpm packages, once\n", b.rpms)
	at := time.Now().UTC().Truncate(time.Second).Add(-24 * time.Hour)
	l, err := rpmtest.NewLarge(b.rpms, b.key.signer, ".zst", at, nil)
	if err != nil {
		return err
	}
	repomd := l.File("repodata/repomd.xml")
	paths := []string{"repodata/repomd.xml", "repodata/repomd.xml.asc"}
	for s := string(repomd); ; {
		_, rest, ok := strings.Cut(s, `<location href="`)
		if !ok {
			break
		}
		var p string
		p, s, _ = strings.Cut(rest, `"`)
		paths = append(paths, p)
	}
	for _, p := range paths {
		full := filepath.Join(dir, "0", filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(full, l.File(p), 0o600); err != nil {
			return err
		}
		if err := os.Chtimes(full, at, at); err != nil {
			return err
		}
	}
	var list strings.Builder
	for i := 0; i < b.rpms; i += max(1, b.rpms/2000) {
		p := l.Package(i)
		fmt.Fprintln(&list, p.NEVRA().NVRA())
		// Build and sign the packages here: if the upstream did so on request, that
		// would take longer than the freeze.
		full := filepath.Join(dir, "0", filepath.FromSlash(p.Href()))
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(full, l.File(p.Href()), 0o600); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest"), firstLines(list.String(), 2000), 0o600); err != nil {
		return err
	}
	return os.WriteFile(done, nil, 0o600)
}

// treeSize returns the number of files below a directory and their size in bytes.
func treeSize(dir string) (files int, size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			files++
			size += info.Size()
		}
		return nil
	})
	return files, size, err
}

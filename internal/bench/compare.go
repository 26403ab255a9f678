package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"example.org/snapd/internal/api"
)

// planted are the differences between the two images: a path, the code of the cause that
// the comparison must report, and the content in the first and second image.
var planted = []struct{ path, code, a, b string }{
	{"etc/hostname", "host-name", "alpha\n", "buildd-02\n"},
	{"etc/machine-id", "random-id", strings.Repeat("0a", 16) + "\n", strings.Repeat("f3", 16) + "\n"},
	{"etc/shadow", "shadow-day", "root:*:20700:0:99999:7:::\n", "root:*:20701:0:99999:7:::\n"},
	{"etc/ld.so.cache", "cache-by-name", "glibc\x00\x01", "glibc\x00\x02"},
	{"usr/share/order", "line-order", "b\na\nc\n", "c\nb\na\n"},
	{"usr/share/date", "date-in-text", "Sun Nov 22 16:00:00 UTC 2026\n", "Mon Nov 23 07:12:59 UTC 2026\n"},
	{"usr/share/path", "build-path", "/build/tool-Xy12Za/src/a.h\n", "/build/tool-PPqq77/src/a.h\n"},
	{"usr/share/kernel", "kernel-version", "6.1.0-18-amd64\n", "6.1.0-21-amd64\n"},
	{"usr/share/a.gz", "gzip-time", "\x1f\x8b\x08\x00\x01\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x1f\x8b\x08\x00\x02\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
	{"usr/share/touched", "mtime", "x", "x"},
}

// runCompare measures the explanation of the differences between two images, and checks
// that it reports exactly the planted causes. It measures diffoscope on the same files.
// Long because it makes the files first.
func runCompare(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "compare")
	tree := filepath.Join(dir, "tree")
	if err := compareTree(tree, b.images); err != nil {
		return err
	}
	var images, tars [2]string
	at := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	for i := range images {
		for _, p := range planted {
			name, when := filepath.Join(tree, p.path), at
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(name, []byte([]string{p.a, p.b}[i]), 0o644); err != nil {
				return err
			}
			if p.code == "mtime" && i == 1 {
				when = at.Add(time.Hour)
			}
			if err := os.Chtimes(name, when, when); err != nil {
				return err
			}
		}
		for _, d := range []string{"etc", "usr", "usr/share", "."} {
			if err := os.Chtimes(filepath.Join(tree, d), at, at); err != nil {
				return err
			}
		}
		images[i], tars[i] = filepath.Join(dir, fmt.Sprintf("%d.squashfs", i)), filepath.Join(dir, fmt.Sprintf("%d.tar", i))
		for _, args := range [][]string{
			{"mksquashfs", tree, images[i], "-comp", "zstd", "-Xcompression-level", "3", "-all-root", "-no-progress", "-quiet", "-mkfs-time", "0"},
			{"tar", "--sort=name", "-C", tree, "-cf", tars[i], "."},
		} {
			if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", args[0], err, tail(out))
			}
		}
	}
	var rules strings.Builder
	for _, p := range planted {
		fmt.Fprintf(&rules, "/%s %s\n", p.path, p.code)
	}
	expected := filepath.Join(dir, "expected")
	if err := os.WriteFile(expected, []byte(rules.String()), 0o600); err != nil {
		return err
	}
	for _, in := range []struct {
		what  string
		pair  [2]string
		read  string // reads the two inputs whole
		share float64
	}{
		{"two images", images, `for f; do unsquashfs -quiet -no-progress -no-xattrs -force -dest "$out" "$f" && rm -rf "$out"; done`, 5},
		{"two tar archives", tars, `sha256sum "$@"`, 8},
	} {
		reader := exec.CommandContext(ctx, "sh", "-ec", in.read, "sh", in.pair[0], in.pair[1])
		reader.Env = append(os.Environ(), "out="+filepath.Join(dir, "unpacked"))
		read, err := b.measure(ctx, reader)
		if err != nil {
			return err
		}
		ours, err := b.measure(ctx, exec.CommandContext(ctx, filepath.Join(b.bin, "snapctl"), "compare", in.pair[0], in.pair[1], "--expected", expected, "--json"))
		if err != nil {
			return err
		}
		var r api.CompareResult
		if err := json.Unmarshal(ours.out, &r); err != nil {
			return err
		}
		if len(r.Differences) != len(planted) || r.Expected != len(planted) || len(r.Unused) > 0 {
			return fmt.Errorf("compare %s: expected %d causes, found %s", in.what, len(planted), ours.out)
		}
		st, err := os.Stat(in.pair[0])
		if err != nil {
			return err
		}
		b.against(st.Size(), in.what[len("two "):]+" each")
		work := fmt.Sprintf("explain %s of %s that differ by %d causes", in.what, mega(st.Size()), len(planted))
		b.timed(work+", beside reading them", &read, ours, in.share, 0.5)
		if !b.quick {
			if err := b.diffoscope(ctx, dir, in.pair, ours); err != nil {
				return err
			}
		}
	}
	return nil
}

// diffoscope adds a row with the cost of diffoscope for two files, and notes how many of
// the planted differences its report shows.
func (b *bench) diffoscope(ctx context.Context, dir string, pair [2]string, ours cost) error {
	report := filepath.Join(dir, "diffoscope.txt")
	c, err := b.measure(ctx, exec.CommandContext(ctx, "diffoscope", "--text", report, pair[0], pair[1]))
	// It exits with 1 if it finds differences, as it must here.
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		return fmt.Errorf("diffoscope: expected exit status 1: %w", err)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		return err
	}
	shown := 0
	for _, p := range planted {
		if strings.Contains(string(text), p.path) {
			shown++
		}
	}
	b.timed("… beside diffoscope", &c, ours, 0.5, 0)
	b.rows[len(b.rows)-1].note += fmt.Sprintf("; its report shows %d of the %d paths", shown, len(planted))
	return nil
}

// compareTree writes files that compress to about half their size: to megabytes in all.
func compareTree(dir string, megabytes int) error {
	const size = 100 << 10
	rnd := rand.NewChaCha8([32]byte{1})
	for i := range megabytes * 2 << 20 / size {
		name := filepath.Join(dir, "usr/lib", fmt.Sprintf("d%02d/f%04d", i%50, i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		data := make([]byte, size)
		rnd.Read(data[:size/2])
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

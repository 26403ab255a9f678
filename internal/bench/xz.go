package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"example.org/snapd/internal/lzma"
)

// xzRuns is how often each decoder runs. The fastest run counts, because other work on
// the machine can only make a run slower.
const xzRuns = 5

// runXZ decodes the same data with our decoder and with xz, one after the other, and
// compares CPU time, which does not include other work on the machine.
func runXZ(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "xz")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, in := range []struct {
		what string
		args []string
		data []byte
	}{
		{"an executable in blocks of 1 MiB", []string{"--check=crc32", "--x86", "--lzma2=preset=6,dict=1MiB", "--block-size=1MiB"}, executable()},
		{"an index", []string{"-6e", "-T2"}, indexText(30000)},
	} {
		file := filepath.Join(dir, "data.xz")
		cmd := exec.CommandContext(ctx, "xz", append(in.args, "-zc")...)
		cmd.Stdin = bytes.NewReader(in.data)
		packed, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("compress %s: %w", in.what, err)
		}
		if err := os.WriteFile(file, packed, 0o600); err != nil {
			return err
		}
		var other, ours cost
		for range xzRuns {
			theirs, err := b.measure(ctx, exec.CommandContext(ctx, "xz", "-dc", "-T1", file))
			if err != nil {
				return err
			}
			own, err := b.measure(ctx, exec.CommandContext(ctx, os.Args[0], "@unxz", file))
			if err != nil {
				return err
			}
			if !bytes.Equal(own.out, in.data) || !bytes.Equal(theirs.out, in.data) {
				return fmt.Errorf("%s: the decoded bytes differ from the original", in.what)
			}
			if other.cpu == 0 || theirs.cpu < other.cpu {
				other = theirs
			}
			if ours.cpu == 0 || own.cpu < ours.cpu {
				ours = own
			}
		}
		rate := func(d time.Duration) string { return fmt.Sprintf("%.0f MB/s", float64(len(in.data))/1e6/d.Seconds()) }
		speed := other.cpu.Seconds() / ours.cpu.Seconds()
		b.add(row{
			work: "decode " + in.what + " (" + mega(int64(len(packed))) + "), of processor time", other: rate(other.cpu) + " (xz -dc -T1)",
			ours: rate(ours.cpu), ratio: fmt.Sprintf("%.2f", speed), bound: ">= 0.70 of it", ok: judge(speed >= 0.7),
		})
	}
	return nil
}

// executable returns the content of this program's file.
func executable() []byte {
	exe, err := os.Executable()
	if err != nil {
		return nil
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		return nil
	}
	return data
}

// indexText returns a Packages index with n stanzas.
func indexText(n int) []byte {
	var b bytes.Buffer
	for _, p := range synthetic(n) {
		b.WriteString(withTinyBody(p))
		b.WriteString("\n\n")
	}
	return b.Bytes()
}

// unxz decodes a file and writes the content to standard output.
func unxz(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(os.Stdout, lzma.NewReader(f, 64<<20))
	return err
}

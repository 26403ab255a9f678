// Command iukbench times the making of kits and images, for bench.sh. It prints
// one line: seconds, peak RssAnon in bytes, bytes of the outcome.
//
//	iukbench kit NEW OUTDIR OLD...     a kit from each OLD to NEW
//	iukbench pack COMPRESSOR BLOCKSIZE TAR OUT
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/iuk"
	"example.org/snapd/internal/squashfs"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 5 {
		log.Fatal("usage: iukbench kit NEW OUTDIR OLD... | iukbench pack COMPRESSOR BLOCKSIZE TAR OUT")
	}
	debug.SetMemoryLimit(iuk.MemoryGoal) // as snapctl does
	var peak atomic.Int64
	go func() {
		for ; ; time.Sleep(5 * time.Millisecond) {
			peak.Store(max(peak.Load(), rssAnon()))
		}
	}()
	start := time.Now()
	size, err := run(context.Background(), os.Args[1], os.Args[2:])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.2f %d %d\n", time.Since(start).Seconds(), max(peak.Load(), rssAnon()), size)
}

// rssAnon reads the process's anonymous resident memory, in bytes (proc(5)).
func rssAnon() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(b, []byte("RssAnon:"))
	f := strings.Fields(string(rest))
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(f[0], 10, 64)
	return n * 1024
}

func run(ctx context.Context, what string, args []string) (int64, error) {
	switch what {
	case "kit":
		return kit(ctx, args[0], args[1], args[2:])
	case "pack":
		return pack(ctx, args)
	}
	return 0, fmt.Errorf("unknown command %q", what)
}

func kit(ctx context.Context, to, dir string, from []string) (int64, error) {
	open := func(name string) (iuk.Input, error) {
		f, err := os.Open(name)
		if err != nil {
			return iuk.Input{}, err
		}
		st, err := f.Stat()
		if err != nil {
			return iuk.Input{}, err
		}
		return iuk.Input{R: f, Size: st.Size(), Name: name}, nil
	}
	in, err := open(to)
	if err != nil {
		return 0, err
	}
	o := iuk.CreateOptions{To: iuk.Source{Version: "2.0", Image: in}, Epoch: time.Unix(1_700_000_000, 0), Output: dir}
	for i, name := range from {
		in, err := open(name)
		if err != nil {
			return 0, err
		}
		o.From = append(o.From, iuk.Source{Version: fmt.Sprintf("1.%d", i), Image: in})
	}
	res, err := iuk.Create(ctx, o)
	if err != nil {
		return 0, err
	}
	return res[0].Diff.Size, nil
}

func pack(ctx context.Context, args []string) (int64, error) {
	if len(args) != 4 {
		return 0, fmt.Errorf("pack takes COMPRESSOR BLOCKSIZE TAR OUT")
	}
	c, err := squashfs.ParseCompressor(args[0])
	if err != nil {
		return 0, err
	}
	bs, err := strconv.Atoi(args[1])
	if err != nil {
		return 0, err
	}
	in, err := os.Open(args[2])
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.Create(args[3])
	if err != nil {
		return 0, err
	}
	st, err := squashfs.FromTar(ctx, out, in, squashfs.Options{Compressor: c, BlockSize: bs, DropXattrs: func(string, string) {}})
	if err != nil {
		out.Close()
		return 0, err
	}
	return st.Size, out.Close()
}

// Command bench compares snapd with the programs that are commonly used for the
// same work. It measures both in one run on one machine, because ratios can be
// compared between machines and times cannot. Its upstreams are local servers on
// the loopback interface.
//
//	go run ./internal/bench [-dir D] [-keep] [section…]
//
// Each section prints a table: the work, the other program's cost, snapd's cost,
// their ratio, the bound, and whether snapd is within it. BENCHMARKS.md explains
// how each row is measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// section is a group of rows that share an upstream and a data directory.
type section struct {
	name  string
	about string
	run   func(context.Context, *bench) error
}

var sections = []section{
	{"deb", "sync, freeze, verify and diff of 63,000 Debian packages, beside aptly", runDeb},
	{"history", "metadata after 200 syncs that changed 63 packages each", runHistory},
	{"past", "questions of rebuilders about 63,000 packages and 1,500 generations, beside a small file", runPast},
	{"indices", "indices of old generations, made again from stanzas, beside xz", runIndices},
	{"files", "verify --deep and HTTP, beside sha256sum and nginx", runFiles},
	{"cluster", "PostgreSQL, S3 and several nodes, beside the embedded form", runCluster},
	{"scale", "memory of nodes with ten million package entries (only when named: it takes half an hour)", runScale},
	{"xz", "decoding, beside xz", runXZ},
	{"team", "packages of one's own, channels, recordings, beside aptly and sha256sum", runTeam},
	{"rpm", "sync and freeze of 60,000 rpm packages, beside dnf", runRPM},
	{"compare", "differences of images explained, beside diffoscope", runCompare},
	{"iuk", "upgrade kits and images, beside overlay mounts, rsync and mksquashfs (as root, and long)", runIUK},
}

// bench is one run.
type bench struct {
	dir      string // data directories of this run
	fixtures string // upstreams, which later runs use again
	bin      string // directory with snapd and snapctl
	profile  string // file for a CPU profile of snapd
	heap     string // file for a heap profile of snapd
	packages int
	rpms     int
	images   int // size of an image to compare, in MB
	entries  int // package entries in the database of scale
	quick    bool
	rows     []row
	size     int64  // size with which memory is compared, in bytes
	what     string // and its description
	up       *upstream
	key      *fixtureKey
}

func main() {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "@") {
		if err := helper(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	b := &bench{}
	var dir string
	var keep, list bool
	flag.StringVar(&dir, "dir", filepath.Join(os.TempDir(), fmt.Sprintf("snapd-bench-%d", os.Getuid())), "work `directory`; later runs use its upstreams again")
	flag.BoolVar(&keep, "keep", false, "keep the data directories of this run")
	flag.BoolVar(&list, "list", false, "list the sections")
	flag.BoolVar(&b.quick, "ours", false, "measure only snapd, not the other programs")
	flag.IntVar(&b.packages, "packages", 63_000, "`number` of deb packages upstream; fewer if apt's lists are used and contain fewer")
	flag.IntVar(&b.rpms, "rpms", 60_000, "`number` of rpm packages upstream")
	flag.IntVar(&b.images, "images", 300, "`size` of the images of compare, in MB")
	flag.IntVar(&b.entries, "entries", 10_000_000, "`number` of package entries of scale")
	flag.StringVar(&b.profile, "cpuprofile", "", "run snapd in a process of this program and write its CPU profile to `file`")
	flag.StringVar(&b.heap, "memprofile", "", "likewise write a heap profile to `file` when snapd stops")
	flag.Parse()
	if list {
		for _, s := range sections {
			fmt.Printf("%-8s %s\n", s.name, s.about)
		}
		return nil
	}
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return fmt.Errorf("no section %q (-list shows them)", name)
		}
	}
	var err error
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	b.fixtures = filepath.Join(dir, "upstream")
	if err := os.MkdirAll(b.fixtures, 0o700); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(dir, "run-"); err != nil {
		return err
	}
	// Remove everything at the end, not after each section: ext4 skips recently deleted
	// inodes for half a minute, which makes creating files many times slower.
	if !keep {
		defer os.RemoveAll(b.dir)
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	if b.key, err = loadFixtureKey(b.fixtures); err != nil {
		return err
	}
	fmt.Printf("%s, %d cores, %s, load %s\n", runtime.GOARCH, runtime.NumCPU(), runtime.Version(), load())
	for _, s := range sections {
		if named := slices.Contains(flag.Args(), s.name); !named && (flag.NArg() > 0 || s.name == "scale") {
			continue
		}
		fmt.Printf("\n%s: %s\n", s.name, s.about)
		start := time.Now()
		b.rows = nil
		err := s.run(ctx, b)
		if len(b.rows) > 0 {
			b.print()
		}
		fmt.Printf("  (%s in %.0f s, load %s)\n", s.name, time.Since(start).Seconds(), load())
		if b.up != nil {
			b.up.stop()
			b.up = nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// load returns the machine's load averages, to help readers compare times.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(data))
	return strings.Join(f[:min(3, len(f))], " ")
}

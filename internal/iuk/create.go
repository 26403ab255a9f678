package iuk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/squashfs"
)

// Source is one version of the system.
type Source struct {
	Version string
	Image   Input
	// Manifest is the SHA-256 in hex of the frozen manifest that the image was
	// built from, "" if it is not known. It goes into provenance.json.
	Manifest string
}

// CreateOptions says which kits to make.
type CreateOptions struct {
	From []Source // old versions; one kit is made for each
	To   Source   // the new version, read once for all
	// Product and Arch are words of the kits' names. Defaults: Tails, amd64.
	Product, Arch string
	// Epoch is the time of all that a kit itself holds: its members, the
	// difference's whiteouts, both images. Files in the difference have their
	// own times.
	Epoch time.Time
	// Output is a directory, which is where the kits go under their names, or
	// with one From a file name.
	Output string
	// IgnoreIfSameContent: see DiffOptions.
	IgnoreIfSameContent []string
	// Workers bounds the goroutines. Default: GOMAXPROCS. It does not affect
	// the bytes.
	Workers int
	// Progress is told of the work done and known of.
	Progress func(done, total int64)
}

// Result is one kit that was made.
type Result struct {
	From, To   string
	Path       string // of the file
	Size       int64  // bytes
	Diff       DiffStats
	Provenance Provenance
}

func (o *CreateOptions) check() error {
	if o.Product == "" {
		o.Product = "Tails"
	}
	if o.Arch == "" {
		o.Arch = "amd64"
	}
	if len(o.From) == 0 {
		return errors.New("create kit: no old version is given")
	}
	for _, w := range []string{o.Product, o.Arch} {
		if !wordRE.MatchString(w) {
			return fmt.Errorf("create kit: %q is no word of a kit's name", w)
		}
	}
	seen := map[string]bool{}
	for _, s := range append([]Source{o.To}, o.From...) {
		if !versionRE.MatchString(s.Version) {
			return fmt.Errorf("create kit: version %q is not one", s.Version)
		}
		if seen[s.Version] {
			return fmt.Errorf("create kit: version %s is given twice", s.Version)
		}
		seen[s.Version] = true
		if s.Manifest != "" {
			if _, err := cas.ParseDigest(s.Manifest); err != nil {
				return fmt.Errorf("create kit: manifest of %s: %w", s.Version, err)
			}
		}
	}
	if e := o.Epoch.Unix(); o.Epoch.IsZero() || e < 0 || e > math.MaxUint32 {
		return fmt.Errorf("create kit: epoch %v is not from 1970 to 2106", o.Epoch)
	}
	return nil
}

// MemoryGoal is the soft limit of memory, in bytes, for programs that call
// Create or Verify (see runtime/debug.SetMemoryLimit): without one, garbage
// doubles what they need.
const MemoryGoal = 128 << 20

// Create makes a kit of format 2 for each old version. A kit appears under its
// name when it is complete. The bytes depend on the images, versions, product,
// architecture, manifests, epoch and globs, and on nothing else.
func Create(ctx context.Context, o CreateOptions) ([]Result, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	limits := squashfs.Limits{CacheBytes: 1, MetaCacheBytes: 512 << 10}
	to, err := o.To.Image.open(limits)
	if err != nil {
		return nil, err
	}
	var from []*openInput
	var olds []*squashfs.Reader
	for _, s := range o.From {
		in, err := s.Image.open(limits)
		if err != nil {
			return nil, err
		}
		if err := checkBase(ctx, in); err != nil {
			return nil, err
		}
		from = append(from, in)
		olds = append(olds, in.r)
	}
	// Digests are computed beside all else; only provenance.json waits for them.
	digests := make([]cas.Digest, len(from)+1)
	hashing, hctx := errgroup.WithContext(ctx)
	hctx, cancel := context.WithCancel(hctx)
	defer hashing.Wait()
	defer cancel()
	inputs := append([]*openInput{to}, from...)
	var next atomic.Int64
	hash := func() error {
		for i := next.Add(1) - 1; i < int64(len(inputs)); i = next.Add(1) - 1 {
			d, err := inputs[i].digest(hctx)
			if err != nil {
				return err
			}
			digests[i] = d
		}
		return nil
	}
	hashing.Go(hash)
	d, err := newDiffer(ctx, to.r, olds, DiffOptions{
		Epoch:               o.Epoch,
		IgnoreIfSameContent: o.IgnoreIfSameContent,
		Workers:             o.Workers,
		Progress:            o.Progress,
	})
	if err != nil {
		return nil, fmt.Errorf("create kit: %w", err)
	}
	record := func(s Source, in *openInput) ImageRecord {
		return ImageRecord{Version: s.Version, Size: in.size, Manifest: s.Manifest, ISO: in.iso != nil}
	}
	kits := make([]*kitWriter, len(o.From))
	defer func() {
		for _, k := range kits {
			k.abandon()
		}
	}()
	ws := make([]io.WriterAt, len(o.From))
	for i, s := range o.From {
		k := &kitWriter{prov: Provenance{
			WriterFormat: WriterFormat,
			Product:      o.Product,
			Arch:         o.Arch,
			Epoch:        o.Epoch.Unix(),
			Base:         record(s, from[i]),
			New:          record(o.To, to),
			Diff: DiffRecord{
				Path:                "overlay/live/" + o.To.Version + ".squashfs",
				IgnoreIfSameContent: slices.Clone(o.IgnoreIfSameContent),
			},
		}}
		kits[i] = k
		if err := k.begin(ctx, o, from[i], to); err != nil {
			return nil, fmt.Errorf("create kit from %s to %s: %w", s.Version, o.To.Version, err)
		}
		ws[i] = io.NewOffsetWriter(k.f, int64(k.at))
	}
	if err := d.write(ctx, ws); err != nil {
		return nil, fmt.Errorf("create kit: %w", err)
	}
	// The disk and the cores that are free now take their part of what is left.
	for _, k := range kits {
		_ = unix.SyncFileRange(int(k.f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	hashing.Go(hash)
	if err := hashing.Wait(); err != nil {
		return nil, fmt.Errorf("create kit: %w", err)
	}
	var out []Result
	for i, k := range kits {
		k.prov.New.SHA256, k.prov.Base.SHA256 = digests[0], digests[i+1]
		r, err := k.finish(ctx, d.olds[i])
		if err != nil {
			return out, fmt.Errorf("create kit from %s to %s: %w", k.prov.Base.Version, o.To.Version, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// kitWriter writes one kit beside its place and moves it there.
type kitWriter struct {
	prov   Provenance
	name   string // of the kit, once complete
	f      *os.File
	w      *squashfs.Writer
	at     uint64 // place of the difference in the container, bytes
	boot   []kitMember
	remove []string
}

// begin opens the file and says where in it the difference goes: the container
// stores it as it is.
func (k *kitWriter) begin(ctx context.Context, o CreateOptions, from, to *openInput) error {
	var err error
	if k.boot, k.remove, err = bootMembers(ctx, from, to); err != nil {
		return fmt.Errorf("compare boot files: %w", err)
	}
	if err := checkMembers(append([]kitMember{{name: k.prov.Diff.Path}}, k.boot...)); err != nil {
		return err
	}
	k.name = o.Output
	if st, err := os.Stat(o.Output); err == nil && st.IsDir() || len(o.From) > 1 {
		k.name = filepath.Join(o.Output, KitName(o.Product, o.Arch, k.prov.Base.Version, k.prov.New.Version))
	}
	if k.f, err = os.CreateTemp(filepath.Dir(k.name), ".iuk-*.partial"); err != nil {
		return err
	}
	k.w, err = squashfs.NewWriter(k.f, squashfs.WriterOptions{
		Compressor: squashfs.Gzip, // every kernel of every old version reads it
		BlockSize:  kitBlockSize,
		ModTime:    uint32(k.prov.Epoch),
	})
	if err != nil {
		return err
	}
	k.at = k.w.Pos()
	return nil
}

// abandon removes what is not complete.
func (k *kitWriter) abandon() {
	if k != nil && k.f != nil {
		k.f.Close()
		os.Remove(k.f.Name())
	}
}

// finish writes the members beside the difference, and gives the kit its name.
func (k *kitWriter) finish(ctx context.Context, s *oldState) (Result, error) {
	stats, p := s.stats, &k.prov
	k.w.Skip(stats.Size)
	diff := kitMember{name: p.Diff.Path, mode: 0o644, size: stats.Size, placed: true, start: k.at}
	for left := stats.Size; left > 0; left -= kitBlockSize {
		diff.words = append(diff.words, squashfs.StoredWord(int(min(left, kitBlockSize))))
	}
	p.Diff.Size = stats.Size
	p.Diff.Added, p.Diff.Changed, p.Diff.Removed, p.Diff.Ignored = stats.Added, stats.Changed, stats.Removed, stats.Ignored
	p.Diff.AddedNames = s.addedNames()
	prov, err := p.format()
	if err != nil {
		return Result{}, err
	}
	members := append([]kitMember{
		bytesMember("FORMAT", []byte("2")),
		bytesMember("control.yml", formatControl(k.remove)),
		bytesMember("provenance.json", prov),
		diff,
	}, k.boot...)
	if err := checkMembers(members); err != nil { // now that the size is known
		return Result{}, err
	}
	sb, err := writeMembers(ctx, k.w, members, uint32(p.Epoch))
	if err != nil {
		return Result{}, err
	}
	if err := k.f.Chmod(0o644); err != nil {
		return Result{}, err
	}
	if err := k.f.Sync(); err != nil {
		return Result{}, err
	}
	if err := os.Rename(k.f.Name(), k.name); err != nil {
		return Result{}, err
	}
	err = k.f.Close()
	k.f = nil
	if err != nil {
		return Result{}, err
	}
	dir, err := os.Open(filepath.Dir(k.name))
	if err != nil {
		return Result{}, err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return Result{}, err
	}
	return Result{From: p.Base.Version, To: p.New.Version, Path: k.name, Size: sb.PaddedSize(), Diff: stats, Provenance: *p}, nil
}

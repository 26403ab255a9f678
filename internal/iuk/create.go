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
	// Manifest is the SHA-256, in hex, of the freeze manifest that the image was
	// built from, or "" if it is unknown. It is written to provenance.json.
	Manifest string
}

// CreateOptions describe the kits to make.
type CreateOptions struct {
	From []Source // old versions; each gets one kit
	To   Source   // the new version, which is read once
	// Product and Arch are parts of the kits' names. Defaults: Tails, amd64.
	Product, Arch string
	// Epoch is the time of the container, of its members, and of the difference
	// and its whiteouts. Other files in the difference keep their times.
	Epoch time.Time
	// Output is a directory if it exists as one, ends in a slash, or From has
	// several versions. It is created if it is missing, and the kits get their
	// standard names in it. Otherwise Output is the kit's file.
	Output string
	// IgnoreIfSameContent: see DiffOptions.
	IgnoreIfSameContent []string
	// Workers bounds the number of goroutines. Default: GOMAXPROCS. It does not
	// affect the bytes.
	Workers int
	// Progress is called with the work done and the work known so far.
	Progress func(done, total int64)
}

// Result describes one kit.
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
		if !wordRE().MatchString(w) {
			return fmt.Errorf("create kit: %q cannot be part of a kit's name", w)
		}
	}
	seen := map[string]bool{}
	for _, s := range append([]Source{o.To}, o.From...) {
		if !versionRE().MatchString(s.Version) {
			return fmt.Errorf("create kit: %q is not a version", s.Version)
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
	if fold("live/"+o.To.Version+".squashfs") == fold(baseImage) {
		return fmt.Errorf("create kit: %q cannot be the new version: its difference would replace %s", o.To.Version, baseImage)
	}
	if e := o.Epoch.Unix(); o.Epoch.IsZero() || e < 0 || e > math.MaxUint32 {
		return fmt.Errorf("create kit: epoch %v is not from 1970 to 2106", o.Epoch)
	}
	return nil
}

// MemoryGoal is a memory limit, in bytes, that programs should set before they call
// Create or Verify (see runtime/debug.SetMemoryLimit). Without it, garbage doubles
// their use of memory.
const MemoryGoal = 128 << 20

// Create makes a kit of format 2 for each old version. A kit gets its name when it is
// complete. Its bytes depend only on images, versions, product, architecture,
// manifests, epoch and globs.
func Create(ctx context.Context, o CreateOptions) ([]Result, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c := &creation{o: o}
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	out, err := makeDestination(o)
	if err != nil {
		return nil, fmt.Errorf("create kit: %w", err)
	}
	made, err := c.run(ctx, out)
	if len(made) == 0 {
		out.abandon()
	}
	return made, err
}

// creation is one call of Create.
type creation struct {
	o    CreateOptions
	to   *openInput
	from []*openInput
	kits []*kitWriter
}

func (c *creation) open(ctx context.Context) error {
	limits := squashfs.Limits{CacheBytes: 1, MetaCacheBytes: 512 << 10}
	var err error
	if c.to, err = c.o.To.Image.open(limits); err != nil {
		return err
	}
	for _, s := range c.o.From {
		in, err := s.Image.open(limits)
		if err != nil {
			return err
		}
		if err := checkBase(ctx, in); err != nil {
			return err
		}
		c.from = append(c.from, in)
	}
	return nil
}

func (c *creation) run(ctx context.Context, out *destination) ([]Result, error) {
	defer func() {
		for _, k := range c.kits {
			k.abandon()
		}
	}()
	var places []io.WriterAt // of the differences
	for i := range c.o.From {
		k, err := c.begin(ctx, i, out.kit(c.o, i))
		if err != nil {
			return nil, c.failed(i, err)
		}
		places = append(places, io.NewOffsetWriter(k.f, int64(k.at)))
	}
	// Digests are computed concurrently; only provenance.json needs them.
	hashes := hashInputs(ctx, append([]*openInput{c.to}, c.from...))
	defer hashes.stop()
	hashes.addWorker()
	d, err := c.differences(ctx, places)
	if err != nil {
		return nil, fmt.Errorf("create kit: %w", err)
	}
	// Use the disk and the cores that are idle now.
	for _, k := range c.kits {
		_ = unix.SyncFileRange(int(k.f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	hashes.addWorker()
	digests, err := hashes.wait()
	if err != nil {
		return nil, fmt.Errorf("create kit: %w", err)
	}
	var made []Result
	for i, k := range c.kits {
		k.prov.New.SHA256, k.prov.Base.SHA256 = digests[0], digests[i+1]
		r, err := k.finish(ctx, d.olds[i])
		if err != nil {
			return made, c.failed(i, err)
		}
		made = append(made, r)
	}
	return made, nil
}

// failed adds the versions of kit i to an error.
func (c *creation) failed(i int, err error) error {
	return fmt.Errorf("create kit from %s to %s: %w", c.o.From[i].Version, c.o.To.Version, err)
}

// begin starts the kit for old version i, in a temporary file.
func (c *creation) begin(ctx context.Context, i int, name string) (*kitWriter, error) {
	o := &c.o
	record := func(s Source, in *openInput) ImageRecord {
		return ImageRecord{Version: s.Version, Size: in.size, Manifest: s.Manifest, ISO: in.iso != nil}
	}
	k := &kitWriter{name: name, prov: Provenance{
		WriterFormat: WriterFormat,
		Product:      o.Product,
		Arch:         o.Arch,
		Epoch:        o.Epoch.Unix(),
		Base:         record(o.From[i], c.from[i]),
		New:          record(o.To, c.to),
		Diff: DiffRecord{
			Path:                "overlay/live/" + o.To.Version + ".squashfs",
			IgnoreIfSameContent: slices.Clone(o.IgnoreIfSameContent),
		},
	}}
	var err error
	if k.boot, k.remove, err = bootMembers(ctx, c.from[i], c.to); err != nil {
		return nil, fmt.Errorf("compare boot files: %w", err)
	}
	if err := checkMembers(append([]kitMember{{name: k.prov.Diff.Path}}, k.boot...)); err != nil {
		return nil, err
	}
	if err := k.open(); err != nil {
		return nil, err
	}
	c.kits = append(c.kits, k)
	return k, nil
}

// differences writes the difference of each old image into its kit.
func (c *creation) differences(ctx context.Context, places []io.WriterAt) (*differ, error) {
	var olds []*squashfs.Reader
	for _, in := range c.from {
		olds = append(olds, in.r)
	}
	d, err := newDiffer(ctx, c.to.r, olds, DiffOptions{
		Epoch:               c.o.Epoch,
		IgnoreIfSameContent: c.o.IgnoreIfSameContent,
		Workers:             c.o.Workers,
		Progress:            c.o.Progress,
	})
	if err != nil {
		return nil, err
	}
	return d, d.write(ctx, places)
}

// inputHashes computes the digests of images concurrently with other work.
type inputHashes struct {
	inputs  []*openInput
	digests []cas.Digest
	next    atomic.Int64
	group   *errgroup.Group
	ctx     context.Context
	cancel  context.CancelFunc
}

func hashInputs(ctx context.Context, inputs []*openInput) *inputHashes {
	h := &inputHashes{inputs: inputs, digests: make([]cas.Digest, len(inputs))}
	h.group, ctx = errgroup.WithContext(ctx)
	h.ctx, h.cancel = context.WithCancel(ctx)
	return h
}

// addWorker starts one more goroutine.
func (h *inputHashes) addWorker() {
	h.group.Go(func() error {
		for i := h.next.Add(1) - 1; i < int64(len(h.inputs)); i = h.next.Add(1) - 1 {
			d, err := h.inputs[i].digest(h.ctx)
			if err != nil {
				return err
			}
			h.digests[i] = d
		}
		return nil
	})
}

// wait returns all digests, in the order of the inputs.
func (h *inputHashes) wait() ([]cas.Digest, error) { return h.digests, h.group.Wait() }

// stop ends the workers.
func (h *inputHashes) stop() {
	h.cancel()
	_ = h.group.Wait() // the caller waited for the digests, or has another error
}

// kitWriter writes one kit to a temporary file and renames it.
type kitWriter struct {
	prov   Provenance
	name   string // of the complete kit
	f      *os.File
	w      *squashfs.Writer
	at     uint64 // offset of the difference in the container
	boot   []kitMember
	remove []string
}

// open opens a temporary file in the kit's directory. The offset of the difference is
// known already, since the container does not compress it.
func (k *kitWriter) open() error {
	var err error
	if k.f, err = os.CreateTemp(filepath.Dir(k.name), ".iuk-*.partial"); err != nil {
		return err
	}
	k.w, err = squashfs.NewWriter(k.f, squashfs.WriterOptions{
		Compressor: squashfs.Gzip, // the kernels of all old versions support it
		BlockSize:  kitBlockSize,
		ModTime:    uint32(k.prov.Epoch),
	})
	if err != nil {
		k.abandon()
		return err
	}
	k.at = k.w.Pos()
	return nil
}

// abandon removes an incomplete kit.
func (k *kitWriter) abandon() {
	if k.f != nil {
		k.f.Close()
		os.Remove(k.f.Name())
	}
}

// finish writes the other members and publishes the kit.
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
	if err := checkMembers(members); err != nil { // now the size of the difference is known
		return Result{}, err
	}
	sb, err := writeMembers(ctx, k.w, members, uint32(p.Epoch))
	if err != nil {
		return Result{}, err
	}
	if err := k.publish(); err != nil {
		return Result{}, err
	}
	return Result{From: p.Base.Version, To: p.New.Version, Path: k.name, Size: sb.PaddedSize(), Diff: stats, Provenance: *p}, nil
}

// publish makes the file durable and renames it to the kit's name.
func (k *kitWriter) publish() error {
	if err := k.f.Chmod(0o644); err != nil {
		return err
	}
	if err := k.f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(k.f.Name(), k.name); err != nil {
		return err
	}
	err := k.f.Close()
	k.f = nil
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(k.name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

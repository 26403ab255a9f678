package iuk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/iso9660"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/squashfs"
)

// ErrInput means that an input is no image that a kit can be made of.
var ErrInput = errors.New("unfit image")

// Input is one image, as a SquashFS file or as an ISO image that holds one at
// live/filesystem.squashfs.
type Input struct {
	R    io.ReaderAt
	Size int64 // bytes
	// Name is how messages name the image.
	Name string
	// SHA256 is the digest of the whole input, when a trusted store has it, so
	// that it need not be computed. It is of use for SquashFS files only.
	SHA256 cas.Digest
}

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

// kitMember is a file of a kit.
type kitMember struct {
	name string // path in the kit
	mode uint16
	size int64
	// content gives the bytes, each time from the start.
	content func() (io.Reader, error)
	// or where they are in the kit already
	placed bool
	start  uint64
	words  []uint32
}

func bytesMember(name string, b []byte) kitMember {
	return kitMember{name: name, mode: 0o644, size: int64(len(b)), content: func() (io.Reader, error) { return bytes.NewReader(b), nil }}
}

// openInput is an Input after a look at it.
type openInput struct {
	in    Input
	iso   *iso9660.FS // nil for a bare SquashFS file
	image io.ReaderAt // the SquashFS file
	size  int64       // its bytes
	r     *squashfs.Reader
}

// open looks what an Input is.
func (in Input) open(limits squashfs.Limits) (*openInput, error) {
	o := &openInput{in: in, image: in.R, size: in.Size}
	head := make([]byte, 4)
	if _, err := in.R.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", in.Name, err)
	}
	if string(head) != "hsqs" {
		iso, err := iso9660.Open(in.R, in.Size)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w: neither a SquashFS nor an ISO image: %w", in.Name, ErrInput, err)
		}
		f, err := iso.Open(baseImage)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w: %w", in.Name, ErrInput, err)
		}
		st, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", in.Name, err)
		}
		at, ok := f.(io.ReaderAt)
		if !ok || !st.Mode().IsRegular() {
			return nil, fmt.Errorf("open %s: %w: %s is no regular file", in.Name, ErrInput, baseImage)
		}
		o.iso, o.image, o.size = iso, at, st.Size()
	}
	r, err := squashfs.Open(o.image, o.size, limits)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", in.Name, ErrInput, err)
	}
	o.r = r
	return o, nil
}

// digest gives the SHA-256 of the SquashFS file.
func (o *openInput) digest(ctx context.Context) (cas.Digest, error) {
	if o.iso == nil && !o.in.SHA256.IsZero() {
		return o.in.SHA256, nil
	}
	h := sha256.New()
	buf := make([]byte, 128<<10)
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, regfile.WithContext(ctx, io.NewSectionReader(o.image, 0, o.size)), buf); err != nil {
		return cas.Digest{}, fmt.Errorf("read %s: %w", o.in.Name, err)
	}
	var d cas.Digest
	h.Sum(d[:0])
	return d, nil
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
	if e := o.Epoch.Unix(); o.Epoch.IsZero() || e < 1 || e > math.MaxUint32 {
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
		ModTime:             uint32(o.Epoch.Unix()),
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

// Layout of the container.
const kitBlockSize = 128 << 10 // bytes

// formatControl gives control.yml.
func formatControl(remove []string) []byte {
	if len(remove) == 0 {
		return []byte("---\ndelete_files: []\n")
	}
	var b bytes.Buffer
	b.WriteString("---\ndelete_files:\n")
	for _, s := range remove {
		fmt.Fprintf(&b, "- '%s'\n", strings.ReplaceAll(s, "'", "''"))
	}
	return b.Bytes()
}

// writeMembers writes a container of files, all owned by 0:0.
func writeMembers(ctx context.Context, w *squashfs.Writer, members []kitMember, mtime uint32) (squashfs.Superblock, error) {
	type node struct {
		m        *kitMember
		children map[string]*node
		inode    squashfs.NewInode
	}
	root := &node{children: map[string]*node{}}
	var frag []byte
	var nfrag uint32
	var pending []*node
	flush := func() error {
		if len(frag) == 0 {
			return nil
		}
		at, word, err := appendBlock(w, frag)
		if err != nil {
			return err
		}
		w.AddFragment(squashfs.Block{Start: at, Size: word})
		nfrag++
		frag, pending = frag[:0], nil
		return nil
	}
	buf := make([]byte, kitBlockSize)
	for i := range members {
		m := &members[i]
		n := root
		for _, part := range strings.Split(m.name, "/") {
			if n.children == nil {
				return squashfs.Superblock{}, fmt.Errorf("%s: what holds it is a file", m.name)
			}
			c := n.children[part]
			if c == nil {
				c = &node{children: map[string]*node{}}
				n.children[part] = c
			}
			n = c
		}
		if n.m != nil || len(n.children) > 0 {
			return squashfs.Superblock{}, fmt.Errorf("%s: two members of this name", m.name)
		}
		n.m = m
		if m.content == nil && !m.placed {
			continue // a directory
		}
		n.children = nil
		n.inode = squashfs.NewInode{Type: squashfs.TypeFile, Mode: m.mode, MTime: mtime, Nlink: 1, Size: m.size, Start: m.start, Words: m.words}
		if m.placed {
			continue
		}
		r, err := m.content()
		if err != nil {
			return squashfs.Superblock{}, err
		}
		n.inode.Start = w.Pos()
		for left := m.size; left > 0; {
			if err := ctx.Err(); err != nil {
				return squashfs.Superblock{}, err
			}
			b := buf[:min(left, kitBlockSize)]
			if _, err := io.ReadFull(r, b); err != nil {
				return squashfs.Superblock{}, fmt.Errorf("read %s: %w", m.name, err)
			}
			left -= int64(len(b))
			if len(b) == kitBlockSize {
				_, word, err := appendBlock(w, b)
				if err != nil {
					return squashfs.Superblock{}, err
				}
				n.inode.Words = append(n.inode.Words, word)
				continue
			}
			if len(frag)+len(b) > kitBlockSize {
				// The fragment block may stand between a file's blocks and
				// the next file's, never between blocks of one file: this
				// is the file's end.
				if err := flush(); err != nil {
					return squashfs.Superblock{}, err
				}
			}
			n.inode.Tail = squashfs.Tail{Fragment: nfrag, Offset: uint32(len(frag)), Size: uint32(len(b))}
			frag = append(frag, b...)
			pending = append(pending, n)
		}
	}
	if err := flush(); err != nil {
		return squashfs.Superblock{}, err
	}
	var put func(n *node, parent uint32) (squashfs.DirEntry, error)
	put = func(n *node, parent uint32) (squashfs.DirEntry, error) {
		number := w.NextNumber()
		if n.children == nil {
			n.inode.Number = number
			return w.Put(&n.inode)
		}
		dir := squashfs.NewInode{Type: squashfs.TypeDir, Mode: 0o755, MTime: mtime, Number: number, Nlink: 2, Parent: parent}
		names := make([]string, 0, len(n.children))
		for name := range n.children {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			c := n.children[name]
			if c.children != nil {
				dir.Nlink++
			}
			e, err := put(c, number)
			if err != nil {
				return e, fmt.Errorf("%s: %w", name, err)
			}
			e.Name = name
			dir.Entries = append(dir.Entries, e)
		}
		return w.Put(&dir)
	}
	e, err := put(root, 0)
	if err != nil {
		return squashfs.Superblock{}, err
	}
	return w.Finish(e)
}

// appendBlock compresses a block if that helps.
func appendBlock(w *squashfs.Writer, b []byte) (uint64, uint32, error) {
	var enc []byte
	if !looksCompressed(b) {
		var err error
		if enc, err = w.Codec().Encode(nil, b); err != nil {
			return 0, 0, err
		}
	}
	word := uint32(len(enc))
	if enc == nil {
		enc, word = b, squashfs.StoredWord(len(b))
	}
	at, err := w.Append(enc)
	return at, word, err
}

// looksCompressed tells a block whose bytes are nearly evenly spread, so that
// compressing it again (a kernel, an initrd) is of no use.
func looksCompressed(b []byte) bool {
	if len(b) < 4096 {
		return false
	}
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	// The sum of squares is len²/256 for an even spread. Integers only: the
	// outcome is part of the format.
	var sum int64
	for _, c := range count {
		sum += int64(c) * int64(c)
	}
	even := int64(len(b)) * int64(len(b)) / 256
	return sum < even+even/16
}

// The parts of an ISO image that a system partition has.
var (
	wholeTrees  = []string{"EFI", "utils"}
	deleteTrees = []string{"EFI", "isolinux", "syslinux", "tails", "utils"}
)

// isKernel tells a kernel or initrd by its name in live/: vmlinuz, vmlinuz2,
// initrd.img, initrd2.img.
func isKernel(name string) bool {
	digits := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	if s, ok := strings.CutPrefix(name, "vmlinuz"); ok {
		return digits(s)
	}
	if s, ok := strings.CutPrefix(name, "initrd"); ok {
		s, ok = strings.CutSuffix(s, ".img")
		return ok && digits(s)
	}
	return false
}

// bootMembers gives what of the new ISO image goes into the kit beside the
// difference, and what the kit deletes. Without ISO images that is nothing.
func bootMembers(ctx context.Context, from, to *openInput) ([]kitMember, []string, error) {
	if to.iso == nil {
		return nil, nil, nil
	}
	var members []kitMember
	add := func(name, file string, size int64, mode fs.FileMode, rewrite bool) error {
		m := kitMember{name: "overlay/" + name, mode: 0o644, size: size}
		if mode&0o111 != 0 {
			m.mode = 0o755
		}
		if err := checkPath(name); err != nil {
			return err
		}
		m.content = func() (io.Reader, error) {
			f, err := to.iso.Open(file)
			if err != nil {
				return nil, err
			}
			if !rewrite {
				return f, nil
			}
			b, err := io.ReadAll(io.LimitReader(f, size))
			if err != nil {
				return nil, err
			}
			return bytes.NewReader(bytes.ReplaceAll(b, []byte("/isolinux/"), []byte("/syslinux/"))), nil
		}
		members = append(members, m)
		return nil
	}
	entries, err := readDir(to.iso, "live")
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if !isKernel(e.Name()) {
			continue
		}
		name := "live/" + e.Name()
		st, err := fs.Stat(to.iso, name)
		if err != nil {
			return nil, nil, err
		}
		if !st.Mode().IsRegular() {
			continue
		}
		if from.iso != nil {
			same, err := sameFile(ctx, from.iso, to.iso, name)
			if err != nil {
				return nil, nil, err
			}
			if same {
				continue
			}
		}
		if err := add(name, name, st.Size(), 0o644, false); err != nil {
			return nil, nil, err
		}
	}
	for _, tree := range append([]string{"isolinux"}, wholeTrees...) {
		if _, err := fs.Stat(to.iso, tree); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		err := fs.WalkDir(to.iso, tree, func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			target, rewrite := toSyslinux(name)
			if e.IsDir() {
				if err := checkPath(target); err != nil {
					return err
				}
				members = append(members, kitMember{name: "overlay/" + target})
				return nil
			}
			// FAT32 has no links: a link becomes what it leads to.
			st, err := fs.Stat(to.iso, name)
			if err != nil {
				return err
			}
			if !st.Mode().IsRegular() {
				return fmt.Errorf("%w: %s is no regular file", ErrInput, name)
			}
			if rewrite && st.Size() > maxRewrite {
				return fmt.Errorf("%w: %s has %d bytes, at most %d can be rewritten", ErrInput, name, st.Size(), maxRewrite)
			}
			return add(target, name, st.Size(), st.Mode(), rewrite)
		})
		if err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(members, func(a, b kitMember) int { return strings.Compare(a.name, b.name) })
	remove, err := deletedFiles(from, to)
	if err != nil {
		return nil, nil, err
	}
	shipped := map[string]bool{}
	for _, m := range members {
		shipped[fold(strings.TrimPrefix(m.name, "overlay/"))] = true
	}
	remove = slices.DeleteFunc(remove, func(s string) bool { return shipped[fold(s)] })
	return members, remove, nil
}

const maxRewrite = 16 << 20 // bytes of a file of isolinux/

// toSyslinux gives the name on a system partition of a file of an ISO image,
// and whether its content is rewritten: what is directly in isolinux/.
func toSyslinux(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, "isolinux/")
	if name == "isolinux" {
		return "syslinux", false
	}
	if !ok {
		return name, false
	}
	if rest == "isolinux.cfg" {
		rest = "syslinux.cfg"
	}
	return "syslinux/" + rest, !strings.Contains(rest, "/")
}

func readDir(fsys fs.FS, name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// deletedFiles gives the paths on a system partition that the old ISO image has
// and the new one has not: in live/, and anywhere in deleteTrees, a directory as
// one. Names that differ in case only are one on FAT32, and stay.
func deletedFiles(from, to *openInput) ([]string, error) {
	if from.iso == nil {
		return nil, nil
	}
	var out []string
	var visit func(dir string, deep bool) error
	visit = func(dir string, deep bool) error {
		old, err := readDir(from.iso, dir)
		if err != nil {
			return err
		}
		now, err := readDir(to.iso, dir)
		if err != nil {
			return err
		}
		have := map[string]bool{}
		for _, e := range now {
			have[fold(e.Name())] = true
		}
		for _, e := range old {
			name := path.Join(dir, e.Name())
			switch {
			case !have[fold(e.Name())]:
				target, _ := toSyslinux(name)
				// What cannot be on FAT32 is not there.
				if checkPath(target) == nil && fold(target) != fold(baseImage) {
					out = append(out, target)
				}
			case deep && e.IsDir():
				if err := visit(name, true); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := visit("live", false); err != nil {
		return nil, err
	}
	for _, d := range deleteTrees {
		if err := visit(d, true); err != nil {
			return nil, err
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// sameFile compares a file of both images; one that is in one only differs.
func sameFile(ctx context.Context, a, b fs.FS, name string) (bool, error) {
	fa, err := a.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := b.Open(name)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	sa, err := fa.Stat()
	if err != nil {
		return false, err
	}
	sb, err := fb.Stat()
	if err != nil {
		return false, err
	}
	if sa.Size() != sb.Size() || !sa.Mode().IsRegular() {
		return false, nil
	}
	return sameContent(ctx, fa, fb)
}

func sameContent(ctx context.Context, a, b io.Reader) (bool, error) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := io.ReadFull(a, x)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, err
		}
		m, err2 := io.ReadFull(b, y)
		if err2 != nil && err2 != io.EOF && err2 != io.ErrUnexpectedEOF {
			return false, err2
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if n < len(x) {
			return true, nil
		}
	}
}

package compare

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/regfile"
)

// input is one of the two sides.
type input struct {
	name   string
	blob   blob
	dir    *os.Root // instead of blob
	format string
	size   int64
	sha256 string
	closer io.Closer
}

func openInput(name string) (*input, error) {
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		return &input{name: name, dir: root, format: typeDir, closer: root}, nil
	}
	f, err := regfile.Open(name)
	if err != nil {
		return nil, err
	}
	in, err := fileInput(f, name)
	if err != nil {
		f.Close()
		return nil, err
	}
	in.closer = f
	return in, nil
}

// fileInput describes an open file.
func fileInput(f *os.File, name string) (*input, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	in := &input{name: name, size: st.Size(), closer: io.NopCloser(nil)}
	in.blob = blob{
		size: st.Size(),
		open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(f, 0, st.Size())), nil
		},
		at: func() (io.ReaderAt, io.Closer, error) { return f, io.NopCloser(nil), nil },
	}
	if in.format, err = formatOf(in.blob, name); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return in, nil
}

// formatOf returns the format of an input's decompressed content.
func formatOf(b blob, name string) (string, error) {
	kind, err := b.kind(name)
	if err != nil || !compressed(kind) {
		return kind, err
	}
	c := &comparer{unbounded: true}
	inner, err := c.payload(b, kind).kind(innerName(name))
	if err != nil {
		return "", err
	}
	return inner, nil
}

// Compare compares two files or directories.
func Compare(ctx context.Context, nameA, nameB string, o Options) (*api.CompareResult, error) {
	a, err := openInput(nameA)
	if err != nil {
		return nil, err
	}
	defer a.closer.Close()
	b, err := openInput(nameB)
	if err != nil {
		return nil, err
	}
	defer b.closer.Close()
	return compareInputs(ctx, a, b, o)
}

// Files compares two open files, whose names are for display.
func Files(ctx context.Context, a, b *os.File, nameA, nameB string, o Options) (*api.CompareResult, error) {
	x, err := fileInput(a, nameA)
	if err != nil {
		return nil, err
	}
	y, err := fileInput(b, nameB)
	if err != nil {
		return nil, err
	}
	return compareInputs(ctx, x, y, o)
}

// digests computes the SHA-256 of both inputs.
func digests(ctx context.Context, g *errgroup.Group, inputs ...*input) {
	for _, in := range inputs {
		g.Go(func() error {
			r, err := in.blob.open()
			if err != nil {
				return err
			}
			defer r.Close()
			h := sha256.New()
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				if _, err := io.CopyN(h, r, 8<<20); err == io.EOF {
					break
				} else if err != nil {
					return fmt.Errorf("read %s: %w", in.name, err)
				}
			}
			in.sha256 = hex.EncodeToString(h.Sum(nil))
			return nil
		})
	}
}

func compareInputs(ctx context.Context, a, b *input, o Options) (*api.CompareResult, error) {
	if a.format != b.format {
		return nil, fmt.Errorf("%w: %s is %s, %s is %s", ErrFormats, a.name, article(a.format), b.name, article(b.format))
	}
	c := &comparer{ctx: ctx, names: [2]string{a.name, b.name}, budget: maxDecoded}
	defer func() { c.release(0) }()
	res := &collector{c: c, expected: o.Expected, counts: map[string]*api.CompareCount{}}
	// Digests are computed beside the comparison, which reads the same bytes.
	g, both := errgroup.WithContext(ctx)
	if a.dir == nil {
		digests(both, g, a, b)
	}
	c.ctx = both
	g.Go(func() error { return c.inputs(a, b, res, o.Explain != "") })
	err := g.Wait()
	c.ctx = ctx
	if err != nil {
		return nil, err
	}
	equal := a.dir == nil && a.sha256 == b.sha256 && a.size == b.size
	out, err := res.result()
	if err != nil {
		return nil, err
	}
	side := func(in *input) api.CompareSide {
		return api.CompareSide{Name: shown(in.name), Format: in.format, Size: in.size, SHA256: in.sha256}
	}
	out.A, out.B = side(a), side(b)
	if !equal && a.dir == nil && out.Verdict == "equal" {
		return nil, fmt.Errorf("compare %s and %s: their bytes differ, but no difference was found", a.name, b.name)
	}
	if o.Explain != "" {
		if out.Explained, err = c.explain(a, b, o); err != nil {
			return nil, err
		}
	}
	if res.unexplained {
		out.Hint = "diffoscope " + shellWord(a.name) + " " + shellWord(b.name)
	}
	return out, nil
}

// article puts the indefinite article before a kind.
func article(kind string) string {
	if strings.HasPrefix(kind, "ISO") || strings.HasPrefix(kind, "ELF") || strings.HasPrefix(kind, "ar ") || strings.HasPrefix(kind, "rpm") {
		return "an " + kind
	}
	return "a " + kind
}

// shellWord quotes a name for a shell.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// inputs compares the two inputs themselves. If open is set, because a path must be
// explained, it also opens equal inputs.
func (c *comparer) inputs(a, b *input, res *collector, open bool) error {
	if a.dir != nil {
		c.trees = [2]tree{&dirTree{root: a.dir}, &dirTree{root: b.dir}}
		if err := c.findHosts(c.trees); err != nil {
			return err
		}
		return c.compareTrees(level{a: c.trees[0], b: c.trees[1], timeCode: codeMtime}, res.add)
	}
	p := &pairing{a: a.blob, b: b.blob, out: res.add, top: true}
	var err error
	if p.at, err = c.firstDifference(a.blob, b.blob); err != nil {
		return err
	}
	if p.at < 0 && !open {
		return nil
	}
	if p.at < 0 {
		c.unbounded = true
		defer func() { c.unbounded = false }()
		for i, in := range []*input{a, b} {
			if c.trees[i], err = c.inside(in.blob, in.name); err != nil {
				return fmt.Errorf("read %s: %w", in.name, err)
			}
		}
		return nil
	}
	p.name = "/" + a.name[strings.LastIndexByte(a.name, '/')+1:]
	list, listed, err := c.causes(p)
	if err != nil {
		return err
	}
	if len(list) == 0 && !listed {
		list = []api.CompareCause{c.unexplained(p)}
	}
	if len(list) > 0 {
		return res.add(".", list, !p.container)
	}
	return nil
}

// findHosts reads the host names of two images, or of the machines that built two
// packages.
func (c *comparer) findHosts(trees [2]tree) error {
	for i, t := range trees {
		if r, ok := t.(*rpmTree); ok {
			if s := r.info.Strings(1007); len(s) > 0 && isHost(s[0]) {
				c.hosts[i] = s[0]
			}
			continue
		}
		n, err := t.find("/etc/hostname")
		if err != nil {
			return fmt.Errorf("read %s: %w", c.names[i], err)
		}
		if n == nil || n.typ != typeFile {
			continue
		}
		data, ok, err := t.content(n).load(256)
		if err != nil {
			return fmt.Errorf("read %s: /etc/hostname: %w", c.names[i], err)
		}
		if s := strings.TrimSpace(string(data)); ok && isHost(s) {
			c.hosts[i] = s
		}
	}
	return nil
}

// collector collects the differences and makes the result.
type collector struct {
	c           *comparer
	expected    *Expected
	list        []api.CompareDifference
	more        int
	moreCodes   map[string]int
	counts      map[string]*api.CompareCount
	unexplained bool
	worst       class // worst class of added causes whose codes do not determine it
}

func (r *collector) add(path string, causes []api.CompareCause, inFile bool) error {
	if inFile {
		r.worst = classContents
	}
	if len(r.list) >= maxListed {
		r.more++
		if r.moreCodes == nil {
			r.moreCodes = map[string]int{}
		}
		seen := map[string]bool{}
		for _, k := range causes {
			if !seen[k.Code] {
				r.moreCodes[k.Code]++
				seen[k.Code] = true
			}
		}
		return nil
	}
	r.list = append(r.list, api.CompareDifference{Path: path, Causes: causes})
	return nil
}

// result makes the result from the added differences.
func (r *collector) result() (*api.CompareResult, error) {
	r.merge()
	umasks(r.list)
	packages, err := r.c.owners(r.list)
	if err != nil {
		return nil, err
	}
	digestLists(r.c, r.list)
	out := &api.CompareResult{Differences: []api.CompareDifference{}, Codes: []api.CompareCount{}, Packages: packages, More: r.more}
	worst, open := r.worst, r.more
	for i := range r.list {
		d := &r.list[i]
		d.Expected = true
		codes := map[string]bool{} // and whether they were all expected
		for k := range d.Causes {
			x := &d.Causes[k]
			x.Expected = r.expected.match(d.Path, x.Code)
			if was, ok := codes[x.Code]; ok {
				codes[x.Code] = was && x.Expected
			} else {
				codes[x.Code] = x.Expected
			}
			d.Expected = d.Expected && x.Expected
			worst = max(worst, classOf(d.Path, x.Code))
			r.unexplained = r.unexplained || x.Code == codeContents
		}
		for code, expected := range codes {
			n := r.count(code)
			n.Paths++
			if expected {
				n.Expected++
			}
		}
		if d.Expected {
			out.Expected++
		} else {
			open++
		}
	}
	for code, n := range r.moreCodes {
		r.count(code).Paths += n
		worst = max(worst, classes[code])
		r.unexplained = r.unexplained || code == codeContents
	}
	for _, code := range slices.Sorted(maps.Keys(r.counts)) {
		out.Codes = append(out.Codes, *r.counts[code])
	}
	out.Verdict = worst.String()
	if len(r.list) > 0 {
		out.Differences = slices.Clone(r.list)
	}
	for i := range out.Differences {
		out.Differences[i].Path = shown(out.Differences[i].Path)
	}
	if r.more > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d paths are listed; %d more differ, which are counted by their codes, and never expected", len(r.list), r.more))
	}
	out.Unused = r.expected.unused()
	if open > 0 {
		out.Exit = api.ExitVerify
	}
	return out, nil
}

// classOf returns the class of a cause. The times of the container are not metadata of
// its files.
func classOf(path, code string) class {
	if path == "." && code == codeMtime {
		return classLayout
	}
	return classes[code]
}

func (r *collector) count(code string) *api.CompareCount {
	if r.counts[code] == nil {
		r.counts[code] = &api.CompareCount{Code: code}
	}
	return r.counts[code]
}

// merge sorts the differences and joins those of one path.
func (r *collector) merge() {
	slices.SortStableFunc(r.list, func(a, b api.CompareDifference) int { return comparePaths(a.Path, b.Path) })
	out := r.list[:0]
	for _, d := range r.list {
		if n := len(out); n > 0 && out[n-1].Path == d.Path {
			out[n-1].Causes = append(out[n-1].Causes, d.Causes...)
			continue
		}
		out = append(out, d)
	}
	r.list = out
}

// umasks finds differences of modes that another umask explains: at least three that
// one umask makes, all in one direction.
func umasks(list []api.CompareDifference) {
	type change struct{ a, b uint32 }
	mode := func(s string) uint32 {
		var n uint32
		fmt.Sscanf(s, "%o", &n)
		return n
	}
	for _, mask := range []uint32{0o002, 0o020, 0o022, 0o007, 0o027, 0o077} {
		for _, swap := range []bool{false, true} {
			var found []*api.CompareCause
			var bits uint32
			for i := range list {
				for k := range list[i].Causes {
					x := &list[i].Causes[k]
					m := change{mode(x.A), mode(x.B)}
					if swap {
						m.a, m.b = m.b, m.a
					}
					if x.Code == codeMode && m.a&^mask == m.b {
						found, bits = append(found, x), bits|m.a^m.b
					}
				}
			}
			if len(found) < 3 {
				continue
			}
			for _, x := range found {
				x.Code, x.Detail = codeUmask, fmt.Sprintf("as a umask with %04o removes", bits)
			}
		}
	}
}

// digestLists explains lists of digests, such as md5sums, in which every differing line
// is for a file that differs.
func digestLists(c *comparer, list []api.CompareDifference) {
	var differ map[string]bool
	for i := range list {
		d := &list[i]
		if !strings.HasSuffix(d.Path, "md5sums") && !strings.HasSuffix(d.Path, "SHA256SUMS") && !strings.HasSuffix(d.Path, "md5sum.txt") && !strings.HasSuffix(d.Path, "sha256sum.txt") {
			continue
		}
		if !hasCode(d.Causes, codeContents) {
			continue
		}
		if differ == nil {
			differ = map[string]bool{}
			for _, o := range list {
				if slices.ContainsFunc(o.Causes, func(k api.CompareCause) bool { return classes[k.Code] != classMetadata }) {
					_, inner, ok := cutLast(o.Path, "//")
					if !ok {
						inner = strings.TrimPrefix(o.Path, "/")
					}
					differ[inner] = true
				}
			}
		}
		x, y, err := c.both(d.Path)
		if err != nil || !sumsFollow(x, y, differ) {
			continue
		}
		for k := range d.Causes {
			if d.Causes[k].Code == codeContents {
				d.Causes[k] = cause(codeDigest, "", "", "digests of files that differ")
			}
		}
	}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// sumsFollow reports whether two lists of digests are of the same files, and differ
// only for files that differ.
func sumsFollow(x, y []byte, differ map[string]bool) bool {
	a, b := strings.Split(string(x), "\n"), strings.Split(string(y), "\n")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		s, nameA, okA := strings.Cut(a[i], " ")
		t, nameB, okB := strings.Cut(b[i], " ")
		if !okA || !okB || nameA != nameB || len(s) != len(t) || len(s) < 32 || !isHex(s) || !isHex(t) {
			return false
		}
		name := strings.TrimPrefix(strings.TrimLeft(nameA, " *"), "./")
		if !differ[name] && !differ["/"+name] {
			return false
		}
	}
	return true
}

// errNotThere means that a path is in neither tree.
var errNotThere = errors.New("not there")

// both loads both versions of a file by its path.
func (c *comparer) both(path string) (x, y []byte, err error) {
	p, closeAll, err := c.resolve(path)
	if err != nil {
		return nil, nil, err
	}
	defer closeAll()
	if p.a.open == nil || p.b.open == nil {
		return nil, nil, errNotThere
	}
	x, ok, err := p.a.load(maxLoaded)
	if err != nil || !ok {
		return nil, nil, cmp.Or(err, errNotThere)
	}
	y, ok, err = p.b.load(maxLoaded)
	if err != nil || !ok {
		return nil, nil, cmp.Or(err, errNotThere)
	}
	return x, y, nil
}

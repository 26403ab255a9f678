// Command dist makes a release: a tarball of the committed source with all modules,
// static programs for each architecture, a bill of materials of the modules linked into
// them, and checksums. Equal commits give equal bytes, on any machine and in any
// directory, if the Go version is the one in go.mod.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	out := flag.String("output", "dist", "write into `DIR`")
	arch := flag.String("arch", "amd64,arm64", "build programs for these architectures; none when empty")
	flag.Parse()
	r := &release{dir: ".", out: *out, log: os.Stdout}
	if *arch != "" {
		r.arch = strings.Split(*arch, ",")
	}
	if err := r.make(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		stop()
		os.Exit(1)
	}
}

// release is a release in progress.
type release struct {
	dir, out string // the checkout; where to write
	arch     []string
	log      io.Writer

	version string
	time    time.Time // of the commit
	tree    string    // directory of the unpacked source with its modules
	made    []string  // names of files written to out
}

const program = "frozen-snapd"

func (r *release) make(ctx context.Context) (err error) {
	if r.out, err = filepath.Abs(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "dist-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	for _, step := range []func(context.Context) error{
		r.identify,
		func(ctx context.Context) error { return r.unpack(ctx, tmp) },
		r.source,
		r.programs,
		r.checksums,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

var changelogHead = regexp.MustCompile(`^` + program + ` \(([0-9][0-9a-z.+~-]*)\) `)

// identify reads the version from debian/changelog, and the time of the commit.
func (r *release) identify(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(r.dir, "debian/changelog"))
	if err != nil {
		return err
	}
	m := changelogHead.FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("debian/changelog: expected %q and a version in parentheses", program)
	}
	r.version = string(m[1])
	if state, err := r.run(ctx, r.dir, "git", "status", "--porcelain", "--untracked-files=no"); err != nil {
		return err
	} else if len(state) > 0 {
		fmt.Fprintln(r.log, "changes that are not committed are left out")
	}
	at, err := r.run(ctx, r.dir, "git", "log", "-1", "--format=%ct")
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(at)), 10, 64)
	if err != nil {
		return err
	}
	r.time = time.Unix(seconds, 0).UTC()
	return nil
}

// unpack copies the committed files and all modules into a directory.
func (r *release) unpack(ctx context.Context, tmp string) error {
	data, err := r.run(ctx, r.dir, "git", "archive", "--format=tar", "HEAD")
	if err != nil {
		return err
	}
	r.tree = filepath.Join(tmp, program+"-"+r.version)
	if err := os.Mkdir(r.tree, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(r.tree)
	if err != nil {
		return err
	}
	defer root.Close()
	in := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(strings.TrimSuffix(h.Name, "/"), 0o755)
		case tar.TypeReg:
			err = writeFile(root, h, in)
		case tar.TypeXGlobalHeader:
		default:
			err = fmt.Errorf("%s: neither a file nor a directory", h.Name)
		}
		if err != nil {
			return err
		}
	}
	_, err = r.run(ctx, r.tree, "go", "mod", "vendor")
	return err
}

func writeFile(root *os.Root, h *tar.Header, in io.Reader) error {
	f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode)&0o755|0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Close())
}

// source writes the tarball.
func (r *release) source(context.Context) error {
	return r.write(program+"-"+r.version+".tar.gz", func(w io.Writer) error {
		return r.tarball(w, r.tree, filepath.Base(r.tree))
	})
}

// tarball packs a directory with sorted names, the commit's time, no owners, and modes
// that only distinguish programs from other files.
func (r *release) tarball(w io.Writer, dir, prefix string) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(filepath.Join(prefix, rel)), ModTime: r.time, Format: tar.FormatPAX}
		if e.IsDir() {
			h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, h.Name+"/"
			return t.WriteHeader(h)
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		h.Typeflag, h.Size, h.Mode = tar.TypeReg, st.Size(), 0o644
		if st.Mode()&0o100 != 0 {
			h.Mode = 0o755
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(t, f)
		return errors.Join(err, f.Close())
	})
	return errors.Join(err, t.Close(), z.Close())
}

// programs builds both programs for each architecture, using only the unpacked source and
// its modules, and lists the modules linked into them.
func (r *release) programs(ctx context.Context) error {
	for _, arch := range r.arch {
		name := fmt.Sprintf("%s-%s-linux-%s", program, r.version, arch)
		dir := filepath.Join(filepath.Dir(r.tree), name)
		for _, p := range []string{"snapd", "snapctl"} {
			cmd := exec.CommandContext(ctx, "go", "build", "-mod=vendor", "-trimpath", "-buildvcs=false",
				"-ldflags", "-s -w -buildid= -X main.built="+r.version, "-o", filepath.Join(dir, p), "./cmd/"+p)
			cmd.Dir = r.tree
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOPROXY=off", "GOAMD64=", "GOARM64=", "GOEXPERIMENT=")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build %s for %s: %w\n%s", p, arch, err, out)
			}
		}
		if err := r.write(name+".tar.gz", func(w io.Writer) error { return r.tarball(w, dir, name) }); err != nil {
			return err
		}
		bom, err := r.materials(dir, arch)
		if err != nil {
			return err
		}
		if err := r.write(name+".cdx.json", func(w io.Writer) error { _, err := w.Write(bom); return err }); err != nil {
			return err
		}
	}
	return nil
}

// component is a part of a bill of materials (CycloneDX 1.5).
type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref,omitempty"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

// materials lists the modules that the programs in a directory were linked from.
func (r *release) materials(dir, arch string) ([]byte, error) {
	main := component{Type: "application", Ref: program, Name: program, Version: r.version}
	modules := map[string]component{}
	for _, p := range []string{"snapctl", "snapd"} {
		info, err := buildinfo.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return nil, err
		}
		sum, err := digest(filepath.Join(dir, p))
		if err != nil {
			return nil, err
		}
		main.Hashes = append(main.Hashes, hash{"SHA-256", sum})
		add := func(path, version string) {
			purl := "pkg:golang/" + path + "@" + version
			modules[purl] = component{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl}
		}
		add("std", strings.TrimPrefix(info.GoVersion, "go"))
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			add(d.Path, d.Version)
		}
	}
	list := make([]component, 0, len(modules))
	for _, c := range modules {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b component) int { return strings.Compare(a.Ref, b.Ref) })
	type metadata struct {
		Timestamp  string     `json:"timestamp"`
		Component  component  `json:"component"`
		Properties []property `json:"properties"`
	}
	data, err := json.MarshalIndent(struct {
		Format     string      `json:"bomFormat"`
		Spec       string      `json:"specVersion"`
		Version    int         `json:"version"`
		Metadata   metadata    `json:"metadata"`
		Components []component `json:"components"`
	}{"CycloneDX", "1.5", 1, metadata{r.time.Format(time.RFC3339), main, []property{{"platform", "linux/" + arch}}}, list}, "", "  ")
	return append(data, '\n'), err
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// checksums lists the files of the release in the format of sha256sum --check.
func (r *release) checksums(context.Context) error {
	var b strings.Builder
	for _, name := range r.made {
		sum, err := digest(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, name)
	}
	return r.write("SHA256SUMS", func(w io.Writer) error { _, err := io.WriteString(w, b.String()); return err })
}

func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// write writes a file of the release atomically.
func (r *release) write(name string, fill func(io.Writer) error) error {
	file := filepath.Join(r.out, name)
	f, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(file+".new"))
	}
	r.made = append(r.made, name)
	fmt.Fprintln(r.log, file)
	return os.Rename(file+".new", file)
}

// run runs a command and returns its output. Its errors include the command's messages.
func (r *release) run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, said.Bytes())
	}
	return out, nil
}

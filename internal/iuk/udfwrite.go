package iuk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/regfile"
)

// ErrOtherVersions means that product, architecture or versions in a kit's provenance
// are not those in its file name.
var ErrOtherVersions = errors.New("kit is for other versions")

// Signer signs UDFs.
type Signer interface {
	// SignDetached writes an armored detached OpenPGP signature of data to w.
	SignDetached(ctx context.Context, w io.Writer, data []byte) error
}

// The release channels.
const (
	ChannelAlpha  = "alpha"
	ChannelStable = "stable"
)

// UDFOptions describe a release, for its upgrade-description files.
type UDFOptions struct {
	Product     string // e.g. "Tails"
	BuildTarget string // e.g. "amd64"
	Channel     string // the channel of the release: ChannelStable or ChannelAlpha
	To          string // the released version
	From        []string
	Next        []string // future versions, for whose clients an empty file must exist

	ImageURL string // URL of the full image
	Image    string // file with the full image, for its size and digest
	IUKURL   string // URL of the directory of the kits
	IUKs     string // directory of the kits; missing ones are not offered

	DetailsURL string // may be empty

	// Confirmed, if not nil, returns an error for an image that must not be offered, as
	// the full image or as the result of a kit.
	Confirmed func(image cas.Digest) error

	Output string // directory for the v2/ tree
}

// UDFFile is a file that WriteUDFs wrote.
type UDFFile struct {
	Path        string `json:"path"` // slash-separated, below the output directory
	Channel     string `json:"channel"`
	Version     string `json:"version"`     // initially installed version
	Upgrade     string `json:"upgrade"`     // version offered, or ""
	Incremental bool   `json:"incremental"` // a kit is offered
}

// notFinalRE matches pre-releases, which use the alpha channel.
var notFinalRE = lazyregexp.New(`~(?:alpha|beta|rc)[0-9]*$`)

// UDFPath is the path of a UDF below the output directory or URL. ".pgp" is appended
// for its signature.
func UDFPath(product, version, buildTarget, channel string) string {
	return path.Join("v2", product, version, buildTarget, channel, "upgrades.yml")
}

// KitName is the file name of the kit from one version to another.
func KitName(product, arch, from, to string) string {
	return fmt.Sprintf("%s_%s_%s_to_%s.iuk", product, arch, from, to)
}

func (o *UDFOptions) check() error {
	if !wordRE().MatchString(o.Product) {
		return fmt.Errorf("product %q is not a name", o.Product)
	}
	if !wordRE().MatchString(o.BuildTarget) {
		return fmt.Errorf("build target %q is not a name", o.BuildTarget)
	}
	if o.Channel != ChannelAlpha && o.Channel != ChannelStable {
		return fmt.Errorf("channel: expected alpha or stable, found %q", o.Channel)
	}
	seen := make(map[string]string)
	for _, v := range slices.Concat([][2]string{{o.To, "to"}}, pairs(o.From, "from"), pairs(o.Next, "next")) {
		if !versionRE().MatchString(v[0]) {
			return fmt.Errorf("%s: %q is not a version", v[1], v[0])
		}
		if other, ok := seen[v[0]]; ok {
			return fmt.Errorf("version %s is given twice: as %s and as %s", v[0], other, v[1])
		}
		seen[v[0]] = v[1]
	}
	return nil
}

func pairs(list []string, role string) (all [][2]string) {
	for _, v := range list {
		all = append(all, [2]string{v, role})
	}
	return all
}

// UDFs returns the UDFs of a release, in a fixed order: an empty one in both channels
// for the new version and each next one, and for each previous version one that offers
// only the new version, so that older upgrades are not offered forever. In the alpha
// channel, a stable release is offered only to alpha, beta and rc versions. An alpha
// release is offered only in the alpha channel, to all versions.
func (o *UDFOptions) UDFs(ctx context.Context) ([]*UDF, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var all []*UDF
	add := func(version, channel string, upgrades ...Upgrade) {
		all = append(all, &UDF{ProductName: o.Product, InitialInstallVersion: version,
			BuildTarget: o.BuildTarget, Channel: channel, Upgrades: upgrades})
	}
	channels := []string{ChannelAlpha, ChannelStable}
	for _, v := range append([]string{o.To}, o.Next...) {
		for _, c := range channels {
			add(v, c)
		}
	}

	var full TargetFile
	if len(o.From) > 0 {
		var err error
		if full, err = target(ctx, o.Image, o.ImageURL); err != nil {
			return nil, fmt.Errorf("full image: %w", err)
		}
		if o.Confirmed != nil {
			if err := o.Confirmed(full.SHA256); err != nil {
				return nil, fmt.Errorf("full image %s: %w", o.Image, err)
			}
		}
	}
	for _, v := range o.From {
		up := Upgrade{Version: o.To, Type: UpgradeMinor, DetailsURL: o.DetailsURL,
			Paths: []UpgradePath{{PathFull, []TargetFile{full}}}}
		if series(v) != series(o.To) {
			up.Type = UpgradeMajor
		}
		if o.IUKs != "" {
			kit, err := o.kit(ctx, v)
			if err != nil {
				return nil, fmt.Errorf("kit: %w", err)
			}
			if kit != nil {
				up.Paths = append(up.Paths, UpgradePath{PathIncremental, []TargetFile{*kit}})
			}
		}
		for _, c := range channels {
			if o.Channel == ChannelStable && c == ChannelAlpha && !notFinalRE().MatchString(v) ||
				o.Channel == ChannelAlpha && c == ChannelStable {
				continue
			}
			add(v, c, up)
		}
	}
	for _, u := range all {
		if err := u.Check(); err != nil {
			return nil, fmt.Errorf("version %s: %w", u.InitialInstallVersion, err)
		}
	}
	return all, nil
}

// series is the part of a version before the first dot.
func series(v string) string {
	s, _, _ := strings.Cut(v, ".")
	return s
}

// kit describes the kit from a version, or returns nil if it does not exist. The kit
// must pass Inspect and be for these versions, because the signature of the UDF
// authenticates it.
func (o *UDFOptions) kit(ctx context.Context, from string) (*TargetFile, error) {
	name := KitName(o.Product, o.BuildTarget, from, o.To)
	base, err := url.Parse(o.IUKURL)
	if err != nil {
		return nil, err
	}
	f, err := regfile.Open(filepath.Join(o.IUKs, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	found, err := Inspect(ctx, Input{R: f, Size: st.Size(), Name: f.Name()}, InspectOptions{})
	if err != nil {
		return nil, err
	}
	if p := found.Provenance; p != nil {
		if is := KitName(p.Product, p.Arch, p.Base.Version, p.New.Version); is != name {
			return nil, fmt.Errorf("%s: expected a kit %s, its provenance.json says %s: %w", f.Name(), name, is, ErrOtherVersions)
		}
	}
	if o.Confirmed != nil {
		if found.Provenance == nil {
			return nil, fmt.Errorf("%s: %w: it has no provenance.json that names the image it makes", f.Name(), ErrOtherVersions)
		}
		if err := o.Confirmed(found.Provenance.New.SHA256); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	t, err := describe(ctx, f, base.JoinPath(name).String())
	return &t, err
}

// target describes the file at name, whose URL is u.
func target(ctx context.Context, name, u string) (TargetFile, error) {
	f, err := regfile.Open(name)
	if err != nil {
		return TargetFile{}, err
	}
	defer f.Close()
	return describe(ctx, f, u)
}

func describe(ctx context.Context, f *os.File, u string) (TargetFile, error) {
	t := TargetFile{URL: u}
	h := sha256.New()
	var err error
	if t.Size, err = io.Copy(h, regfile.WithContext(ctx, f)); err != nil {
		return TargetFile{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	h.Sum(t.SHA256[:0])
	return t, nil
}

// WriteUDFs writes the upgrade-description files of a release and their signatures.
// Everything is read and signed before the first file is replaced. Each file is
// replaced atomically; a client that downloads between the two files of a pair gets a
// bad signature and retries. An existing file that is not a UDF for its path is an
// error, and is not replaced.
func WriteUDFs(ctx context.Context, o UDFOptions, s Signer) ([]UDFFile, error) {
	udfs, err := o.UDFs(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Output, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(o.Output)
	if err != nil {
		return nil, err
	}
	defer root.Close()

	type content struct {
		path      string
		data, sig []byte
	}
	var (
		files  []content
		report []UDFFile
	)
	for _, u := range udfs {
		p := UDFPath(u.ProductName, u.InitialInstallVersion, u.BuildTarget, u.Channel)
		if err := checkExisting(root, p, u); err != nil {
			return nil, fmt.Errorf("existing %s: %w", p, err)
		}
		var sig bytes.Buffer
		data := u.Format()
		if err := s.SignDetached(ctx, &sig, data); err != nil {
			return nil, fmt.Errorf("sign %s: %w", p, err)
		}
		files = append(files, content{p, data, sig.Bytes()})
		f := UDFFile{Path: p, Channel: u.Channel, Version: u.InitialInstallVersion}
		for _, up := range u.Upgrades {
			f.Upgrade = up.Version
			f.Incremental = len(up.Paths) > 1
		}
		report = append(report, f)
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := root.MkdirAll(path.Dir(f.path), 0o755); err != nil {
			return nil, err
		}
		if err := replace(root, f.path, f.data); err != nil {
			return nil, fmt.Errorf("write %s: %w", f.path, err)
		}
		if err := replace(root, f.path+".pgp", f.sig); err != nil {
			return nil, fmt.Errorf("write %s.pgp: %w", f.path, err)
		}
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := durable.SyncFS(dir); err != nil {
		return nil, err
	}
	return report, nil
}

func checkExisting(root *os.Root, p string, u *UDF) error {
	data, err := regfile.ReadIn(root, p, MaxUDF)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := ParseUDF(data)
	if err != nil {
		return err
	}
	if old.ProductName != u.ProductName || old.InitialInstallVersion != u.InitialInstallVersion ||
		old.BuildTarget != u.BuildTarget || old.Channel != u.Channel {
		return fmt.Errorf("it describes %s %s, %s, %s: %w", old.ProductName, old.InitialInstallVersion, old.BuildTarget, old.Channel, ErrOtherUDF)
	}
	return nil
}

// replace writes a temporary file and renames it to name. Its mode does not depend on
// the umask, since web servers read these files.
func replace(root *os.Root, name string, data []byte) error {
	tmp := path.Join(path.Dir(name), "."+path.Base(name)+".tmp")
	if err := root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		root.Remove(tmp)
	}
	return err
}

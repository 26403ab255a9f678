package rpm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/repo/rpm/rpmpkg"
	"example.org/snapd/internal/sign"
)

var _ repo.Own = Format{}

// ReadOwn reads a package and verifies its digests and, if the mirror checks packages,
// its signature. Its file name must match its header. It returns a *rpmpkg.Info.
func (Format) ReadOwn(m config.Mirror, kr *sign.Keyring, name string, r io.Reader) (any, error) {
	if path.Ext(name) != ".rpm" {
		return nil, fmt.Errorf("%w: expected .rpm", repo.ErrNotPackage)
	}
	var o rpmpkg.Options
	if m.CheckPackages() {
		if o.Keyring = kr; kr == nil || kr.Len() == 0 {
			return nil, fmt.Errorf("no key to verify with: %w", repo.ErrUntrusted)
		}
	}
	v := rpmpkg.NewVerifier(o)
	if _, err := io.Copy(v, r); err != nil {
		return nil, packageError(err)
	}
	if err := v.Close(); err != nil {
		return nil, packageError(err)
	}
	info := v.Result().Info
	for _, part := range []string{info.Name, info.Version, info.Release, info.Arch} {
		if !nevraPartRE().MatchString(part) {
			return nil, fmt.Errorf("its header has %q in name, version, release or architecture: %w", excerpt.Of(part), repo.ErrMalformed)
		}
	}
	if want := fileName(info); name != want {
		return nil, fmt.Errorf("its header describes package %s, expected the file name %s: %w", info.NEVRA, excerpt.Of(want), repo.ErrMismatch)
	}
	return info, nil
}

// nevraPartRE matches the names, versions, releases and architectures that rpmbuild
// accepts.
var nevraPartRE = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9_+.~^-]*$`)

// fileName returns the canonical file name of a package.
func fileName(i *rpmpkg.Info) string {
	return i.Name + "-" + i.Version + "-" + i.Release + "." + i.Arch + ".rpm"
}

// OwnComponent returns "": rpm-md has no components.
func (Format) OwnComponent(string) string { return "" }

// OwnIndices returns primary if the package is noarch, a source package, or of an
// architecture that is configured.
func (Format) OwnIndices(m config.Mirror, component string, r *repo.Record) []string {
	if component != "" || len(m.Architectures) > 0 && r.Kind != repo.KindSource && r.Arch != "noarch" && !slices.Contains(m.Architectures, r.Arch) {
		return nil
	}
	return []string{string(rpmmd.Primary)}
}

// OwnPackages writes the metadata elements of each package.
func (f Format) OwnPackages(m config.Mirror, p repo.OwnParams, files []repo.OwnFile) ([]repo.OwnPackage, error) {
	if p.Suite != "" || p.Component != "" {
		return nil, fmt.Errorf("%w: mirror %s is of type rpm, which has no suites and components", repo.ErrNotPackage, m.Name)
	}
	var out []repo.OwnPackage
	for _, file := range files {
		info := file.Read.(*rpmpkg.Info)
		href := "Packages/" + strings.ToLower(info.Name[:1]) + "/" + fileName(info)
		primary := primaryElement(info, file.File, href)
		s := rpmmd.NewScanner(bytes.NewReader(slices.Concat([]byte("<metadata>"), primary, []byte("</metadata>"))), rpmmd.Primary)
		parsed, err := s.Next()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Path, malformed(err))
		}
		rec, err := record("", parsed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Path, err)
		}
		rec.Bytes = primary
		if len(f.OwnIndices(m, "", rec)) == 0 {
			return nil, fmt.Errorf("%s: architecture %q: %w: mirror %s has %s", file.Path, rec.Arch, repo.ErrNotPackage, m.Name, strings.Join(m.Architectures, " "))
		}
		id := file.SHA256.String()
		out = append(out, repo.OwnPackage{Suite: Suite, Record: *rec, Beside: map[string][]byte{
			string(rpmmd.Filelists): filelistsElement(info, id), string(rpmmd.Other): otherElement(info, id),
		}})
	}
	return out, nil
}

// DeriveOwn writes primary, filelists and other, and repomd.xml with its signature.
// It keeps the elements of filelists and other in memory while it writes them.
func (Format) DeriveOwn(ctx context.Context, p repo.OwnSuite, sink repo.Sink) error {
	d := &deriver{mirror: p.Mirror, sink: sink, date: p.Date.Unix()}
	d.out.Revision = fmt.Sprint(d.date)
	var order []string // pkgids, in the order of primary
	list := newList{kind: rpmmd.Primary, head: rpmmd.NewHead(rpmmd.Primary)}
	err := p.Records(ctx, string(rpmmd.Primary), func(r repo.Record) error {
		pkg, err := rpmmd.ParsePrimary(r.Bytes)
		if err != nil {
			return malformed(err)
		}
		order = append(order, pkg.PkgID)
		list.add(r.Bytes)
		return nil
	})
	if err != nil {
		return err
	}
	if err := d.list(ctx, &list, ".gz"); err != nil {
		return err
	}
	for _, kind := range []rpmmd.Kind{rpmmd.Filelists, rpmmd.Other} {
		if err := d.ownList(ctx, p, kind, order); err != nil {
			return err
		}
	}
	return d.sign(ctx, p.Signer, p.Date)
}

// ownList writes filelists or other. It takes the elements of new packages from p and
// those of all others from the last snapshot.
func (d *deriver) ownList(ctx context.Context, p repo.OwnSuite, kind rpmmd.Kind, order []string) error {
	wanted, last := map[string]bool{}, map[string][]byte{}
	elements := map[string][]byte{}
	for _, id := range order {
		sha, err := cas.ParseDigest(id)
		if err != nil {
			return err
		}
		if elements[id] = p.Beside(string(kind), sha); elements[id] == nil {
			wanted[id] = true
		}
	}
	if len(wanted) > 0 {
		name, r, err := p.Last(ctx, string(kind))
		if err != nil {
			return err
		}
		if r == nil {
			return fmt.Errorf("no %s in the last snapshot: %w", kind, repo.ErrMissing)
		}
		defer r.Close()
		plain, err := rpmmd.Decode(name, r)
		if err != nil {
			return malformed(err)
		}
		defer plain.Close()
		_, err = rpmmd.CutList(plain, kind, func(id string) bool { return wanted[id] }, func(pkg *rpmmd.Package) error {
			last[pkg.PkgID] = bytes.Clone(pkg.Raw)
			return nil
		})
		if err != nil {
			return malformed(err)
		}
	}
	list := newList{kind: kind, head: rpmmd.NewHead(kind)}
	for _, id := range order {
		e := elements[id]
		if e == nil {
			if e = last[id]; e == nil {
				return fmt.Errorf("%s of the last snapshot lacks package %s: %w", kind, id, repo.ErrMissing)
			}
		}
		list.add(e)
	}
	return d.list(ctx, &list, ".gz")
}

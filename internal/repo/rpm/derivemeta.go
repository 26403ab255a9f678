package rpm

import (
	"context"
	"errors"
	"fmt"
	"io"

	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/repo/rpm/rpmmd"
)

// groupTypes are the data types that contain comps, in the order in which to try them.
var groupTypes = []string{"group", "group_gz", "group_xz", "group_zst", "group_bz2"}

// selectBeside adds to the selection the packages that the freeze contains from other
// repositories, which clients use together with this one, and the groups of those
// repositories.
func selectBeside(ctx context.Context, sel *rpmmd.Selection, beside []repo.Choice) error {
	var all []repo.Choice
	for _, c := range beside {
		all = append(all, states(c)...)
	}
	for _, c := range all {
		err := c.Packages(ctx, func(r repo.Record) error {
			evr, err := nevra.ParseEVR(r.Version)
			if err != nil {
				return fmt.Errorf("package %s: %w", r.Name, malformed(err))
			}
			sel.Add(nevra.NEVRA{Name: r.Name, EVR: evr, Arch: r.Arch})
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, c := range all {
		doc, err := readComps(ctx, c)
		if err != nil {
			return err
		}
		if doc == nil {
			continue
		}
		if err := sel.AddGroups(doc, c.Whole); err != nil {
			return malformed(err)
		}
	}
	return nil
}

// readComps returns the comps document of a state, or nil if it has none or dnf could
// not read it.
func readComps(ctx context.Context, c repo.Choice) ([]byte, error) {
	doc, err := readFirst(ctx, c, rpmmd.MaxComps, groupTypes...)
	if err != nil || doc == nil || checkComps(doc) != nil {
		return nil, unlessMalformed(err)
	}
	return doc, nil
}

// unlessMalformed returns err, or nil if err means that upstream's data are malformed: dnf
// ignores such data, and the sync has warned about them.
func unlessMalformed(err error) error {
	if errors.Is(err, repo.ErrMalformed) {
		return nil
	}
	return err
}

func checkComps(doc []byte) error {
	return malformed(rpmmd.CutComps(io.Discard, &rpmmd.Selection{}, doc))
}

// checkUpdateinfo checks that all advisories can be parsed.
func checkUpdateinfo(r io.Reader) error {
	_, err := rpmmd.CutUpdateinfo(io.Discard, &rpmmd.Selection{}, r)
	return malformed(err)
}

// readFirst returns the decompressed data of the first of the types that a state has, or
// nil if it has none.
func readFirst(ctx context.Context, c repo.Choice, max int64, types ...string) ([]byte, error) {
	for _, typ := range types {
		if l, ok := heldIn(c, typ); ok {
			return readHeld(ctx, c, l, max)
		}
	}
	return nil, nil
}

// takesAll reports whether all packages that the mirror is configured for are chosen.
// Upstream's comps, updateinfo and modules are then copied unchanged.
func (d *deriver) takesAll(ctx context.Context, primary repo.Listed, chosen map[string]nevra.NEVRA) (bool, error) {
	if len(d.states) > 1 {
		return false, nil
	}
	r, err := openHeld(ctx, d.c, primary)
	if err != nil {
		return false, err
	}
	defer r.Close()
	s := rpmmd.NewScanner(regfile.WithContext(ctx, r), rpmmd.Primary)
	for {
		p, err := s.Next()
		switch {
		case err == io.EOF:
			return true, nil
		case err != nil:
			return false, malformed(err)
		}
		if _, ok := chosen[p.PkgID]; !ok && (Format{}).Match(d.mirror, matchRecord(p)) {
			return false, nil
		}
	}
}

// comps writes comps as uncompressed data of type "group", which every client accepts.
// It merges the newest state's document with entries that only older states have.
func (d *deriver) comps(ctx context.Context, _ string, sel *rpmmd.Selection) error {
	var docs [][]byte
	for _, c := range d.states {
		doc, err := readComps(ctx, c)
		if err != nil {
			return err
		}
		if doc != nil {
			docs = append(docs, doc)
		}
	}
	if len(docs) == 0 {
		return nil
	}
	return d.write(ctx, "group", "comps.xml", func(w io.Writer) error {
		if d.all {
			_, err := w.Write(docs[0])
			return err
		}
		return rpmmd.CutComps(w, sel, docs[0], docs[1:]...)
	})
}

func (d *deriver) updateinfo(ctx context.Context, ext string, sel *rpmmd.Selection) error {
	var docs []io.Reader
	for _, c := range d.states {
		l, ok := heldIn(c, "updateinfo")
		if !ok {
			continue
		}
		if err := checkHeld(ctx, c, l, checkUpdateinfo); errors.Is(err, repo.ErrMalformed) && !d.all {
			continue
		} else if err != nil && !errors.Is(err, repo.ErrMalformed) {
			return err
		}
		r, err := openHeld(ctx, c, l)
		if err != nil {
			return err
		}
		defer r.Close()
		docs = append(docs, regfile.WithContext(ctx, r))
	}
	if len(docs) == 0 {
		return nil
	}
	return d.write(ctx, "updateinfo", "updateinfo.xml"+ext, func(w io.Writer) (err error) {
		if d.all {
			_, err = io.Copy(w, docs[0])
		} else {
			_, err = rpmmd.CutUpdateinfo(w, sel, docs...)
		}
		return err
	})
}

func (d *deriver) modules(ctx context.Context, ext string, sel *rpmmd.Selection) error {
	if l, ok := d.held("modules"); ok && d.all {
		doc, err := readHeld(ctx, d.c, l, rpmmd.MaxModules)
		if err != nil {
			return err
		}
		return d.write(ctx, "modules", "modules.yaml"+ext, func(w io.Writer) error {
			_, err := w.Write(doc)
			return err
		})
	}
	read := func(c repo.Choice) ([]rpmmd.ModuleDoc, error) {
		doc, err := readFirst(ctx, c, rpmmd.MaxModules, "modules")
		if err != nil {
			return nil, err
		}
		docs, _, err := rpmmd.ParseModules(doc)
		return docs, malformed(err)
	}
	var own [][]rpmmd.ModuleDoc
	for _, c := range d.states {
		docs, err := read(c)
		if err != nil {
			return err
		}
		own = append(own, docs)
	}
	var beside []rpmmd.ModuleDoc
	for _, c := range d.beside {
		for _, s := range states(c) {
			docs, err := read(s)
			if err != nil {
				return err
			}
			beside = append(beside, docs...)
		}
	}
	kept := rpmmd.CutModules(own, beside, sel)
	if len(kept) == 0 {
		return nil // libmodulemd refuses an empty document
	}
	return d.write(ctx, "modules", "modules.yaml"+ext, func(w io.Writer) error {
		_, err := w.Write(rpmmd.FormatModules(kept))
		return err
	})
}

// product copies the product certificate unchanged.
func (d *deriver) product(ctx context.Context, _ string, _ *rpmmd.Selection) error {
	l, ok := d.held("productid")
	listed := d.md.Find("productid")
	if !ok || listed == nil {
		return nil
	}
	r, err := d.c.Open(ctx, l)
	if err != nil {
		return fmt.Errorf("open %s: %w", l.Path, err)
	}
	defer r.Close()
	const max = 16 << 20
	data, err := io.ReadAll(io.LimitReader(r, max+1))
	if err != nil {
		return err
	}
	if len(data) > max {
		return fmt.Errorf("%w: %s has more than %d bytes", repo.ErrMalformed, l.Path, max)
	}
	entry := *listed
	if _, err := d.sink.Put(ctx, entry.Path, data); err != nil {
		return err
	}
	entry.Base, entry.Href, entry.Size = "", rpmmd.FormatHref(entry.Path), int64(len(data))
	d.out.Data = append(d.out.Data, entry)
	return nil
}

// readHeld returns the decompressed content of a stored file. More than max bytes are
// repo.ErrMalformed.
func readHeld(ctx context.Context, c repo.Choice, l repo.Listed, max int64) ([]byte, error) {
	r, err := openHeld(ctx, c, l)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	doc, err := io.ReadAll(io.LimitReader(regfile.WithContext(ctx, r), max+1))
	if err != nil {
		return nil, malformed(err)
	}
	if int64(len(doc)) > max {
		return nil, fmt.Errorf("%w: %s unpacks to more than %d bytes", repo.ErrMalformed, l.Path, max)
	}
	return doc, nil
}

// checkHeld calls check with the decompressed content of a stored file.
func checkHeld(ctx context.Context, c repo.Choice, l repo.Listed, check func(io.Reader) error) error {
	r, err := openHeld(ctx, c, l)
	if err != nil {
		return err
	}
	defer r.Close()
	return check(regfile.WithContext(ctx, r))
}

package client_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A query for control data matches the same packages of a freeze that was made here,
// whose stanzas are in the metadata, as of an imported one, and as of any page of them.
func TestQueryOfImported(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Archive.Add(debtest.Package{Name: "web", Version: "1", Fields: map[string]string{"Section": "web"}})
	w.Archive.Publish(w.Now())
	w.MustSync()
	w.Freeze(t, api.FreezeRequest{Name: "exact", NoSources: true, Manifests: freezertest.List("a=1", "b=1", "web=1")})
	w.Freeze(t, api.FreezeRequest{Name: "whole", All: true, NoSources: true})
	other := freezertest.NewEmpty(t, func(m *config.Mirror) { m.Download = config.All })
	for _, name := range []string{"exact", "whole"} {
		dir := filepath.Join(t.TempDir(), name)
		if _, err := w.Freezer.Export(t.Context(), name, dir, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"$Section (web)", "!$Section (web)", "$Section", "a"} {
			q, err := query.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			all, _ := asked(t, w.Freezer, name, q, client.Position{})
			imported, positions := asked(t, other.Freezer, name, q, client.Position{})
			if !slices.Equal(all, imported) || len(all) == 0 {
				t.Errorf("%s %s: %q here, %q imported", name, text, all, imported)
			}
			for i, at := range positions {
				again, err := client.ParsePosition(at.String())
				if err != nil {
					t.Fatal(err)
				}
				if rest, _ := asked(t, other.Freezer, name, q, again); !slices.Equal(rest, imported[i:]) {
					t.Errorf("%s %s from %s: %q, expected %q", name, text, at.String(), rest, imported[i:])
				}
			}
		}
	}
}

// asked returns the packages of a freeze that a query matches, and their positions.
func asked(t *testing.T, z *freezer.Freezer, name string, q *query.Query, from client.Position) (names []string, at []client.Position) {
	t.Helper()
	err := z.Manifest(meta.FreezeName(name)).EachRead(t.Context(), q, from, func(r *client.Read) error {
		if r.Asked {
			names, at = append(names, r.Name+" "+r.Arch), append(at, r.Position)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, at
}

// counted counts the packages and stanzas that are read from metadata.
type counted struct {
	meta.Store
	packages, stanzas int
}

func (c *counted) Packages(ctx context.Context, s *meta.Snapshot, after []byte, limit int) ([]meta.Entry, []byte, error) {
	page, next, err := c.Store.Packages(ctx, s, after, limit)
	c.packages += len(page)
	return page, next, err
}

func (c *counted) PackagesNamed(ctx context.Context, s *meta.Snapshot, prefix, from string, limit int) ([]meta.Entry, string, error) {
	page, next, err := c.Store.PackagesNamed(ctx, s, prefix, from, limit)
	c.packages += len(page)
	return page, next, err
}

func (c *counted) Stanzas(ctx context.Context, pids []meta.PID) ([][]byte, error) {
	c.stanzas += len(pids)
	return c.Store.Stanzas(ctx, pids)
}

func (c *counted) Differences(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, from, to uint32) ([]meta.Difference, error) {
	all, err := c.Store.Differences(ctx, mirror, suite, from, to)
	c.packages += len(all)
	return all, err
}

// Pages read only what they show: differences of a mirror in which every package changed,
// a list that begins late, and a query for control data. Long because all use one mirror.
func TestPagesReadLittle(t *testing.T) {
	w := freezertest.NewEmpty(t, func(m *config.Mirror) { m.Download, m.Sources = config.OnDemand, false })
	const n = 1200
	publish := func(version string) *meta.Snapshot {
		t.Helper()
		for i := range n {
			w.Archive.Add(debtest.Package{Name: fmt.Sprintf("p%04d", i), Version: version, Body: []byte(version)})
		}
		w.SetNow(w.Now().Add(time.Hour))
		w.Archive.Publish(w.Now())
		return w.MustSync().Snapshot
	}
	one := publish("1")
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("p%04d=1", i))
	}
	w.Freeze(t, api.FreezeRequest{Name: "exact", Manifests: freezertest.List(list...)})
	w.Freeze(t, api.FreezeRequest{Name: "whole", All: true, NoSources: true})
	for i := range n {
		w.Archive.Default().Remove(fmt.Sprintf("p%04d", i), "")
	}
	two := publish("2")
	st := &counted{Store: w.Store()}
	z := freezer.New(freezer.Config{Formats: w.Formats(), Catalog: w.Catalog, Acquirer: w.Acquirer, Meta: st, Blobs: w.Blobs(), Signer: w.Signer, Now: w.Now})
	reads := func(what string, packages, stanzas int, f func() error) {
		t.Helper()
		st.packages, st.stanzas = 0, 0
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if st.packages > packages || st.stanzas > stanzas {
			t.Errorf("%s: read %d packages and %d stanzas of %d, expected at most %d and %d", what, st.packages, st.stanzas, n, packages, stanzas)
		}
	}
	for _, from := range []string{"", "debian/p0600"} {
		reads("differences from "+from, 2*500+100, 0, func() error {
			d, all, err := z.DiffPage(t.Context(), one.ID(), two.ID(), client.DiffPart{From: from, Few: n, Rows: 200, Read: 10 * n})
			if err == nil && (all || len(d.Upgraded) != 200 || d.Next == "") {
				return fmt.Errorf("%d upgraded, all %v, next %q", len(d.Upgraded), all, d.Next)
			}
			return err
		})
	}
	reads("differences of another kind", 2*1000, 0, func() error {
		_, _, err := z.DiffPage(t.Context(), one.ID(), two.ID(), client.DiffPart{Kind: "removed", Few: n, Rows: 200, Read: 2000})
		return err
	})
	enough := errors.New("enough")
	for _, c := range []struct {
		freeze, from, query string
		packages, stanzas   int
	}{
		{"whole", "", "*", 1000, 0}, {"whole", "debian/p0900", "*", 500, 0}, {"whole", "", "$Maintainer", 1000, 1000},
		{"exact", "", "*", 0, 0}, {"exact", "debian/#900", "*", 0, 0}, {"exact", "debian/#900", "$Maintainer", 0, 500},
	} {
		q, err := query.Parse(c.query)
		if err != nil {
			t.Fatal(err)
		}
		from, err := client.ParsePosition(c.from)
		if err != nil {
			t.Fatal(err)
		}
		reads(c.freeze+" "+c.from+" "+c.query, c.packages, c.stanzas, func() error {
			left := 200
			err := z.Manifest(meta.FreezeName(c.freeze)).EachRead(t.Context(), q, from, func(r *client.Read) error {
				if left--; left < 0 {
					return enough
				}
				if !r.Asked {
					return fmt.Errorf("%s is not asked for", r.Name)
				}
				return nil
			})
			if !errors.Is(err, enough) {
				return fmt.Errorf("ended with %w", err)
			}
			return nil
		})
	}
}

package meta

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/repo"
)

// StatementNode returns the file of the freeze's tree that holds a statement.
func (f *Frozen) StatementNode(st repo.File) Node {
	return Node{Path: st.Path, Digest: st.SHA256, Size: st.Size, ModTime: f.Date}
}

// WithoutStatement removes a statement of a freeze. ErrNotFound.
func (f *Frozen) WithoutStatement(st repo.File) error {
	i := slices.Index(f.Statements, st)
	if i < 0 {
		return fmt.Errorf("%s of freeze %s: %w", st.Path, f.Name, ErrNotFound)
	}
	f.Statements = slices.Delete(f.Statements, i, i+1)
	return nil
}

// TreeReader reads a freeze and the files of its tree.
type TreeReader interface {
	Freeze(ctx context.Context, name FreezeName) (*Frozen, error)
	TreeFiles(ctx context.Context, name FreezeName, prefix, after string, limit int) ([]Node, error)
}

// CompareTree implements History.TreeFaults for every engine. It reads pages of at most
// page files.
func CompareTree(ctx context.Context, r TreeReader, name FreezeName, listed []Node, page int) ([]TreeFault, error) {
	before, err := r.Freeze(ctx, name)
	if err != nil {
		return nil, err
	}
	want := make(map[string]*Node, len(listed)+len(before.Statements))
	for i := range listed {
		want[listed[i].Path] = &listed[i]
	}
	for _, st := range before.Statements {
		n := before.StatementNode(st)
		want[st.Path] = &n
	}
	var faults []TreeFault
	for after := ""; ; {
		nodes, err := r.TreeFiles(ctx, name, "", after, page)
		if err != nil {
			return nil, err
		}
		for i := range nodes {
			have := &nodes[i]
			w := want[have.Path]
			delete(want, have.Path)
			if w == nil || *w != *have {
				faults = append(faults, TreeFault{Path: have.Path, Want: w, Have: have})
			}
		}
		if len(nodes) < page {
			break
		}
		after = nodes[len(nodes)-1].Path
	}
	for path, w := range want {
		faults = append(faults, TreeFault{Path: path, Want: w})
	}
	// Statements added or removed since the first read are not faults.
	now, err := r.Freeze(ctx, name)
	if err != nil {
		return nil, err
	}
	faults = slices.DeleteFunc(faults, func(f TreeFault) bool {
		one := f.Have
		if one == nil {
			one = f.Want
		}
		same := func(st repo.File) bool { return now.StatementNode(st) == *one }
		if f.Want == nil {
			return slices.ContainsFunc(now.Statements, same)
		}
		return f.Have == nil && slices.ContainsFunc(before.Statements, same) && !slices.ContainsFunc(now.Statements, same)
	})
	slices.SortFunc(faults, func(a, b TreeFault) int { return strings.Compare(a.Path, b.Path) })
	return faults, nil
}

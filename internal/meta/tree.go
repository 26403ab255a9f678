package meta

import (
	"context"
	"slices"
	"strings"

	"example.org/snapd/internal/repo"
)

// StatementNode returns the file of the freeze's tree that holds a statement.
func (f *Frozen) StatementNode(st repo.File) Node {
	return Node{Path: st.Path, Digest: st.SHA256, Size: st.Size, ModTime: f.Date}
}

// TreeReader reads a freeze and the files of its tree.
type TreeReader interface {
	Freeze(ctx context.Context, name string) (*Frozen, error)
	TreeFiles(ctx context.Context, name, prefix, after string, limit int) ([]Node, error)
}

// CompareTree implements History.TreeFaults for every engine. It reads pages of at most
// page files.
func CompareTree(ctx context.Context, r TreeReader, name string, listed []Node, page int) ([]TreeFault, error) {
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
	// Statements added since the first read are not faults.
	now, err := r.Freeze(ctx, name)
	if err != nil {
		return nil, err
	}
	faults = slices.DeleteFunc(faults, func(f TreeFault) bool {
		return f.Want == nil && slices.ContainsFunc(now.Statements, func(st repo.File) bool { return now.StatementNode(st) == *f.Have })
	})
	slices.SortFunc(faults, func(a, b TreeFault) int { return strings.Compare(a.Path, b.Path) })
	return faults, nil
}

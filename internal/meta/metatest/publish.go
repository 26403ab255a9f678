package metatest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

var freezeDate = time.Unix(1_700_000_000, 0).UTC()

// blob returns a file whose digest depends on its path and a text.
func blob(path, text string) repo.File {
	return repo.File{Path: path, Size: int64(len(text)), SHA256: cas.Sum([]byte(path + text))}
}

// freeze returns the record of a freeze whose manifest depends on a text.
func freeze(name, text string) *meta.Frozen {
	return &meta.Frozen{
		Name: meta.FreezeName(name), Date: freezeDate, Created: freezeDate, Manifest: blob("manifest.json", text), Prov: blob("provenance.json", text),
		KeyBlob: cas.Sum([]byte("key")),
	}
}

// tree returns n files of a frozen tree, ordered by path.
func tree(n int) (nodes []meta.Node) {
	for i := range n {
		path := fmt.Sprintf("debian/pool/%05d.deb", i)
		nodes = append(nodes, meta.Node{Path: path, Digest: cas.Sum([]byte(path)), Size: int64(i), ModTime: freezeDate})
	}
	return nodes
}

// testPublish checks the steps of publishing a freeze, and what each step refuses.
func testPublish(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	fail := failing(t)
	left := meta.Node{Path: "debian/left", Digest: cas.Sum([]byte("left")), ModTime: freezeDate}
	fail(s.PutTree(ctx, "4.1", []meta.Node{left}))
	fail(s.ClearTree(ctx, "4.1"))
	nodes := tree(12_000)
	fail(s.PutTree(ctx, "4.1", nodes))
	if _, err := s.Freeze(ctx, "4.1"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("before it is published: %v, expected ErrNotFound", err)
	}
	f := freeze("4.1", "one")
	fail(s.Publish(ctx, f))
	fail(s.Publish(ctx, f))
	if got, err := s.Freeze(ctx, "4.1"); err != nil || got.Manifest != f.Manifest {
		t.Errorf("published: %+v, %v", got, err)
	}
	for what, err := range map[string]error{
		"another manifest":      s.Publish(ctx, freeze("4.1", "two")),
		"clear of what is seen": s.ClearTree(ctx, "4.1"),
		"files beside the tree": s.PutTree(ctx, "4.1", []meta.Node{left}),
	} {
		if !errors.Is(err, meta.ErrExists) {
			t.Errorf("%s: %v, expected ErrExists", what, err)
		}
	}
	var got []meta.Node
	for after := ""; ; after = got[len(got)-1].Path {
		page, err := s.TreeFiles(ctx, "4.1", "debian/", after, 5000)
		fail(err)
		if got = append(got, page...); len(page) < 5000 {
			break
		}
	}
	if !slices.Equal(got, nodes) {
		t.Errorf("%d files in the tree, expected the %d that were put", len(got), len(nodes))
	}
	if page, err := s.TreeFiles(ctx, "4.1", "fedora/", "", 10); err != nil || len(page) > 0 {
		t.Errorf("files of another mirror: %v, %v", page, err)
	}
	rests := freeze("4.2", "three")
	rests.Mirrors = []meta.FrozenMirror{{Mirror: "debian", Type: "deb", Whole: true, Suites: []meta.FrozenSuite{{Suite: "stable", Gen: 7}}}}
	if err := s.Publish(ctx, rests); !errors.Is(err, meta.ErrGone) {
		t.Errorf("a freeze that refers to a generation that does not exist: %v, expected ErrGone", err)
	}
	fail(s.RemoveFreeze(ctx, "4.1", day))
	if _, err := s.Freeze(ctx, "4.1"); err == nil {
		t.Error("a removed freeze still exists")
	}
	for _, making := range []bool{true, false} {
		fail(s.ClearOrphanTree(ctx, "4.1", func() bool { return making }))
		if page, err := s.TreeFiles(ctx, "4.1", "", "", 10); err != nil || (len(page) > 0) != making {
			t.Errorf("%d files of a removed freeze, %v; being made: %t", len(page), err, making)
		}
	}
	if err := s.RemoveFreeze(ctx, "4.9", day); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("remove a freeze that does not exist: %v, expected ErrNotFound", err)
	}
}

// testUpdateFreeze checks which parts of a published freeze can be changed.
func testUpdateFreeze(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	fail := failing(t)
	f := freeze("4.1", "one")
	fail(s.Publish(ctx, f))
	statement := meta.StatementFiles{
		Freeze: "4.1", Manifest: f.Manifest.SHA256, Files: []repo.File{blob("_statements/image-default.json", "s"), blob("_statements/image-default.json.asc", "s")},
		Image: &meta.Image{Name: "4.1", Variant: "default", SHA256: cas.Sum([]byte("image")), Size: 5, Statement: blob("_statements/image-default.json", "s").SHA256},
	}
	fail(s.AddStatement(ctx, statement))
	fail(s.AddStatement(ctx, statement))
	images, err := s.Images(ctx, "4.1")
	if err != nil || len(images) != 1 || images[0] != *statement.Image {
		t.Errorf("images: %+v, %v", images, err)
	}
	nodes, err := s.TreeFiles(ctx, "4.1", "_statements/", "", 10)
	if err != nil || len(nodes) != 2 || nodes[0].Digest != statement.Files[0].SHA256 || !nodes[0].ModTime.Equal(freezeDate) {
		t.Errorf("statements in the tree: %+v, %v", nodes, err)
	}

	other := statement
	image := *statement.Image
	image.SHA256 = cas.Sum([]byte("other image"))
	other.Image, other.Files = &image, []repo.File{blob("_statements/other.json", "s")}
	if err := s.AddStatement(ctx, other); !errors.Is(err, meta.ErrExists) {
		t.Errorf("another image: %v, expected ErrExists", err)
	}
	other = statement
	other.Manifest = cas.Sum([]byte("another manifest"))
	if err := s.AddStatement(ctx, other); !errors.Is(err, meta.ErrGone) {
		t.Errorf("a statement about another manifest: %v, expected ErrGone", err)
	}
	signature, listing, renewed := blob("provenance.json.asc", "one"), blob("tree", "one"), cas.Sum([]byte("renewed"))
	fail(s.SetProvenanceSignature(ctx, "4.1", cas.Sum([]byte("another provenance")), blob("provenance.json.asc", "other")))
	fail(s.SetProvenanceSignature(ctx, "4.1", f.Prov.SHA256, signature))
	fail(s.SetTreeListing(ctx, "4.1", f.Manifest.SHA256, listing))
	fail(s.SetTreeListing(ctx, "4.1", f.Manifest.SHA256, blob("tree", "later")))
	fail(s.ReplaceKey(ctx, "4.1", cas.Sum([]byte("another key")), cas.Sum([]byte("never"))))
	fail(s.ReplaceKey(ctx, "4.1", f.KeyBlob, renewed))
	now, err := s.Freeze(ctx, "4.1")
	if err != nil || now.ProvSignature != signature || now.Tree != listing || now.KeyBlob != renewed || now.Manifest != f.Manifest || !slices.Equal(now.Statements, statement.Files) {
		t.Errorf("updated: %+v, %v", now, err)
	}
	for what, err := range map[string]error{
		"AddStatement":           s.AddStatement(ctx, meta.StatementFiles{Freeze: "4.9"}),
		"RemoveStatement":        s.RemoveStatement(ctx, "4.9", cas.Digest{}, repo.File{}),
		"SetProvenanceSignature": s.SetProvenanceSignature(ctx, "4.9", cas.Digest{}, signature),
		"SetTreeListing":         s.SetTreeListing(ctx, "4.9", cas.Digest{}, listing),
		"ReplaceKey":             s.ReplaceKey(ctx, "4.9", cas.Digest{}, renewed),
	} {
		if !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("%s of a freeze that does not exist: %v, expected ErrNotFound", what, err)
		}
	}
	testRemoveStatement(t, s, f)
	fail(s.RemoveFreeze(ctx, "4.1", day))
	if images, err := s.Images(ctx, ""); err != nil || len(images) > 0 {
		t.Errorf("images of a removed freeze: %+v, %v", images, err)
	}
}

// testRemoveStatement removes statements of a freeze.
func testRemoveStatement(t *testing.T, s meta.Store, f *meta.Frozen) {
	t.Helper()
	ctx := t.Context()
	one := blob("_statements/attestation-1.json", "attested")
	twin := one
	twin.Path = "_statements/attestation-2.json"
	before, err := s.Freeze(ctx, f.Name)
	failing(t)(err)
	failing(t)(s.AddStatement(ctx, meta.StatementFiles{Freeze: f.Name, Manifest: f.Manifest.SHA256, Files: []repo.File{one, twin}}))
	if err := s.RemoveStatement(ctx, f.Name, cas.Sum([]byte("another manifest")), one); !errors.Is(err, meta.ErrGone) {
		t.Errorf("remove a statement about another manifest: %v, expected ErrGone", err)
	}
	if err := s.RemoveStatement(ctx, f.Name, f.Manifest.SHA256, blob(one.Path, "another")); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("remove a statement with other bytes: %v, expected ErrNotFound", err)
	}
	// The blob is held until the last file with these bytes is removed.
	for i, file := range []repo.File{one, twin} {
		failing(t)(s.RemoveStatement(ctx, f.Name, f.Manifest.SHA256, file))
		if err := s.RemoveStatement(ctx, f.Name, f.Manifest.SHA256, file); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("remove %s again: %v, expected ErrNotFound", file.Path, err)
		}
		held, err := s.Referenced(ctx, []cas.Digest{file.SHA256})
		if err != nil || (len(held) == 1) != (i == 0) {
			t.Errorf("after %s was removed the blob is held: %v, %v", file.Path, held, err)
		}
	}
	after, err := s.Freeze(ctx, f.Name)
	if err != nil || !slices.Equal(after.Statements, before.Statements) {
		t.Errorf("after additions and removals: %+v, %v, expected %+v", after, err, before.Statements)
	}
	if nodes, err := s.TreeFiles(ctx, f.Name, "_statements/attestation", "", 10); err != nil || len(nodes) > 0 {
		t.Errorf("removed statements in the tree: %+v, %v", nodes, err)
	}
}

// testTreeFaults checks that a tree is compared with its list of files.
func testTreeFaults(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	fail := failing(t)
	nodes := tree(6000)
	fail(s.PutTree(ctx, "4.1", nodes))
	f := freeze("4.1", "one")
	fail(s.Publish(ctx, f))
	fail(s.AddStatement(ctx, meta.StatementFiles{Freeze: "4.1", Manifest: f.Manifest.SHA256, Files: []repo.File{blob("_statements/a.json", "a")}}))
	if faults, err := s.TreeFaults(ctx, "4.1", nodes); err != nil || len(faults) > 0 {
		t.Errorf("a tree as it was published: %+v, %v", faults, err)
	}
	listed := slices.Clone(nodes[:5999])
	listed[3].Size++
	absent := meta.Node{Path: "debian/absent", Digest: cas.Sum(nil), ModTime: freezeDate}
	listed = append(listed, absent)
	faults, err := s.TreeFaults(ctx, "4.1", listed)
	fail(err)
	want := []meta.TreeFault{
		{Path: absent.Path, Want: &absent}, {Path: nodes[3].Path, Want: &listed[3], Have: &nodes[3]}, {Path: nodes[5999].Path, Have: &nodes[5999]},
	}
	same := func(a, b meta.TreeFault) bool {
		return a.Path == b.Path && sameNode(a.Want, b.Want) && sameNode(a.Have, b.Have)
	}
	if !slices.EqualFunc(faults, want, same) {
		t.Errorf("faults %+v, expected %+v", faults, want)
	}
	if _, err := s.TreeFaults(ctx, "4.9", nil); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("the tree of no freeze: %v, expected ErrNotFound", err)
	}
}

func sameNode(a, b *meta.Node) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

// failing returns a function that ends the test if its argument is an error.
func failing(t testing.TB) func(error) {
	return func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

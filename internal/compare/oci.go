package compare

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// maxOCIDoc bounds the index and the manifest of an OCI image, in bytes.
const maxOCIDoc = 4 << 20

// ociBlobs returns the roles of the blobs of an archive with an OCI image layout, by
// path: manifest, configuration or layer. It returns nil for any other archive, and for
// one with several images.
func (t *streamTree) ociBlobs() map[string]string {
	if n, err := t.find("/oci-layout"); err != nil || n == nil {
		return nil
	}
	type descriptor struct{ Digest string }
	var index struct{ Manifests []descriptor }
	if !t.document("/index.json", &index) || len(index.Manifests) != 1 {
		return nil
	}
	file := func(d descriptor) string { return "/blobs/" + strings.Replace(d.Digest, ":", "/", 1) }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if !t.document(file(index.Manifests[0]), &manifest) || len(manifest.Layers) == 0 {
		return nil
	}
	names := map[string]string{file(index.Manifests[0]): "/blobs/manifest", file(manifest.Config): "/blobs/config"}
	for i, l := range manifest.Layers {
		names[file(l)] = fmt.Sprintf("/blobs/layer-%d", i+1)
	}
	return names
}

// document parses a member as JSON, and reports whether it is valid.
func (t *streamTree) document(name string, into any) bool {
	n, err := t.find(name)
	if err != nil || n == nil || n.typ != typeFile {
		return false
	}
	data, ok, err := t.content(n).load(maxOCIDoc)
	return err == nil && ok && json.Unmarshal(data, into) == nil
}

// rename gives members other names.
func (t *streamTree) rename(names map[string]string) {
	for _, n := range t.list {
		if name, ok := names[n.name]; ok {
			n.name = name
		}
	}
	slices.SortFunc(t.list, func(a, b *node) int { return comparePaths(a.name, b.name) })
}

// pairBlobs renames the blobs of two OCI images by their roles, so that corresponding
// blobs are compared. It reports whether both archives are OCI images.
func pairBlobs(a, b tree) bool {
	x, ok := a.(*streamTree)
	y, both := b.(*streamTree)
	if !ok || !both {
		return false
	}
	xs, ys := x.ociBlobs(), y.ociBlobs()
	if xs == nil || ys == nil {
		return false
	}
	x.rename(xs)
	y.rename(ys)
	return true
}

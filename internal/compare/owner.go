package compare

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
)

const (
	dpkgInfo   = "/var/lib/dpkg/info"
	dpkgStatus = "/var/lib/dpkg/status"
)

// owners finds the packages that own the paths of differences, in dpkg's database of
// either image and of the images in them, and sets them.
func (c *comparer) owners(list []api.CompareDifference) ([]api.ComparePackage, error) {
	out := []api.ComparePackage{}
	if len(list) == 0 || c.trees[0] == nil {
		return out, nil
	}
	versions := [2]map[string]string{{}, {}}
	if err := c.ownersIn(c.trees, "", list, versions); err != nil {
		return nil, err
	}
	for _, prefix := range c.inner {
		// All differences are known. If an inner database cannot be read, only the
		// names of their packages are missing.
		if err := c.innerOwners(prefix, list, versions); c.ctx.Err() != nil {
			return nil, err
		}
	}
	found := map[string]*api.ComparePackage{}
	codes := map[string]map[string]bool{}
	for _, d := range list {
		if d.Package == "" {
			continue
		}
		p := found[d.Package]
		if p == nil {
			name, _, _ := strings.Cut(d.Package, ":")
			p = &api.ComparePackage{Package: d.Package, A: versions[0][name], B: versions[1][name]}
			found[d.Package], codes[d.Package] = p, map[string]bool{}
		}
		p.Paths++
		for _, k := range d.Causes {
			codes[d.Package][k.Code] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		p := found[name]
		p.Codes = slices.Sorted(maps.Keys(codes[name]))
		out = append(out, *p)
	}
	return out, nil
}

// innerOwners is like ownersIn, for the images at a path within the two images.
func (c *comparer) innerOwners(prefix string, list []api.CompareDifference, versions [2]map[string]string) error {
	p, closeAll, err := c.resolve(strings.TrimSuffix(prefix, "/"))
	if err != nil {
		return err
	}
	defer closeAll()
	var trees [2]tree
	for side, b := range []blob{p.a, p.b} {
		if trees[side], err = c.inside(b, p.name); err != nil {
			return fmt.Errorf("open %s in %s: %w", shown(p.path), c.names[side], err)
		}
	}
	return c.ownersIn(trees, prefix, list, versions)
}

// ownersIn sets the packages of the paths that begin with prefix, from dpkg's databases in
// two trees, and notes their versions.
func (c *comparer) ownersIn(trees [2]tree, prefix string, list []api.CompareDifference, versions [2]map[string]string) error {
	// If / has links to /usr, a package may list a path with or without /usr.
	byPath := map[string][]int{}
	for i, d := range list {
		name, ok := strings.CutPrefix(d.Path, prefix)
		if !ok {
			continue
		}
		byPath[name] = append(byPath[name], i)
		if rest, ok := strings.CutPrefix(name, "/usr/"); ok {
			if top, _, _ := strings.Cut(rest, "/"); top == "bin" || top == "sbin" || strings.HasPrefix(top, "lib") {
				byPath["/"+rest] = append(byPath["/"+rest], i)
			}
		}
	}
	for side, t := range trees {
		n, err := t.find(dpkgStatus)
		if err != nil {
			return fmt.Errorf("read %s: %w", c.names[side], err)
		}
		if n == nil || n.typ != typeFile {
			continue
		}
		installed, err := readStatus(t.content(n))
		if err != nil {
			return fmt.Errorf("read %s: %s: %w", c.names[side], dpkgStatus, err)
		}
		maps.Copy(versions[side], installed)
		if err := c.readLists(t, byPath, list); err != nil {
			return fmt.Errorf("read %s: %w", c.names[side], err)
		}
	}
	return nil
}

// readLists sets the package of each path that a list of dpkg names.
func (c *comparer) readLists(t tree, byPath map[string][]int, list []api.CompareDifference) error {
	var lists []*node
	for n, err := range t.nodes(c.ctx) {
		if err != nil {
			return err
		}
		if path.Dir(n.name) == dpkgInfo && n.typ == typeFile {
			lists = append(lists, n)
			continue
		}
		if comparePaths(n.name, dpkgInfo+"/~") > 0 && !strings.HasPrefix(n.name, dpkgInfo) {
			break
		}
	}
	// dpkg's own files of a package.
	for _, n := range lists {
		pkg, _, _ := cutLast(path.Base(n.name), ".")
		for _, i := range byPath[n.name] {
			list[i].Package = pkg
		}
	}
	slices.SortStableFunc(lists, func(a, b *node) int { return cmp.Compare(a.seq, b.seq) })
	for _, n := range lists {
		pkg, ok := strings.CutSuffix(path.Base(n.name), ".list")
		if !ok {
			continue
		}
		err := lines(t.content(n), func(l string) {
			for _, i := range byPath[l] {
				// Of the many packages of a directory, choose the first by name.
				if list[i].Package == "" || list[i].Package > pkg {
					list[i].Package = pkg
				}
			}
		})
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return nil
}

// lines calls fn for each line of a file. It skips lines that are too long.
func lines(b blob, fn func(string)) error {
	r, err := b.open()
	if err != nil {
		return err
	}
	defer r.Close()
	s := bufio.NewReaderSize(r, 64<<10)
	for {
		l, more, err := s.ReadLine()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !more {
			fn(string(l))
			continue
		}
		for more && err == nil {
			_, more, err = s.ReadLine()
		}
	}
}

// readStatus returns the versions of installed packages.
func readStatus(b blob) (map[string]string, error) {
	out := map[string]string{}
	name, version, installed := "", "", false
	flush := func() {
		if name != "" && installed {
			out[name] = version
		}
		name, version, installed = "", "", false
	}
	err := lines(b, func(l string) {
		switch {
		case l == "":
			flush()
		case strings.HasPrefix(l, "Package: "):
			name = l[9:]
		case strings.HasPrefix(l, "Version: "):
			version = l[9:]
		case strings.HasPrefix(l, "Status: "):
			installed = strings.HasSuffix(l, " installed")
		}
	})
	flush()
	return out, err
}

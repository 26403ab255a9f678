package proof

import (
	"cmp"
	"fmt"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

// binary is a binary package of a freeze.
type binary struct {
	about api.RebuiltPackage
	file  cas.Digest // zero: upstream lists it only by SHA-512
}

// binary records a binary package, if the request names rebuilders. It records packages
// of several mirrors or suites once.
func (c *check) binary(mirror meta.MirrorName, name, version, arch string, file cas.Digest) {
	if c.binaries == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := name + " " + version + " " + arch + " " + file.String()
	if have, ok := c.binaries[key]; !ok || mirror < meta.MirrorName(have.about.Mirror) {
		c.binaries[key] = binary{api.RebuiltPackage{Mirror: string(mirror), Name: name, Version: version, Arch: arch, Rebuilders: []string{}}, file}
	}
}

// checkLinks checks that a list of links is well-formed and named after its digest. An
// unknown signer is not a fault: links only count for users who name their rebuilder.
func (c *check) checkLinks(name string, data []byte) {
	if want := freeze.RebuildsPath(cas.Sum(data)); name != want {
		c.fault(name, want, "", "name of the list of links")
		return
	}
	links, err := attest.ParseLinks(data)
	if err != nil {
		c.fault(name, "", "", "%v", err)
		return
	}
	if c.o.Rebuilders != nil {
		c.links = append(c.links, links...)
	}
}

// checkComparison checks that a comparison is well-formed and named after its digest.
func (c *check) checkComparison(name string, data []byte) {
	if want := freeze.ComparisonPath(cas.Sum(data)); name != want {
		c.fault(name, want, "", "name of the comparison")
		return
	}
	if _, err := freeze.ParseComparison(data); err != nil {
		c.fault(name, "", "", "%v", err)
	}
}

// checkRebuilders checks that enough rebuilders have reproduced each binary package.
func (c *check) checkRebuilders() {
	r := c.o.Rebuilders
	if r == nil {
		return
	}
	res := &api.RebuilderResult{
		Rebuilders: r.Names(), Threshold: c.o.Threshold, By: make([]int, len(r.Names())+1), Fewer: []api.RebuiltPackage{}, Excepted: []api.RebuiltPackage{},
	}
	c.res.Rebuilders = res
	by := r.Reproduced(c.links)
	for _, b := range c.binaries {
		if names := by[b.file]; len(names) > 0 && !b.file.IsZero() {
			b.about.Rebuilders = names
		}
		n := len(b.about.Rebuilders)
		res.Packages++
		res.By[n]++
		switch {
		case n >= c.o.Threshold:
			res.Reproduced++
		case r.Except(b.about.Name):
			res.Excepted = append(res.Excepted, b.about)
		default:
			res.Fewer = append(res.Fewer, b.about)
		}
	}
	for _, list := range [][]api.RebuiltPackage{res.Fewer, res.Excepted} {
		slices.SortFunc(list, func(a, b api.RebuiltPackage) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Mirror, b.Mirror))
		})
	}
	if n := len(res.Fewer); n > 0 {
		c.fault(RebuildObject, freeze.Count(c.o.Threshold, "rebuilder", "rebuilders"), "",
			"%s of %d: fewer rebuilders than the threshold have reproduced them, first %s", freeze.Count(n, "package", "packages"), res.Packages,
			fmt.Sprint(res.Fewer[0].Name, " ", res.Fewer[0].Version, " ", res.Fewer[0].Arch))
	}
}

// RebuildObject is the object of the fault that packages were not reproduced.
const RebuildObject = "reproduced packages"

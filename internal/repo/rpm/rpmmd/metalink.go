package rpmmd

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/fetch/remote"
)

// ErrAddress means that a metalink or mirror list does not contain addresses of a
// repository.
var ErrAddress = errors.New("not the address of a repository")

// Limits of metalinks and mirror lists. Real ones have hundreds of entries.
const (
	MaxMetalink  = 4 << 20 // bytes
	maxResources = 5000
)

// repomdPath is the path of repomd.xml in a repository.
const repomdPath = "repodata/repomd.xml"

// Metalink is the content of a metalink (version 3, as written by MirrorManager) about a
// repomd.xml: its digests, and the URLs of mirrors.
type Metalink struct {
	Current RepoMDRef
	// Alternates are older versions that mirrors may still have, newest first.
	Alternates []RepoMDRef
	// Bases are the http and https base URLs of the repository, most preferred first,
	// without a trailing slash.
	Bases []string
}

// RepoMDRef identifies a version of repomd.xml.
type RepoMDRef struct {
	Timestamp int64      // Unix seconds, 0 when absent
	Size      int64      // bytes, -1 when absent
	Hashes    []Checksum // in the metalink's order
}

// Strongest returns the strongest hash, SHA-512 or SHA-256. If there is neither, it
// returns ErrWeak.
func (r RepoMDRef) Strongest() (Checksum, error) {
	for _, t := range []string{"sha512", "sha384", "sha256"} {
		for _, c := range r.Hashes {
			if c.Type == t {
				return c, nil
			}
		}
	}
	var have []string
	for _, c := range r.Hashes {
		have = append(have, c.Type)
	}
	return Checksum{}, fmt.Errorf("metalink: %w: repomd.xml is named by %q, expected sha256 or sha512", ErrWeak, strings.Join(have, ", "))
}

// Matches reports whether data has the size and all hashes of the reference that can
// be computed. At least one of them must be strong.
func (r RepoMDRef) Matches(data []byte) bool {
	if r.Size >= 0 && r.Size != int64(len(data)) {
		return false
	}
	strong := false
	for _, c := range r.Hashes {
		h := c.New()
		if h == nil {
			continue
		}
		h.Write(data)
		if !c.Matches(h) {
			return false
		}
		strong = strong || c.Strong()
	}
	return strong
}

// Match returns the index of the reference that data matches: 0 for the current one, 1
// and up for the alternates, and -1 if it matches none.
func (m *Metalink) Match(data []byte) int {
	if m.Current.Matches(data) {
		return 0
	}
	for i, a := range m.Alternates {
		if a.Matches(data) {
			return i + 1
		}
	}
	return -1
}

// ParseMetalink parses a metalink. It must describe one file called repomd.xml, and
// its http and https URLs must end in repodata/repomd.xml; otherwise ParseMetalink
// returns ErrAddress.
func ParseMetalink(doc []byte) (*Metalink, error) {
	if len(doc) > MaxMetalink {
		return nil, fmt.Errorf("metalink: size %w of %d bytes", ErrTooLarge, MaxMetalink)
	}
	m, err := parseMetalink(newReaderSize(bytes.NewReader(doc), len(doc)+1))
	if err != nil {
		return nil, fmt.Errorf("metalink: %w", err)
	}
	return m, nil
}

// resource is a URL in a metalink.
type resource struct {
	base       string
	preference int
}

func parseMetalink(r *reader) (*Metalink, error) {
	if err := r.root("metalink"); err != nil {
		return nil, err
	}
	m := &Metalink{}
	found := false
	var resources []resource
	err := r.named("files", func() error {
		return r.named("file", func() error {
			if name := r.attrString("name"); name != "repomd.xml" {
				return fmt.Errorf("%w: it describes the file %q, expected \"repomd.xml\"", ErrAddress, excerpt.Of(name))
			}
			if found {
				return r.fail("two files")
			}
			found = true
			m.Current.Size = -1
			return r.children(func() error {
				switch string(local(r.name)) {
				case "resources":
					return r.named("url", func() error {
						res, err := r.resource()
						if err != nil || res.base == "" {
							return err
						}
						if len(resources) == maxResources {
							return fmt.Errorf("number of addresses %w of %d", ErrTooLarge, maxResources)
						}
						resources = append(resources, res)
						return nil
					})
				case "alternates":
					return r.named("alternate", func() error {
						a := RepoMDRef{Size: -1}
						if len(m.Alternates) == maxResources {
							return fmt.Errorf("number of alternates %w of %d", ErrTooLarge, maxResources)
						}
						err := r.children(func() error { return a.field(r) })
						m.Alternates = append(m.Alternates, a)
						return err
					})
				default:
					return m.Current.field(r)
				}
			})
		})
	})
	if err != nil {
		return nil, err
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("%w: it describes no file, expected \"repomd.xml\"", ErrAddress)
	}
	slices.SortStableFunc(resources, func(a, b resource) int { return b.preference - a.preference })
	for _, res := range resources {
		if !slices.Contains(m.Bases, res.base) {
			m.Bases = append(m.Bases, res.base)
		}
	}
	slices.SortStableFunc(m.Alternates, func(a, b RepoMDRef) int {
		switch {
		case a.Timestamp > b.Timestamp:
			return -1
		case a.Timestamp < b.Timestamp:
			return 1
		}
		return 0
	})
	return m, nil
}

// field reads one child of <file> or <alternate>.
func (ref *RepoMDRef) field(r *reader) error {
	var err error
	switch string(local(r.name)) {
	case "timestamp":
		ref.Timestamp, err = r.seconds()
	case "size":
		ref.Size, err = r.count()
	case "verification":
		err = r.named("hash", func() error {
			typ := strings.ReplaceAll(r.attrString("type"), "-", "")
			v, err := r.content()
			if err != nil {
				return err
			}
			c, err := ParseChecksum(typ, v)
			if err != nil {
				return err
			}
			if len(ref.Hashes) == 16 {
				return fmt.Errorf("number of hashes %w of 16", ErrTooLarge)
			}
			ref.Hashes = append(ref.Hashes, c)
			return nil
		})
	default:
		err = r.skip()
	}
	return err
}

// resource reads a <url>. The base is empty for protocols that are not supported.
func (r *reader) resource() (resource, error) {
	res := resource{}
	if p := r.attrString("preference"); p != "" {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 || n > 1000 {
			return res, r.fail("preference %q", excerpt.Of(p))
		}
		res.preference = n
	}
	v, err := r.content()
	if err != nil {
		return res, err
	}
	v = strings.TrimSpace(v)
	scheme, _, _ := strings.Cut(v, ":")
	if scheme != "http" && scheme != "https" {
		return res, nil // rsync, ftp
	}
	base, ok := strings.CutSuffix(v, "/"+repomdPath)
	if !ok {
		return res, fmt.Errorf("%w: address %q, expected one that ends in %q", ErrAddress, excerpt.Of(remote.Redact(v)), "/"+repomdPath)
	}
	res.base, err = baseURL(base)
	return res, err
}

// named calls f for each child with the name and skips the others.
func (r *reader) named(name string, f func() error) error {
	return r.children(func() error {
		if string(local(r.name)) != name {
			return r.skip()
		}
		return f()
	})
}

// ParseMirrorlist parses a list of base URLs, one on each line, and returns them in
// order. Comments start with "#". It also accepts a metalink.
func ParseMirrorlist(doc []byte) ([]string, error) {
	if len(doc) > MaxMetalink {
		return nil, fmt.Errorf("mirror list: size %w of %d bytes", ErrTooLarge, MaxMetalink)
	}
	if bytes.HasPrefix(bytes.TrimLeft(doc, " \t\r\n"), []byte("<")) {
		m, err := ParseMetalink(doc)
		if err != nil {
			return nil, fmt.Errorf("mirror list: %w", err)
		}
		return m.Bases, nil
	}
	var out []string
	n := 0
	for line := range strings.Lines(string(doc)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		scheme, _, _ := strings.Cut(line, ":")
		switch scheme {
		case "http", "https", "file":
		case "ftp", "rsync":
			continue
		default:
			return nil, fmt.Errorf("mirror list: line %d: %w: %q, expected an http or https URL", n, ErrAddress, excerpt.Of(remote.Redact(line)))
		}
		base, err := baseURL(strings.TrimSuffix(line, "/"+repomdPath))
		if err != nil {
			return nil, fmt.Errorf("mirror list: line %d: %w", n, err)
		}
		if len(out) == maxResources {
			return nil, fmt.Errorf("mirror list: number of addresses %w of %d", ErrTooLarge, maxResources)
		}
		if !slices.Contains(out, base) {
			out = append(out, base)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("mirror list: %w: no address in it", ErrAddress)
	}
	return out, nil
}

// baseURL checks a repository's base URL and removes its trailing slash.
func baseURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" && u.Scheme != "file" || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(s, " \t\r\n") {
		return "", fmt.Errorf("%w: address %q", ErrAddress, excerpt.Of(remote.Redact(s)))
	}
	return strings.TrimRight(s, "/"), nil
}

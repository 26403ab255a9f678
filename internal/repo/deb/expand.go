package deb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
)

// maxExpanded bounds the files in one listed file.
const maxExpanded = 100_000

// Expands reports whether a listed file lists further files and thereby covers
// them by the signature of the Release file: an installer's SHA256SUMS, the Index
// of pdiffs.
func (Format) Expands(index string) bool {
	base := path.Base(index)
	return base == "SHA256SUMS" || base == "Index" && strings.HasSuffix(path.Dir(index), ".diff")
}

// Expand parses such a file, which the caller has verified, and returns the files
// in it, with paths relative to the suite. An unknown size is -1.
func (f Format) Expand(index string, r io.Reader) ([]repo.Listed, error) {
	var out []repo.Listed
	var err error
	if path.Base(index) == "SHA256SUMS" {
		out, err = expandSums(path.Dir(index), r)
	} else {
		out, err = expandDiff(path.Dir(index), r)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", index, err)
	}
	for i := range out {
		out[i].Alternates = byHashNames(out[i])
	}
	return out, nil
}

// expandSums reads the output of sha256sum.
func expandSums(dir string, r io.Reader) ([]repo.Listed, error) {
	var out []repo.Listed
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		if line == "" {
			continue
		}
		sum, name, ok := strings.Cut(line, " ")
		if !ok || len(name) < 2 || name[0] != ' ' && name[0] != '*' {
			return nil, fmt.Errorf("line %d: %q: expected digest and name: %w", n, excerpt.Of(line), repo.ErrMalformed)
		}
		d, err := parseSHA256([]byte(sum))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		p, err := cleanPath(name[1:])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(out) == maxExpanded {
			return nil, fmt.Errorf("more than %d files: %w", maxExpanded, repo.ErrMalformed)
		}
		out = append(out, repo.Listed{Path: path.Join(dir, p), Size: -1, SHA256: d})
	}
	if err := sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("line of more than %d bytes: %w", bufio.MaxScanTokenSize, repo.ErrMalformed)
	} else if err != nil {
		return nil, err
	}
	return out, nil
}

// expandDiff parses an Index of pdiffs: it returns the compressed patches.
func expandDiff(dir string, r io.Reader) ([]repo.Listed, error) {
	stanza, err := deb822.NewReader(r, 0).Next()
	if err == io.EOF {
		return nil, nil
	}
	if errors.Is(err, deb822.ErrMalformed) || errors.Is(err, deb822.ErrTooLarge) {
		return nil, fmt.Errorf("%w: %w", repo.ErrMalformed, err)
	}
	if err != nil {
		return nil, err
	}
	value, _ := stanza.Get("SHA256-Download")
	var out []repo.Listed
	for rest := value; ; {
		e, more, ok := cutSum(rest)
		if !ok && e.sum == "" {
			return out, nil
		}
		rest = more
		l, err := e.listed(dir)
		if err != nil {
			return nil, fmt.Errorf("SHA256-Download: %w", err)
		}
		if len(out) == maxExpanded {
			return nil, fmt.Errorf("SHA256-Download: more than %d patches: %w", maxExpanded, repo.ErrMalformed)
		}
		out = append(out, l)
	}
}

// listed returns the entry as a file in a directory, listed by SHA-256.
func (e sumEntry) listed(dir string) (repo.Listed, error) {
	p, err := cleanPath(e.path)
	if err != nil {
		return repo.Listed{}, err
	}
	d, err := parseSHA256([]byte(e.sum))
	if err != nil {
		return repo.Listed{}, fmt.Errorf("%s: %w", excerpt.Of(p), err)
	}
	size, err := e.bytes()
	if err != nil {
		return repo.Listed{}, fmt.Errorf("%s: %w", excerpt.Of(p), err)
	}
	return repo.Listed{Path: path.Join(dir, p), Size: size, SHA256: d}, nil
}

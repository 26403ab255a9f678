package attest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/lazyregexp"
)

// ErrRebuilders means that a file is not a valid list of rebuilders and their keys.
var ErrRebuilders = errclass.New(errclass.Usage, "malformed list of rebuilders")

// Rebuilders are the trusted rebuilders of packages, and the packages that need not be
// reproduced.
type Rebuilders struct {
	list   []Rebuilder
	except map[string]bool
}

// A Rebuilder builds packages of a distribution again.
type Rebuilder struct {
	Name string
	URL  string // of its rebuilderd; "": nothing is fetched from it
	line int
	keys []ed25519.PublicKey
}

var packageRE = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._+~^-]*$`)

// ParseRebuilders parses a list of rebuilders. Each begins with a line "rebuilder NAME
// [URL]", which its Ed25519 public keys follow as PEM. A line "except PACKAGE" names a
// package that need not be reproduced. Lines that begin with # are comments. Errors
// wrap ErrRebuilders.
func ParseRebuilders(data []byte) (*Rebuilders, error) {
	bad := func(n int, format string, args ...any) error {
		return fmt.Errorf("%w: line %d: %w", ErrRebuilders, n, fmt.Errorf(format, args...))
	}
	if len(data) > MaxBuilders {
		return nil, fmt.Errorf("%w: %d bytes, expected at most %d", ErrRebuilders, len(data), MaxBuilders)
	}
	r := &Rebuilders{except: map[string]bool{}}
	owner := map[string]string{} // of each key
	lines := bytes.SplitAfter(data, []byte("\n"))
	for n := 0; n < len(lines); n++ {
		text := string(bytes.TrimSpace(lines[n]))
		words := strings.Fields(text)
		switch {
		case text == "" || text[0] == '#':
		case words[0] == "rebuilder" && (len(words) == 2 || len(words) == 3):
			one := Rebuilder{Name: words[1], line: n + 1}
			if !builderRE().MatchString(one.Name) {
				return nil, bad(n+1, "name %q: expected at most 64 letters, digits and .+~_@-", excerpt.Of(one.Name))
			}
			if slices.ContainsFunc(r.list, func(o Rebuilder) bool { return o.Name == one.Name }) {
				return nil, bad(n+1, "rebuilder %s occurs twice", one.Name)
			}
			if len(words) == 3 {
				u, err := url.Parse(words[2])
				if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
					return nil, bad(n+1, "%q: expected an http or https URL without user name, query and fragment", excerpt.Of(words[2]))
				}
				one.URL = strings.TrimRight(u.String(), "/")
			}
			if r.list = append(r.list, one); len(r.list) > maxBuilders {
				return nil, bad(n+1, "expected at most %d rebuilders", maxBuilders)
			}
		case words[0] == "except" && len(words) == 2:
			if !packageRE().MatchString(words[1]) {
				return nil, bad(n+1, "%q: expected the name of a package", excerpt.Of(words[1]))
			}
			r.except[words[1]] = true
		case strings.HasPrefix(text, beginBlock):
			if len(r.list) == 0 {
				return nil, bad(n+1, `expected "rebuilder NAME" before a key`)
			}
			block, end := keyBlock(lines, n)
			if block == nil {
				return nil, bad(n+1, "the key has no end")
			}
			key, err := parseEd25519(block)
			if err != nil {
				return nil, bad(n+1, "%w", err)
			}
			d := keyDigest(key)
			id, last := hex.EncodeToString(d[:]), &r.list[len(r.list)-1]
			if o, ok := owner[id]; ok {
				return nil, bad(n+1, "key %s is that of %s already", id, o)
			}
			owner[id] = last.Name
			last.keys = append(last.keys, key)
			n = end
		default:
			return nil, bad(n+1, `expected "rebuilder NAME [URL]", "except PACKAGE" or a public key, found %q`, excerpt.Of(text))
		}
	}
	if len(r.list) == 0 {
		return nil, fmt.Errorf("%w: expected \"rebuilder NAME\" and keys, found none", ErrRebuilders)
	}
	for _, o := range r.list {
		if len(o.keys) == 0 {
			return nil, bad(o.line, "rebuilder %s has no key", o.Name)
		}
	}
	return r, nil
}

// List returns the rebuilders, in the order of the file.
func (r *Rebuilders) List() []Rebuilder { return slices.Clone(r.list) }

// Names returns the names of the rebuilders, in the order of the file.
func (r *Rebuilders) Names() []string {
	out := make([]string, len(r.list))
	for i := range r.list {
		out[i] = r.list[i].Name
	}
	return out
}

// Except reports whether a package need not be reproduced.
func (r *Rebuilders) Except(name string) bool { return r.except[name] }

// Signers returns the rebuilders that signed a link, each once, in the order of the
// file. It ignores key IDs, because they are not signed.
func (r *Rebuilders) Signers(l *Link) (names []string) {
	for _, o := range r.list {
		if slices.ContainsFunc(l.Signatures, func(s Signature) bool {
			return len(s.Sig) == ed25519.SignatureSize && slices.ContainsFunc(o.keys, func(k ed25519.PublicKey) bool { return ed25519.Verify(k, l.signed, s.Sig) })
		}) {
			names = append(names, o.Name)
		}
	}
	return names
}

// Reproduced returns, for each package that a link is about, the rebuilders that
// reproduced it, each once and sorted.
func (r *Rebuilders) Reproduced(links []*Link) map[cas.Digest][]string {
	out := map[cas.Digest][]string{}
	for _, l := range links {
		names := r.Signers(l)
		for _, p := range l.Products {
			for _, n := range names {
				if i, ok := slices.BinarySearch(out[p], n); !ok {
					out[p] = slices.Insert(out[p], i, n)
				}
			}
		}
	}
	return out
}

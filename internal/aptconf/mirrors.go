package aptconf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/sign"
)

// Machine is the system whose sources and keys are read.
type Machine struct {
	// FS is the machine's file system, rooted at "/".
	FS fs.FS
	// Architectures are dpkg's architectures, the native one first.
	Architectures []string
	// Fetch downloads a list of mirrors. If it is nil, only lists on the machine are
	// read.
	Fetch func(url string) ([]byte, error)
}

// Mirror is a mirror that sources name.
type Mirror struct {
	// Mirror's keyring lists only files that exist. Each of Keys must be written to a
	// file and added to it.
	config.Mirror
	URIs  []string      // the base URLs, without the login, in the order in which they are tried
	Login *remote.Login // from the URI; nil: none
	Keys  []string      // armored key blocks
	// From lists where the entries are: "file:line".
	From []string
	// Notes describe ignored parts of the entries.
	Notes []string
}

// maxFile bounds a file of sources or keys, in bytes.
const maxFile = 16 << 20

// Files lists the files that apt reads: sources.list, then those in sources.list.d that
// it accepts, sorted.
func (m Machine) Files() ([]string, error) {
	var out []string
	if _, err := fs.Stat(m.FS, "etc/apt/sources.list"); err == nil {
		out = append(out, "/etc/apt/sources.list")
	}
	dir, err := fs.ReadDir(m.FS, "etc/apt/sources.list.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list apt's sources: %w", err)
	}
	for _, d := range dir {
		n := d.Name()
		if ext := path.Ext(n); plainName(n) && (ext == ".list" || ext == ".sources") && !d.IsDir() {
			out = append(out, "/etc/apt/sources.list.d/"+n)
		}
	}
	return out, nil
}

// FromFiles reads source files (apt's own if none is named), and returns their mirrors
// and the entries that cannot be mirrored. The only error is a file that cannot be read.
func FromFiles(m Machine, files ...string) ([]Mirror, []Skipped, error) {
	if len(files) == 0 {
		var err error
		if files, err = m.Files(); err != nil {
			return nil, nil, err
		}
	}
	var entries []Entry
	var skipped []Skipped
	for _, name := range files {
		data, err := m.read(name)
		if err != nil {
			return nil, nil, fmt.Errorf("read apt sources: %w", err)
		}
		e, s := Parse(name, data)
		entries, skipped = append(entries, e...), append(skipped, s...)
	}
	mirrors, more := m.Mirrors(entries)
	skipped = append(skipped, more...)
	slices.SortStableFunc(skipped, func(a, b Skipped) int {
		return cmp.Or(slices.Index(files, a.File)-slices.Index(files, b.File), a.Line-b.Line)
	})
	return mirrors, skipped, nil
}

func (m Machine) read(name string) ([]byte, error) {
	f, err := m.FS.Open(strings.TrimPrefix(path.Clean("/"+name), "/"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.IsDir() || st.Size() > maxFile {
		return nil, fmt.Errorf("%s: %d bytes or a directory, expected a file of at most %d", name, st.Size(), maxFile)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// normalURI returns the URI as a mirror's url and the login that was in it, or the reason
// why it cannot be mirrored.
func normalURI(s string) (uri string, login *remote.Login, reason string) {
	refuse := func(format string, args ...any) (string, *remote.Login, string) {
		return "", nil, fmt.Sprintf(format, args...)
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || len(s) > 2000 {
		return refuse("%q is not a URI", clip(s))
	}
	switch scheme = strings.ToLower(scheme); scheme {
	case "http", "https":
	case "file", "copy":
		p := strings.TrimPrefix(rest, "//")
		if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "%?#\\") {
			return refuse("%q names no absolute path", clip(s))
		}
		if path.Clean(p) == "/" {
			return refuse("%q is the root directory: expected a directory below it", clip(s))
		}
		return "file://" + path.Clean(p), nil, ""
	case "cdrom":
		return refuse("a disc cannot be mirrored")
	default:
		return refuse("scheme %q is not supported: expected http, https or file", clip(scheme))
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return refuse("%q is not a URI", clip(s))
	}
	if u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(s, "\x00\r\n\t ") {
		return refuse("%q is not a plain URI", clip(s))
	}
	u.Scheme, u.Host = scheme, strings.ToLower(u.Host)
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	if uri, login, err = remote.SplitLogin(u.String(), true); err != nil {
		return refuse("%v", err)
	}
	return uri, login, ""
}

// keySet contains the keys that verify an entry's Release file.
type keySet struct {
	files []string
	keys  []string // armored
}

func (k keySet) id() string {
	return strings.Join(k.files, "\x00") + "\x01" + strings.Join(k.keys, "\x00")
}

// trusted returns the key files that apt trusts for entries without Signed-By, and the
// keyring that Debian installs.
func (m Machine) trusted() []string {
	candidates := []string{"/etc/apt/trusted.gpg"}
	dir, _ := fs.ReadDir(m.FS, "etc/apt/trusted.gpg.d")
	for _, d := range dir {
		if ext := path.Ext(d.Name()); ext == ".gpg" || ext == ".asc" {
			candidates = append(candidates, "/etc/apt/trusted.gpg.d/"+d.Name())
		}
	}
	candidates = append(candidates, "/usr/share/keyrings/debian-archive-keyring.gpg")
	var out []string
	for _, f := range candidates {
		if _, err := m.keyring(f); err == nil {
			out = append(out, f)
		}
	}
	return out
}

// keyring reads a key file, which must contain a usable key.
func (m Machine) keyring(name string) (*sign.Keyring, error) {
	data, err := m.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key file %s does not exist", name)
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", name, err)
	}
	kr, err := sign.ParseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", name, err)
	}
	return kr, nil
}

// keys returns the keys that verify an entry, or an error with the reason why it has no
// usable key.
func (m Machine) keys(e *Entry) (keySet, error) {
	var out keySet
	if e.Key != "" {
		if _, err := sign.ParseKeyring([]byte(e.Key)); err != nil {
			return out, fmt.Errorf("key in Signed-By: %w", err)
		}
		out.keys = append(out.keys, e.Key)
	}
	var fprs []string
	for _, s := range e.SignedBy {
		if !strings.HasPrefix(s, "/") {
			fprs = append(fprs, s)
			continue
		}
		if _, err := m.keyring(s); err != nil {
			return out, err
		}
		out.files = append(out.files, s)
	}
	switch {
	case len(fprs) > 0:
		rings := []*sign.Keyring{}
		from := out.files
		if len(from) == 0 {
			from = m.trusted()
		}
		for _, f := range from {
			if kr, err := m.keyring(f); err == nil {
				rings = append(rings, kr)
			}
		}
		// apt accepts a signature by any one of these keys. It can also require a certain
		// subkey ("!"); a mirror can only require the whole certificate.
		all := sign.Merge(rings...)
		var known []sign.Fingerprint
		for _, f := range fprs {
			if k := sign.ParseFingerprint(strings.TrimSuffix(f, "!")); all.Contains(k) {
				known = append(known, k)
			}
		}
		picked, err := all.Filter(known...)
		if err != nil || len(known) == 0 {
			return out, fmt.Errorf("key %s of Signed-By: not in %s", strings.Join(fprs, " "), strings.Join(from, " "))
		}
		out.files = nil
		out.keys = append(out.keys, string(picked.ExportArmored()))
	case len(out.files) == 0 && len(out.keys) == 0:
		if e.Trusted == "yes" {
			return out, errors.New("trusted without a key: name the key that signs it with signed-by")
		}
		if out.files = m.trusted(); len(out.files) == 0 {
			return out, errors.New("no key: neither Signed-By nor a usable key in /etc/apt/trusted.gpg, /etc/apt/trusted.gpg.d or Debian's keyring")
		}
	}
	out.files = unique(out.files)
	return out, nil
}

// part is the request of the entries to one suite of one URI: every combination of its
// fields.
type part struct {
	suite      string
	components []string
	archs      []string
	languages  []string
	sources    bool
}

// sameShape reports whether two parts differ only in the suite.
func (p part) sameShape(q part) bool {
	return sameSet(p.components, q.components) && sameSet(p.archs, q.archs) && sameSet(p.languages, q.languages) && p.sources == q.sources &&
		strings.HasSuffix(p.suite, "/") == strings.HasSuffix(q.suite, "/")
}

func sameSet(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

// want is the request of the entries to one component of one suite.
type want struct {
	archs, languages []string
	sources, binary  bool
}

// origin collects the entries that have the same URI and keys.
type origin struct {
	*place
	keys   keySet
	suites []string
	comps  map[string][]string // components of each suite, in order; "" for flat
	wants  map[[2]string]*want // by suite and component
	from   map[string][]string // entries of each suite
}

// Mirrors merges entries into mirrors, one for each URI and set of keys. Since a mirror
// requests the same from each of its suites, it returns several if the suites differ in
// components, architectures, languages or sources.
func (m Machine) Mirrors(entries []Entry) ([]Mirror, []Skipped) {
	var skipped []Skipped
	var origins []*origin
	archs := m.Architectures
	if len(archs) == 0 {
		archs = []string{"amd64"}
	}
	for _, e := range entries {
		skip := func(reason string) {
			skipped = append(skipped, Skipped{File: e.File, Line: e.Line, Text: clip(e.URI + " " + strings.Join(e.Suites, " ")), Reason: reason})
		}
		keys, err := m.keys(&e)
		if err != nil {
			skip(err.Error())
			continue
		}
		own := e.Architectures.Apply(archs)
		own = slices.DeleteFunc(own, func(a string) bool { return !wellFormed(a) || strings.Contains(a, "/") })
		if len(own) == 0 {
			skip("no architecture is left")
			continue
		}
		for _, one := range expandArch(e, own) {
			at, reason := m.place(&one, one.Architectures.Set)
			if reason == "" {
				reason = one.unfit()
			}
			if reason != "" {
				skip(reason)
				continue
			}
			i := slices.IndexFunc(origins, func(o *origin) bool { return o.equal(at) && o.keys.id() == keys.id() })
			if i < 0 {
				i = len(origins)
				origins = append(origins, &origin{place: at, keys: keys, comps: map[string][]string{}, wants: map[[2]string]*want{}, from: map[string][]string{}})
			}
			origins[i].add(one, one.Architectures.Set)
		}
	}
	names := make(map[string]bool)
	var out []Mirror
	access := m.access()
	for _, o := range origins {
		for _, mm := range o.mirrors(names) {
			if err := access.apply(&mm); err != nil {
				colon := strings.LastIndexByte(mm.From[0], ':')
				file := mm.From[0][:colon]
				n, _ := strconv.Atoi(mm.From[0][colon+1:])
				skipped = append(skipped, Skipped{File: file, Line: n, Text: clip(mm.URIs[0] + " " + strings.Join(mm.Suites, " ")), Reason: err.Error()})
				continue
			}
			out = append(out, mm)
		}
	}
	return out, skipped
}

// expandArch replaces $(ARCH) in the URI and suites. The result is then one entry for
// each architecture, which is in Architectures.Set.
func expandArch(e Entry, archs []string) []Entry {
	const v = "$(ARCH)"
	if !strings.Contains(e.URI, v) && !slices.ContainsFunc(e.Suites, func(s string) bool { return strings.Contains(s, v) }) {
		e.Architectures = Words{Set: archs}
		return []Entry{e}
	}
	var out []Entry
	for _, a := range archs {
		one := e
		one.URI = strings.ReplaceAll(e.URI, v, a)
		one.Suites = nil
		for _, s := range e.Suites {
			one.Suites = append(one.Suites, strings.ReplaceAll(s, v, a))
		}
		one.Architectures = Words{Set: []string{a}}
		out = append(out, one)
	}
	return out
}

func (o *origin) add(e Entry, archs []string) {
	note := func(s string) {
		if s = fmt.Sprintf("%s:%d: %s", e.File, e.Line, s); !slices.Contains(o.notes, s) {
			o.notes = append(o.notes, s)
		}
	}
	if e.CheckValidUntil == "no" {
		note("check-valid-until=no is ignored: an expired Release is refused")
	}
	for _, f := range e.Filters {
		note(f + " is ignored: all packages are mirrored")
	}
	if e.ByHash != "" {
		note("by-hash=" + e.ByHash + " is ignored: the Release says whether files have names by hash")
	}
	langs := e.Languages.Apply([]string{"en"})
	langs = slices.DeleteFunc(langs, func(l string) bool { return l == "none" || !wellFormed(l) || strings.Contains(l, "/") })
	comps := e.Components
	if len(comps) == 0 {
		comps = []string{""}
	}
	for _, suite := range e.Suites {
		if suite == "/" {
			suite = "./"
		}
		suite = strings.TrimPrefix(suite, "/")
		if !slices.Contains(o.suites, suite) {
			o.suites = append(o.suites, suite)
		}
		if from := fmt.Sprintf("%s:%d", e.File, e.Line); !slices.Contains(o.from[suite], from) {
			o.from[suite] = append(o.from[suite], from)
		}
		for _, c := range comps {
			w := o.wants[[2]string{suite, c}]
			if w == nil {
				w = &want{}
				o.wants[[2]string{suite, c}] = w
				o.comps[suite] = append(o.comps[suite], c)
			}
			if e.Src {
				w.sources = true
			}
			if e.Deb {
				if !w.binary {
					w.archs, w.languages = nil, nil // set by deb-src alone
				}
				w.binary = true
			}
			if e.Deb || !w.binary {
				w.archs = unique(slices.Concat(w.archs, archs))
				w.languages = unique(slices.Concat(w.languages, langs))
			}
		}
	}
}

// mirrors splits the requests into parts, and joins suites with the same requests.
func (o *origin) mirrors(names map[string]bool) []Mirror {
	var groups [][]part
	for _, suite := range o.suites {
		var parts []part
		for _, c := range o.comps[suite] {
			w := o.wants[[2]string{suite, c}]
			p := part{suite: suite, archs: w.archs, languages: w.languages, sources: w.sources}
			i := slices.IndexFunc(parts, func(q part) bool {
				return sameSet(p.archs, q.archs) && sameSet(p.languages, q.languages) && p.sources == q.sources
			})
			if i < 0 {
				i = len(parts)
				parts = append(parts, p)
			}
			if c != "" {
				parts[i].components = append(parts[i].components, c)
			}
		}
		for _, p := range parts {
			i := slices.IndexFunc(groups, func(g []part) bool {
				return g[0].sameShape(p) && !slices.ContainsFunc(g, func(q part) bool { return q.suite == p.suite })
			})
			if i < 0 {
				groups = append(groups, []part{p})
			} else {
				groups[i] = append(groups[i], p)
			}
		}
	}
	var out []Mirror
	for i, g := range groups {
		mm := Mirror{URIs: o.uris, Login: o.login, Keys: o.keys.keys}
		mm.Type, mm.Keyring = "deb", slices.Clone(o.keys.files)
		if len(o.uris) == 1 {
			mm.URL = remote.NewURL(o.uris[0])
		} else {
			mm.URLs = remote.NewURLs(o.uris...)
		}
		mm.Components, mm.Architectures, mm.Sources = g[0].components, g[0].archs, g[0].sources
		// Empty means none; nil would mean the default.
		mm.Languages = append([]string{}, g[0].languages...)
		mm.Download = config.OnDemand
		for _, p := range g {
			mm.Suites = append(mm.Suites, p.suite)
			mm.From = unique(slices.Concat(mm.From, o.from[p.suite]))
		}
		if i == 0 {
			mm.Notes = o.notes
		}
		mm.Name = config.MirrorName(mirrorName(o.uris[0], g, i, names))
		out = append(out, mm)
	}
	return out
}

// mirrorName makes a valid, unused name: the path if it has one element, otherwise host
// and path. If a URI has several mirrors, the suite is added.
func mirrorName(uri string, g []part, nth int, taken map[string]bool) string {
	u, err := url.Parse(uri)
	if err != nil {
		u = &url.URL{Path: uri}
	}
	elems := strings.FieldsFunc(u.Path, func(r rune) bool { return r == '/' })
	host := u.Hostname()
	long := valid(strings.Join(append([]string{host}, elems...), "-"))
	name := long
	if len(elems) == 1 || len(elems) > 0 && host == "" {
		name = valid(elems[len(elems)-1])
	}
	if nth > 0 {
		suffix := "-" + valid(strings.Trim(g[0].suite, "/."))
		name, long = name+suffix, long+suffix
	}
	for i, base := 1, name; ; i++ {
		switch {
		case i == 2:
			base, name = long, long
		case i > 2:
			name = fmt.Sprintf("%s-%d", base, i-1)
		}
		if len(name) > 90 {
			name, base = name[:90], base[:min(80, len(base))]
			if i > 2 {
				name = fmt.Sprintf("%s-%d", base, i-1)
			}
		}
		if name != "latest" && !taken[name] && config.ValidName(name) {
			taken[name] = true
			return name
		}
	}
}

// valid replaces characters that a mirror's name must not contain.
func valid(s string) string {
	b := []byte(s)
	for i, c := range b {
		ok := c-'0' < 10 || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte(".+~_-", c) >= 0
		if !ok {
			b[i] = '-'
		}
	}
	if s = strings.TrimLeft(string(b), ".+~_-"); s == "" {
		return "mirror"
	}
	return s
}

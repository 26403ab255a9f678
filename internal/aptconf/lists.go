package aptconf

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/fetch/remote"
)

// place is the location of an entry's repository: one base URL, or several with the
// same content, best first.
type place struct {
	uris  []string // without logins
	login *remote.Login
	notes []string // on unused parts of a list of mirrors
}

func (p *place) equal(q *place) bool {
	return slices.Equal(p.uris, q.uris) && p.login.Equal(q.login)
}

// place returns the location of an entry's repository, or the reason why it is unknown.
func (m Machine) place(e *Entry, archs []string) (*place, string) {
	list, ok := listURI(e.URI)
	if !ok {
		uri, login, reason := normalURI(e.URI)
		return &place{uris: []string{uri}, login: login}, reason
	}
	list, data, err := m.mirrorList(list)
	if err != nil {
		return nil, err.Error()
	}
	p := &place{}
	lines := parseMirrorList(data)
	for _, l := range lines {
		uri, login, reason := normalURI(l.uri)
		switch limit := l.lacks(e, archs); {
		case reason == "" && login != nil:
			reason = "a login in a list of mirrors is not supported"
		case reason == "" && limit != "":
			reason = "it is limited to " + limit
		}
		if reason != "" {
			p.notes = append(p.notes, fmt.Sprintf("%s of %s is not used: %s", clip(l.uri), clip(list), reason))
			continue
		}
		if !slices.Contains(p.uris, uri) {
			p.uris = append(p.uris, uri)
		}
	}
	switch {
	case len(lines) == 0:
		return nil, fmt.Sprintf("list of mirrors %s is empty", clip(list))
	case len(p.uris) == 0:
		return nil, p.notes[0]
	}
	return p, ""
}

// listURI returns the URI of the list of mirrors that a source names by apt's mirror
// method (apt-transport-mirror(1)).
func listURI(uri string) (list string, ok bool) {
	scheme, rest, _ := strings.Cut(uri, ":")
	switch scheme = strings.ToLower(scheme); {
	case scheme == "mirror":
		return "http:" + rest, true
	case strings.HasPrefix(scheme, "mirror+"):
		return strings.TrimPrefix(scheme, "mirror+") + ":" + rest, true
	}
	return "", false
}

// mirrorList reads a list of mirrors, and also returns its normalised URI.
func (m Machine) mirrorList(uri string) (normal string, data []byte, err error) {
	normal, login, reason := normalURI(uri)
	switch {
	case reason != "":
		return "", nil, fmt.Errorf("list of mirrors: %s", reason)
	case login != nil:
		return "", nil, errors.New("list of mirrors: a login in its URI is not supported")
	}
	if name, ok := strings.CutPrefix(normal, "file://"); ok {
		data, err = m.read(name)
	} else if m.Fetch != nil {
		data, err = m.Fetch(normal)
	} else {
		err = errors.New("it is not on this machine")
	}
	if err != nil {
		err = fmt.Errorf("list of mirrors %s: %w", clip(normal), err)
	}
	return normal, data, err
}

// listedMirror is one line in a list of mirrors.
type listedMirror struct {
	uri      string
	priority uint64              // the lowest comes first
	limits   map[string][]string // the parts that it has: "arch", "component" and so on
}

// parseMirrorList reads a list: each line is a URI, optionally followed by a tab and
// words NAME:VALUE. The result is ordered by priority; lines without one come last.
func parseMirrorList(data []byte) []listedMirror {
	var out []listedMirror
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n \t")
		if line == "" || line[0] == '#' || len(out) == maxWords {
			continue
		}
		uri, words, _ := strings.Cut(line, "\t")
		l := listedMirror{uri: strings.TrimSpace(uri), priority: math.MaxUint64, limits: map[string][]string{}}
		for _, w := range strings.Fields(words) {
			name, value, _ := strings.Cut(w, ":")
			if name == "priority" {
				if n, err := strconv.ParseUint(value, 10, 64); err == nil {
					l.priority = n
				}
				continue
			}
			l.limits[name] = append(l.limits[name], value)
		}
		out = append(out, l)
	}
	slices.SortStableFunc(out, func(a, b listedMirror) int { return cmp.Compare(a.priority, b.priority) })
	return out
}

// lacks returns the restriction of a mirror in a list, if because of it the mirror does
// not have everything that an entry requests, and otherwise "".
func (l *listedMirror) lacks(e *Entry, archs []string) string {
	var types []string
	if e.Deb {
		types = append(types, "deb", "index")
	}
	if e.Src {
		types = append(types, "deb-src", "index")
	}
	for _, w := range []struct {
		name string
		asks []string
	}{
		{"arch", archs}, {"suite", e.Suites}, {"codename", e.Suites}, {"component", e.Components},
		{"lang", e.Languages.Apply([]string{"en"})}, {"type", types},
	} {
		has, limited := l.limits[w.name]
		if limited && slices.ContainsFunc(w.asks, func(s string) bool { return !slices.Contains(has, s) }) {
			return w.name + " " + strings.Join(has, " ")
		}
	}
	return ""
}

// Package remote defines a type for the URLs of upstream servers, which may
// contain secrets, and the credentials of a mirror.
//
// A URL prints without its secrets, however it is printed: by fmt, as JSON or
// text, in a log, or inside another value. Only packages below internal/fetch can
// read all of it, because only they can create the token that Full requires.
package remote

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"strings"
	"unique"

	"example.org/snapd/internal/fetch/internal/reveal"
	"example.org/snapd/internal/lazyregexp"
)

// hidden replaces a secret, as in url.URL.Redacted.
const hidden = "xxxxx"

// URL is the URL of an upstream server or directory. The zero value is not a URL.
// URLs can be compared.
type URL struct {
	// A handle prints as an address even if fmt cannot call methods, as in the
	// unexported field of another struct.
	raw     unique.Handle[string]
	foreign bool
	listed  bool
}

// NewURL returns a URL for a text without checking it; see Check.
func NewURL(s string) URL {
	if s == "" {
		return URL{}
	}
	return URL{raw: unique.Make(s)}
}

// NewURLs returns URLs for texts.
func NewURLs(list ...string) []URL {
	out := make([]URL, len(list))
	for i, s := range list {
		out[i] = NewURL(s)
	}
	return out
}

// Foreign marks a URL that comes from the content of a repository, not from the
// configuration or a mirror list. No client certificate is shown to it.
func (u URL) Foreign() URL {
	u.foreign = !u.IsZero()
	return u
}

// IsForeign reports whether the URL was marked by Foreign.
func (u URL) IsForeign() bool { return u.foreign }

// Listed marks a URL that comes from a mirror list and not from the
// configuration.
func (u URL) Listed() URL {
	u.listed = !u.IsZero()
	return u
}

// IsConfigured reports whether the URL was marked neither by Foreign nor by
// Listed.
func (u URL) IsConfigured() bool { return !u.foreign && !u.listed }

// like gives u the marks of another URL.
func (u URL) like(other URL) URL {
	u.foreign, u.listed = other.foreign, other.listed
	return u
}

// IsZero reports whether u is the zero URL.
func (u URL) IsZero() bool { return u.raw == unique.Handle[string]{} }

// Full returns the whole URL with its secrets. Only packages below internal/fetch
// have the token.
func (u URL) Full(reveal.Token) string { return u.full() }

func (u URL) full() string {
	if u.IsZero() {
		return ""
	}
	return u.raw.Value()
}

// String returns the URL without user information and fragment, and hides the
// values of its query except those of well-known harmless parameters.
func (u URL) String() string { return Redact(u.full()) }

// GoString is String, for %#v.
func (u URL) GoString() string { return fmt.Sprintf("%q", u.String()) }

// Format prints String for every verb.
func (u URL) Format(f fmt.State, verb rune) {
	switch verb {
	case 'q':
		fmt.Fprintf(f, "%q", u.String())
	case 'v':
		if f.Flag('#') {
			fmt.Fprint(f, u.GoString())
			return
		}
		fallthrough
	default:
		fmt.Fprint(f, u.String())
	}
}

// MarshalText returns String.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalJSON returns String as a JSON string.
func (u URL) MarshalJSON() ([]byte, error) {
	return json.Marshal(u.String())
}

// LogValue returns String.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// UnmarshalText parses a URL of a configuration. "file:/dir", as in apt's
// sources, is "file:///dir".
func (u *URL) UnmarshalText(b []byte) error {
	s := string(b)
	if p, ok := strings.CutPrefix(s, "file:/"); ok && !strings.HasPrefix(p, "/") {
		s = "file:///" + p
	}
	*u = NewURL(s)
	return nil
}

// Scheme returns the scheme in lower case, or "".
func (u URL) Scheme() string { return u.parsed().Scheme }

// Host returns the host with its port, or "".
func (u URL) Host() string { return u.parsed().Host }

// Path returns the decoded path, or "".
func (u URL) Path() string { return u.parsed().Path }

// parsed returns the parsed URL, or an empty one if it is invalid.
func (u URL) parsed() *url.URL {
	p, err := url.Parse(u.full())
	if err != nil {
		return &url.URL{}
	}
	return p
}

// HasUser reports whether the URL has user information, or a broken form of it
// where a password has characters that must be escaped.
func (u URL) HasUser() bool {
	p, err := url.Parse(u.full())
	if err == nil {
		return p.User != nil || p.Opaque != "" && strings.Contains(p.Opaque, "@")
	}
	return strings.Contains(u.full(), "@")
}

// HasSecret reports whether String leaves anything out.
func (u URL) HasSecret() bool {
	p, err := url.Parse(u.full())
	return err != nil || p.User != nil || redactQuery(p.RawQuery) != p.RawQuery
}

// Check reports, without quoting secrets, a URL whose scheme is not http, https
// or file, and a file URL that does not name a local directory.
func (u URL) Check() error {
	p, err := url.Parse(u.full())
	if err != nil || p.Scheme != "http" && p.Scheme != "https" && p.Scheme != "file" || p.Scheme != "file" && p.Hostname() == "" {
		return fmt.Errorf("%q: expected an http, https or file URL", u)
	}
	if p.Scheme == "file" && (p.Host != "" && p.Host != "localhost" || !strings.HasPrefix(p.Path, "/") || strings.Trim(p.Path, "/") == "") {
		return fmt.Errorf("%q: expected a directory on this machine in the form file:///srv/repository", u)
	}
	return nil
}

// CheckSource is like Check, for a URL from which a mirror is fetched, configured or
// given to a sync. Such a URL must not have a user name or password, which belong in a
// file, nor a fragment, which would never be sent. Its query may contain a token.
func (u URL) CheckSource() error {
	if u.HasUser() {
		return fmt.Errorf("%q: a URL must not have a user name or password: put them into a file and set the mirror's auth_file to it", u)
	}
	if strings.Contains(u.full(), "#") {
		return fmt.Errorf("%q: a URL must not have a fragment, which is never sent: remove the # and what follows it, or write %%23 if it belongs to the path or query", u)
	}
	return u.Trim().Check()
}

// Trim returns the URL without slashes at the end of its path. The root directory
// keeps its own.
func (u URL) Trim() URL {
	s := u.full()
	if strings.HasPrefix(s, "file:") && strings.Trim(s[len("file:"):], "/") == "" {
		return u
	}
	end := strings.IndexAny(s, "?#")
	if end < 0 {
		end = len(s)
	}
	return NewURL(strings.TrimRight(s[:end], "/") + s[end:]).like(u)
}

// Parent returns the URL without the last segment of its path, and that segment,
// decoded. The segment is empty if the path has none.
func (u URL) Parent() (parent URL, last string) {
	s := u.Trim().full()
	end := strings.IndexAny(s, "?#")
	if end < 0 {
		end = len(s)
	}
	i := strings.LastIndexByte(s[:end], '/')
	if i < 0 || path.Base(u.Trim().Path()) == "." || u.Trim().Path() == "" {
		return u, ""
	}
	return NewURL(s[:i] + s[end:]).like(u), path.Base(u.Trim().Path())
}

// Join appends a slash and a path, escaped as apt does it, to the path of the
// URL. A query stays at the end, as with dnf's baseurl. A URL that is a local
// path is joined as a path.
func (u URL) Join(rel string) URL {
	s := u.full()
	if strings.HasPrefix(s, "/") {
		return NewURL(strings.TrimRight(s, "/") + "/" + rel).like(u)
	}
	s, _, _ = strings.Cut(s, "#")
	base, query, ok := strings.Cut(s, "?")
	s = strings.TrimRight(base, "/") + "/" + escapePath(rel)
	if ok {
		s += "?" + query
	}
	return NewURL(s).like(u)
}

// Below reports whether Join makes the URL from a base URL.
func (u URL) Below(base URL) bool {
	path, _, _ := strings.Cut(u.full(), "?")
	dir, _, _ := strings.Cut(base.full(), "?")
	return dir != "" && strings.HasPrefix(path, strings.TrimRight(dir, "/")+"/")
}

// escapePath escapes what apt escapes in the path of a file, in lower case: white
// space, control characters, the percent sign, bytes beyond ASCII, and the plus
// sign and tilde, because object stores such as S3 read a plain plus sign as a
// blank. It also escapes the characters that RFC 3986 does not allow in a path
// and those that end one, which apt sends unescaped.
func escapePath(path string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("%+~\"#<>?\\^`{|}", c) >= 0 {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Redact returns a URL without user information and fragment, and hides the
// values of its query. Text that is not a URL is replaced completely, because an
// unescaped character in a password makes a URL invalid.
func Redact(s string) string {
	if s == "" {
		return ""
	}
	p, err := url.Parse(s)
	switch {
	case err != nil, p.Opaque != "":
		scheme, rest, ok := strings.Cut(s, "://")
		if !ok || !schemeRE().MatchString(scheme) {
			return hidden
		}
		// Often only the user information is invalid.
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 && !strings.Contains(rest[end:], "@") {
			return Redact(scheme + "://" + rest[at+1:])
		}
		return scheme + "://" + hidden
	case p.Host == "" && p.Scheme != "" && p.Scheme != "file":
		return p.Scheme + "://" + hidden // a slash is missing, and a login may be in the path
	case p.Host == "" && p.Scheme == "" && !strings.HasPrefix(s, "/"):
		// Only a host or path: shown unless it contains something like a login.
		if strings.ContainsAny(s, "@?") {
			return hidden
		}
		return s
	}
	query := redactQuery(p.RawQuery)
	if p.User == nil && p.Fragment == "" && query == p.RawQuery {
		return s
	}
	p.User, p.Fragment, p.RawFragment, p.RawQuery = nil, "", "", query
	return p.String()
}

var schemeRE = lazyregexp.New(`^[A-Za-z][A-Za-z0-9+.-]{0,20}$`)

// harmless are parameters of metalinks and mirror lists that select a repository.
var harmless = map[string]bool{
	"repo": true, "arch": true, "basearch": true, "release": true, "releasever": true, "version": true, "country": true,
	"protocol": true, "infra": true, "content": true, "countme": true, "product": true,
}

var (
	keyRE   = lazyregexp.New(`^[A-Za-z][A-Za-z0-9_.-]{0,31}$`)
	valueRE = lazyregexp.New(`^[A-Za-z0-9._,+~-]{0,80}$`)
)

func redactQuery(q string) string {
	if q == "" {
		return ""
	}
	parts := strings.Split(q, "&")
	for i, p := range parts {
		key, value, ok := strings.Cut(p, "=")
		switch {
		case p == "":
		case !ok, !keyRE().MatchString(key):
			parts[i] = hidden // the key itself may be a token
		case !harmless[key] || !valueRE().MatchString(value):
			parts[i] = key + "=" + hidden
		}
	}
	return strings.Join(parts, "&")
}

// urlRE finds URLs in a text. They end at white space or at characters that are
// not part of a URL and usually end one in a message.
var urlRE = lazyregexp.New(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>\x60]+`)

// Scrub redacts the URLs in foreign text: an error of a library, a line of a
// configuration file, a message stored by an older version.
func Scrub(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	return urlRE().ReplaceAllStringFunc(text, func(s string) string {
		// Punctuation of the surrounding sentence.
		u := strings.TrimRight(s, ".,:;)]}…")
		if out := Redact(u); out != u {
			return out + s[len(u):]
		}
		return s
	})
}

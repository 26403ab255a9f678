// Package yumconf reads and writes the .repo files of yum and dnf (dnf.conf(5)), which
// contain the repositories of a machine and their keys.
package yumconf

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/fetch/remote"
)

// ErrSyntax means that a .repo file does not follow its format.
var ErrSyntax = errors.New("malformed .repo file")

// Limits on files. Real ones have a few kilobytes.
const (
	maxFile  = 4 << 20 // bytes
	maxRepos = 10000
)

// Repo is one repository in a .repo file, with variables expanded.
type Repo struct {
	ID   string
	Name string
	File string // it is in
	Line int    // of its [id]

	BaseURLs   []string // in the file's order, without trailing slashes and logins
	Metalink   string
	Mirrorlist string
	Logins     []*remote.Login // for these URLs, from the URLs or from username and password

	CAFile     string // sslcacert
	ClientCert string // sslclientcert
	ClientKey  string // sslclientkey
	NoVerify   bool   // sslverify=0

	Enabled      bool
	GPGCheck     bool
	RepoGPGCheck bool
	GPGKeys      []string // URLs: file:///etc/pki/rpm-gpg/…, https://…

	// MetadataExpire is how long dnf uses its copy of repomd.xml; 0 is dnf's default.
	// Only Format uses it.
	MetadataExpire time.Duration

	Exclude []string // globs: excludepkgs, exclude
	Include []string // globs: includepkgs

	// BadLogin is the reason why a login cannot be used, or "".
	BadLogin string
	// Unknown lists variables without a value, sorted.
	Unknown []string
}

// Parse reads a .repo file, or a dnf.conf that contains repositories. name is used in
// messages. main, which may be nil, is the content of a dnf.conf, whose [main] has
// defaults for gpgcheck and repo_gpgcheck. Errors name the line.
func Parse(name string, data, main []byte, vars Vars) ([]Repo, error) {
	defaults := map[string]string{}
	if main != nil {
		sections, err := parseINI("dnf.conf", main)
		if err != nil {
			return nil, err
		}
		for _, s := range sections {
			if s.name == "main" {
				defaults = s.values
			}
		}
	}
	sections, err := parseINI(name, data)
	if err != nil {
		return nil, err
	}
	var out []Repo
	seen := map[string]bool{}
	for _, s := range sections {
		if s.name == "main" {
			continue
		}
		if seen[s.name] {
			return nil, fmt.Errorf("%s:%d: %w: repository %q occurs twice", name, s.line, ErrSyntax, s.name)
		}
		seen[s.name] = true
		r, err := s.repo(name, defaults, vars)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// section is one [name] with its keys.
type section struct {
	name   string
	line   int
	values map[string]string
	lines  map[string]int
}

// parseINI reads the format of Python's configparser as dnf uses it: "#" and ";" begin
// comments at the start of a line, and a line that begins with white space continues the
// previous value.
func parseINI(name string, data []byte) ([]section, error) {
	fail := func(n int, format string, args ...any) ([]section, error) {
		return nil, fmt.Errorf("%s:%d: %w: %s", name, n, ErrSyntax, fmt.Sprintf(format, args...))
	}
	if len(data) > maxFile {
		return fail(1, "more than %d bytes", maxFile)
	}
	var out []section
	key, n := "", 0
	for line := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		n++
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
			continue
		case strings.ContainsFunc(trimmed, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			return fail(n, "control characters in %q", quotable(trimmed))
		case (line[0] == ' ' || line[0] == '\t') && key != "":
			s := &out[len(out)-1]
			s.values[key] += "\n" + trimmed
			continue
		case trimmed[0] == '[':
			i := strings.IndexByte(trimmed, ']')
			if i < 2 {
				return fail(n, "section %q", excerpt.Of(trimmed))
			}
			id := trimmed[1:i]
			if id != "main" && strings.ContainsFunc(id, func(c rune) bool {
				return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.:+/$@{} ", c)
			}) {
				return fail(n, "repository id %q", excerpt.Of(id))
			}
			if len(out) == maxRepos {
				return fail(n, "more than %d repositories", maxRepos)
			}
			out = append(out, section{id, n, map[string]string{}, map[string]int{}})
			key = ""
			continue
		}
		i := strings.IndexAny(trimmed, "=:")
		if i < 1 {
			return fail(n, "%q, expected key=value", quotable(trimmed))
		}
		if len(out) == 0 {
			return fail(n, "%q before any [id]", quotable(trimmed))
		}
		key = strings.ToLower(strings.TrimSpace(trimmed[:i]))
		s := &out[len(out)-1]
		s.values[key], s.lines[key] = strings.TrimSpace(trimmed[i+1:]), n
	}
	return out, nil
}

func (s *section) repo(file string, defaults map[string]string, vars Vars) (Repo, error) {
	r := Repo{File: file, Line: s.line, Enabled: true}
	unknown := map[string]bool{}
	expand := func(v string) string { return vars.expand(v, unknown, 0) }
	list := func(keys ...string) []string {
		var out []string
		for _, k := range keys {
			out = append(out, strings.FieldsFunc(expand(s.values[k]), func(c rune) bool { return strings.ContainsRune(" \t\n,", c) })...)
		}
		return out
	}
	boolean := func(key string, to *bool) error {
		v, ok := s.values[key]
		line := s.lines[key]
		if !ok {
			if v, ok = defaults[key]; !ok {
				return nil
			}
			line = s.line
		}
		switch strings.ToLower(expand(v)) {
		case "1", "yes", "true", "on":
			*to = true
		case "0", "no", "false", "off":
			*to = false
		default:
			return fmt.Errorf("%s:%d: %w: %s=%q, expected 1 or 0", file, line, ErrSyntax, key, excerpt.Of(v))
		}
		return nil
	}
	r.ID, r.Name = expand(s.name), expand(s.values["name"])
	for _, u := range list("baseurl") {
		r.BaseURLs = append(r.BaseURLs, strings.TrimRight(u, "/"))
	}
	r.Metalink, r.Mirrorlist = expand(s.values["metalink"]), expand(s.values["mirrorlist"])
	value := func(key string) string {
		v, ok := s.values[key]
		if !ok {
			v = defaults[key]
		}
		return expand(v)
	}
	r.login(value("username"), value("password"))
	r.CAFile, r.ClientCert, r.ClientKey = value("sslcacert"), value("sslclientcert"), value("sslclientkey")
	switch {
	case r.ClientCert == "":
		r.ClientKey = ""
	case r.ClientKey == "":
		r.ClientKey = r.ClientCert // then both are in one file
	}
	switch strings.ToLower(value("sslverify")) {
	case "0", "no", "false", "off":
		r.NoVerify = true
	}
	r.GPGKeys = list("gpgkey")
	r.Exclude, r.Include = list("excludepkgs", "exclude"), list("includepkgs")
	r.Unknown = slices.Sorted(maps.Keys(unknown))
	for key, to := range map[string]*bool{"enabled": &r.Enabled, "gpgcheck": &r.GPGCheck, "repo_gpgcheck": &r.RepoGPGCheck} {
		if key == "enabled" {
			if _, ok := s.values[key]; !ok {
				continue // [main]'s enabled means something else
			}
		}
		if err := boolean(key, to); err != nil {
			return Repo{}, err
		}
	}
	return r, nil
}

// login removes the logins from the URLs. URLs without one use the repository's, if it
// has one.
func (r *Repo) login(user, password string) {
	take := func(u *string, dir bool) {
		if *u == "" {
			return
		}
		rest, l, err := remote.SplitLogin(*u, dir)
		if rest != "" {
			*u = rest
		}
		if err == nil && l == nil && user+password != "" && !strings.HasPrefix(*u, "file:") {
			l, err = remote.NewLogin(*u, dir, user, password)
		}
		switch {
		case err != nil:
			r.BadLogin = err.Error()
		case l != nil:
			r.Logins = append(r.Logins, l)
		}
	}
	for i := range r.BaseURLs {
		take(&r.BaseURLs[i], true)
	}
	take(&r.Metalink, false)
	take(&r.Mirrorlist, false)
}

// Unmirrorable returns the reason why the repository cannot be mirrored as it is
// configured, or "".
func (r *Repo) Unmirrorable() string {
	switch {
	case !r.Enabled:
		return "it is disabled (enabled=0)"
	case len(r.Unknown) > 0:
		return "no value is known for $" + strings.Join(r.Unknown, ", $")
	case len(r.BaseURLs) == 0 && r.Metalink == "" && r.Mirrorlist == "":
		return "it has no baseurl, metalink or mirrorlist"
	}
	for _, s := range append(slices.Clone(r.BaseURLs), r.Metalink, r.Mirrorlist) {
		if s == "" {
			continue
		}
		u, err := url.Parse(s)
		switch {
		case err != nil:
			return fmt.Sprintf("%q is not a URL", excerpt.Of(remote.Redact(s)))
		case u.Scheme == "media" || u.Scheme == "cdrom":
			return "it is removable media (" + u.Scheme + ":)"
		case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file":
			return fmt.Sprintf("it is reached by %q, expected http, https or file", u.Scheme)
		}
	}
	if r.BadLogin != "" {
		return r.BadLogin
	}
	if r.GPGCheck || r.RepoGPGCheck {
		if len(r.GPGKeys) == 0 {
			return "it names no key (gpgkey) to check signatures by"
		}
		return ""
	}
	if r.RepoGPGCheck == r.GPGCheck && len(r.GPGKeys) == 0 {
		return "its signatures are not checked (gpgcheck=0) and it names no key"
	}
	return ""
}

// KeyFiles returns the local files among the keys, and the URLs of the others, which must
// be downloaded before they can be trusted.
func (r *Repo) KeyFiles() (files, remote []string) {
	for _, k := range r.GPGKeys {
		u, err := url.Parse(k)
		switch {
		case err == nil && u.Scheme == "file":
			files = append(files, u.Path)
		case err == nil && u.Scheme == "" && strings.HasPrefix(k, "/"):
			files = append(files, k)
		default:
			remote = append(remote, k)
		}
	}
	return files, remote
}

// Format writes repositories as a .repo file. comment may have several lines. Values with
// line breaks are an error, because they could add options.
func Format(comment string, repos ...Repo) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(comment) {
		b.WriteString("# " + strings.TrimRight(line, "\n") + "\n")
	}
	flag := map[bool]string{false: "0", true: "1"}
	for i, r := range repos {
		if i > 0 {
			b.WriteString("\n")
		}
		lines := [][2]string{{"name", r.Name}, {"baseurl", strings.Join(r.BaseURLs, "\n        ")}, {"metalink", r.Metalink}, {"mirrorlist", r.Mirrorlist},
			{"enabled", flag[r.Enabled]}, {"gpgcheck", flag[r.GPGCheck]}, {"repo_gpgcheck", flag[r.RepoGPGCheck]},
			{"gpgkey", strings.Join(r.GPGKeys, "\n       ")}, {"excludepkgs", strings.Join(r.Exclude, " ")}, {"includepkgs", strings.Join(r.Include, " ")}}
		if r.MetadataExpire > 0 {
			lines = append(lines, [2]string{"metadata_expire", fmt.Sprint(int64(r.MetadataExpire / time.Second))})
		}
		for _, v := range slices.Concat([]string{r.ID, r.Name, r.Metalink, r.Mirrorlist}, r.BaseURLs, r.GPGKeys, r.Exclude, r.Include) {
			if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c == 0x7f }) {
				return "", fmt.Errorf("write repository %q: control characters in %q: %w", excerpt.Of(r.ID), excerpt.Of(v), ErrSyntax)
			}
		}
		if r.ID == "" || r.ID == "main" || strings.ContainsFunc(r.ID, func(c rune) bool { return c >= utf8.RuneSelf || !isIDByte(byte(c)) }) {
			return "", fmt.Errorf("write repository %q: dnf refuses this id: %w", excerpt.Of(r.ID), ErrSyntax)
		}
		b.WriteString("[" + r.ID + "]\n")
		for _, l := range lines {
			if l[1] != "" {
				b.WriteString(l[0] + "=" + l[1] + "\n")
			}
		}
	}
	return b.String(), nil
}

// ID turns a name into a repository id. dnf accepts only letters, digits and "-_.:". Each
// other byte becomes a colon and two hexadecimal digits, so that different names without
// colons have different ids.
func ID(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; isIDByte(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, ":%02x", c)
		}
	}
	return b.String()
}

// isIDByte reports whether dnf accepts the byte in a repository id.
func isIDByte(c byte) bool { return isVarByte(c) || c == '-' || c == '.' || c == ':' }

// quotable returns the part of a line that a message may quote: no password, and only the
// first word of a line that is not key=value.
func quotable(line string) string {
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		key, _, _ = strings.Cut(line, " ")
		return excerpt.Of(remote.Scrub(key))
	}
	lower := strings.ToLower(key)
	if strings.Contains(lower, "pass") || strings.Contains(lower, "user") || strings.Contains(value, "://") {
		return excerpt.Of(key + "=…")
	}
	return excerpt.Of(line)
}

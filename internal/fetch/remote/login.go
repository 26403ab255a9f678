package remote

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// A Login is a user name and password that is copied from another program's configuration
// to an auth_file. It prints neither.
type Login struct {
	entry func() string
}

// ErrNoEntry means that auth.conf cannot represent a login.
var ErrNoEntry = errors.New("the user name or password contains a blank or control character, which apt's auth.conf does not allow")

// NewLogin returns the login for a URL. If the URL is a directory (dir), the login is for
// all URLs below it as well.
func NewLogin(base string, dir bool, user, password string) (*Login, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q: expected an http or https URL", Redact(base))
	}
	if strings.ContainsFunc(user+password, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, ErrNoEntry
	}
	machine := u.Scheme + "://" + u.Host + strings.TrimRight(u.EscapedPath(), "/")
	if dir {
		machine += "/"
	}
	entry := "machine " + machine
	if user != "" {
		entry += " login " + user
	}
	if password != "" {
		entry += " password " + password
	}
	return &Login{func() string { return entry + "\n" }}, nil
}

// Equal reports whether two logins are equal; either may be nil.
func (l *Login) Equal(other *Login) bool {
	if l == nil || other == nil {
		return l == other
	}
	return l.entry() == other.entry()
}

// SplitLogin splits the user information off a URL. dir says that the URL is a directory.
// The login is nil if the URL has none.
func SplitLogin(s string, dir bool) (string, *Login, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", nil, fmt.Errorf("%q is not a URL", Redact(s))
	}
	if u.User == nil {
		return s, nil, nil
	}
	user := u.User.Username()
	password, _ := u.User.Password()
	u.User = nil
	if user == "" && password == "" {
		return u.String(), nil, nil
	}
	l, err := NewLogin(u.String(), dir, user, password)
	return u.String(), l, err
}

// AuthFile returns the content of an auth_file with logins. The first login that matches
// a URL is used.
func AuthFile(logins ...*Login) []byte {
	var b strings.Builder
	seen := map[string]bool{}
	for _, l := range logins {
		if e := l.entry(); !seen[e] {
			seen[e] = true
			b.WriteString(e)
		}
	}
	return []byte(b.String())
}

// Logins are the logins of a file in the format of auth.conf.
type Logins struct{ file func() authFile }

// ParseLogins parses a file in the format of auth.conf.
func ParseLogins(data []byte) (*Logins, error) {
	f, err := parseAuth(data)
	if err != nil {
		return nil, err
	}
	return &Logins{func() authFile { return f }}, nil
}

// Has reports whether there is a login for a URL.
func (l *Logins) Has(u URL) bool {
	_, _, ok := l.file().login(u.parsed())
	return ok
}

package remote

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// A Login is a user name and password on their way from somebody else's
// configuration into an auth_file. It prints neither.
type Login struct {
	entry func() string
}

// ErrNoEntry means that a login cannot be written in the format of auth.conf.
var ErrNoEntry = errors.New("the user name or password has a blank or control character, which apt's auth.conf cannot hold")

// NewLogin makes the login for a URL: where it is a directory's, for all below it.
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

// Equal reports whether two logins, of which any may be nil, are the same.
func (l *Login) Equal(other *Login) bool {
	if l == nil || other == nil {
		return l == other
	}
	return l.entry() == other.entry()
}

// SplitLogin takes the user information out of a URL, which is a directory's or
// not. The login is nil where there is none.
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

// AuthFile is the content of an auth_file with logins. The first that matches a
// URL is used.
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

// Logins are those of a file in the format of auth.conf.
type Logins struct{ file func() authFile }

// ParseLogins reads them.
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

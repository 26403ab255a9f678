package remote

import (
	"errors"
	"net/url"
	"strings"
)

// authFile is the content of a file in the format of apt's auth.conf
// (apt_auth.conf(5)): a login and a password for each machine.
//
// It is parsed like apt 2.6 parses it: words, on any number of lines. The first
// matching machine is used. One without a scheme matches https only. One without
// a slash is compared with the host, and without a port matches every port; one
// with a slash is compared with the start of host, port and path. Only comments
// differ: a line that starts with "#" is a comment, even where apt would find a
// machine in it.
type authFile []string

var errNoMachine = errors.New(`expected apt's auth.conf format, machine HOST login NAME password PASSWORD; found no "machine"`)

// maxSecretFile bounds a file of credentials or certificates, in bytes.
const maxSecretFile = 4 << 20

func parseAuth(data []byte) (authFile, error) {
	var out authFile
	found := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimLeft(line, " \t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, w := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }) {
			found = found || w == "machine"
			out = append(out, w)
		}
	}
	if !found {
		return nil, errNoMachine
	}
	return out, nil
}

// login returns the credentials for a URL.
func (f authFile) login(u *url.URL) (user, password string, ok bool) {
	found := false
	for i := 0; i < len(f); i++ {
		switch word := f[i]; {
		case word == "machine" && found:
			return user, password, user != "" || password != ""
		case word == "machine":
			if i++; i < len(f) {
				found = matches(f[i], u)
			}
		case found && word == "login":
			if i++; i < len(f) {
				user = f[i]
			}
		case found && word == "password":
			if i++; i < len(f) {
				password = f[i]
			}
		}
	}
	return user, password, user != "" || password != ""
}

func matches(machine string, u *url.URL) bool {
	if _, rest, ok := strings.Cut(machine, "://"); ok {
		if !strings.HasPrefix(machine, u.Scheme+"://") {
			return false
		}
		machine = rest
	} else if u.Scheme != "https" {
		return false
	}
	host := u.Hostname()
	if !strings.Contains(machine, "/") && u.Port() != "" && machine == host {
		return true
	}
	if u.Port() != "" {
		host += ":" + u.Port()
	}
	if !strings.Contains(machine, "/") {
		return machine == host
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	return strings.HasPrefix(host+path, machine)
}

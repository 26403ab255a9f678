package aptconf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/fetch/remote"
)

// access is apt's configuration for access to servers, and the files with logins.
type access struct {
	m       Machine
	options options
	files   []authFile
	notes   []string // on unreadable files
}

type authFile struct {
	name   string
	mode   fs.FileMode
	logins *remote.Logins
}

// access reads apt's configuration, auth.conf and auth.conf.d. It adds a note for a
// file that cannot be read, because usually only root may read logins.
func (m Machine) access() *access {
	a := &access{m: m}
	var err error
	if a.options, err = m.options(); err != nil {
		a.notes = append(a.notes, err.Error())
	}
	names := []string{"/etc/apt/auth.conf"}
	dir, err := fs.ReadDir(m.FS, "etc/apt/auth.conf.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.notes = append(a.notes, "/etc/apt/auth.conf.d cannot be read: its logins are not used")
	}
	for _, d := range dir {
		if plainName(d.Name()) && path.Ext(d.Name()) == ".conf" && !d.IsDir() {
			names = append(names, "/etc/apt/auth.conf.d/"+d.Name())
		}
	}
	for _, n := range names {
		data, err := m.read(n)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			a.notes = append(a.notes, n+" cannot be read: its logins are not used")
			continue
		}
		logins, err := remote.ParseLogins(data)
		if err != nil {
			continue // no login in it
		}
		st, err := fs.Stat(m.FS, strings.TrimPrefix(n, "/"))
		if err != nil {
			continue
		}
		a.files = append(a.files, authFile{n, st.Mode(), logins})
	}
	return a
}

// apply sets the access of a mirror as apt uses it for its URIs: the first file with a
// login, and the certificates.
func (a *access) apply(mm *Mirror) error {
	var host string // of the first https URL
	http := false
	for _, uri := range mm.URIs {
		u, err := url.Parse(uri)
		if err != nil {
			continue
		}
		http = http || u.Scheme == "http" || u.Scheme == "https"
		if u.Scheme == "https" && host == "" {
			host = u.Hostname()
		}
	}
	if !http {
		return nil
	}
	mm.Notes = append(mm.Notes, a.notes...)
	if mm.Login == nil { // a login in the URI takes precedence over files
		for _, f := range a.files {
			if !slices.ContainsFunc(mm.URIs, func(uri string) bool { return f.logins.Has(remote.NewURL(uri).Join("dists")) }) {
				continue
			}
			mm.AuthFile = f.name
			if f.mode.Perm()&0o007 != 0 {
				mm.Notes = append(mm.Notes, fmt.Sprintf("every user can read %s: snapd does not start before chmod o= %s", f.name, f.name))
			}
			break
		}
	}
	if host == "" {
		return nil
	}
	get := func(name string) string { return a.options.forHost(host, name) }
	mm.CAFile, mm.ClientCert, mm.ClientKey = get("CaInfo"), get("SslCert"), get("SslKey")
	switch {
	case mm.ClientCert == "":
		mm.ClientKey = ""
	case mm.ClientKey == "":
		mm.ClientKey = mm.ClientCert // then both are in one file
	}
	for _, f := range []string{mm.CAFile, mm.ClientCert, mm.ClientKey} {
		if f == "" {
			continue
		}
		if _, err := fs.Stat(a.m.FS, strings.TrimPrefix(path.Clean("/"+f), "/")); err != nil {
			return fmt.Errorf("certificate or key %s of apt's configuration does not exist", f)
		}
	}
	for _, n := range []string{"Verify-Peer", "Verify-Host"} {
		if yesNo(get(n)) == "no" {
			mm.Notes = append(mm.Notes, n+"=no is ignored: servers are verified")
		}
	}
	for _, n := range []string{"CrlFile", "IssuerCert"} {
		if get(n) != "" {
			mm.Notes = append(mm.Notes, n+" is ignored")
		}
	}
	return nil
}

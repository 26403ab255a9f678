package config

import (
	"slices"
	"strings"
	"unicode"
)

// fillLocal sets the fixed settings of a local mirror: all packages are stored, and
// source packages and udebs can be added.
func (m *Mirror) fillLocal() {
	if !m.Local {
		return
	}
	if m.Download == "" {
		m.Download = All
	}
	if m.Origin == "" {
		m.Origin = string(m.Name)
	}
	if m.Label == "" {
		m.Label = string(m.Name)
	}
	m.Sources, m.Udebs = true, m.Type == "deb"
	if m.Type == "rpm" && len(m.Keyring) == 0 && m.GPGCheck == nil {
		no := false
		m.GPGCheck = &no
	}
}

// checkLocal checks a mirror that has no upstream.
func (m *Mirror) checkLocal(bad func(key, format string, args ...any) error) error {
	if m.Type != "deb" && m.Type != "rpm" {
		return bad("type", `%q: expected "deb" or "rpm"`, m.Type)
	}
	for _, k := range []struct {
		key string
		set bool
	}{
		{"url", !m.URL.IsZero()}, {"urls", len(m.URLs) > 0}, {"metalink", !m.Metalink.IsZero()}, {"mirrorlist", !m.Mirrorlist.IsZero()},
		{"missing", m.Missing != ""}, {"interval", m.Interval != 0}, {"languages", len(m.Languages) > 0}, {"contents", m.Contents},
		{"installer", m.Installer}, {"indices", len(m.Indices) > 0}, {"packages", len(m.Packages) > 0}, {"repo_gpgcheck", m.RepoGPGCheck != nil},
		{"allow_parent", m.AllowParent}, {"auth_file", m.AuthFile != ""}, {"ca_file", m.CAFile != ""}, {"client_cert", m.ClientCert != ""},
		{"client_key", m.ClientKey != ""}, {"download", m.Download != All},
	} {
		if k.set {
			return bad(k.key, "a local mirror has no upstream, and cannot have it")
		}
	}
	for _, k := range []struct{ key, value string }{{"origin", m.Origin}, {"label", m.Label}} {
		if strings.TrimSpace(k.value) != k.value || strings.ContainsFunc(k.value, unicode.IsControl) {
			return bad(k.key, "%q: expected one line without space at its ends", k.value)
		}
	}
	if m.Type == "rpm" {
		switch {
		case len(m.Suites) > 0 || len(m.Components) > 0:
			return bad("suites", "a mirror of type rpm has no suites or components")
		case len(m.Keyring) == 0 && m.CheckPackages():
			return bad("keyring", "is missing: gpgcheck = true checks the signatures of packages")
		}
		return m.checkArchs(bad, "noarch", "src", "nosrc")
	}
	switch {
	case len(m.Suites) == 0:
		return bad("suites", "is missing")
	case len(m.Components) == 0:
		return bad("components", "is missing")
	case len(m.Architectures) == 0:
		return bad("architectures", "is missing: packages of architecture all are listed for each of them")
	case m.GPGCheck != nil:
		return bad("gpgcheck", "only mirrors of type rpm have it")
	}
	for _, k := range []struct {
		key    string
		values []string
	}{{"suites", m.Suites}, {"components", m.Components}} {
		for i, v := range k.values {
			switch {
			case !ValidName(v):
				return bad(k.key, "%q: expected letters, digits and .+~_- (at most 100)", v)
			case slices.Contains(k.values[:i], v):
				return bad(k.key, "%q is given twice", v)
			}
		}
	}
	return m.checkArchs(bad, "all", "source")
}

// checkArchs checks the architectures of a local mirror. others are architectures that
// every mirror has.
func (m *Mirror) checkArchs(bad func(key, format string, args ...any) error, others ...string) error {
	for i, a := range m.Architectures {
		switch {
		case !ValidName(a):
			return bad("architectures", "%q is not the name of an architecture", a)
		case slices.Contains(others, a):
			return bad("architectures", "%q: packages of %s can always be added", a, a)
		case slices.Contains(m.Architectures[:i], a):
			return bad("architectures", "%q is given twice", a)
		}
	}
	return nil
}

package rpm

import (
	"fmt"
	"net/url"
	"strings"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/yumconf"
)

// repoURL returns the URL of the repository itself, without a trailing slash.
func repoURL(p repo.SourceParams) string {
	if len(p.Suites) == 0 {
		return p.URL
	}
	return strings.TrimRight(p.URL+"/"+Format{}.SuiteDir(p.Suites[0]), "/")
}

// ClientConfig returns dnf's configuration of a repository. The only kind is "repo", a
// .repo file that enables gpgcheck and repo_gpgcheck where there are signatures to check.
// The keys must be given as files or URLs: this server's key for repomd.xml, and the
// distribution's for the packages.
func (Format) ClientConfig(kind string, p repo.SourceParams) (string, error) {
	if kind != "repo" {
		return "", fmt.Errorf("client configuration of %s: format %q: expected repo", p.Name, kind)
	}
	checks := p.Mirror.CheckPackages() || !p.Unsigned
	if checks && len(p.KeyFiles) == 0 {
		return "", fmt.Errorf("client configuration of %s: a .repo file cannot hold a key: no key file named", p.Name)
	}
	name := string(p.Mirror.Name)
	if name == "" {
		name = p.Name
	}
	var keys []string
	for _, k := range p.KeyFiles {
		if strings.HasPrefix(k, "/") {
			// dnf resolves a plain path relative to baseurl.
			k = (&url.URL{Scheme: "file", Path: k}).String()
		}
		keys = append(keys, k)
	}
	return yumconf.Format(p.Comment, yumconf.Repo{ID: yumconf.ID(p.Name), Name: name, BaseURLs: []string{repoURL(p)}, Enabled: true,
		GPGCheck: p.Mirror.CheckPackages(), RepoGPGCheck: !p.Unsigned, GPGKeys: keys, MetadataExpire: p.Expire})
}

package rpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/yumconf"
)

var _ repo.Resolver = Format{}

// Resolve lets dnf itself (with its download plugin, of dnf-plugins-core)
// resolve packages and what they require, not what they only recommend, in an
// empty root that reads nothing of the host's configuration.
//
// The repositories are snapshots whose roots were verified when they were
// mirrored, so dnf is not asked to check repomd.xml again: for want of
// upstream's signature it often could not. dnf names locations; their digests
// are read from primary.
func (f Format) Resolve(ctx context.Context, repos []repo.SourceParams, arch string, packages []string) ([]repo.Resolved, error) {
	if _, err := exec.LookPath("dnf"); err != nil {
		return nil, fmt.Errorf("resolve dependencies: %w", err)
	}
	dir, err := os.MkdirTemp("", "snapd-resolve-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var confs []yumconf.Repo
	for _, r := range repos {
		confs = append(confs, yumconf.Repo{ID: yumconf.ID(r.Name), Name: r.Name, BaseURLs: []string{r.URL}, Enabled: true})
	}
	text, err := yumconf.Format("", confs...)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"repos", "plugins", "vars"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	conf := fmt.Sprintf("[main]\nreposdir=%[1]s/repos\nvarsdir=%[1]s/vars\ncachedir=%[1]s/cache\nlogdir=%[1]s/log\npersistdir=%[1]s/persist\npluginconfpath=%[1]s/plugins\n"+
		"install_weak_deps=0\nbest=1\nretries=2\nskip_if_unavailable=0\n", dir)
	for name, data := range map[string]string{"dnf.conf": conf, "repos/snapd.repo": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			return nil, err
		}
	}
	args := []string{"-y", "-q", "-c", filepath.Join(dir, "dnf.conf"), "--installroot", filepath.Join(dir, "root"), "--releasever", "1", "--forcearch", arch,
		"--disableplugin=*", "--enableplugin=download", "download", "--resolve", "--alldeps", "--url", "--arch", arch, "--arch", "noarch", "--"}
	cmd := exec.CommandContext(ctx, "dnf", append(args, packages...)...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8", "http_proxy=", "HTTP_PROXY=", "https_proxy=", "HTTPS_PROXY=", "all_proxy=", "ALL_PROXY=", "no_proxy=*")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("dnf download: %s", strings.TrimSpace(lastBytes(errs.String()+" "+out.String())))
		}
		return nil, err
	}
	urls := map[string][]string{} // by file name
	n := 0
	for line := range strings.Lines(out.String()) {
		if line = strings.TrimSpace(line); strings.Contains(line, "://") && strings.HasSuffix(line, ".rpm") {
			urls[path.Base(line)] = append(urls[path.Base(line)], line)
			n++
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("resolve dependencies of %s: dnf names no package", strings.Join(packages, " "))
	}
	var res []repo.Resolved
	for _, r := range repos {
		found, err := digests(ctx, r.URL, urls)
		if err != nil {
			return nil, fmt.Errorf("resolve dependencies: %s: %w", r.Name, err)
		}
		res = append(res, found...)
	}
	if left := missing(urls, res); left != "" {
		return nil, fmt.Errorf("resolve dependencies: no repository lists %s: %w", left, repo.ErrMissing)
	}
	return res, nil
}

// digests reads from a repository's primary the digests of the packages that
// dnf named by URL.
func digests(ctx context.Context, base string, urls map[string][]string) ([]repo.Resolved, error) {
	doc, err := get(ctx, base+"/"+repomdPath)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(doc, rpmmd.MaxRepoMD+1))
	doc.Close()
	if err != nil {
		return nil, err
	}
	md, err := rpmmd.ParseRepoMD(data)
	if err != nil {
		return nil, malformed(err)
	}
	d := md.Find(string(rpmmd.Primary))
	if d == nil {
		return nil, fmt.Errorf("repomd.xml: no data of type %q: %w", rpmmd.Primary, repo.ErrMalformed)
	}
	l, err := openList(ctx, d, repo.Listed{Path: d.Path, Size: d.Size}, rpmmd.Primary, func(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
		return get(ctx, base+"/"+rpmmd.FormatHref(l.Path))
	})
	if err != nil {
		return nil, err
	}
	defer l.close()
	var out []repo.Resolved
	err = l.each(ctx, func(p *rpmmd.Package) error {
		for _, u := range urls[path.Base(p.Href)] {
			if !strings.HasSuffix(u, "/"+p.Href) || p.Base == "" && u != strings.TrimRight(base, "/")+"/"+p.Href {
				continue
			}
			if p.Checksum.Type != "sha256" {
				return fmt.Errorf("package %s is named by %s, expected sha256", p.NEVRA, p.Checksum.Type)
			}
			digest, err := cas.ParseDigest(p.Checksum.Hex)
			if err != nil {
				return err
			}
			out = append(out, repo.Resolved{URL: u, SHA256: digest})
		}
		return nil
	})
	return out, err
}

// missing names the first URL that has no digest.
func missing(urls map[string][]string, res []repo.Resolved) string {
	have := map[string]bool{}
	for _, r := range res {
		have[r.URL] = true
	}
	first := ""
	for _, list := range urls {
		for _, u := range list {
			if !have[u] && (first == "" || u < first) {
				first = u
			}
		}
	}
	return first
}

// get opens a file of this machine's own server.
func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return resp.Body, nil
}

// lastBytes is the end of what a program printed, for a message.
func lastBytes(s string) string {
	if len(s) > 800 {
		s = "…" + s[len(s)-800:]
	}
	return s
}

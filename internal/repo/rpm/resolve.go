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
	"path/filepath"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/yumconf"
)

var _ repo.Resolver = Format{}

// Resolve runs dnf, with the download plugin from dnf-plugins-core, to resolve
// packages and their requirements, but not their recommendations. dnf runs in an
// empty installroot and does not read the host's configuration. Resolve runs it
// once for each architecture that no other covers, as x86_64 covers i686.
//
// Packages are NAME[:ARCH][=VERSION], or anything else that dnf accepts. The
// repositories are snapshots whose repomd.xml was verified when it was mirrored.
// dnf does not verify it again, and could not where upstream does not sign it.
// Resolve looks up the URLs that dnf prints in primary to get their digests.
func (f Format) Resolve(ctx context.Context, repos []repo.SourceParams, archs, packages []string) ([]repo.Resolved, error) {
	if _, err := exec.LookPath("dnf"); err != nil {
		return nil, fmt.Errorf("resolve dependencies: %w", err)
	}
	dir, err := os.MkdirTemp("", "snapd-resolve-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &resolver{dir: dir, urls: map[string]bool{}}
	if err := r.read(ctx, repos); err != nil {
		return nil, fmt.Errorf("resolve dependencies: %w", err)
	}
	if err := r.configure(repos); err != nil {
		return nil, err
	}
	specs, err := r.specs(packages, baseArchs(archs))
	if err != nil {
		return nil, fmt.Errorf("resolve dependencies: %w", err)
	}
	for _, s := range specs {
		if err := r.run(ctx, s); err != nil {
			return nil, err
		}
	}
	res, err := r.resolved()
	if err != nil {
		return nil, fmt.Errorf("resolve dependencies of %s: %w", strings.Join(packages, " "), err)
	}
	return res, nil
}

// baseArchs returns the machine architectures to resolve for. If one machine accepts
// several of archs, baseArchs returns only one of them, 64-bit ones first.
func baseArchs(archs []string) (out []string) {
	machine := func(arch string) string {
		if base := yumconf.BaseArch(arch); base != "i386" {
			return base
		}
		return "x86_64"
	}
	archs = slices.DeleteFunc(slices.Clone(archs), func(a string) bool { return a == "noarch" || a == SourceArch })
	slices.SortStableFunc(archs, func(a, b string) int { // a 64-bit machine accepts 32-bit packages, not the reverse
		return strings.Compare(fmt.Sprint(yumconf.BaseArch(a) == "i386"), fmt.Sprint(yumconf.BaseArch(b) == "i386"))
	})
	for _, a := range archs {
		if !slices.ContainsFunc(out, func(o string) bool { return machine(o) == machine(a) }) {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return []string{"x86_64"} // any machine accepts noarch packages
	}
	return out
}

// covers reports whether a machine of one architecture accepts packages of another.
func covers(machine, arch string) bool {
	base := yumconf.BaseArch(arch)
	return arch == "noarch" || base == yumconf.BaseArch(machine) || base == "i386" && yumconf.BaseArch(machine) == "x86_64"
}

// resolver is one run of Resolve.
type resolver struct {
	dir      string // temporary
	packages []candidate
	byName   map[string][]int // indices of packages
	platform string           // that the modules require, as "platform:f42"
	urls     map[string]bool  // printed by dnf
}

// candidate is a package that a repository lists.
type candidate struct {
	nevra.NEVRA
	url      string
	checksum rpmmd.Checksum
}

// spec is a set of packages to resolve in one run of dnf.
type spec struct {
	arch  string   // of the machine
	archs []string // of the packages in names
	names []string // as dnf accepts them
}

// read reads the packages and modules of all repositories.
func (r *resolver) read(ctx context.Context, repos []repo.SourceParams) error {
	r.byName = map[string][]int{}
	var modules []rpmmd.ModuleDoc
	for _, src := range repos {
		docs, err := r.readRepo(ctx, repoURL(src))
		if err != nil {
			return fmt.Errorf("%s: %w", src.Name, err)
		}
		modules = append(modules, docs...)
	}
	r.platform = rpmmd.ModulePlatform(modules)
	return nil
}

// readRepo adds the packages of one repository, and returns its modules.
func (r *resolver) readRepo(ctx context.Context, base string) ([]rpmmd.ModuleDoc, error) {
	base = strings.TrimRight(base, "/")
	get := func(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
		return get(ctx, base+"/"+rpmmd.FormatHref(l.Path))
	}
	doc, err := get(ctx, repo.Listed{Path: repomdPath})
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
	l, err := openList(ctx, d, repo.Listed{Path: d.Path, Size: d.Size}, rpmmd.Primary, get)
	if err != nil {
		return nil, err
	}
	defer l.close()
	err = l.each(ctx, func(p *rpmmd.Package) error {
		r.byName[p.Name] = append(r.byName[p.Name], len(r.packages))
		url := base + "/" + p.Href
		if strings.Contains(p.Base, "://") {
			url = strings.TrimRight(p.Base, "/") + "/" + p.Href // as dnf prints it
		}
		r.packages = append(r.packages, candidate{p.NEVRA, url, p.Checksum})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if d = md.Find("modules"); d == nil {
		return nil, nil
	}
	text, err := readHeld(ctx, repo.Choice{Open: get}, repo.Listed{Path: d.Path}, rpmmd.MaxModules)
	if err != nil {
		return nil, err
	}
	docs, _, err := rpmmd.ParseModules(text)
	return docs, malformed(err)
}

// configure writes the configuration of dnf.
func (r *resolver) configure(repos []repo.SourceParams) error {
	var confs []yumconf.Repo
	for _, src := range repos {
		confs = append(confs, yumconf.Repo{ID: yumconf.ID(src.Name), Name: src.Name, BaseURLs: []string{repoURL(src)}, Enabled: true})
	}
	text, err := yumconf.Format("", confs...)
	if err != nil {
		return err
	}
	for _, d := range []string{"repos", "plugins", "vars"} {
		if err := os.Mkdir(filepath.Join(r.dir, d), 0o755); err != nil {
			return err
		}
	}
	conf := fmt.Sprintf("[main]\nreposdir=%[1]s/repos\nvarsdir=%[1]s/vars\ncachedir=%[1]s/cache\nlogdir=%[1]s/log\npersistdir=%[1]s/persist\npluginconfpath=%[1]s/plugins\n"+
		"install_weak_deps=0\nbest=1\nretries=2\nskip_if_unavailable=0\n", r.dir)
	if r.platform != "" {
		conf += "module_platform_id=" + r.platform + "\n"
	}
	for name, data := range map[string]string{"dnf.conf": conf, "repos/snapd.repo": text} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(data), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// specs groups packages that dnf can resolve in one run. A package does not have to
// exist for every architecture; if it exists for none, specs returns repo.ErrMissing.
func (r *resolver) specs(packages, archs []string) ([]spec, error) {
	var out []spec
	add := func(machine string, archs []string, name string) {
		i := slices.IndexFunc(out, func(s spec) bool { return s.arch == machine && slices.Equal(s.archs, archs) })
		if i < 0 {
			i = len(out)
			out = append(out, spec{arch: machine, archs: archs})
		}
		if !slices.Contains(out[i].names, name) {
			out[i].names = append(out[i].names, name)
		}
	}
	for _, p := range packages {
		w, err := r.parse(p)
		if err != nil {
			return nil, err
		}
		found := false
		for _, machine := range archs {
			usual := []string{machine, "noarch"}
			if w.asIs {
				found = true
				add(machine, usual, p)
				continue
			}
			for _, name := range r.matching(w, machine) {
				found = true
				if w.arch == "" || slices.Contains(usual, w.arch) {
					add(machine, usual, name)
				} else {
					add(machine, []string{w.arch}, name)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("no package %s for %s%s: %w", p, strings.Join(archs, ", "), r.others(w.name), repo.ErrMissing)
		}
	}
	return out, nil
}

// wanted is a package that was asked for.
type wanted struct {
	name, arch string
	version    string // "" for the newest
	evr        nevra.EVR
	asIs       bool // not the name of a package; pass it to dnf unchanged
}

// parse reads NAME[:ARCH][=VERSION].
func (r *resolver) parse(p string) (wanted, error) {
	var w wanted
	name, version, versioned := strings.Cut(p, "=")
	w.name, w.arch, _ = strings.Cut(name, ":")
	if len(r.byName[w.name]) == 0 && !versioned {
		return wanted{name: p, asIs: true}, nil
	}
	if versioned {
		w.version = version
		if !strings.Contains(version, "-") {
			version += "-0" // any release
		}
		var err error
		if w.evr, err = nevra.ParseEVR(version); err != nil || w.version == "" {
			return w, fmt.Errorf("package %s: version %q: expected [EPOCH:]VERSION[-RELEASE]: %w", excerpt.Of(p), excerpt.Of(w.version), repo.ErrMissing)
		}
	}
	return w, nil
}

// matching returns the wanted packages that a machine accepts, in dnf's notation. If
// any version will do, it returns only the bare name, and dnf chooses the version.
func (r *resolver) matching(w wanted, machine string) (out []string) {
	for _, i := range r.byName[w.name] {
		p := r.packages[i]
		switch {
		case !covers(machine, p.Arch), w.arch != "" && p.Arch != w.arch:
			continue
		case w.arch == "" && p.Arch != machine && p.Arch != "noarch":
			continue
		case w.version == "" && w.arch == "":
			return []string{w.name}
		case w.version == "":
			return []string{w.name + "." + w.arch}
		case !w.hasVersion(p.EVR):
			continue
		}
		if name := fmt.Sprintf("%s-%d:%s-%s.%s", p.Name, p.Epoch, p.Version, p.Release, p.Arch); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// hasVersion reports whether v is the wanted version. It ignores an epoch or release
// that w does not have.
func (w *wanted) hasVersion(v nevra.EVR) bool {
	if strings.Contains(w.version, ":") && v.Epoch != w.evr.Epoch {
		return false
	}
	return v.Version == w.evr.Version && (!strings.Contains(w.version, "-") || v.Release == w.evr.Release)
}

// others returns the available versions of a package, for a message.
func (r *resolver) others(name string) string {
	var list []string
	for _, i := range r.byName[name] {
		if p := r.packages[i]; !slices.Contains(list, p.NEVRA.String()) {
			list = append(list, p.NEVRA.String())
		}
	}
	slices.Sort(list)
	if len(list) == 0 {
		return ""
	}
	return "; available: " + excerpt.Of(strings.Join(list, ", "))
}

// run has dnf resolve one spec, and records the URLs that it prints.
func (r *resolver) run(ctx context.Context, s spec) error {
	args := []string{"-y", "-q", "-c", filepath.Join(r.dir, "dnf.conf"), "--installroot", filepath.Join(r.dir, "root"), "--releasever", "1", "--forcearch", s.arch,
		"--disableplugin=*", "--enableplugin=download", "download", "--resolve", "--alldeps", "--url"}
	for _, a := range s.archs {
		args = append(args, "--arch", a)
	}
	cmd := exec.CommandContext(ctx, "dnf", append(append(args, "--"), s.names...)...)
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "LC_ALL=C.UTF-8", "http_proxy=", "HTTP_PROXY=", "https_proxy=", "HTTPS_PROXY=", "all_proxy=", "ALL_PROXY=", "no_proxy=*")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("dnf download for %s: %s", s.arch, strings.TrimSpace(lastBytes(errs.String()+" "+out.String())))
		}
		return err
	}
	for line := range strings.Lines(out.String()) {
		if line = strings.TrimSpace(line); strings.Contains(line, "://") && strings.HasSuffix(line, ".rpm") {
			r.urls[line] = true
		}
	}
	return nil
}

// resolved looks up the URLs that dnf printed.
func (r *resolver) resolved() (out []repo.Resolved, err error) {
	if len(r.urls) == 0 {
		return nil, errors.New("dnf printed no package URL")
	}
	for _, p := range r.packages {
		if !r.urls[p.url] {
			continue
		}
		delete(r.urls, p.url)
		res := repo.Resolved{URL: p.url, Name: p.Name, Version: p.EVR.String(), Arch: p.Arch}
		if p.checksum.Type != "sha256" {
			res.SHA512 = p.checksum.Hex
		} else if res.SHA256, err = cas.ParseDigest(p.checksum.Hex); err != nil {
			return nil, err
		}
		out = append(out, res)
	}
	for u := range r.urls {
		return nil, fmt.Errorf("no repository lists %s: %w", u, repo.ErrMissing)
	}
	return out, nil
}

// get downloads a file from this machine's own server.
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

// lastBytes returns at most the last 800 bytes of a program's output, for a message.
func lastBytes(s string) string {
	if len(s) > 800 {
		s = "…" + s[len(s)-800:]
	}
	return s
}

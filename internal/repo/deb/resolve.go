package deb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Resolve runs apt itself to resolve packages and their dependencies, but not
// their recommendations. apt runs in an empty root of the first architecture,
// with the others as foreign ones, and ignores the host's configuration. It
// verifies the signatures of the Release files, but not their age, because they
// may have expired since they were mirrored.
func (f Format) Resolve(ctx context.Context, repos []repo.SourceParams, archs, packages []string) ([]repo.Resolved, error) {
	archs = slices.DeleteFunc(slices.Clone(archs), func(a string) bool { return a == "all" || a == "source" })
	if len(archs) == 0 {
		return nil, fmt.Errorf("resolve dependencies: no architecture of a machine is configured: %w", repo.ErrMissing)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, fmt.Errorf("resolve dependencies: %w", err)
	}
	dir, err := os.MkdirTemp("", "snapd-resolve-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, d := range []string{"etc/apt/sources.list.d", "etc/apt/preferences.d", "etc/apt/apt.conf.d", "var/lib/dpkg", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	var sources strings.Builder
	for _, r := range repos {
		r.HasSources = false
		text, err := f.ClientConfig("deb822", r)
		if err != nil {
			return nil, err
		}
		sources.WriteString(text + "\n")
	}
	conf := fmt.Sprintf(`Dir "%s/";
Dir::State::status "%s/var/lib/dpkg/status";
APT::Architecture "%s";
APT::Architectures { "%s"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Get::Assume-Yes "true";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Dir::Log "/dev/null";
`, dir, dir, archs[0], strings.Join(archs, `"; "`))
	for name, data := range map[string]string{"apt.conf": conf, "var/lib/dpkg/status": "", "etc/apt/sources.list.d/snapd.sources": sources.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := runApt(ctx, dir, "update", "--error-on=any"); err != nil {
		return nil, err
	}
	res, lacking, err := installURIs(ctx, dir, "SHA256", packages)
	if err == nil && lacking {
		// Some packages are listed only by SHA-512.
		var by512 []repo.Resolved
		by512, _, err = installURIs(ctx, dir, "SHA512", packages)
		for i := range res {
			if res[i].SHA256.IsZero() && i < len(by512) && by512[i].URL == res[i].URL {
				res[i].SHA512 = by512[i].SHA512
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("resolve dependencies of %s: %w", strings.Join(packages, " "), err)
	}
	for _, r := range res {
		if r.SHA256.IsZero() && r.SHA512 == "" {
			return nil, fmt.Errorf("resolve dependencies of %s: apt has no strong digest for %s: %w", strings.Join(packages, " "), r.URL, repo.ErrWeak)
		}
	}
	return res, nil
}

// installURIs returns the files that apt would download to install packages, with
// digests of one kind. lacking reports whether some packages do not have that digest.
func installURIs(ctx context.Context, dir, hash string, packages []string) (res []repo.Resolved, lacking bool, err error) {
	out, err := runApt(ctx, dir, append([]string{"install", "--print-uris", "-o", "Acquire::ForceHash=" + hash, "--"}, packages...)...)
	if err != nil {
		return nil, false, err
	}
	for line := range strings.Lines(string(out)) {
		r, ok, err := printedURI(line)
		if err != nil {
			return nil, false, err
		}
		if ok {
			res = append(res, r)
			lacking = lacking || r.SHA256.IsZero() && r.SHA512 == ""
		}
	}
	if len(res) == 0 {
		return nil, false, errors.New("apt lists no packages")
	}
	return res, lacking, nil
}

// printedURI parses a line of --print-uris: 'URL' NAME_VERSION_ARCH.deb SIZE
// HASH:HEX. The last word is present only if the package has a digest of the
// requested kind. ok is false for other lines.
func printedURI(line string) (r repo.Resolved, ok bool, err error) {
	parts := strings.Fields(line)
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "'") {
		return r, false, nil
	}
	r.URL = strings.Trim(parts[0], "'")
	name, err := url.PathUnescape(strings.TrimSuffix(parts[1], ".deb"))
	words := strings.Split(name, "_")
	if err != nil || len(words) != 3 {
		return r, false, fmt.Errorf("unexpected file name %q from apt", parts[1])
	}
	r.Name, r.Version, r.Arch = words[0], words[1], words[2]
	if len(parts) == 3 {
		return r, true, nil
	}
	if h, ok := strings.CutPrefix(parts[3], "SHA512:"); ok {
		r.SHA512, err = parseSHA512(h)
	} else {
		r.SHA256, err = cas.ParseDigest(strings.TrimPrefix(parts[3], "SHA256:"))
	}
	return r, err == nil, err
}

func runApt(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q"}, args...)...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(dir, "apt.conf"), "LC_ALL=C.UTF-8", "http_proxy=", "HTTP_PROXY=", "no_proxy=*")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("apt-get %s: %s", args[0], strings.TrimSpace(errs.String()+" "+lastLines(out.String())))
		}
		return nil, err
	}
	return out.Bytes(), nil
}

// lastLines returns the end of a program's output, for a message.
func lastLines(s string) string {
	if len(s) > 800 {
		s = "…" + s[len(s)-800:]
	}
	return s
}

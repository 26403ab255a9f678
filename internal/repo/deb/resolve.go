package deb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Resolve lets apt itself resolve packages and their dependencies (not what
// they only recommend) in an empty root of the first architecture, with the others
// as foreign ones, that reads nothing of the host's configuration. The Release files may have expired since they were mirrored:
// their signatures are checked, their age is not.
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
Acquire::ForceHash "SHA256";
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
	out, err := runApt(ctx, dir, append([]string{"install", "--print-uris", "--"}, packages...)...)
	if err != nil {
		return nil, err
	}
	var res []repo.Resolved
	for line := range strings.Lines(string(out)) {
		// 'URL' FILE SIZE SHA256:HEX
		parts := strings.Fields(line)
		if len(parts) != 4 || !strings.HasPrefix(parts[0], "'") {
			continue
		}
		h, ok := strings.CutPrefix(parts[3], "SHA256:")
		if !ok {
			return nil, fmt.Errorf("resolve dependencies: apt names no SHA-256: %s", strings.TrimSpace(line))
		}
		d, err := cas.ParseDigest(h)
		if err != nil {
			return nil, fmt.Errorf("resolve dependencies: %w", err)
		}
		res = append(res, repo.Resolved{URL: strings.Trim(parts[0], "'"), SHA256: d})
	}
	if len(res) == 0 {
		return nil, fmt.Errorf("resolve dependencies of %s: apt names no package", strings.Join(packages, " "))
	}
	return res, nil
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

// lastLines is the end of what a program printed, for a message.
func lastLines(s string) string {
	if len(s) > 800 {
		s = "…" + s[len(s)-800:]
	}
	return s
}

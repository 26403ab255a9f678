package buildlist

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"example.org/snapd/internal/fetch/remote"
)

// reproEnvPackage is a [[package]] of repro-env.lock. Other keys (provides, signature,
// installed) do not identify the package.
type reproEnvPackage struct {
	Name    string `toml:"name"`
	Version string `toml:"version"`
	System  string `toml:"system"`
	URL     string `toml:"url"`
	SHA256  string `toml:"sha256"`
}

// unknownVersion is the version that early versions of repro-env wrote, together with
// the file name as the name.
const unknownVersion = "???"

// reproEnv parses repro-env.lock: the packages of the system "debian". Those of
// other systems (archlinux, alpine) are not in any repository of snapd.
func (p *parser) reproEnv() error {
	data, err := io.ReadAll(io.LimitReader(p.in, MaxTOML+1))
	if err != nil {
		return readError(p.file, err)
	}
	if len(data) > MaxTOML {
		return fmt.Errorf("read build manifest %s: more than %d bytes of TOML: %w", p.file, MaxTOML, ErrTooLarge)
	}
	data = bytes.TrimPrefix(data, utf8BOM)
	var lock struct {
		Packages []reproEnvPackage `toml:"package"`
	}
	if err := toml.Unmarshal(data, &lock); err != nil {
		line := 0
		if at := new(toml.DecodeError); errors.As(err, &at) {
			line, _ = at.Position()
		}
		return p.malformed(line, "a lock file of repro-env in TOML", strings.TrimPrefix(err.Error(), "toml: "))
	}
	lines := tableLines(data, len(lock.Packages))
	for i := range lock.Packages {
		if err := p.reproEnvPackage(lines[i], &lock.Packages[i]); err != nil {
			return err
		}
	}
	return nil
}

// tableLines returns the lines of the headers [[package]], of which there are n. If
// text that looks like a header gives another count, it returns the first line for all.
func tableLines(data []byte, n int) []int {
	out := make([]int, 0, n)
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if packageTable(string(text)) {
			out = append(out, line)
		}
	}
	if len(out) == n {
		return out
	}
	out = make([]int, n)
	for i := range out {
		out[i] = 1
	}
	return out
}

// packageTable reports whether a line of TOML is the header [[package]].
func packageTable(line string) bool {
	line = strings.TrimSpace(stripComment(strings.TrimSpace(line)))
	inner, ok := strings.CutPrefix(line, "[[")
	inner, end := strings.CutSuffix(inner, "]]")
	return ok && end && strings.TrimSpace(inner) == "package"
}

func (p *parser) reproEnvPackage(line int, k *reproEnvPackage) error {
	if k.System != "debian" {
		return p.malformed(line, "a package of the system debian, "+clip(k.Name), k.System)
	}
	base := urlBase(k.URL)
	f, named := parseFileName(base)
	if !strings.HasSuffix(base, ".deb") {
		return p.malformed(line, "the url of the .deb file of "+clip(k.Name), k.URL)
	}
	name, version := k.Name, k.Version
	if version == unknownVersion && strings.HasSuffix(name, ".deb") {
		if !named {
			return p.malformed(line, "the url of a file name_version_architecture.deb", k.URL)
		}
		name, version = f.Name, f.Version
	}
	e := Entry{Ecosystem: Deb, Name: name, Version: version, EpochUnknown: k.Version == unknownVersion && f.EpochUnknown, Size: -1,
		URL: remote.Scrub(k.URL), Line: line, Raw: clip(k.Name + " " + k.Version)}
	switch {
	case !debName(name):
		return p.malformed(line, "the name of a package", k.Name)
	case !debVersion(version):
		return p.malformed(line, "the version of "+clip(name), k.Version)
	case !e.digest("sha256", k.SHA256):
		return p.malformed(line, "the sha256 of "+clip(name), k.SHA256)
	}
	if !named {
		return p.add(e)
	}
	if !sameFile(f, name, version) {
		return p.malformed(line, fmt.Sprintf("the url of %s %s", clip(name), clip(version)), k.URL)
	}
	e.Arch = f.Arch
	return p.add(e)
}

// sameFile reports whether a .deb file, whose name rarely has the epoch, is that of a
// package.
func sameFile(f Entry, name, version string) bool {
	if f.Name != name {
		return false
	}
	if f.EpochUnknown {
		if _, rest, ok := strings.Cut(version, ":"); ok {
			version = rest
		}
	}
	return f.Version == version
}

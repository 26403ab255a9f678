package yumconf

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Vars are the values of variables: releasever, basearch, arch and those of the
// files in /etc/dnf/vars. releasever_major and releasever_minor are the parts of
// releasever before and after its first dot, unless they have values here.
type Vars map[string]string

// BaseArch is dnf's $basearch for an rpm architecture.
func BaseArch(arch string) string {
	switch arch {
	case "i386", "i486", "i586", "i686", "athlon", "geode":
		return "i386"
	case "amd64", "x86_64_v2", "x86_64_v3", "x86_64_v4":
		return "x86_64"
	case "arm64":
		return "aarch64"
	case "armv7l", "armv7hl", "armv7hnl", "armv8l":
		return "armhfp"
	case "ppc64el":
		return "ppc64le"
	}
	return arch
}

// Arch is dnf's $arch for an rpm or Debian architecture.
func Arch(arch string) string {
	switch arch {
	case "amd64":
		return "x86_64"
	case "i386":
		return "i686"
	case "arm64":
		return "aarch64"
	case "armhf":
		return "armv7hl"
	case "ppc64el":
		return "ppc64le"
	}
	return arch
}

// LoadVars reads the variables that dnf would know on a machine whose root file system is
// root: arch and basearch from arch (an rpm or Debian architecture), releasever from
// os-release, and those in /etc/yum/vars and /etc/dnf/vars. A releasever that is not
// empty replaces the machine's.
func LoadVars(root fs.FS, arch, releasever string) (Vars, error) {
	v := Vars{"arch": Arch(arch), "basearch": BaseArch(arch)}
	var err error
	if own, err := releaseOf(root); err != nil {
		return nil, err
	} else if own != "" {
		v["releasever"] = own
	}
	for _, dir := range []string{"etc/yum/vars", "etc/dnf/vars"} {
		if err = v.loadDir(root, dir); err != nil {
			return nil, err
		}
	}
	if releasever != "" {
		v["releasever"] = releasever
	}
	return v, nil
}

// loadDir reads a directory of variables. The name of a file is that of the variable, and
// its first line is the value.
func (v Vars) loadDir(root fs.FS, dir string) error {
	entries, err := fs.ReadDir(root, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !validVar(e.Name()) || e.IsDir() {
			continue
		}
		b, err := fs.ReadFile(root, path.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(string(b), "\n")
		v[e.Name()] = strings.TrimSpace(line)
	}
	return nil
}

// Distributions whose VERSION_ID is dnf's $releasever, and those for which it is the part
// before the dot, by the ID in os-release.
var (
	wholeVersion = []string{"fedora", "fedora-asahi-remix", "nobara", "ultramarine", "amzn", "opensuse-leap", "opensuse-tumbleweed", "sles", "sled", "mageia", "openmandriva", "azurelinux", "mariner", "openEuler", "photon"}
	majorVersion = []string{"rhel", "centos", "rocky", "almalinux", "ol", "scientific", "eurolinux", "virtuozzo", "cloudlinux", "miraclelinux", "circle"}
)

// releaseOf returns dnf's $releasever on a machine: the version of a distribution that
// uses rpm, and otherwise "".
func releaseOf(root fs.FS) (string, error) {
	var id, version string
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		b, err := fs.ReadFile(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch value = strings.Trim(value, `"'`); key {
			case "ID":
				id = value
			case "VERSION_ID":
				version = value
			}
		}
		break
	}
	switch {
	case slices.Contains(wholeVersion, id):
		return version, nil
	case slices.Contains(majorVersion, id):
		major, _, _ := strings.Cut(version, ".")
		return major, nil
	}
	return "", nil
}

// value returns the value of a variable.
func (v Vars) value(name string) (string, bool) {
	if value, ok := v[name]; ok {
		return value, true
	}
	release, ok := v["releasever"]
	major, minor, _ := strings.Cut(release, ".")
	switch name {
	case "releasever_major":
		return major, ok
	case "releasever_minor":
		return minor, ok
	}
	return "", false
}

// expand replaces $name, ${name}, ${name:-default} and ${name:+alternative}.
func (v Vars) expand(s string, unknown map[string]bool, depth int) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || depth > 8 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		rest := s[i+1:]
		name, op, word, whole := "", "", "", 0
		if strings.HasPrefix(rest, "{") {
			end := closing(rest)
			if end < 0 {
				b.WriteString(s[i:])
				return b.String()
			}
			name, whole = rest[1:end], end+1
			if j := strings.Index(name, ":"); j >= 0 && j+1 < len(name) && (name[j+1] == '-' || name[j+1] == '+') {
				name, op, word = name[:j], name[j:j+2], name[j+2:]
			}
		} else {
			for whole < len(rest) && isVarByte(rest[whole]) {
				whole++
			}
			name = rest[:whole]
		}
		value, ok := v.value(name)
		switch {
		case !validVar(name):
			b.WriteString(s[i : i+1+whole])
		case op == ":-" && (!ok || value == ""):
			b.WriteString(v.expand(word, unknown, depth+1))
		case op == ":+":
			if ok && value != "" {
				b.WriteString(v.expand(word, unknown, depth+1))
			}
		case ok:
			b.WriteString(value)
		default:
			unknown[name] = true
			b.WriteString(s[i : i+1+whole])
		}
		s = rest[whole:]
	}
}

// closing finds the brace that matches the one at the start of s.
func closing(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func isVarByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func validVar(s string) bool {
	for i := range len(s) {
		if !isVarByte(s[i]) {
			return false
		}
	}
	return s != ""
}

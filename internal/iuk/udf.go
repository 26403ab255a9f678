package iuk

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/lazyregexp"
)

// ErrUDF means that an upgrade-description file violates its format, or is in the wrong
// place.
var ErrUDF = errors.New("bad upgrade-description file")

// ErrOtherUDF is an ErrUDF: another upgrade-description file is in the way.
var ErrOtherUDF = errclass.New(ErrUDF, "bad upgrade-description file")

// UDF is an upgrade-description file: it lists the upgrades for clients that were
// first installed with one version. The format is version 2 of Tails' format
// ("Upgrade-description files" in Tails' design page on upgrades). Clients trust its
// signature, which is the only authentication of a kit.
type UDF struct {
	ProductName           string // e.g. "Tails"
	InitialInstallVersion string // the version first installed, not the running one
	BuildTarget           string // architecture, e.g. "amd64"
	Channel               string // "stable", "alpha", ...
	Upgrades              []Upgrade
}

// Upgrade is one version that a client may upgrade to.
type Upgrade struct {
	Version    string
	Type       string // UpgradeMajor or UpgradeMinor
	DetailsURL string // page for people; may be empty
	Paths      []UpgradePath
}

// UpgradePath is one method of an upgrade.
type UpgradePath struct {
	Type        string // PathFull or PathIncremental
	TargetFiles []TargetFile
}

// TargetFile is a file to download.
type TargetFile struct {
	URL    string
	Size   int64 // bytes
	SHA256 cas.Digest
}

// The types of upgrades and of upgrade paths.
const (
	UpgradeMajor = "major"
	UpgradeMinor = "minor"

	PathFull        = "full"        // a whole image
	PathIncremental = "incremental" // a kit
)

// Limits of a UDF. Real UDFs have at most one upgrade with two paths.
const (
	MaxUDF         = 64 << 10 // bytes
	maxUpgrades    = 64
	maxTargetFiles = 16
)

var (
	// versionRE matches versions, which are elements of URLs and of file names. It
	// does not match "." and "..".
	versionRE = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99}$`)
	wordRE    = lazyregexp.New(`^[A-Za-z][A-Za-z0-9._-]{0,63}$`)
	// plainURLRE excludes URLs that need quotes in YAML or escapes.
	plainURLRE = lazyregexp.New(`^https?://[A-Za-z0-9._~:/%+@=&?;,-]+$`)
	numberRE   = lazyregexp.New(`^[0-9]+(e[0-9]+)?$`)
)

// ParseUDF parses and checks a UDF. Unknown or repeated keys, aliases, tags and several
// documents are errors.
func ParseUDF(data []byte) (*UDF, error) {
	if len(data) > MaxUDF {
		return nil, fmt.Errorf("%d bytes, expected at most %d: %w", len(data), MaxUDF, ErrUDF)
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("%v: %w", err, ErrUDF)
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return nil, fmt.Errorf("several documents: %w", ErrUDF)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, fmt.Errorf("no document: %w", ErrUDF)
	}
	u := new(UDF)
	err := eachKey(doc.Content[0], "file", map[string]func(*yaml.Node) error{
		"product-name":            into(&u.ProductName),
		"initial-install-version": into(&u.InitialInstallVersion),
		"build-target":            into(&u.BuildTarget),
		"channel":                 into(&u.Channel),
		"upgrades": func(n *yaml.Node) (err error) {
			u.Upgrades, err = list(n, "upgrades", maxUpgrades, parseUpgrade)
			return err
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrUDF)
	}
	if err := u.Check(); err != nil {
		return nil, err
	}
	return u, nil
}

func parseUpgrade(n *yaml.Node) (u Upgrade, err error) {
	return u, eachKey(n, "upgrade", map[string]func(*yaml.Node) error{
		"version":     into(&u.Version),
		"type":        into(&u.Type),
		"details-url": into(&u.DetailsURL),
		"upgrade-paths": func(n *yaml.Node) (err error) {
			u.Paths, err = list(n, "upgrade-paths", 2, parsePath)
			return err
		},
	})
}

func parsePath(n *yaml.Node) (p UpgradePath, err error) {
	return p, eachKey(n, "upgrade path", map[string]func(*yaml.Node) error{
		"type": into(&p.Type),
		"target-files": func(n *yaml.Node) (err error) {
			p.TargetFiles, err = list(n, "target-files", maxTargetFiles, parseTarget)
			return err
		},
	})
}

func parseTarget(n *yaml.Node) (f TargetFile, err error) {
	return f, eachKey(n, "target file", map[string]func(*yaml.Node) error{
		"url": into(&f.URL),
		"size": func(n *yaml.Node) error {
			var s string
			if err := into(&s)(n); err != nil {
				return err
			}
			v, err := strconv.ParseInt(s, 10, 64)
			if err != nil || s != strconv.FormatInt(v, 10) {
				return fmt.Errorf("%q is not a number of bytes", s)
			}
			f.Size = v
			return nil
		},
		"sha256": func(n *yaml.Node) error {
			var s string
			if err := into(&s)(n); err != nil {
				return err
			}
			d, err := cas.ParseDigest(s)
			f.SHA256 = d
			return err
		},
	})
}

// eachKey calls the setter of each key of the mapping n with its value.
func eachKey(n *yaml.Node, what string, set map[string]func(*yaml.Node) error) error {
	if n.Kind != yaml.MappingNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		return fmt.Errorf("line %d: %s: expected a mapping", n.Line, what)
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		var key string
		if err := into(&key)(n.Content[i]); err != nil {
			return fmt.Errorf("line %d: key: %w", n.Content[i].Line, err)
		}
		f, ok := set[key]
		if !ok {
			return fmt.Errorf("line %d: %s: unknown key %q", n.Content[i].Line, what, key)
		}
		if seen[key] {
			return fmt.Errorf("line %d: %s: key %q occurs twice", n.Content[i].Line, what, key)
		}
		seen[key] = true
		if err := f(n.Content[i+1]); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// into returns a setter that stores the text of a scalar, so that 6.10 does not become
// 6.1.
func into(s *string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 || n.Tag == "!!null" {
			return fmt.Errorf("line %d: expected a plain value", n.Line)
		}
		*s = n.Value
		return nil
	}
}

// list parses the elements of a sequence.
func list[T any](n *yaml.Node, what string, most int, parse func(*yaml.Node) (T, error)) ([]T, error) {
	if n.Kind != yaml.SequenceNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		return nil, fmt.Errorf("line %d: %s: expected a list", n.Line, what)
	}
	if len(n.Content) > most {
		return nil, fmt.Errorf("line %d: %s: %d entries, expected at most %d", n.Line, what, len(n.Content), most)
	}
	var all []T
	for _, c := range n.Content {
		v, err := parse(c)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// Check returns an error if u is not a valid UDF.
func (u *UDF) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), ErrUDF)
	}
	for _, f := range []struct {
		name, value string
		re          *regexp.Regexp
	}{
		{"product-name", u.ProductName, wordRE()},
		{"initial-install-version", u.InitialInstallVersion, versionRE()},
		{"build-target", u.BuildTarget, wordRE()},
		{"channel", u.Channel, wordRE()},
	} {
		if !f.re.MatchString(f.value) {
			return bad("%s: %q is not valid", f.name, f.value)
		}
	}
	if len(u.Upgrades) > maxUpgrades {
		return bad("%d upgrades, expected at most %d", len(u.Upgrades), maxUpgrades)
	}
	versions := make(map[string]bool)
	for _, up := range u.Upgrades {
		if !versionRE().MatchString(up.Version) {
			return bad("upgrade: %q is not a version", up.Version)
		}
		if versions[up.Version] {
			return bad("upgrade to %s occurs twice", up.Version)
		}
		versions[up.Version] = true
		if up.Version == u.InitialInstallVersion {
			return bad("upgrade from %s to itself", up.Version)
		}
		if up.Type != UpgradeMajor && up.Type != UpgradeMinor {
			return bad("upgrade to %s: type: expected major or minor, found %q", up.Version, up.Type)
		}
		if up.DetailsURL != "" {
			if err := checkURL(up.DetailsURL); err != nil {
				return bad("upgrade to %s: details-url: %w", up.Version, err)
			}
		}
		if len(up.Paths) == 0 {
			return bad("upgrade to %s: no upgrade-paths", up.Version)
		}
		types := make(map[string]bool)
		for _, p := range up.Paths {
			if p.Type != PathFull && p.Type != PathIncremental {
				return bad("upgrade to %s: type of path: expected full or incremental, found %q", up.Version, p.Type)
			}
			if types[p.Type] {
				return bad("upgrade to %s: two %s paths", up.Version, p.Type)
			}
			types[p.Type] = true
			if len(p.TargetFiles) == 0 || len(p.TargetFiles) > maxTargetFiles ||
				p.Type == PathIncremental && len(p.TargetFiles) != 1 { // clients take exactly one kit
				return bad("upgrade to %s: %s path with %d target-files", up.Version, p.Type, len(p.TargetFiles))
			}
			for _, f := range p.TargetFiles {
				if err := checkURL(f.URL); err != nil {
					return bad("upgrade to %s: target file: %w", up.Version, err)
				}
				if f.Size <= 0 {
					return bad("upgrade to %s: %s: size %d", up.Version, f.URL, f.Size)
				}
				if f.SHA256.IsZero() {
					return bad("upgrade to %s: %s: no sha256", up.Version, f.URL)
				}
			}
		}
	}
	return nil
}

func checkURL(s string) error {
	if len(s) > 2048 || !plainURLRE().MatchString(s) {
		return fmt.Errorf("url: %.100q is not a plain http or https URL", s)
	}
	if u, err := url.Parse(s); err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("url: %.100q is not a plain http or https URL", s)
	}
	return nil
}

// Format returns the bytes of u, which must pass Check. Keys are sorted, and versions
// are quoted so that they are not read as numbers. Equal UDFs have equal bytes.
func (u *UDF) Format() []byte {
	var b bytes.Buffer
	b.WriteString("---\n")
	fmt.Fprintf(&b, "build-target: %s\n", word(u.BuildTarget))
	fmt.Fprintf(&b, "channel: %s\n", word(u.Channel))
	fmt.Fprintf(&b, "initial-install-version: '%s'\n", u.InitialInstallVersion)
	fmt.Fprintf(&b, "product-name: %s\n", word(u.ProductName))
	if len(u.Upgrades) > 0 {
		b.WriteString("upgrades:\n")
	}
	for _, up := range u.Upgrades {
		dash := "- "
		if up.DetailsURL != "" {
			fmt.Fprintf(&b, "- details-url: %s\n", up.DetailsURL)
			dash = "  "
		}
		fmt.Fprintf(&b, "%stype: %s\n", dash, up.Type)
		b.WriteString("  upgrade-paths:\n")
		for _, p := range up.Paths {
			b.WriteString("  - target-files:\n")
			for _, f := range p.TargetFiles {
				sum := f.SHA256.String()
				if numberRE().MatchString(sum) { // YAML would read it as a number
					sum = "'" + sum + "'"
				}
				fmt.Fprintf(&b, "    - sha256: %s\n      size: %d\n      url: %s\n", sum, f.Size, f.URL)
			}
			fmt.Fprintf(&b, "    type: %s\n", p.Type)
		}
		fmt.Fprintf(&b, "  version: '%s'\n", up.Version)
	}
	return b.Bytes()
}

// word quotes words that YAML 1.1 reads as a boolean or as null.
func word(s string) string {
	if slices.Contains([]string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}, strings.ToLower(s)) {
		return "'" + s + "'"
	}
	return s
}

package attest

import (
	"fmt"
	"maps"
	"slices"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/excerpt"
)

// The types of statements, predicates and builds.
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://slsa.dev/provenance/v1"
	BuildType     = "https://example.org/snapd/image/v1"
)

// Names of the inputs of an image.
const (
	manifestName = "manifest.json"
	packagesName = "packages"
)

// maxListed limits the packages that a statement lists one by one, in bytes of JSON, so
// that the base64 of the envelope stays below MaxEnvelope.
const maxListed = 640 << 10

// Statement is a builder's statement that it built an image from a freeze, and whether
// the image is equal to the published one.
type Statement struct {
	Freeze   string
	Variant  string     // of the image
	Manifest cas.Digest // of the freeze
	Image    cas.Digest // built by the builder
	Expected cas.Digest // the published image
	Builder  string     // URI of the key, see Key.URI
	Tools    map[string]string
	// Packages are the packages of the freeze that its manifest lists.
	Packages []Package
}

// Equal reports whether the builder has built the published image.
func (s *Statement) Equal() bool { return s.Image == s.Expected }

// Package is one package of a freeze.
type Package struct {
	PURL   string
	SHA256 cas.Digest
}

// The parts of a statement as JSON. They contain no times, so that builds of the same
// freeze with the same tools give the same statement.
type (
	wireStatement struct {
		Type          string         `json:"_type"`
		Subject       []wireResource `json:"subject"`
		PredicateType string         `json:"predicateType"`
		Predicate     wirePredicate  `json:"predicate"`
	}
	wireResource struct {
		Name        string         `json:"name,omitempty"`
		URI         string         `json:"uri,omitempty"`
		Digest      wireDigest     `json:"digest"`
		Annotations map[string]int `json:"annotations,omitempty"`
	}
	wireDigest struct {
		SHA256 cas.Digest `json:"sha256"`
	}
	wirePredicate struct {
		Definition wireDefinition `json:"buildDefinition"`
		Run        wireRun        `json:"runDetails"`
		Verdict    wireVerdict    `json:"snapd_verdict"`
	}
	wireDefinition struct {
		Type         string         `json:"buildType"`
		External     wireParameters `json:"externalParameters"`
		Dependencies []wireResource `json:"resolvedDependencies"`
	}
	wireParameters struct {
		Freeze  string `json:"freeze"`
		Variant string `json:"variant"`
	}
	wireRun struct {
		Builder wireBuilder `json:"builder"`
	}
	wireBuilder struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version,omitempty"`
	}
	wireVerdict struct {
		Equal    bool       `json:"equal"`
		Expected wireDigest `json:"expected"`
	}
)

// Encode returns the statement as canonical JSON. It lists the packages by package URL
// if they do not exceed maxListed, and always contains their number and the digest of
// their list.
func (s *Statement) Encode() ([]byte, error) {
	materials := []wireResource{{Name: manifestName, Digest: wireDigest{s.Manifest}}}
	list := slices.Clone(s.Packages)
	slices.SortFunc(list, func(a, b Package) int { return slices.Compare([]byte(a.line()), []byte(b.line())) })
	list = slices.Compact(list)
	if len(list) > 0 {
		var text []byte
		var each []wireResource
		for _, p := range list {
			text = append(text, p.line()...)
			each = append(each, wireResource{URI: p.PURL, Digest: wireDigest{p.SHA256}})
		}
		materials = append(materials, wireResource{Name: packagesName, Digest: wireDigest{cas.Sum(text)}, Annotations: map[string]int{"count": len(list)}})
		if long, err := canonical.Marshal(each); err != nil {
			return nil, err
		} else if len(long) <= maxListed {
			materials = append(materials, each...)
		}
	}
	return canonical.Marshal(wireStatement{
		Type: StatementType, PredicateType: PredicateType,
		Subject: []wireResource{{Name: s.Freeze + "/" + s.Variant, Digest: wireDigest{s.Image}}},
		Predicate: wirePredicate{
			Definition: wireDefinition{Type: BuildType, External: wireParameters{s.Freeze, s.Variant}, Dependencies: materials},
			Run:        wireRun{wireBuilder{s.Builder, s.Tools}},
			Verdict:    wireVerdict{s.Equal(), wireDigest{s.Expected}},
		},
	})
}

// line returns the line of a package in the list whose digest is in the statement.
func (p Package) line() string { return p.SHA256.String() + "  " + p.PURL + "\n" }

// ParseStatement parses the statement of an envelope. It ignores unknown fields, as
// in-toto requires. Errors wrap ErrMalformed.
func ParseStatement(payload []byte) (*Statement, error) {
	o, err := parseObject("in-toto statement", payload)
	if err != nil {
		return nil, err
	}
	s, err := o.statement()
	if err != nil {
		return nil, fmt.Errorf("in-toto statement: %w", err)
	}
	return s, nil
}

func (o object) statement() (*Statement, error) {
	for key, want := range map[string]string{"_type": StatementType, "predicateType": PredicateType} {
		if got, err := o.text(key); err != nil {
			return nil, err
		} else if got != want {
			return nil, malformed("%s: expected %s, found %q", key, want, excerpt.Of(got))
		}
	}
	s := &Statement{}
	subjects, err := o.objects("subject")
	if err != nil {
		return nil, err
	}
	if len(subjects) != 1 {
		return nil, malformed("subject: expected one, found %d", len(subjects))
	}
	if s.Image, err = subjects[0].sha256(); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	p, err := o.object("predicate")
	if err != nil {
		return nil, err
	}
	if err := s.definition(p); err != nil {
		return nil, err
	}
	if err := s.run(p); err != nil {
		return nil, err
	}
	return s, s.verdict(p)
}

// definition reads the variant and the inputs of the build.
func (s *Statement) definition(p object) error {
	d, err := p.object("buildDefinition")
	if err != nil {
		return err
	}
	if typ, err := d.text("buildType"); err != nil {
		return err
	} else if typ != BuildType {
		return malformed("buildType: expected %s, found %q", BuildType, excerpt.Of(typ))
	}
	external, err := d.object("externalParameters")
	if err != nil {
		return err
	}
	if s.Freeze, err = external.text("freeze"); err != nil {
		return err
	}
	if s.Variant, err = external.text("variant"); err != nil {
		return err
	}
	list, err := d.objects("resolvedDependencies")
	if err != nil {
		return err
	}
	manifests := 0
	for _, r := range list {
		digest, err := r.sha256()
		if err != nil {
			return fmt.Errorf("resolvedDependencies: %w", err)
		}
		if name, _ := r["name"].(string); name == manifestName {
			manifests++
			s.Manifest = digest
		} else if uri, ok := r["uri"].(string); ok {
			s.Packages = append(s.Packages, Package{uri, digest})
		}
	}
	if manifests != 1 {
		return malformed("resolvedDependencies: expected one %s, found %d", manifestName, manifests)
	}
	return nil
}

// run reads the builder and its tools.
func (s *Statement) run(p object) error {
	r, err := p.object("runDetails")
	if err != nil {
		return err
	}
	b, err := r.object("builder")
	if err != nil {
		return err
	}
	if s.Builder, err = b.text("id"); err != nil {
		return err
	}
	if _, ok := b["version"]; !ok {
		return nil
	}
	tools, err := b.object("version")
	if err != nil {
		return err
	}
	s.Tools = map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(tools)) {
		if s.Tools[k], err = tools.text(k); err != nil {
			return fmt.Errorf("builder: version: %w", err)
		}
	}
	return nil
}

// verdict reads the published image, to which the built one was compared.
func (s *Statement) verdict(p object) error {
	v, err := p.object("snapd_verdict")
	if err != nil {
		return err
	}
	equal, ok := v["equal"].(bool)
	if !ok {
		return malformed("snapd_verdict: equal: expected true or false, found %s", kindOf(v["equal"]))
	}
	if s.Expected, err = (object{"digest": v["expected"]}).sha256(); err != nil {
		return fmt.Errorf("snapd_verdict: expected: %w", err)
	}
	if equal != s.Equal() {
		return malformed("snapd_verdict: equal is %t for the image %s, where %s was expected", equal, s.Image, s.Expected)
	}
	return nil
}

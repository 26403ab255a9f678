package buildenv

import (
	"fmt"
	"maps"
	"slices"

	"example.org/snapd/internal/canonical"
)

// RecordName and SecondName are the names in the output directory of the record of the
// run, and of the directory with differing outputs of the second run.
const (
	RecordName = "run.json"
	SecondName = "run.second"
)

// A Record describes the inputs and outputs of a run.
type Record struct {
	Ref          string // as requested
	Name         string // the freeze or snapshot
	Digests      []Input
	Command      []string
	Packages     []string // as requested
	Installed    []Input  // packages of the root
	Fetched      map[string]string
	Bind         string // digest of the listing of /src; "": none
	Jobs         int
	Settings     Settings
	Outputs      []Output
	Exit         int
	Tools        map[string]string
	Check        bool // it was run twice
	Reproducible bool // both runs had equal outputs
}

// An Input is something that a run used, with its SHA-256.
type Input struct{ Name, URI, SHA256 string }

// resource is a ResourceDescriptor of in-toto.
type resource struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

func (i Input) resource() resource {
	r := resource{Name: i.Name, URI: i.URI}
	if i.SHA256 != "" {
		r.Digest = map[string]string{"sha256": i.SHA256}
	}
	return r
}

// buildType identifies the meaning of externalParameters: see docs/BUILD.md.
const buildType = "https://example.org/snapd/run/v1"

// Statement returns the record as an in-toto Statement v1 with the predicate of
// SLSA provenance v1, in canonical JSON with a line feed. It has no time, no path
// and no name of this machine.
func (r *Record) Statement() ([]byte, error) {
	subject := []resource{}
	for _, o := range r.Outputs {
		if o.Kind == File {
			subject = append(subject, Input{Name: o.Path, SHA256: o.SHA256}.resource())
		}
	}
	used := []resource{}
	for _, i := range slices.Concat(r.Digests, r.Installed) {
		used = append(used, i.resource())
	}
	for _, p := range slices.Sorted(maps.Keys(r.Fetched)) {
		used = append(used, Input{Name: p, SHA256: r.Fetched[p]}.resource())
	}
	if r.Bind != "" {
		used = append(used, Input{Name: SourceDir, SHA256: r.Bind}.resource())
	}
	s := &r.Settings
	result := map[string]any{"exit": r.Exit}
	if r.Check {
		result["reproducible"] = r.Reproducible
	}
	internal := map[string]any{
		"environment": s.Env, "umask": fmt.Sprintf("%04o", s.Umask), "hostName": s.HostName, "user": s.User, "directory": s.Dir,
	}
	if s.Clock != 0 {
		internal["clock"] = clockText(s.Clock)
	}
	text, err := canonical.Marshal(map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       subject,
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": map[string]any{
			"buildDefinition": map[string]any{
				"buildType":            buildType,
				"externalParameters":   map[string]any{"ref": r.Ref, "name": r.Name, "command": r.Command, "packages": append([]string{}, r.Packages...), "jobs": r.Jobs},
				"internalParameters":   internal,
				"resolvedDependencies": used,
			},
			"runDetails": map[string]any{
				"builder":    map[string]any{"id": buildType, "version": r.Tools},
				"byproducts": []resource{{Name: "result", Annotations: result}},
			},
		},
	})
	return append(text, '\n'), err
}

package api

// AttestRequest asks for a statement for a builder to sign. It says that the builder
// built an image from a freeze.
type AttestRequest struct {
	Name    string            `json:"name"`
	Variant string            `json:"variant,omitempty"` // of the image; empty: the only image of the freeze
	Image   string            `json:"image_sha256"`      // of the image that was built
	Builder string            `json:"builder"`           // URI of the key
	Tools   map[string]string `json:"tools,omitempty"`   // versions of the tools that built the image
}

// AttestStatement is a statement to sign.
type AttestStatement struct {
	Payload []byte `json:"payload"` // in-toto Statement v1
}

// AttestAdd stores an attestation beside its freeze.
type AttestAdd struct {
	Name     string `json:"name"`     // of the freeze
	Envelope []byte `json:"envelope"` // DSSE
}

// AttestRef asks for the attestations of a freeze.
type AttestRef struct {
	Name      string `json:"name"`
	Envelopes bool   `json:"envelopes,omitempty"` // with their envelopes, for callers who verify signatures
}

// AttestComparison stores a comparison of the published image with an image that a
// builder made.
type AttestComparison struct {
	Name       string `json:"name"`       // of the freeze
	Comparison []byte `json:"comparison"` // a CompareResult, as canonical JSON
}

// AttestedComparison is a stored comparison.
type AttestedComparison struct {
	Name string `json:"name"`
	File string `json:"file"` // below /frozen/NAME/
	New  bool   `json:"new"`
}

// AttestRemove removes an attestation of a freeze, a list of links or a comparison.
type AttestRemove struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // of the file
}

// AttestRemoved describes the removed file.
type AttestRemoved struct {
	Name string `json:"name"`
	File string `json:"file"` // below /frozen/NAME/
}

// Attestation is a claim about the image of a freeze.
type Attestation struct {
	Name     string            `json:"name"` // of the freeze
	Variant  string            `json:"variant"`
	File     string            `json:"file"` // below /frozen/NAME/
	Image    string            `json:"image_sha256"`
	Expected string            `json:"expected_sha256"` // the published image
	Equal    bool              `json:"equal"`
	Keys     []string          `json:"keys"` // keys that claim to have signed the attestation
	Tools    map[string]string `json:"tools,omitempty"`
	Builders []string          `json:"builders,omitempty"` // of --builders, whose signatures snapctl verified
	Envelope []byte            `json:"envelope,omitempty"` // DSSE; only if requested
	Damage   string            `json:"damage,omitempty"`   // why the envelope cannot be read
}

// Attested is a stored attestation.
type Attested struct {
	Attestation
	New bool `json:"new"`
}

// AttestedList is `snapctl attest import`, in the order of the files.
type AttestedList struct {
	Attestations []Attested `json:"attestations"`
}

// AttestationList is `snapctl attest list`.
type AttestationList struct {
	Name         string        `json:"name"`
	Manifest     string        `json:"manifest_sha256"`
	Attestations []Attestation `json:"attestations"`
	Rebuilds     []Rebuilds    `json:"rebuilds,omitempty"`    // results of rebuilders for packages
	Comparisons  []string      `json:"comparisons,omitempty"` // files with the differences of rebuilt images
}

// Rebuilds is a list of rebuilders' links that is stored beside a freeze.
type Rebuilds struct {
	File  string `json:"file"` // below /frozen/NAME/
	Size  int64  `json:"size"`
	Links []byte `json:"links,omitempty"` // a JSON list; only if envelopes were requested
}

// BuilderResult says how many of the named builders confirm the images of a freeze.
type BuilderResult struct {
	Builders  []string       `json:"builders"`
	Threshold int            `json:"threshold"`
	Images    []BuilderImage `json:"images"`
}

// BuilderImage is the result of the named builders for an image.
type BuilderImage struct {
	Variant string           `json:"variant"`
	SHA256  string           `json:"sha256"`
	Confirm []string         `json:"confirm"`
	Dissent []BuilderDissent `json:"dissent"`
	Silent  []string         `json:"silent"` // builders without an attestation
}

// BuilderDissent is a builder that built a different image from the published one.
type BuilderDissent struct {
	Builder string `json:"builder"`
	SHA256  string `json:"sha256"` // of the image that it built
	Why     string `json:"why"`
}

// AttestRebuilds stores the results of rebuilders for packages of a freeze.
type AttestRebuilds struct {
	Name  string `json:"name"`  // of the freeze
	Links []byte `json:"links"` // a JSON list of in-toto links
}

// AttestedRebuilds is a stored list of links.
type AttestedRebuilds struct {
	Name  string `json:"name"`  // of the freeze
	File  string `json:"file"`  // below /frozen/NAME/
	Links int    `json:"links"` // in the list
	New   bool   `json:"new"`
}

// RebuilderResult says which binary packages of a freeze were reproduced.
type RebuilderResult struct {
	Rebuilders []string         `json:"rebuilders"`
	Threshold  int              `json:"threshold"`
	Packages   int              `json:"packages"`
	Reproduced int              `json:"reproduced"` // by at least Threshold
	By         []int            `json:"by"`         // how many were reproduced by exactly 0, 1, 2, ... rebuilders
	Fewer      []RebuiltPackage `json:"fewer"`      // packages reproduced by fewer
	Excepted   []RebuiltPackage `json:"excepted"`   // below the threshold, but exempt
}

// RebuiltPackage is a binary package and the rebuilders that reproduced it.
type RebuiltPackage struct {
	Mirror     string   `json:"mirror"`
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Arch       string   `json:"arch"`
	Rebuilders []string `json:"rebuilders"`
}

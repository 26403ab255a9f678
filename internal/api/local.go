package api

// The types below are results of commands that snapctl runs itself.

// InitResult is `snapctl init`.
type InitResult struct {
	File    string       `json:"file,omitempty"` // path of the configuration
	Text    string       `json:"text,omitempty"` // or its text, with --output -
	Keys    []string     `json:"keys"`           // paths of the key files
	Logins  []string     `json:"logins"`         // paths of the files with user names and passwords
	Mirrors []InitMirror `json:"mirrors"`
	Skipped []InitSkip   `json:"skipped"`
	Exit    int          `json:"exit"` // 3 if a skipped source is used by apt or dnf
}

// InitMirror is one mirror that was configured.
type InitMirror struct {
	Name  string   `json:"name"`
	Type  string   `json:"type"`
	URL   string   `json:"url"`
	From  []string `json:"from"`            // file:line
	Notes []string `json:"notes,omitempty"` // settings of this machine that were not copied
}

// InitSkip is a source that was skipped.
type InitSkip struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Text   string `json:"text"`
	Reason string `json:"reason"`
	// Disabled: apt and dnf do not use it either.
	Disabled bool `json:"disabled,omitempty"`
}

// KitList is `snapctl iuk create`.
type KitList struct {
	Kits []Kit `json:"kits"`
}

// Kit is one incremental upgrade kit.
type Kit struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Path      string `json:"path"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	Added     int64  `json:"added"`   // names
	Changed   int64  `json:"changed"` // names
	Removed   int64  `json:"removed"` // names
	Ignored   int64  `json:"ignored,omitempty"`
	Copied    int64  `json:"copied_bytes"` // compressed bytes copied without recompression
	BaseImage string `json:"base_image_sha256"`
	NewImage  string `json:"new_image_sha256"`
	URL       string `json:"url,omitempty"` // path on the public server, if it was published
}

// UDFList is `snapctl iuk udf`.
type UDFList struct {
	Files []UDFFile `json:"files"`
}

// UDFFile is one upgrade-description file.
type UDFFile struct {
	Path        string `json:"path"` // relative to the output directory
	Channel     string `json:"channel"`
	Version     string `json:"version"`     // initially installed version
	Upgrade     string `json:"upgrade"`     // offered version, or ""
	Incremental bool   `json:"incremental"` // a kit is offered
}

// ImageBuild is `snapctl image build`.
type ImageBuild struct {
	Image
	File string `json:"file,omitempty"` // path of the copy requested with --output
}

// RebuildResult is `snapctl rebuild`. Exit is 4 if the images differ.
type RebuildResult struct {
	Name     string           `json:"name"`
	Variant  string           `json:"variant,omitempty"`
	Recorded string           `json:"recorded_sha256"`
	Built    string           `json:"built_sha256"`
	Equal    bool             `json:"equal"`
	Tools    []ToolDifference `json:"tools"`             // tools whose versions differ from the recorded ones
	Compare  *CompareResult   `json:"compare,omitempty"` // A is the recorded image, B the new one; absent if they are equal
	// Attestation is the attestation that --attest signed.
	Attestation *Attested `json:"attestation,omitempty"`
	// Comparison is the path of the page with the differences, which --attest added.
	Comparison string `json:"comparison,omitempty"`
	Exit       int    `json:"exit"`
}

// RunResult is `snapctl run`. Exit is 4 if the runs of a check differ, otherwise the exit
// status of the command.
type RunResult struct {
	Ref     string      `json:"ref"`
	Name    string      `json:"name"` // of the freeze or snapshot
	Command []string    `json:"command"`
	Status  int         `json:"status"` // exit status of the command
	Outputs []RunOutput `json:"outputs"`
	Record  string      `json:"record,omitempty"` // path of the record
	Check   *RunCheck   `json:"check,omitempty"`
	Exit    int         `json:"exit"`
}

// RunOutput is a file, directory or link that a command left in /output.
type RunOutput struct {
	Path       string `json:"path"`
	Kind       string `json:"kind"` // file, directory, link
	Executable bool   `json:"executable,omitempty"`
	Size       int64  `json:"size,omitempty"`
	SHA256     string `json:"sha256,omitempty"`
	Target     string `json:"target,omitempty"`
}

// RunCheck compares two runs of a command.
type RunCheck struct {
	Equal       bool            `json:"equal"`
	Varied      []RunVariation  `json:"varied"`
	Same        []string        `json:"same"` // variations that this machine could not make, and why
	Differences []RunDifference `json:"differences"`
	Status      int             `json:"status"` // exit status of the second run
}

// RunVariation is a difference in the conditions of the second run.
type RunVariation struct {
	What   string `json:"what"`
	First  string `json:"first"`
	Second string `json:"second"`
}

// RunDifference is an output that differs between two runs; "" means that a run did not
// make it.
type RunDifference struct {
	Path   string `json:"path"`
	First  string `json:"first"`
	Second string `json:"second"`
}

// ToolDifference is a tool whose version is not the recorded one.
type ToolDifference struct {
	Tool     string `json:"tool"`
	Recorded string `json:"recorded"`
	Here     string `json:"here"`
}

// TextResult is the output of `snapctl help`, `completion` and `man`, or the
// files that they wrote.
type TextResult struct {
	Text  string   `json:"text,omitempty"`
	Files []string `json:"files,omitempty"`
}

// FetchResult is `snapctl attest fetch`.
type FetchResult struct {
	Name       string             `json:"name"`
	Rebuilders []FetchedRebuilder `json:"rebuilders"` // in the order of the file
	Files      []AttestedRebuilds `json:"files"`
}

// FetchedRebuilder counts the binary packages of a freeze for which a rebuilder has
// attestations.
type FetchedRebuilder struct {
	Name     string `json:"name"`
	Packages int    `json:"packages"` // number of packages asked for; 0 without a URL
	Found    int    `json:"found"`    // attestations by a key of the rebuilder
	Other    int    `json:"other"`    // attestations of other files, or by other keys
}

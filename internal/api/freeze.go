package api

import "time"

// FreezeRequest is `snapctl freeze NAME`. It includes the contents of the
// manifests.
type FreezeRequest struct {
	Name         string            `json:"name"`
	Mirrors      []string          `json:"mirrors,omitempty"` // M or M@T
	Manifests    []ManifestFile    `json:"manifests,omitempty"`
	Format       string            `json:"format,omitempty"`
	Recording    string            `json:"recording,omitempty"`
	NoRecording  bool              `json:"no_recording,omitempty"`
	Packages     []string          `json:"packages,omitempty"` // NAME[:ARCH][=VERSION]
	Query        string            `json:"query,omitempty"`    // chooses packages of the snapshots
	WithDeps     bool              `json:"with_deps,omitempty"`
	Base         string            `json:"base,omitempty"`
	Replace      []string          `json:"replace,omitempty"` // P[=V]@REF
	Remove       []string          `json:"remove,omitempty"`
	All          bool              `json:"all,omitempty"`
	Date         *time.Time        `json:"date,omitempty"`
	NoSources    bool              `json:"no_sources,omitempty"`
	AllowMissing bool              `json:"allow_missing,omitempty"`
	AllowBroken  bool              `json:"allow_broken,omitempty"`
	AllowEmpty   bool              `json:"allow_empty,omitempty"`
	DryRun       bool              `json:"dry_run,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Description  string            `json:"description,omitempty"`
}

// LabelRequest is `snapctl label NAME`: it changes the labels of a freeze and its
// description.
type LabelRequest struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`      // to set
	Remove      []string          `json:"remove,omitempty"`      // keys of labels
	Description *string           `json:"description,omitempty"` // absent: unchanged
}

// LabelResult is the labels and the description of a freeze after a LabelRequest.
type LabelResult struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Description string            `json:"description"`
	Changed     bool              `json:"changed"`
}

// ManifestFile is the name and content of a build manifest.
type ManifestFile struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// FreezeResult is the outcome of a freeze. With DryRun, nothing is made. A dry run of a
// freeze that would be refused returns the same error as the freeze itself, with a
// FreezeResult as detail.
type FreezeResult struct {
	Frozen       *Frozen   `json:"frozen,omitempty"`
	New          bool      `json:"new"` // false: the freeze existed with the same contents
	DryRun       bool      `json:"dry_run,omitempty"`
	Report       *Report   `json:"report,omitempty"`
	Changes      *Diff     `json:"changes,omitempty"` // changes against --base
	Broken       []Problem `json:"broken,omitempty"`
	Fetched      int64     `json:"fetched_files"`
	FetchedBytes int64     `json:"fetched_bytes"`
	Warnings     []string  `json:"warnings,omitempty"`
	Witnessed    string    `json:"witnessed,omitempty"` // how many witnesses have cosigned the log with it: "2/3"
}

// Problem is an unsatisfied dependency in the set of packages.
type Problem struct {
	Package  string `json:"package"`
	Relation string `json:"relation"`
	Reason   string `json:"reason"`
}

// Report lists how each entry of the build manifests was resolved.
type Report struct {
	Entries   []ReportEntry `json:"entries"`
	Resolved  int           `json:"resolved"`
	Several   int           `json:"several"` // resolved entries that are in several places, with the same bytes
	Ambiguous int           `json:"ambiguous"`
	Missing   int           `json:"missing"`
	Newest    int           `json:"newest,omitempty"` // resolved entries without a version, for which the newest was chosen
	// Notes describe what was skipped in build manifests. NoteCount includes
	// notes that are not kept.
	Notes     []string `json:"notes,omitempty"`
	NoteCount int      `json:"note_count,omitempty"`
}

// ReportEntry is one entry of a build manifest.
type ReportEntry struct {
	Manifest   string    `json:"manifest"`
	Line       int       `json:"line,omitempty"`
	Entry      string    `json:"entry"`
	State      string    `json:"state"`                // resolved, ambiguous, missing
	By         string    `json:"by,omitempty"`         // hash, version, source, name
	Reason     string    `json:"reason,omitempty"`     // for a missing entry: how the package with its name and version differs; for an entry without a version: the versions to choose from
	Snapshot   string    `json:"snapshot,omitempty"`   // for a missing entry: a snapshot that has the package
	Places     []Package `json:"places,omitempty"`     // the chosen package
	Candidates []Package `json:"candidates,omitempty"` // for an ambiguous entry
}

// SourcesRequest is `snapctl sources REF`, or with For `snapctl sources --for FILE`.
type SourcesRequest struct {
	Ref string `json:"ref,omitempty"`
	// For is a build manifest: the sources must provide its packages.
	For *ManifestFile `json:"for,omitempty"`
	// Format is deb822 (default for deb), list, repo (default for rpm), mmdebstrap, or the
	// format of a lock file: repro-env, rules-distroless, rules-distroless-v1, rpms-lock
	// or sha256sums.
	Format    string `json:"format,omitempty"`
	Mirror    string `json:"mirror,omitempty"`
	KeysDir   string `json:"keys_dir,omitempty"`  // directory where the key files will be
	Container string `json:"container,omitempty"` // image that a lock file of repro-env names
}

// SourcesResult is the configuration, and the key files that it refers to.
type SourcesResult struct {
	Text  string    `json:"text"`
	Notes []string  `json:"notes,omitempty"`
	Keys  []KeyFile `json:"keys,omitempty"`
	Cover *Cover    `json:"cover,omitempty"` // of a request with For
}

// Cover is a set of snapshots that together have the packages of a build manifest. Exit
// is 3 if some are missing.
type Cover struct {
	Snapshots []CoverSnapshot `json:"snapshots"` // newest first
	Missing   []string        `json:"missing"`   // entries that no snapshot has
	Minimal   bool            `json:"minimal"`   // false: the search for fewer snapshots was cut short
}

// CoverSnapshot is a snapshot of a cover, with the suites that are needed.
type CoverSnapshot struct {
	Ref      string   `json:"ref"`
	Suites   []string `json:"suites"`
	Packages int      `json:"packages"` // entries of the manifest that these suites of the snapshot have
}

// KeyFile is a public key to write to a file.
type KeyFile struct {
	Name    string `json:"name"`
	Armored string `json:"armored"`
}

// VerifyRequest is `snapctl verify REF`. snapctl runs `verify DIR` itself.
type VerifyRequest struct {
	Ref          string   `json:"ref"`
	Deep         bool     `json:"deep,omitempty"`
	UpstreamKeys []string `json:"upstream_keys,omitempty"` // armored certificates that must have signed the upstream roots
	Keys         []string `json:"keys,omitempty"`          // armored certificates that must have signed the freeze
	LogPolicy    string   `json:"log_policy,omitempty"`    // tlog-policy that the proof of the transparency log must satisfy
	Builders     string   `json:"builders,omitempty"`      // a list of builders, of whom Threshold must confirm each image
	Rebuilders   string   `json:"rebuilders,omitempty"`    // a list of rebuilders, of whom Threshold must have reproduced each package
	Threshold    int      `json:"threshold,omitempty"`
}

// VerifyResult is what was verified. Exit is 4 if Faults is not empty.
type VerifyResult struct {
	Ref       string        `json:"ref"`
	Deep      bool          `json:"deep"`
	Packages  int           `json:"packages"`            // each counted once, as in Frozen; for whole mirrors, the packages of each index
	Sources   int           `json:"sources"`             // source packages, likewise
	Places    int           `json:"places"`              // stanzas of signed indices that list them: one per suite, component and architecture
	Files     int           `json:"files"`               // read
	Bytes     int64         `json:"bytes"`               // read and hashed
	Signature *Signer       `json:"signature,omitempty"` // this server's signature
	Relied    []Relied      `json:"relied"`
	Faults    []VerifyFault `json:"faults"`
	Log       *LogProof     `json:"log,omitempty"` // nil: there is no valid proof
	// Builders is the result of the named builders; nil if none were named.
	Builders *BuilderResult `json:"builders,omitempty"`
	// Rebuilders is the result of the named rebuilders; nil if none were named.
	Rebuilders *RebuilderResult `json:"rebuilders,omitempty"`
	Notes      []string         `json:"notes,omitempty"`
	Exit       int              `json:"exit"`
}

// LogProof is the proof that the transparency log contains a freeze.
type LogProof struct {
	Origin    string   `json:"origin"`
	Key       string   `json:"key"` // vkey
	Index     int64    `json:"index"`
	Size      int64    `json:"size"`                // of the log that the proof is about
	Witnesses []string `json:"witnesses,omitempty"` // that cosigned the log, by their names in the policy
	Given     bool     `json:"given"`               // the log was named by --policy or --log-key
	// For an exported directory: how many of the states of upstream that the freeze is
	// based on are proven to be in the log, and how many there are.
	States    int `json:"states,omitempty"`
	StatesAll int `json:"states_all,omitempty"`
}

// Relied is a document of upstream that the proof of a freeze is based on.
type Relied struct {
	Mirror  string    `json:"mirror"`
	Suite   string    `json:"suite"`
	Trust   string    `json:"trust"`
	Date    time.Time `json:"date"`
	Signers []Signer  `json:"signers"`
	Pinned  bool      `json:"pinned"` // pinned by --upstream-key
}

// VerifyFault is a failed check.
type VerifyFault struct {
	Kind     string `json:"kind,omitempty"` // of what fsck finds: "missing blob"
	Object   string `json:"object"`
	Field    string `json:"field,omitempty"` // the wrong field of the freeze manifest: "mirrors.packages.version"
	Expected string `json:"expected,omitempty"`
	Found    string `json:"found,omitempty"`
	Message  string `json:"message"`
}

// ExportRequest is `snapctl export REF DIR`.
type ExportRequest struct {
	Ref string `json:"ref"`
	Dir string `json:"dir"` // absolute path
}

// ExportTar is `snapctl export REF -`. The answer is a tar stream with the files of an
// export, the freeze manifest last.
type ExportTar struct {
	Ref string `json:"ref"`
}

// ImportTar is `snapctl import -`. The one file that follows is a tar stream with the
// files of an export.
type ImportTar struct {
	Keys []string `json:"keys,omitempty"` // as in ImportRequest
}

// ImportRequest is `snapctl import DIR`.
type ImportRequest struct {
	Dir  string   `json:"dir"`
	Keys []string `json:"keys,omitempty"` // armored certificates trusted to sign the freeze; empty: this server's certificate and the one in the directory (the result says which one signed)
}

// TransferResult is the outcome of an export or import.
type TransferResult struct {
	Name  string `json:"name"`
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
	New   bool   `json:"new"`
	// Attestations is the number of attestations that an import added to a freeze that
	// existed before.
	Attestations int      `json:"attestations,omitempty"`
	Notes        []string `json:"notes,omitempty"`
}

// SBOMRequest is `snapctl sbom REF`.
type SBOMRequest struct {
	Ref    string `json:"ref"`
	Format string `json:"format,omitempty"` // spdx (default), cyclonedx
}

// SBOMResult is a bill of materials.
type SBOMResult struct {
	Format string `json:"format"`
	Text   string `json:"text"`
}

// RecordStart is `snapctl record start`.
type RecordStart struct {
	Name     string   `json:"name"`
	Mirrors  []string `json:"mirrors,omitempty"`
	Resigned bool     `json:"resigned,omitempty"`
}

// RecordRef names a recording. Status is a dpkg status file or the output of `rpm
// -qa` to compare with.
type RecordRef struct {
	Name   string        `json:"name"`
	Status *ManifestFile `json:"status,omitempty"`
}

// Recording is one recording.
type Recording struct {
	Name      string         `json:"name"`
	Started   time.Time      `json:"started"`
	Stopped   *time.Time     `json:"stopped,omitempty"`
	Resigned  bool           `json:"resigned,omitempty"`
	Mirrors   []RecordMirror `json:"mirrors"`
	Proxy     string         `json:"proxy"`
	Files     int            `json:"files"`
	Bytes     int64          `json:"bytes"`
	Digest    string         `json:"digest,omitempty"` // SHA-256 of the canonical form; not in the overview
	Entries   []RecordEntry  `json:"entries,omitempty"`
	Unfetched []string       `json:"unfetched,omitempty"` // with a status file: installed packages that were not downloaded
	Warnings  []string       `json:"warnings,omitempty"`
}

// RecordMirror is one mirror of a recording.
type RecordMirror struct {
	Mirror   string `json:"mirror"`
	Snapshot string `json:"snapshot"`
	URL      string `json:"url"`
}

// RecordEntry is one downloaded file.
type RecordEntry struct {
	Mirror string    `json:"mirror"`
	Path   string    `json:"path"`
	Size   int64     `json:"size"`
	SHA256 string    `json:"sha256"`
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
	Count  int       `json:"count"`
}

// RecordList is `snapctl record list`.
type RecordList struct {
	Recordings []Recording `json:"recordings"`
}

// ImageAdd is `snapctl image add`. The image is the one file that follows.
type ImageAdd struct {
	Name    string            `json:"name"`
	Variant string            `json:"variant,omitempty"`
	How     map[string]string `json:"how,omitempty"` // how the image was built, for its signed statement
}

// Image is one image of a freeze.
type Image struct {
	Name    string            `json:"name"`
	Variant string            `json:"variant,omitempty"`
	SHA256  string            `json:"sha256"`
	Size    int64             `json:"size"`
	How     map[string]string `json:"how,omitempty"`
}

// ImageGet asks for the bytes of a recorded image.
type ImageGet struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// ImageList is `snapctl image list`.
type ImageList struct {
	Images []Image `json:"images"`
}

// KitPublish puts files below /iuk/ on the public server. Their bytes follow, in
// this order.
type KitPublish struct {
	Files []KitFile `json:"files"`
}

// KitFile is one file to publish.
type KitFile struct {
	Path   string `json:"path"`             // below /iuk/
	SHA256 string `json:"sha256,omitempty"` // of the published file; in a request, of the file that is sent
	// Modified is served as Last-Modified.
	Modified *time.Time `json:"modified,omitempty"`
}

// Package api is what snapd and snapctl say to each other over the control
// socket: one documented type for each request and each result, and the client.
//
// A call is POST /v1/<verb> with the request as JSON. The answer is JSON lines:
// any number of {"progress": …}, then one {"result": …} or {"error": …}. The
// result types are also what `snapctl --json` prints, so their field names are
// part of the product.
package api

import "time"

// Exit codes of snapctl. When several apply, the larger of Verify, Partial and
// Failed wins in that order.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitPartial     = 3 // some of several things were done
	ExitVerify      = 4 // a signature, digest or proof does not hold
	ExitInterrupted = 130
)

// Error is a failed call.
type Error struct {
	Code    string `json:"code"`             // stable, for programs: "not_found", "exists", "verify", …
	Message string `json:"message"`          // for people
	Exit    int    `json:"exit"`             // exit code of snapctl
	Hint    string `json:"hint,omitempty"`   // what to do about this very error
	Detail  any    `json:"detail,omitempty"` // e.g. the resolution report of a freeze that was refused
}

func (e *Error) Error() string { return e.Message }

// Codes of errors.
const (
	CodeInternal    = "internal"
	CodeUsage       = "usage"
	CodeNotFound    = "not_found"
	CodeGone        = "gone"
	CodeExists      = "exists"
	CodeVerify      = "verify"
	CodeRollback    = "rollback"
	CodeUnavailable = "unavailable"
	CodeNoSpace     = "no_space"
	CodeAmbiguous   = "ambiguous"
	CodeMissing     = "missing"
	CodeBroken      = "broken"
	CodeNeedsAll    = "needs_all"
	CodeInUse       = "in_use"
	CodeNoSnapshot  = "no_snapshot" // a mirror that is needed has no snapshot
	CodeEmpty       = "empty"       // a freeze would hold no package
	CodeRunning     = "running"     // a recording has not been stopped
	CodeClock       = "clock"       // the system clock cannot be right
	CodeInterrupted = "interrupted"
	CodeUnsupported = "unsupported" // what upstream has follows its format, in a form that is not mirrored
)

// Progress is the state of a long operation.
type Progress struct {
	Task       string `json:"task,omitempty"` // mirror or freeze it is about
	Phase      string `json:"phase"`
	Files      int64  `json:"files"`
	FilesTotal int64  `json:"files_total"`
	Bytes      int64  `json:"bytes"`
	BytesTotal int64  `json:"bytes_total"`
}

// Empty is a request or result without fields.
type Empty struct{}

// File is a path with its content.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Status is `snapctl status`.
type Status struct {
	Version     string         `json:"version"`
	Listen      string         `json:"listen"`
	PublicURL   string         `json:"public_url"`
	DataDir     string         `json:"data_dir"`
	Key         KeyInfo        `json:"key"`
	Free        int64          `json:"free_bytes"`
	Reserve     int64          `json:"reserve_bytes"`
	Blobs       int64          `json:"blobs"`
	BlobBytes   int64          `json:"blob_bytes"`
	IndexBytes  int64          `json:"index_bytes"`         // upstream's compressed indices, part of blob_bytes
	MetaBytes   int64          `json:"metadata_bytes"`      // pages in use
	MetaData    int64          `json:"metadata_data_bytes"` // keys and values
	Snapshots   int            `json:"snapshots"`
	Frozen      int            `json:"frozen"`
	Recordings  int            `json:"recordings"`
	Damaged     []string       `json:"damaged"` // digests of blobs known to be damaged
	Quarantined int            `json:"quarantined"`
	Warnings    []string       `json:"warnings"`
	Mirrors     []MirrorStatus `json:"mirrors"`
}

// KeyInfo describes the signing key.
type KeyInfo struct {
	Fingerprint string     `json:"fingerprint"`
	UserID      string     `json:"user_id"`
	Created     time.Time  `json:"created"`
	Expires     *time.Time `json:"expires,omitempty"`
	Algorithm   string     `json:"algorithm"`
	File        string     `json:"file,omitempty"`
	Armored     string     `json:"armored,omitempty"` // the certificate
}

// MirrorStatus is one mirror at a glance.
type MirrorStatus struct {
	Name      string     `json:"name"`
	Type      string     `json:"type"`
	Snapshots int        `json:"snapshots"`
	Latest    string     `json:"latest,omitempty"` // snapshot id
	Checked   *time.Time `json:"checked,omitempty"`
	Succeeded *time.Time `json:"succeeded,omitempty"`
	Error     string     `json:"error,omitempty"`
	NextSync  *time.Time `json:"next_sync,omitempty"`
	Syncing   bool       `json:"syncing"`
	Warnings  []string   `json:"warnings,omitempty"` // what the newest snapshot was taken in spite of
}

// MirrorList is `snapctl mirror list`.
type MirrorList struct {
	Mirrors []MirrorStatus `json:"mirrors"`
}

// MirrorRef names a mirror.
type MirrorRef struct {
	Mirror string `json:"mirror"`
}

// MirrorDetail is `snapctl mirror show M`.
type MirrorDetail struct {
	MirrorStatus
	URLs          []string      `json:"urls"`
	Suites        []SuiteDetail `json:"suites"`
	Components    []string      `json:"components"`
	Architectures []string      `json:"architectures"`
	Download      string        `json:"download"`
	Interval      string        `json:"interval"`
	Keep          string        `json:"keep"`
	Sources       bool          `json:"sources"`
	Keyring       []string      `json:"keyring"`
}

// SuiteDetail is one suite of a mirror or snapshot.
type SuiteDetail struct {
	Suite      string     `json:"suite"`
	Date       *time.Time `json:"date,omitempty"`    // upstream's
	Undated    bool       `json:"undated,omitempty"` // upstream gives none: it is its signature's
	ValidUntil *time.Time `json:"valid_until,omitempty"`
	Trust      string     `json:"trust,omitempty"`
	Signers    []Signer   `json:"signers,omitempty"`
	Packages   int        `json:"packages"`
	Sources    int        `json:"sources"`
	Indices    []File     `json:"indices,omitempty"`
	Documents  []File     `json:"documents,omitempty"`
}

// Signer is a key that signed.
type Signer struct {
	Fingerprint string    `json:"fingerprint"`
	UserID      string    `json:"user_id,omitempty"`
	SignedAt    time.Time `json:"signed_at"`
}

// SyncRequest is `snapctl sync`.
type SyncRequest struct {
	Mirrors []string   `json:"mirrors,omitempty"` // none: all
	NoWait  bool       `json:"no_wait,omitempty"`
	FromURL string     `json:"from_url,omitempty"`
	As      *time.Time `json:"as,omitempty"`
	// AcceptClock says that the system clock is right although it contradicts
	// earlier snapshots or upstream's clocks.
	AcceptClock bool `json:"accept_clock,omitempty"`
	// AcceptRollback takes an older state of the one mirror.
	AcceptRollback bool `json:"accept_rollback,omitempty"`
}

// SyncResult is its outcome. Exit is 3 when some mirrors failed, 1 when all did.
type SyncResult struct {
	Mirrors []MirrorSync `json:"mirrors"`
	Exit    int          `json:"exit"`
}

// MirrorSync is one mirror's outcome.
type MirrorSync struct {
	Mirror   string   `json:"mirror"`
	Snapshot string   `json:"snapshot,omitempty"`
	New      bool     `json:"new"`
	Files    int64    `json:"files"`
	Bytes    int64    `json:"bytes"`
	Changed  int      `json:"changed"` // paragraphs
	Warnings []string `json:"warnings,omitempty"`
	Started  bool     `json:"started,omitempty"` // with no_wait
	Error    *Error   `json:"error,omitempty"`
}

// ListRequest is `snapctl list`.
type ListRequest struct {
	Mirror string `json:"mirror,omitempty"`
	Frozen bool   `json:"frozen,omitempty"`
}

// SnapshotList is its result, newest first.
type SnapshotList struct {
	Snapshots []Snapshot `json:"snapshots"`
	Frozen    []Frozen   `json:"frozen"`
}

// Snapshot is one snapshot.
type Snapshot struct {
	ID        string        `json:"id"`
	Mirror    string        `json:"mirror"`
	Type      string        `json:"type"`
	Timestamp time.Time     `json:"instant"`
	Suites    []SuiteDetail `json:"suites"`
	Pinned    bool          `json:"pinned"`
	Until     *time.Time    `json:"pinned_until,omitempty"` // absent: for ever
	FromURL   string        `json:"from_url,omitempty"`
	URL       string        `json:"url"`
	UsedBy    []string      `json:"used_by,omitempty"`
}

// Frozen is one frozen snapshot.
type Frozen struct {
	Name       string         `json:"name"`
	Date       time.Time      `json:"date"`
	Created    time.Time      `json:"created"`
	Manifest   string         `json:"manifest_sha256"`
	Key        string         `json:"key"` // fingerprint that signed it
	Mirrors    []FrozenMirror `json:"mirrors"`
	Packages   int            `json:"packages"`
	Sources    int            `json:"sources"`
	Bytes      int64          `json:"bytes"`
	URL        string         `json:"url"`
	Images     []Image        `json:"images"`
	Statements []string       `json:"statements,omitempty"`
	Missing    []string       `json:"missing,omitempty"` // entries recorded as allowed to be missing
	Imported   bool           `json:"imported,omitempty"`
}

// FrozenMirror is one mirror of a frozen snapshot.
type FrozenMirror struct {
	Mirror   string   `json:"mirror"`
	Type     string   `json:"type"`
	Kind     string   `json:"kind"` // "whole" or "exact"
	Snapshot string   `json:"snapshot,omitempty"`
	Trust    string   `json:"trust"`
	Suites   []string `json:"suites"`
	Packages int      `json:"packages"`
	Sources  int      `json:"sources"`
}

// RefRequest names a snapshot or frozen snapshot.
type RefRequest struct {
	Ref string `json:"ref"`
}

// ShowResult is `snapctl show REF`: one of the two is set.
type ShowResult struct {
	Snapshot *Snapshot `json:"snapshot,omitempty"`
	Frozen   *Frozen   `json:"frozen,omitempty"`
}

// PackageList is `snapctl packages REF`, by mirror, name, version, architecture.
type PackageList struct {
	Ref      string    `json:"ref"`
	Packages []Package `json:"packages"`
}

// Package is one package, or source package (Arch "source" or "src").
type Package struct {
	Mirror        string   `json:"mirror"`
	Suites        []string `json:"suites,omitempty"`
	Components    []string `json:"components,omitempty"`
	Name          string   `json:"name"`
	Version       string   `json:"version"`
	Arch          string   `json:"arch"`
	Path          string   `json:"path"`
	Size          int64    `json:"size"` // of a source package: of all its files
	SHA256        string   `json:"sha256"`
	Source        string   `json:"source,omitempty"`
	SourceVersion string   `json:"source_version,omitempty"`
	Files         []File   `json:"files,omitempty"` // of a source package
}

// FindRequest is `snapctl find PACKAGE[=VERSION]`.
type FindRequest struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

// FindResult tells where a package has been.
type FindResult struct {
	Matches []Match `json:"matches"`
}

// Match is one version of a package in one mirror.
type Match struct {
	Package
	First  string   `json:"first"`  // snapshot id: the first that has it
	Last   string   `json:"last"`   // the newest that has it
	Here   bool     `json:"here"`   // its bytes are stored
	Frozen []string `json:"frozen"` // frozen snapshots that hold it
}

// DiffRequest is `snapctl diff A B`.
type DiffRequest struct {
	A string `json:"a"`
	B string `json:"b"`
}

// Diff is what differs, by name then architecture.
type Diff struct {
	A          string       `json:"a"`
	B          string       `json:"b"`
	Added      []DiffEntry  `json:"added"`
	Removed    []DiffEntry  `json:"removed"`
	Upgraded   []DiffEntry  `json:"upgraded"`
	Downgraded []DiffEntry  `json:"downgraded"`
	Rebuilt    []DiffEntry  `json:"rebuilt"` // same version, other bytes
	Sources    []SourceDiff `json:"sources"`
}

// DiffEntry is one package that differs.
type DiffEntry struct {
	Mirror    string `json:"mirror"`
	Name      string `json:"name"`
	Arch      string `json:"arch"`
	Old       string `json:"old,omitempty"`
	New       string `json:"new,omitempty"`
	OldSHA256 string `json:"old_sha256,omitempty"`
	NewSHA256 string `json:"new_sha256,omitempty"`
}

// SourceDiff gathers the changes of one source package.
type SourceDiff struct {
	Source string   `json:"source"`
	Old    []string `json:"old"` // versions
	New    []string `json:"new"`
	Kind   string   `json:"kind"` // added, removed, upgraded, downgraded, rebuilt, mixed
	Count  int      `json:"count"`
}

// FreezeRequest is `snapctl freeze NAME`. Manifest contents travel with it.
type FreezeRequest struct {
	Name         string         `json:"name"`
	Mirrors      []string       `json:"mirrors,omitempty"` // M or M@T
	Manifests    []ManifestFile `json:"manifests,omitempty"`
	Format       string         `json:"format,omitempty"`
	Recording    string         `json:"recording,omitempty"`
	NoRecording  bool           `json:"no_recording,omitempty"`
	Packages     []string       `json:"packages,omitempty"` // NAME[:ARCH][=VERSION]
	WithDeps     bool           `json:"with_deps,omitempty"`
	Base         string         `json:"base,omitempty"`
	Replace      []string       `json:"replace,omitempty"` // P[=V]@REF
	Remove       []string       `json:"remove,omitempty"`
	All          bool           `json:"all,omitempty"`
	Date         *time.Time     `json:"date,omitempty"`
	NoSources    bool           `json:"no_sources,omitempty"`
	AllowMissing bool           `json:"allow_missing,omitempty"`
	AllowBroken  bool           `json:"allow_broken,omitempty"`
	AllowEmpty   bool           `json:"allow_empty,omitempty"`
	DryRun       bool           `json:"dry_run,omitempty"`
}

// ManifestFile is a manifest's name and bytes.
type ManifestFile struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// FreezeResult is its outcome; with DryRun nothing was made. A dry run of a freeze
// that would be refused is the same error as the real one, with this as detail.
type FreezeResult struct {
	Frozen       *Frozen   `json:"frozen,omitempty"`
	New          bool      `json:"new"` // false: it existed with equal contents
	DryRun       bool      `json:"dry_run,omitempty"`
	Report       *Report   `json:"report,omitempty"`
	Changes      *Diff     `json:"changes,omitempty"` // against --base
	Broken       []Problem `json:"broken,omitempty"`
	Fetched      int64     `json:"fetched_files"`
	FetchedBytes int64     `json:"fetched_bytes"`
	Warnings     []string  `json:"warnings,omitempty"`
}

// Problem is a relation that the set of packages leaves unsatisfied.
type Problem struct {
	Package  string `json:"package"`
	Relation string `json:"relation"`
	Reason   string `json:"reason"`
}

// Report tells how each entry of the manifests was resolved.
type Report struct {
	Entries   []ReportEntry `json:"entries"`
	Resolved  int           `json:"resolved"`
	Several   int           `json:"several"` // of the resolved: in several places with equal bytes
	Ambiguous int           `json:"ambiguous"`
	Missing   int           `json:"missing"`
	Newest    int           `json:"newest,omitempty"` // of the resolved: without a version, so that the newest was chosen
	// Notes say what was skipped in build manifests; NoteCount counts also those
	// that are not kept.
	Notes     []string `json:"notes,omitempty"`
	NoteCount int      `json:"note_count,omitempty"`
}

// ReportEntry is one entry.
type ReportEntry struct {
	Manifest   string    `json:"manifest"`
	Line       int       `json:"line,omitempty"`
	Entry      string    `json:"entry"`
	State      string    `json:"state"`                // resolved, ambiguous, missing
	By         string    `json:"by,omitempty"`         // hash, version, source, name
	Reason     string    `json:"reason,omitempty"`     // of a missing entry: what differs in the package of its name and version; of one without a version: between which the choice was
	Snapshot   string    `json:"snapshot,omitempty"`   // of a missing entry: a kept snapshot that has it
	Places     []Package `json:"places,omitempty"`     // taken
	Candidates []Package `json:"candidates,omitempty"` // of an ambiguous entry
}

// SourcesRequest is `snapctl sources REF`.
type SourcesRequest struct {
	Ref     string `json:"ref"`
	Format  string `json:"format,omitempty"` // deb822 (default for deb), list, repo (default for rpm), mmdebstrap
	Mirror  string `json:"mirror,omitempty"`
	KeysDir string `json:"keys_dir,omitempty"` // the directory that key files will be in
}

// SourcesResult is the text to paste, and the key files that it names.
type SourcesResult struct {
	Text  string    `json:"text"`
	Notes []string  `json:"notes,omitempty"`
	Keys  []KeyFile `json:"keys,omitempty"`
}

// KeyFile is a public key to be written to a file.
type KeyFile struct {
	Name    string `json:"name"`
	Armored string `json:"armored"`
}

// VerifyRequest is `snapctl verify REF`; `verify DIR` runs in snapctl itself.
type VerifyRequest struct {
	Ref          string   `json:"ref"`
	Deep         bool     `json:"deep,omitempty"`
	UpstreamKeys []string `json:"upstream_keys,omitempty"` // armored certificates that roots must be signed by
	Keys         []string `json:"keys,omitempty"`          // armored certificates that our signature must be by
}

// VerifyResult is what was proved. Exit is 4 when Faults is not empty.
type VerifyResult struct {
	Ref       string        `json:"ref"`
	Deep      bool          `json:"deep"`
	Packages  int           `json:"packages"`            // each once, as in Frozen; of a whole mirror, those of each index
	Sources   int           `json:"sources"`             // source packages, the same
	Places    int           `json:"places"`              // paragraphs of signed indices that list them: one for each suite, component and architecture
	Files     int           `json:"files"`               // read
	Bytes     int64         `json:"bytes"`               // read and hashed
	Signature *Signer       `json:"signature,omitempty"` // ours
	Relied    []Relied      `json:"relied"`
	Faults    []VerifyFault `json:"faults"`
	Notes     []string      `json:"notes,omitempty"`
	Exit      int           `json:"exit"`
}

// Relied is one upstream root that the proof rests on.
type Relied struct {
	Mirror  string    `json:"mirror"`
	Suite   string    `json:"suite"`
	Trust   string    `json:"trust"`
	Date    time.Time `json:"date"`
	Signers []Signer  `json:"signers"`
	Pinned  bool      `json:"pinned"` // by --upstream-key
}

// VerifyFault is one thing that does not hold.
type VerifyFault struct {
	Object   string `json:"object"`
	Field    string `json:"field,omitempty"` // of the freeze manifest that does not hold: "mirrors.packages.version"
	Expected string `json:"expected,omitempty"`
	Found    string `json:"found,omitempty"`
	Message  string `json:"message"`
}

// ExportRequest is `snapctl export REF DIR`; ImportRequest `snapctl import DIR`.
type ExportRequest struct {
	Ref string `json:"ref"`
	Dir string `json:"dir"` // absolute
}

// ImportRequest takes an exported directory in.
type ImportRequest struct {
	Dir  string   `json:"dir"`
	Keys []string `json:"keys,omitempty"` // armored certificates to trust for the freeze's signature; none: this server's and the one inside, which is then named
}

// TransferResult is what export and import did.
type TransferResult struct {
	Name  string   `json:"name"`
	Files int64    `json:"files"`
	Bytes int64    `json:"bytes"`
	New   bool     `json:"new"`
	Notes []string `json:"notes,omitempty"`
}

// SBOMRequest is `snapctl sbom REF`; the document is the result's text.
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

// RecordRef names a recording. Status is a dpkg status file or `rpm -qa`
// output to compare with.
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
	Digest    string         `json:"digest"` // SHA-256 of the canonical form
	Entries   []RecordEntry  `json:"entries,omitempty"`
	Unfetched []string       `json:"unfetched,omitempty"` // with a status file: installed but never fetched
	Warnings  []string       `json:"warnings,omitempty"`
}

// RecordMirror is one mirror of a recording.
type RecordMirror struct {
	Mirror   string `json:"mirror"`
	Snapshot string `json:"snapshot"`
	URL      string `json:"url"`
}

// RecordEntry is one file that was fetched.
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

// PinRequest is `snapctl pin` and `unpin`.
type PinRequest struct {
	Ref   string     `json:"ref"`
	Until *time.Time `json:"until,omitempty"`
}

// RemoveResult is `snapctl rm REF`.
type RemoveResult struct {
	Removed string `json:"removed"`
}

// GCRequest is `snapctl gc`.
type GCRequest struct {
	DryRun  bool   `json:"dry_run,omitempty"`
	Explain string `json:"explain,omitempty"` // a digest
}

// GCResult is what gc did or would do.
type GCResult struct {
	DryRun      bool     `json:"dry_run,omitempty"`
	Snapshots   []string `json:"snapshots"` // removed by `keep`
	Generations int      `json:"generations"`
	Blobs       int      `json:"blobs"` // quarantined
	Bytes       int64    `json:"bytes"`
	Purged      int      `json:"purged"`
	PurgedBytes int64    `json:"purged_bytes"`
	Explain     *Explain `json:"explain,omitempty"`
}

// Explain says why a blob stays or goes.
type Explain struct {
	Digest  string   `json:"digest"`
	Stored  bool     `json:"stored"`
	Size    int64    `json:"size,omitempty"`
	Keep    bool     `json:"keep"`
	Reasons []string `json:"reasons"`
}

// FsckRequest is `snapctl fsck`.
type FsckRequest struct {
	Repair bool   `json:"repair,omitempty"`
	From   string `json:"from,omitempty"` // base URL of another snapd to repair from
}

// FsckResult is what fsck found. Exit is 4 when faults are left.
type FsckResult struct {
	Blobs    int           `json:"blobs"`
	Bytes    int64         `json:"bytes"`
	Faults   []VerifyFault `json:"faults"`
	Repaired []string      `json:"repaired"`
	Lost     []string      `json:"lost"`
	// Unknown counts blobs of which the metadata, restored from an older copy,
	// knows nothing. They are kept.
	Unknown int `json:"unknown,omitempty"`
	Exit    int `json:"exit"`
}

// SalvageResult is what `snapd salvage` did.
type SalvageResult struct {
	Kept    string `json:"kept"`    // path of the damaged metadata
	Entries int    `json:"entries"` // copied into the new metadata
}

// ImageAdd is `snapctl image add`.
type ImageAdd struct {
	Name    string            `json:"name"`
	File    string            `json:"file"` // absolute
	Variant string            `json:"variant,omitempty"`
	How     map[string]string `json:"how,omitempty"` // how it was built, for its signed statement
}

// Image is one image of a frozen snapshot.
type Image struct {
	Name    string            `json:"name"`
	Variant string            `json:"variant,omitempty"`
	SHA256  string            `json:"sha256"`
	Size    int64             `json:"size"`
	How     map[string]string `json:"how,omitempty"`
	Path    string            `json:"path,omitempty"` // of the blob, on the server's machine
}

// ImageList is `snapctl image list`.
type ImageList struct {
	Images []Image `json:"images"`
}

// KitPublish puts files below /iuk/ on the public server.
type KitPublish struct {
	Files []KitFile `json:"files"`
}

// KitFile is one of them.
type KitFile struct {
	File string `json:"file"` // absolute path to read
	Path string `json:"path"` // below /iuk/
}

// BackupRequest copies the installation into a directory on the server's machine.
type BackupRequest struct {
	Dir string `json:"dir"` // absolute
}

// BackupResult is `snapd backup`. Exit is 4 when there are faults; everything
// else has been copied then.
type BackupResult struct {
	Dir         string        `json:"dir"`
	Time        time.Time     `json:"time"`         // of the state that was copied
	Blobs       int64         `json:"blobs"`        // in the backup
	Bytes       int64         `json:"bytes"`        // in the backup
	Copied      int64         `json:"copied"`       // blobs that the backup did not have
	CopiedBytes int64         `json:"copied_bytes"` // of these
	Removed     int64         `json:"removed"`      // blobs that do not belong to the backup any more
	Faults      []VerifyFault `json:"faults"`       // damaged and missing blobs
	Exit        int           `json:"exit"`
}

// RestoreResult is `snapd restore`. Exit is 3 when blobs are missing that the
// backup did not have, or that --allow-damaged gave up, and 4 when the restore
// was refused because of faults.
type RestoreResult struct {
	Dir     string        `json:"dir"`
	DataDir string        `json:"data_dir"`
	Time    time.Time     `json:"time"` // of the state that was restored
	Blobs   int64         `json:"blobs"`
	Bytes   int64         `json:"bytes"`
	Faults  []VerifyFault `json:"faults"`
	Exit    int           `json:"exit"`
}

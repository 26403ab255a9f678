// Package api defines the control API between snapd and snapctl: a documented
// type for each request and each result. Its client is the package client.
//
// A call is POST /api/v1/<verb> with the request as JSON. The answer is the result as
// JSON, or an error as ProblemDetails. Long work is answered with a Job, whose events
// are read from /api/v1/jobs/<id>/events. The result types are also what
// `snapctl --json` prints, so their field names are part of the product.
package api

import "time"

// Exit codes of snapctl. If several apply, the first of ExitVerify, ExitPartial and
// ExitFailed is used.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitPartial     = 3 // some of several operations succeeded
	ExitVerify      = 4 // a signature, digest or proof is wrong
	ExitInterrupted = 130
)

// Error is a failed call.
type Error struct {
	Code    string `json:"code"`             // stable, for programs: "not_found", "exists", "verify", …
	Reason  string `json:"reason,omitempty"` // cause, where several share the code: "denied", "malformed", …
	Message string `json:"message"`          // for users
	Exit    int    `json:"exit"`             // exit code of snapctl
	Hint    string `json:"hint,omitempty"`   // what to do about this error
	Detail  any    `json:"detail,omitempty"` // such as the resolution report of a refused freeze
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
	CodeNoSnapshot  = "no_snapshot" // a required mirror has no snapshot
	CodeEmpty       = "empty"       // a freeze would have no packages
	CodeRunning     = "running"     // a recording is still running
	CodeClock       = "clock"       // the system clock seems wrong
	CodeInterrupted = "interrupted"
	CodeUnsupported = "unsupported" // upstream's data is valid, but snapd does not support it

	CodeUnauthorized = "unauthorized" // no token, or one that is unknown, expired or revoked
	CodeForbidden    = "forbidden"    // the token does not allow this
	CodeRateLimited  = "rate_limited" // too many invalid tokens from one address
	CodeTooLarge     = "too_large"    // the body exceeds the limit of the verb or max_upload
	CodeMethod       = "method"       // the request must use another HTTP method
)

// Progress is the state of a long operation.
type Progress struct {
	Task       string `json:"task,omitempty"` // the mirror or freeze in question
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
	ConfigFile  string         `json:"config_file,omitempty"`
	Key         KeyInfo        `json:"key"`
	Free        int64          `json:"free_bytes"`
	Reserve     int64          `json:"reserve_bytes"`
	Blobs       int64          `json:"blobs"`
	BlobBytes   int64          `json:"blob_bytes"`
	IndexBytes  int64          `json:"index_bytes"`         // upstream's compressed indices, included in blob_bytes
	ImageBytes  int64          `json:"image_bytes"`         // images of freezes, included in blob_bytes
	KitBytes    int64          `json:"kit_bytes"`           // upgrade kits and descriptions, included in blob_bytes
	MetaBytes   int64          `json:"metadata_bytes"`      // pages in use
	MetaData    int64          `json:"metadata_data_bytes"` // keys and values
	Snapshots   int            `json:"snapshots"`
	Frozen      int            `json:"frozen"`
	Recordings  int            `json:"recordings"`
	Damaged     []string       `json:"damaged"` // digests of damaged blobs
	Quarantined int            `json:"quarantined"`
	Warnings    []string       `json:"warnings"`
	Log         *LogStatus     `json:"log,omitempty"` // nil: the log cannot be used; a warning says why
	Mirrors     []MirrorStatus `json:"mirrors"`
	Exit        int            `json:"exit"` // ExitPartial if a mirror failed or is stale
	Role        string         `json:"role"`
	Node        string         `json:"node,omitempty"` // name of this node, if several share the metadata
	Nodes       []NodeStatus   `json:"nodes,omitempty"`
	Leases      []LeaseStatus  `json:"leases,omitempty"` // held leases
}

// NodeStatus is the state of a node, as the node itself last reported it.
type NodeStatus struct {
	Name       string    `json:"name"`
	Role       string    `json:"role"`
	Version    string    `json:"version"`
	Key        string    `json:"key"` // fingerprint of its signing key
	Started    time.Time `json:"started"`
	Seen       time.Time `json:"seen"`
	Up         bool      `json:"up"`          // seen within the last minute
	Lag        float64   `json:"lag_seconds"` // time since the node read the changes of the others
	Skew       float64   `json:"clock_skew_seconds"`
	CacheBytes int64     `json:"cache_bytes"`
	CacheSize  int64     `json:"cache_size_bytes"`
}

// LeaseStatus describes a lease: the node that leads a piece of work.
type LeaseStatus struct {
	Name    string    `json:"name"` // "sync/debian", "freeze/4.1", "gc"
	Holder  string    `json:"holder"`
	Epoch   int64     `json:"epoch"`
	Expires time.Time `json:"expires"`
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

// MirrorStatus is the state of one mirror.
type MirrorStatus struct {
	Name      string     `json:"name"`
	Type      string     `json:"type"`
	Snapshots int        `json:"snapshots"`
	Latest    string     `json:"latest,omitempty"` // snapshot ID
	Checked   *time.Time `json:"checked,omitempty"`
	Succeeded *time.Time `json:"succeeded,omitempty"`
	Error     string     `json:"error,omitempty"`
	NextSync  *time.Time `json:"next_sync,omitempty"`
	Syncing   bool       `json:"syncing"`
	MaxAge    string     `json:"max_age,omitempty"`
	Stale     bool       `json:"stale"`              // a suite is older than max_age
	Ages      []SuiteAge `json:"ages,omitempty"`     // of the newest snapshot's suites
	Warnings  []string   `json:"warnings,omitempty"` // faults with which the newest snapshot was accepted
	// HistoryPerYear is how many bytes of indices and signed documents a year of this
	// mirror's history takes, measured over HistoryDays. Both are 0 until a week has
	// passed, and outside `status` and the overview.
	HistoryPerYear int64 `json:"history_bytes_per_year,omitempty"`
	HistoryDays    int   `json:"history_measured_days,omitempty"`
}

// SuiteAge is the age of upstream's state of a suite.
type SuiteAge struct {
	Suite string     `json:"suite"`
	Date  *time.Time `json:"date,omitempty"` // of upstream's Release or repomd.xml
	Age   int64      `json:"age_seconds,omitempty"`
	Stale bool       `json:"stale"` // older than the mirror's max_age
}

// MirrorList is `snapctl mirror list`.
type MirrorList struct {
	Mirrors []MirrorStatus `json:"mirrors"`
}

// ReloadResult describes the changes that a reload of the configuration made.
type ReloadResult struct {
	Added   []string `json:"added"` // mirrors
	Changed []string `json:"changed"`
	Removed []string `json:"removed"`
	Restart []string `json:"restart"` // changed keys that take effect at the next start
}

// MirrorEdit is `snapctl mirror add`, `set`, `rename` and `rm`.
type MirrorEdit struct {
	Mirror   string        `json:"mirror"`
	File     string        `json:"file"`               // the configuration file
	Lines    string        `json:"lines"`              // what changed, with - and +; "": nothing
	Reloaded *ReloadResult `json:"reloaded,omitempty"` // nil: snapd is not running
	Removed  []string      `json:"removed,omitempty"`  // IDs of snapshots
	Kept     []string      `json:"kept,omitempty"`     // why other snapshots were kept
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
	// Stored counts the stored package files of all snapshots of the mirror; absent until
	// they are counted.
	Stored *StoredFiles `json:"stored,omitempty"`
}

// StoredFiles counts the stored package files, including source files, that a mirror has
// or had. A file in several mirrors counts for each. A count is up to ten minutes old.
type StoredFiles struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// SuiteDetail is one suite of a mirror or snapshot.
type SuiteDetail struct {
	Suite      string     `json:"suite"`
	Date       *time.Time `json:"date,omitempty"`    // upstream's
	Undated    bool       `json:"undated,omitempty"` // upstream has no Date: Date is the time of its signature
	ValidUntil *time.Time `json:"valid_until,omitempty"`
	Trust      string     `json:"trust,omitempty"`
	Signers    []Signer   `json:"signers,omitempty"`
	Packages   int        `json:"packages"`
	Sources    int        `json:"sources"`
	Indices    []File     `json:"indices,omitempty"`
	Documents  []File     `json:"documents,omitempty"`
}

// Signer is a key that made a signature.
type Signer struct {
	Fingerprint string    `json:"fingerprint"`
	UserID      string    `json:"user_id,omitempty"`
	SignedAt    time.Time `json:"signed_at"`
}

// SyncRequest is `snapctl sync`.
type SyncRequest struct {
	Mirrors []string   `json:"mirrors,omitempty"` // empty: all
	NoWait  bool       `json:"no_wait,omitempty"`
	FromURL string     `json:"from_url,omitempty"`
	As      *time.Time `json:"as,omitempty"`
	// AcceptClock trusts the system clock even if it contradicts earlier
	// snapshots or upstream's clocks.
	AcceptClock bool `json:"accept_clock,omitempty"`
	// AcceptRollback accepts an older state of upstream, for exactly one mirror.
	AcceptRollback bool `json:"accept_rollback,omitempty"`
	// DryRun only checks upstream's signed metadata.
	DryRun bool `json:"dry_run,omitempty"`
}

// SyncResult is the outcome of a sync. Exit is 3 if some mirrors failed, 1 if all failed.
type SyncResult struct {
	DryRun  bool         `json:"dry_run,omitempty"`
	Mirrors []MirrorSync `json:"mirrors"`
	Exit    int          `json:"exit"`
}

// MirrorSync is the outcome for one mirror.
type MirrorSync struct {
	Mirror   string   `json:"mirror"`
	Snapshot string   `json:"snapshot,omitempty"`
	New      bool     `json:"new"`
	Files    int64    `json:"files"`
	Bytes    int64    `json:"bytes"`
	Changed  int      `json:"changed"`          // number of stanzas
	Suites   []string `json:"suites,omitempty"` // changed suites
	Warnings []string `json:"warnings,omitempty"`
	Started  bool     `json:"started,omitempty"` // with no_wait: the sync was started
	Error    *Error   `json:"error,omitempty"`
}

// ListRequest is `snapctl list`.
type ListRequest struct {
	Mirror string            `json:"mirror,omitempty"`
	Frozen bool              `json:"frozen,omitempty"`
	Labels map[string]string `json:"labels,omitempty"` // only freezes that have all these labels
}

// SnapshotList is the result of a ListRequest, newest first.
type SnapshotList struct {
	Snapshots []Snapshot `json:"snapshots"`
	Frozen    []Frozen   `json:"frozen"`
	Warnings  []string   `json:"warnings,omitempty"` // why the list may be incomplete
}

// Snapshot is one snapshot.
type Snapshot struct {
	ID        string        `json:"id"`
	Mirror    string        `json:"mirror"`
	Type      string        `json:"type"`
	Timestamp time.Time     `json:"instant"`
	Suites    []SuiteDetail `json:"suites"`
	Pinned    bool          `json:"pinned"`
	Until     *time.Time    `json:"pinned_until,omitempty"` // absent: forever
	FromURL   string        `json:"from_url,omitempty"`
	URL       string        `json:"url"`
	UsedBy    []string      `json:"used_by,omitempty"`
}

// Frozen is one freeze.
type Frozen struct {
	Name         string            `json:"name"`
	Date         time.Time         `json:"date"`
	Created      time.Time         `json:"created"`
	Manifest     string            `json:"manifest_sha256"`
	Key          string            `json:"key"` // fingerprint of the signing key
	Mirrors      []FrozenMirror    `json:"mirrors"`
	Packages     int               `json:"packages"`
	Sources      int               `json:"sources"`
	Bytes        int64             `json:"bytes"`
	URL          string            `json:"url"`
	Images       []Image           `json:"images"`
	Statements   []string          `json:"statements,omitempty"`
	Attestations []Attestation     `json:"attestations,omitempty"` // only in `snapctl show`
	Missing      []string          `json:"missing,omitempty"`      // entries recorded as missing
	Labels       map[string]string `json:"labels,omitempty"`
	Description  string            `json:"description,omitempty"`
	LabelsDamage string            `json:"labels_damage,omitempty"` // why the labels and description cannot be read
	Channels     []string          `json:"channels,omitempty"`      // channels that show the freeze or still serve it; only in `snapctl show`
	Imported     bool              `json:"imported,omitempty"`
	Damage       string            `json:"damage,omitempty"` // why the manifest cannot be read; fields from the manifest are then empty
}

// FrozenMirror is one mirror of a freeze.
type FrozenMirror struct {
	Mirror   string   `json:"mirror"`
	Type     string   `json:"type"`
	Kind     string   `json:"kind"`                      // "whole" or "exact"
	Snapshot string   `json:"snapshot,omitempty"`        // ID of the first source snapshot
	Others   []string `json:"other_snapshots,omitempty"` // IDs of further source snapshots
	Trust    string   `json:"trust"`
	Suites   []string `json:"suites"`
	Packages int      `json:"packages"`
	Sources  int      `json:"sources"`
}

// RefRequest names a snapshot or freeze.
type RefRequest struct {
	Ref string `json:"ref"`
}

// PackagesRequest asks for the packages of a reference that match Query, in the language
// of package query. An empty Query matches all.
type PackagesRequest struct {
	Ref   string `json:"ref"`
	Query string `json:"query,omitempty"`
}

// ShowRequest is `snapctl show REF [PACKAGE]`.
type ShowRequest struct {
	Ref     string `json:"ref"`
	Package string `json:"package,omitempty"` // NAME[:ARCH][=VERSION]
}

// ShowResult is the result of a ShowRequest. Exactly one field is set.
type ShowResult struct {
	Snapshot *Snapshot     `json:"snapshot,omitempty"`
	Frozen   *Frozen       `json:"frozen,omitempty"`
	Package  *ShownPackage `json:"package,omitempty"`
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
	Size          int64    `json:"size"` // of a source package: the sum of its files
	SHA256        string   `json:"sha256"`
	Source        string   `json:"source,omitempty"`
	SourceVersion string   `json:"source_version,omitempty"`
	Files         []File   `json:"files,omitempty"` // of a source package
}

// FindRequest is `snapctl find QUERY`, in the language of package query. If Name is set
// instead of Query, the request finds packages with exactly that name, and, if Version is
// set, that version.
type FindRequest struct {
	Query   string `json:"query,omitempty"`
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
}

// FindResult lists where packages were found.
type FindResult struct {
	Matches []Match `json:"matches"`
	More    bool    `json:"more,omitempty"` // there may be more matches than are listed
	Next    string  `json:"next,omitempty"` // on the web page: from=, where the next page begins
}

// Match is one version of a package in one mirror.
type Match struct {
	Package
	First  string   `json:"first"`  // ID of the first snapshot that has it
	Last   string   `json:"last"`   // ID of the newest snapshot that has it
	Here   bool     `json:"here"`   // its bytes are stored
	Frozen []string `json:"frozen"` // freezes that contain it
}

// DiffRequest is `snapctl diff A B`.
type DiffRequest struct {
	A string `json:"a"`
	B string `json:"b"`
}

// Diff lists the differences, by name, then architecture.
type Diff struct {
	A          string       `json:"a"`
	B          string       `json:"b"`
	Added      []DiffEntry  `json:"added"`
	Removed    []DiffEntry  `json:"removed"`
	Upgraded   []DiffEntry  `json:"upgraded"`
	Downgraded []DiffEntry  `json:"downgraded"`
	Rebuilt    []DiffEntry  `json:"rebuilt"` // same version, different bytes
	Sources    []SourceDiff `json:"sources"`
	// Next is set on a web page that is too short for all differences: from=, where the
	// next page begins. Such pages have no sources.
	Next string `json:"next,omitempty"`
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

// SourceDiff groups the changes of one source package.
type SourceDiff struct {
	Source string   `json:"source"`
	Old    []string `json:"old"` // versions
	New    []string `json:"new"`
	Kind   string   `json:"kind"` // added, removed, upgraded, downgraded, rebuilt, mixed
	Count  int      `json:"count"`
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

package api

// Types of the web pages. Clients that ask for application/json get these instead of
// HTML.

import "time"

// Overview is the start page of a server: its state, as far as it is public.
type Overview struct {
	Version    string           `json:"version"`
	Healthy    bool             `json:"healthy"`
	Faults     []string         `json:"faults"` // why the server is not healthy
	Key        string           `json:"key"`    // fingerprint of the signing key
	Disk       *Disk            `json:"disk,omitempty"`
	Mirrors    []OverviewMirror `json:"mirrors"`
	Channels   []Channel        `json:"channels"`
	Freezes    []FreezeLine     `json:"freezes"` // the newest
	FreezeLen  int              `json:"freeze_count"`
	Recordings []Recording      `json:"recordings"`     // running recordings, and the newest of the others
	Kits       []PublishedKit   `json:"kits,omitempty"` // the first ones, by path
	KitLen     int              `json:"kit_count,omitempty"`
	Nodes      []NodeStatus     `json:"nodes,omitempty"`
	Leases     []LeaseStatus    `json:"leases,omitempty"`
}

// PublishedKit is an upgrade kit or an upgrade description below /iuk/.
type PublishedKit struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// OverviewMirror is a mirror with the number of snapshots of each of the last days,
// oldest first, up to today.
type OverviewMirror struct {
	MirrorStatus
	Days []int `json:"days"`
}

// Disk is the use of the disk of the store.
type Disk struct {
	Free       int64       `json:"free_bytes"`
	Reserve    int64       `json:"reserve_bytes"`
	Blobs      int64       `json:"blobs"`
	BlobBytes  int64       `json:"blob_bytes"`
	IndexBytes int64       `json:"index_bytes"` // upstream's compressed indices, included in blob_bytes
	ImageBytes int64       `json:"image_bytes"` // images of freezes, included in blob_bytes
	KitBytes   int64       `json:"kit_bytes"`   // upgrade kits and descriptions, included in blob_bytes
	MetaBytes  int64       `json:"metadata_bytes"`
	Growth     []StoredDay `json:"growth"` // days on which blobs were stored, oldest first
}

// StoredDay counts how many of the bytes stored now were stored by the end of a day.
type StoredDay struct {
	Day   string `json:"day"` // 2006-01-02, UTC
	Bytes int64  `json:"bytes"`
}

// FreezeLine is a freeze in a list, with the data that can be read without its manifest.
type FreezeLine struct {
	Name     string            `json:"name"`
	Date     time.Time         `json:"date"`
	Created  time.Time         `json:"created"`
	Mirrors  map[string]string `json:"mirrors"` // by name: "whole" or "exact"
	Packages int               `json:"packages"`
	Sources  int               `json:"sources"`
	Damaged  bool              `json:"damaged"` // its manifest, or its labels, cannot be read

	Labels      map[string]string `json:"labels,omitempty"`
	Description string            `json:"description,omitempty"`
}

// FreezesPage is a page of the list of freezes, the newest first.
type FreezesPage struct {
	Freezes []FreezeLine `json:"freezes"`
	Count   int          `json:"count"`          // of all freezes
	Next    int          `json:"next,omitempty"` // from=: where the next page begins
}

// MirrorPage is a mirror with a page of its snapshots, newest first.
type MirrorPage struct {
	Mirror    *MirrorDetail `json:"mirror"`
	Snapshots []Snapshot    `json:"snapshots"`
	Older     string        `json:"older,omitempty"` // before=: where the next page begins
}

// SnapshotPage is a snapshot with a page of its packages, by name.
type SnapshotPage struct {
	Snapshot *Snapshot `json:"snapshot"`
	Packages []Package `json:"packages"`
	Next     string    `json:"next,omitempty"` // from=: where the next page begins
}

// FreezePage is a freeze with a page of its packages, by mirror and name.
type FreezePage struct {
	Freeze   *Frozen   `json:"freeze"`
	Before   string    `json:"before,omitempty"` // the freeze of the same mirrors that was made before it
	Packages []Package `json:"packages"`
	Next     string    `json:"next,omitempty"` // from=: where the next page begins
}

// ChannelPage is a channel with its last moves, newest first.
type ChannelPage struct {
	Channel *Channel      `json:"channel"`
	Moves   []ChannelMove `json:"moves"`
}

// PackageHistory is the versions of a package over time, the newest first.
type PackageHistory struct {
	Name     string        `json:"name"`
	Source   bool          `json:"source"` // of a source package
	First    time.Time     `json:"first"`  // timestamp of the first snapshot that has any version
	Last     time.Time     `json:"last"`
	Count    int           `json:"count"` // of all versions
	Versions []VersionLine `json:"versions"`
	Next     int           `json:"next,omitempty"` // from=: where the next page begins
}

// VersionLine is one version in one mirror.
type VersionLine struct {
	Mirror   string   `json:"mirror"`
	Version  string   `json:"version"`
	Archs    []string `json:"architectures"`
	Suites   []string `json:"suites"`
	Seen     []Seen   `json:"seen"`
	Binaries []string `json:"binaries,omitempty"` // of a source package
	Freezes  []string `json:"freezes"`            // that contain this version
	Channels []string `json:"channels"`           // that show one of these freezes
}

// PackagePage is the history of a package with a page of its files, past and present.
type PackagePage struct {
	History *PackageHistory `json:"history"`
	Matches []Match         `json:"matches"`
	Next    int             `json:"next,omitempty"` // files=: where the next page of files begins
}

// Seen is an uninterrupted series of snapshots, from the first to the last timestamp.
type Seen struct {
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// FreezeProof is the evidence for a freeze. The signature of its manifest and its entry
// in the transparency log have been verified, but its files have not: `snapctl verify`
// verifies them.
type FreezeProof struct {
	Name      string        `json:"name"`
	Manifest  string        `json:"manifest_sha256"`
	Signature *Signer       `json:"signature,omitempty"` // nil: Faults says why
	Log       *LogProof     `json:"log,omitempty"`
	Suites    []ProvenSuite `json:"suites"`
	Notes     []string      `json:"notes,omitempty"`
	Faults    []VerifyFault `json:"faults"`
	Before    string        `json:"before,omitempty"` // the freeze of the same mirrors that was made before it
}

// ProvenSuite is a document of upstream with the keys that verified it.
type ProvenSuite struct {
	Mirror    string      `json:"mirror"`
	Kind      string      `json:"kind"` // "whole" or "exact"
	Suite     string      `json:"suite"`
	Trust     string      `json:"trust"`
	Date      time.Time   `json:"date"`
	Keys      []ProvenKey `json:"keys"`
	Documents []File      `json:"documents"`
	Indices   int         `json:"indices"` // that these documents list
}

// ProvenKey is a key of upstream.
type ProvenKey struct {
	Fingerprint string `json:"fingerprint"`
	UserID      string `json:"user_id,omitempty"`
}

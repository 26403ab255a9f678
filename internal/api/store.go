package api

import "time"

// GCRequest is `snapctl gc`.
type GCRequest struct {
	DryRun  bool   `json:"dry_run,omitempty"`
	Explain string `json:"explain,omitempty"` // a digest
	Compact bool   `json:"compact,omitempty"` // search the whole history for indices that can be regenerated
}

// GCResult is what gc removed or would remove.
type GCResult struct {
	DryRun      bool     `json:"dry_run,omitempty"`
	Snapshots   []string `json:"snapshots"` // expired snapshots
	Generations int      `json:"generations"`
	Blobs       int      `json:"blobs"` // quarantined
	Bytes       int64    `json:"bytes"`
	Purged      int      `json:"purged"`
	PurgedBytes int64    `json:"purged_bytes"`
	Indices     int      `json:"indices,omitempty"`     // no longer stored, but regenerated from stanzas
	IndexBytes  int64    `json:"index_bytes,omitempty"` // of the compressed indices that were removed for this
	OrderBytes  int64    `json:"order_bytes,omitempty"` // of the data stored to regenerate them
	Explain     *Explain `json:"explain,omitempty"`
}

// Explain says why a blob is kept or removed.
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
	From   string `json:"from,omitempty"` // where to get lost blobs: base URL of another snapd, or absolute path of a backup on the server
}

// FsckResult is what fsck found. Exit is 4 if faults remain.
type FsckResult struct {
	Blobs    int           `json:"blobs"`
	Bytes    int64         `json:"bytes"`
	Faults   []VerifyFault `json:"faults"`   // remaining faults
	Repaired []string      `json:"repaired"` // digests of blobs, and parts of the metadata
	Lost     []string      `json:"lost"`     // digests of the blobs among Faults that a repair could not get
	// NotRebuilt lists parts of the metadata that depend on lost parts.
	NotRebuilt []string `json:"not_rebuilt,omitempty"`
	// Unknown counts blobs that are not in the metadata, which was restored from an older
	// copy. They are kept.
	Unknown int `json:"unknown,omitempty"`
	Exit    int `json:"exit"`
}

// SalvageResult is the outcome and the report of `snapd salvage`.
type SalvageResult struct {
	Time time.Time `json:"time"`
	// Sound means that the metadata has no faults, and that nothing was changed.
	Sound    bool   `json:"sound,omitempty"`
	Kept     string `json:"kept,omitempty"`   // path of the damaged metadata
	Report   string `json:"report,omitempty"` // path of the report
	Entries  int    `json:"entries"`          // copied into the new metadata
	Expected int    `json:"expected"`         // number of entries before the damage, as far as it is known
	// Buckets lists the parts that lost entries.
	Buckets []SalvagedBucket `json:"buckets,omitempty"`
}

// SalvagedBucket is a part of the metadata that lost entries.
type SalvagedBucket struct {
	Name     string `json:"name"`
	Entries  int    `json:"entries"`            // kept entries
	Expected *int   `json:"expected,omitempty"` // absent: unknown
}

// AcceptResult is the outcome of `snapd accept-lost-blobs`.
type AcceptResult struct {
	DataDir string `json:"data_dir"`
	// Accepted means that the next start continues without blobs.
	Accepted bool   `json:"accepted"`
	Blob     string `json:"blob,omitempty"` // an existing blob, so that there is nothing to accept
}

// BackupRequest copies the installation to a directory on the server.
type BackupRequest struct {
	Dir string `json:"dir"` // absolute path
}

// BackupResult is `snapd backup`. If there are faults, Exit is 4, but everything else was
// copied.
type BackupResult struct {
	Dir         string        `json:"dir"`
	Time        time.Time     `json:"time"`         // time of the copied state
	Blobs       int64         `json:"blobs"`        // in the backup
	Bytes       int64         `json:"bytes"`        // in the backup
	Copied      int64         `json:"copied"`       // blobs that were new to the backup
	CopiedBytes int64         `json:"copied_bytes"` // bytes of these
	Removed     int64         `json:"removed"`      // blobs deleted from the backup because it no longer needs them
	Faults      []VerifyFault `json:"faults"`       // blobs that are damaged or missing in the installation
	Restorable  int           `json:"restorable"`   // how many of these faults the backup can repair
	Exit        int           `json:"exit"`
}

// MigrateResult is `snapd migrate`. Exit is 4, and the target incomplete, if there are
// faults.
type MigrateResult struct {
	From         string        `json:"from"`         // data directory
	To           string        `json:"to"`           // data directory
	Installation string        `json:"installation"` // installation ID, which stays the same
	Freezes      int           `json:"freezes"`
	Blobs        int64         `json:"blobs"`
	Bytes        int64         `json:"bytes"`
	Copied       int64         `json:"copied"`       // blobs; an interrupted run copied the others
	CopiedBytes  int64         `json:"copied_bytes"` // bytes of these
	Quarantined  int64         `json:"quarantined"`  // blobs in the quarantine
	LeftOut      int64         `json:"left_out"`     // corrupt copies in the quarantine, which are not copied
	Entries      int64         `json:"entries"`      // of the metadata
	Faults       []VerifyFault `json:"faults"`       // blobs that are damaged or missing in the source
	Exit         int           `json:"exit"`
}

// RestoreResult is `snapd restore`. Exit is 3 if blobs are missing, because the backup
// did not have them or --allow-damaged gave them up. Exit is 4 if faults prevented the
// restore.
type RestoreResult struct {
	Dir     string        `json:"dir"`
	DataDir string        `json:"data_dir"`
	Time    time.Time     `json:"time"` // time of the restored state
	Blobs   int64         `json:"blobs"`
	Bytes   int64         `json:"bytes"`
	Faults  []VerifyFault `json:"faults"`
	Exit    int           `json:"exit"`
}

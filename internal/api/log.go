package api

// LogRequest is `snapctl log show [NAME]`.
type LogRequest struct {
	Name string `json:"name,omitempty"` // of a freeze, to include its entry and proof
}

// LogStatus is the state of the transparency log.
type LogStatus struct {
	Origin    string       `json:"origin"`
	Key       string       `json:"key"` // vkey
	Size      int64        `json:"size"`
	Root      string       `json:"root"`
	Witnessed string       `json:"witnessed,omitempty"` // "2/3"; empty without witnesses
	Quorum    bool         `json:"quorum"`              // enough witnesses have cosigned the log, or none is needed
	Witnesses []LogWitness `json:"witnesses,omitempty"`
	Refused   string       `json:"refused,omitempty"`  // why the log signs nothing
	Damage    string       `json:"damage,omitempty"`   // known damage of stored tiles
	Verified  bool         `json:"verified,omitempty"` // every entry and tile was checked
	Entry     *LogEntry    `json:"entry,omitempty"`    // with LogRequest.Name
}

// LogWitness is a witness that is asked for cosignatures.
type LogWitness struct {
	Name  string `json:"name"`
	URL   string `json:"url"`
	Size  int64  `json:"size"` // of the log at the last cosignature
	Error string `json:"error,omitempty"`
}

// LogEntry is an entry with its proof, a tlog-proof file.
type LogEntry struct {
	Index int64  `json:"index"`
	Entry string `json:"entry"`
	Proof string `json:"proof"`
}

// LogEntriesRequest asks for entries, starting at a number.
type LogEntriesRequest struct {
	From int64 `json:"from"`
}

// LogEntries is one page of entries. Each entry is one line of JSON.
type LogEntries struct {
	Entries []string `json:"entries"`
	Next    int64    `json:"next"` // where the next page begins
	Size    int64    `json:"size"`
}

// WitnessInfo is a running witness, with its line of a policy.
type WitnessInfo struct {
	Name string `json:"name"`
	Key  string `json:"key"` // vkey
	URL  string `json:"url"`
}

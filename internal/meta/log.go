package meta

import "context"

// Log stores the transparency log: tiles, which entries are about what, and the
// signed state. It knows nothing of their contents. One process appends at a time.
type Log interface {
	// LogHead returns how far the log has come. ErrNotFound before it starts.
	LogHead(ctx context.Context) (*LogHead, error)
	// AppendLog adds entries, all at once and durably: tiles, names, signed state
	// and what is pending. The first call starts the log. ErrLogMoved where the log
	// does not have From entries or another origin. Without entries, where Size is
	// From, it replaces the tiles.
	// With Restart, everything of an earlier log goes first.
	AppendLog(ctx context.Context, a *LogAppend) error
	// CosignLog replaces the signed state by one with more cosignatures, unless the
	// log has gone on; with Quorum it is kept in place of an older one that has a
	// quorum, too. It never goes back. ErrNotFound before the log starts.
	CosignLog(ctx context.Context, c LogCosigned) error
	// LogTile returns a tile with as much of it as there is. ErrNotFound.
	LogTile(ctx context.Context, level int, n int64) ([]byte, error)
	// LogNamed returns the numbers of the last entries about names, in their order;
	// -1 where there is none.
	LogNamed(ctx context.Context, names []string) ([]int64, error)
	// LogPending returns what the log has announced and nobody has settled, by name.
	LogPending(ctx context.Context) ([]LogPending, error)
}

// EntriesLevel is the level of the tiles that hold entries.
const EntriesLevel = -1

// LogHead is the state of the log.
type LogHead struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Checkpoint []byte `json:"checkpoint"` // signed, of Size entries
	// Witnessed is the newest checkpoint with a quorum of cosignatures; nil: none.
	Witnessed     []byte `json:"witnessed,omitempty"`
	WitnessedSize int64  `json:"witnessed_size,omitempty"`
}

// LogAppend is what AppendLog adds.
type LogAppend struct {
	Origin     string
	From, Size int64
	Checkpoint []byte // of Size entries
	Tiles      []LogTile
	Names      map[string]int64 // number of the last entry about each
	Pending    []LogPending     // what the new entries announce
	Settled    []string         // names of what was pending before
	// Restart removes everything of an earlier log first.
	Restart bool
}

// LogTile is a tile of the tree; one of level EntriesLevel holds entries.
type LogTile struct {
	Level int
	N     int64
	Data  []byte
}

// LogPending is something that the log announces before it is made.
type LogPending struct {
	Name string
	Doc  []byte
}

// LogCosigned is a checkpoint with cosignatures.
type LogCosigned struct {
	Size       int64
	Checkpoint []byte
	Quorum     bool // they are enough
}

package meta

import "context"

// Log stores the transparency log: its tiles, the numbers of the entries about each
// name, and the signed checkpoint. It does not interpret their contents. Only one
// process may append at a time.
type Log interface {
	// LogHead returns the state of the log, or ErrNotFound before the first AppendLog.
	LogHead(ctx context.Context) (*LogHead, error)
	// AppendLog adds entries: it stores the tiles, names, checkpoint and pending
	// objects, atomically and durably. The first call starts the log. If the log does
	// not have From entries, or has another origin, AppendLog returns ErrLogMoved. If
	// Size equals From, it adds no entries and replaces the tiles. With Restart, it
	// first removes an earlier log.
	AppendLog(ctx context.Context, a *LogAppend) error
	// CosignLog replaces the checkpoint with one that has more cosignatures, unless the
	// log has grown since. With Quorum, it also stores it as LogHead.Witnessed, unless
	// that is already for a larger size. It returns ErrNotFound before the first
	// AppendLog.
	CosignLog(ctx context.Context, c LogCosigned) error
	// LogTile returns a tile, which may be partial, or ErrNotFound.
	LogTile(ctx context.Context, level int, n int64) ([]byte, error)
	// LogNamed returns, for each name, the number of the last entry about it; -1 if
	// there is no such entry.
	LogNamed(ctx context.Context, names []string) ([]int64, error)
	// LogPending returns the objects that the log has announced and that are not yet
	// settled, ordered by name.
	LogPending(ctx context.Context) ([]LogPending, error)
}

// EntriesLevel is the level of the tiles that contain entries.
const EntriesLevel = -1

// LogHead is the state of the log.
type LogHead struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Checkpoint []byte `json:"checkpoint"` // signed, for Size entries
	// Witnessed is the newest checkpoint with a quorum of cosignatures; nil: none.
	Witnessed     []byte `json:"witnessed,omitempty"`
	WitnessedSize int64  `json:"witnessed_size,omitempty"`
}

// LogAppend is the argument of AppendLog.
type LogAppend struct {
	Origin     string
	From, Size int64
	Checkpoint []byte // for Size entries
	Tiles      []LogTile
	Names      map[string]int64 // number of the last entry about each
	Pending    []LogPending     // objects that the new entries announce
	Settled    []string         // names of objects that are no longer pending
	// Restart removes an earlier log first.
	Restart bool
}

// LogTile is a tile of the tree, or of the entries if its level is EntriesLevel.
type LogTile struct {
	Level int
	N     int64
	Data  []byte
}

// LogPending is an object that the log announces before it is published.
type LogPending struct {
	Name string
	Doc  []byte
}

// LogCosigned is a checkpoint with cosignatures.
type LogCosigned struct {
	Size       int64
	Checkpoint []byte
	Quorum     bool // the cosignatures are a quorum
}

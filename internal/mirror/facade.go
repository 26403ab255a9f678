package mirror

import (
	"time"

	"example.org/snapd/internal/catalog"
)

// Names of package catalog for those that have not moved to it yet.
type Ref = catalog.Ref

const Latest = catalog.Latest

func ParseTimestamp(s string) (time.Time, error) { return catalog.ParseTimestamp(s) }

var (
	ErrUnknown    = catalog.ErrUnknownMirror
	ErrRef        = catalog.ErrRef
	ErrNoSnapshot = catalog.ErrNoSnapshot
	ErrNameTaken  = catalog.ErrNameTaken
)

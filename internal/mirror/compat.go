package mirror

import "example.org/snapd/internal/acquire"

// Names of package acquire that callers still know by their old place.
type (
	Progress     = acquire.Progress
	FetchOptions = acquire.FetchOptions
)

// HoldBack is acquire.HoldBack.
const HoldBack = acquire.HoldBack

var (
	ErrNoSpace     = acquire.ErrNoSpace
	ErrCorruptBlob = acquire.ErrCorruptBlob
)

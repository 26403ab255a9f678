package meta

import "slices"

// Pin returns the index of a mirror in Pins, or -1 if the recording does not show it.
func (r *Recording) Pin(mirror MirrorName) int {
	return slices.IndexFunc(r.Pins, func(p RecordingPin) bool { return p.Mirror == mirror })
}

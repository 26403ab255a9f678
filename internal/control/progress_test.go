package control

import (
	"testing"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/meta"
)

// A sync that waits for another sync of the same mirror reports the progress of that one,
// and says so.
func TestSyncProgress(t *testing.T) {
	running, own := &acquire.Progress{}, &acquire.Progress{}
	running.SetPhase("fetching packages")
	running.Files.Store(3)
	running.FilesTotal.Store(8)
	own.SetPhase(waiting)
	c := &Control{syncing: map[meta.MirrorName][]*acquire.Progress{"debian": {running, own}}}
	if p := c.syncProgress("debian", own); p.Phase != "sync already running: fetching packages" || p.Files != 3 || p.FilesTotal != 8 || p.Task != "debian" {
		t.Errorf("while it waits: %+v", p)
	}
	own.SetPhase("fetching indices of stable")
	if p := c.syncProgress("debian", own); p.Phase != "fetching indices of stable" || p.FilesTotal != 0 {
		t.Errorf("while it runs: %+v", p)
	}
	alone := &acquire.Progress{}
	alone.SetPhase(waiting)
	if p := c.syncProgress("fedora", alone); p.Phase != waiting {
		t.Errorf("alone: %+v", p)
	}
}

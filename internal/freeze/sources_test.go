package freeze_test

import (
	"errors"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// A recording that is not frozen yet has sources of its own, with the key that
// signs what it shows.
func TestRecordingSources(t *testing.T) {
	w := newWorld(t, config.OnDemand)
	var snap *meta.Snapshot
	err := w.Engine.Store().Update(t.Context(), "test", func(tx *bolt.Tx) (err error) {
		if snap, err = tx.Latest("debian"); err != nil {
			return err
		}
		pins := []meta.RecordingPin{{Mirror: "debian", Timestamp: snap.Timestamp}}
		return errors.Join(
			tx.PutRecording(&meta.Recording{Name: "plain", Started: w.Now, Pins: pins}),
			tx.PutRecording(&meta.Recording{Name: "again", Started: w.Now, Pins: pins, Resigned: true}),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	// The last line of a key's data says whose it is.
	lines := strings.Split(strings.TrimSpace(w.signer.PublicKeyArmored()), "\n")
	ours := "\n " + lines[len(lines)-3] + "\n"
	for name, c := range map[string]struct {
		comment string
		ours    bool
	}{
		"plain": {", signed by the distribution; recording plain\n", false},
		"again": {", signed again by this server; recording again\n", true},
	} {
		res, err := w.z.Sources(t.Context(), &api.SourcesRequest{Ref: name})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, want := range []string{"# " + snap.ID() + c.comment, "URIs: http://snapd.example.org/record/" + name + "/debian\n", "Signed-By:"} {
			if !strings.Contains(res.Text, want) {
				t.Errorf("%s: no %q in\n%s", name, want, res.Text)
			}
		}
		if strings.Contains(res.Text, ours) != c.ours {
			t.Errorf("%s: this server's key in it: expected %v:\n%s", name, c.ours, res.Text)
		}
	}
	if _, err := w.z.Sources(t.Context(), &api.SourcesRequest{Ref: "nothing"}); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("a name of nothing: %v", err)
	}
}

package webhook

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
)

// The bodies are those that docs/HOOKS.md shows: it is the contract with receivers.
func TestBodies(t *testing.T) {
	page, err := os.ReadFile("../../docs/HOOKS.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)\n### `([a-z]+)`\n[^`]*```json\n(.*?)```").FindAllSubmatch(page, -1) {
		shown[string(m[1])] = string(m[2])
	}
	day := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	const id = "EQ5H6BZ3MUHKHDH4N3S5FRTUYV"
	events := []*meta.Event{
		meta.SnapshotEvent(&meta.Snapshot{Mirror: "debian", Timestamp: day, Suites: []meta.SnapshotSuite{{Suite: "bookworm", Gen: 7, Date: day.Add(-2 * time.Hour)}}}, day),
		{Type: meta.EventFreeze, Time: day, Freeze: &meta.EventFrozen{
			Name: "4.1", Date: day.Add(-2 * time.Hour), Manifest: cas.Sum(nil), Mirrors: []string{"debian"}, Packages: 1402, Sources: 817, Bytes: 2147483648,
		}},
		meta.ChannelEvent(&meta.ChannelMove{Channel: "stable", Freeze: "4.1", From: "4.0", Moved: day, By: "token release"}),
		meta.FailureEvent("debian", &meta.Check{}, &meta.Check{Checked: day, OK: day.Add(-6 * time.Hour), Error: "get https://alice:s3cret@mirror.example.org/debian/dists/bookworm/InRelease: status 503"}),
		{Type: meta.EventStale, Time: day, Stale: &meta.EventAge{Mirror: "debian", Suite: "bookworm", Date: day.AddDate(0, 0, -11), MaxAge: 10 * 24 * time.Hour}},
		{Type: "test", Time: day},
	}
	e := &Engine{cfg: Config{PublicURL: "https://mirror.example.org"}}
	for _, ev := range events {
		ev.ID = id
		got, err := e.body(&hook{Webhook: config.Webhook{Name: "ci.example.org"}}, ev)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := json.Compact(&want, []byte(shown[ev.Type])); err != nil {
			t.Errorf("%s: docs/HOOKS.md: %v", ev.Type, err)
		}
		if d := cmp.Diff(want.String(), string(got)); d != "" {
			t.Errorf("%s: -documented +sent\n%s\n%s", ev.Type, d, got)
		}
	}
	if len(shown) != len(events) {
		t.Errorf("docs/HOOKS.md shows %d types of events, expected %d", len(shown), len(events))
	}
	if _, err := e.body(&hook{}, &meta.Event{Type: "other"}); err == nil {
		t.Error("an unknown event has a body")
	}
	if !reflect.DeepEqual(config.WebhookEvents(), []string{meta.EventSnapshot, meta.EventFreeze, meta.EventChannel, meta.EventFailure, meta.EventStale}) {
		t.Error("the configuration knows other types of events than the metadata")
	}
}

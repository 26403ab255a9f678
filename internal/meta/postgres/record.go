package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/retention"
)

// Recording implements meta.Recordings.
func (s *Store) Recording(ctx context.Context, name string) (*meta.Recording, error) {
	return ask(ctx, s, func(t *tx) (*meta.Recording, error) { return t.recording(ctx, name) })
}

func (t *tx) recording(ctx context.Context, name string) (*meta.Recording, error) {
	var r meta.Recording
	if err := t.doc(ctx, &r, "select doc from recording where name = $1", name); err != nil {
		return nil, fmt.Errorf("recording %s: %w", name, err)
	}
	return &r, nil
}

// Recordings implements meta.Recordings.
func (s *Store) Recordings(ctx context.Context) ([]*meta.Recording, error) {
	return ask(ctx, s, func(t *tx) ([]*meta.Recording, error) { return t.recordings(ctx) })
}

func (t *tx) recordings(ctx context.Context) ([]*meta.Recording, error) {
	return docs[meta.Recording](ctx, t, "select doc from recording order by name")
}

// StartRecording implements meta.Recorder.
func (s *Store) StartRecording(ctx context.Context, r *meta.Recording) error {
	return s.write(ctx, "record", func(t *tx) error {
		if err := t.lockName(ctx, r.Name); err != nil {
			return err
		}
		var removed, frozen, recording bool
		if _, err := t.one(ctx, []any{&removed, &frozen, &recording}, `select exists (select from tombstone where name = $1),
			exists (select from frozen where name = $1), exists (select from recording where name = $1)`, r.Name); err != nil {
			return err
		}
		switch {
		case removed:
			return fmt.Errorf("recording %s: %w: a removed freeze had it", r.Name, meta.ErrTaken)
		case frozen:
			return fmt.Errorf("recording %s: %w: a freeze has it", r.Name, meta.ErrTaken)
		case recording:
			return fmt.Errorf("recording %s: %w: another recording has it", r.Name, meta.ErrTaken)
		}
		if err := t.noChannel(ctx, r.Name, "recording"); err != nil {
			return err
		}
		for _, p := range r.Pins {
			// A concurrent removal of the snapshot waits, and then finds the recording.
			if _, err := t.exec(ctx, "select 1 from snapshot s join mirror m on m.id = s.mirror where m.name = $1 and s.at = $2 for share of s", p.Mirror, p.Timestamp.Unix()); err != nil {
				return err
			}
			if _, err := t.snapshot(ctx, p.Mirror, p.Timestamp); err != nil {
				return fmt.Errorf("recording %s: %w", r.Name, err)
			}
		}
		err := t.pinned(ctx, r, func(sid int32, gen uint32) error { return t.addGenRef(ctx, sid, gen, meta.OwnerRecording, r.Name) })
		if err != nil {
			return fmt.Errorf("recording %s: %w", r.Name, err)
		}
		if err := t.putDoc(ctx, r, "insert into recording (name, doc) values ($1, $2)", r.Name); err != nil {
			return err
		}
		return t.changed(ctx, meta.ChangeRecording, r.Name)
	})
}

// pinned calls f for each generation that a recording shows.
func (t *tx) pinned(ctx context.Context, r *meta.Recording, f func(sid int32, gen uint32) error) error {
	for _, p := range r.Pins {
		snap, err := t.snapshot(ctx, p.Mirror, p.Timestamp)
		if errors.Is(err, meta.ErrGone) || errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		for _, e := range snap.Suites {
			sid, err := t.suiteID(ctx, p.Mirror, e.Suite)
			if err == nil && sid != 0 {
				err = f(sid, e.Gen)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// StopRecording implements meta.Recorder.
func (s *Store) StopRecording(ctx context.Context, name string, at time.Time) (r *meta.Recording, err error) {
	err = s.write(ctx, "record", func(t *tx) (err error) {
		if err := t.lockName(ctx, name); err != nil {
			return err
		}
		if r, err = t.recording(ctx, name); err != nil || !r.Stopped.IsZero() {
			return err
		}
		r.Stopped = at
		if err := t.putDoc(ctx, r, "update recording set doc = $2 where name = $1", name); err != nil {
			return err
		}
		return t.changed(ctx, meta.ChangeRecording, name)
	})
	return r, err
}

// RemoveRecording implements meta.Recorder.
func (s *Store) RemoveRecording(ctx context.Context, name string) error {
	return s.write(ctx, "record", func(t *tx) error {
		if err := t.lockName(ctx, name); err != nil {
			return err
		}
		// Wait for fetches that are being recorded.
		if _, err := t.exec(ctx, "select 1 from recording where name = $1 for update", name); err != nil {
			return err
		}
		r, err := t.recording(ctx, name)
		if err == nil {
			err = retention.Recording(r)
		}
		if err != nil {
			return err
		}
		if err := t.pinned(ctx, r, func(sid int32, gen uint32) error { return t.dropGenRef(ctx, sid, gen, meta.OwnerRecording, name) }); err != nil {
			return err
		}
		entries, err := t.entries(ctx, name)
		if err != nil {
			return err
		}
		var digests []cas.Digest
		for _, e := range entries {
			digests = append(digests, e.SHA256)
		}
		if err := t.dropRefs(ctx, digests, meta.OwnerRecording, []byte(name)); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "delete from rentry where name = $1", name); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "delete from recording where name = $1", name); err != nil {
			return err
		}
		return t.changed(ctx, meta.ChangeRecording, name)
	})
}

func (t *tx) entries(ctx context.Context, name string) ([]meta.RecordEntry, error) {
	return values(docs[meta.RecordEntry](ctx, t, "select doc from rentry where name = $1 order by mirror, path, sha256", name))
}

// RecordingEntries implements meta.History.
func (s *Store) RecordingEntries(ctx context.Context, name string) ([]meta.RecordEntry, error) {
	return ask(ctx, s, func(t *tx) ([]meta.RecordEntry, error) {
		if _, err := t.recording(ctx, name); err != nil {
			return nil, err
		}
		return t.entries(ctx, name)
	})
}

// RecordingTotals implements meta.History.
func (s *Store) RecordingTotals(ctx context.Context, names []string) ([]meta.RecordingTotal, error) {
	return ask(ctx, s, func(t *tx) ([]meta.RecordingTotal, error) {
		totals := map[string]meta.RecordingTotal{}
		var name string
		var total meta.RecordingTotal
		err := t.each(ctx, []any{&name, &total.Files, &total.Bytes}, func() error { totals[name] = total; return nil },
			"select name, count(*), sum((doc->>'size')::bigint)::bigint from rentry where name = any($1) group by name", names)
		out := make([]meta.RecordingTotal, len(names))
		for i, name := range names {
			out[i] = totals[name]
		}
		return out, err
	})
}

// NoteFetches implements meta.Notes.
func (s *Store) NoteFetches(ctx context.Context, fetches []meta.Fetch) (missing map[string]bool, err error) {
	err = s.write(ctx, "note fetches", func(t *tx) error {
		missing = nil
		var names []string
		for _, f := range fetches {
			names = append(names, f.Recording)
		}
		there := map[string]bool{}
		var name string
		err := t.each(ctx, []any{&name}, func() error { there[name] = true; return nil }, "select name from recording where name = any($1) order by name for share", names)
		if err != nil {
			return err
		}
		for _, f := range fetches {
			if there[f.Recording] {
				if err := t.noteFetch(ctx, f.Recording, f.Entry); err != nil {
					return err
				}
				continue
			}
			if missing == nil {
				missing = map[string]bool{}
			}
			missing[f.Recording] = true
		}
		return nil
	})
	return missing, err
}

func (t *tx) noteFetch(ctx context.Context, name string, e meta.RecordEntry) error {
	if err := t.addRefs(ctx, []cas.Digest{e.SHA256}, meta.OwnerRecording, []byte(name)); err != nil {
		return err
	}
	// The row of the blob is locked, so nobody else records the same fetch now.
	old, err := values(docs[meta.RecordEntry](ctx, t, "select doc from rentry where name = $1 and mirror = $2 and path = $3 and sha256 = $4", name, e.Mirror, []byte(e.Path), e.SHA256[:]))
	if err != nil {
		return err
	}
	if len(old) > 0 {
		e.First = old[0].First
		e.Count += old[0].Count
	}
	return t.putDoc(ctx, e, `insert into rentry (name, mirror, path, sha256, doc) values ($1, $2, $3, $4, $5)
		on conflict (name, mirror, path, sha256) do update set doc = excluded.doc`, name, e.Mirror, []byte(e.Path), e.SHA256[:])
}

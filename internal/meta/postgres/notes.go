package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// NoteBlobs implements meta.Notes.
func (s *Store) NoteBlobs(ctx context.Context, digests []cas.Digest, aliases []meta.Alias, at time.Time) error {
	return s.write(ctx, "note blobs", func(t *tx) error {
		if len(digests) > 0 {
			// The row of a blob with a reference does not change.
			_, err := t.exec(ctx, `insert into blob as b (sha256, state, since) select distinct q.sha256, $2::smallint, $3::bigint from unnest($1::bytea[]) q (sha256) where not `+hasRef+` order by 1
				on conflict (sha256) do update set state = excluded.state, since = excluded.since
				where not exists (select from ref where ref.sha256 = b.sha256) and not exists (select from pfile where pfile.sha256 = b.sha256)`,
				bytesOf(digests), blobCandidate, at.Unix())
			if err != nil {
				return err
			}
		}
		return t.putAliases(ctx, aliases)
	})
}

// AlternateBases implements meta.Notes.
func (s *Store) AlternateBases(ctx context.Context, mirror meta.MirrorName) ([]string, error) {
	return ask(ctx, s, func(t *tx) (urls []string, err error) {
		snap, err := t.latest(ctx, mirror)
		if errors.Is(err, meta.ErrNotFound) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		gens, err := t.generations(ctx, snap)
		for _, g := range gens {
			urls = append(urls, g.AlternateBases...)
		}
		return urls, err
	})
}

// EarlierAlternateBases implements meta.Notes.
func (s *Store) EarlierAlternateBases(ctx context.Context, mirror meta.MirrorName, known []string, limit int) ([]string, error) {
	return meta.EarlierAlternateBases(known, limit, func(before time.Time, n int, unread func([]*meta.Snapshot) []meta.SnapshotSuite) (snaps []*meta.Snapshot, gens []*meta.Generation, err error) {
		err = s.read(ctx, func(t *tx) (err error) {
			if snaps, err = t.snapshots(ctx, mirror, before, n); err != nil {
				return err
			}
			gens, err = t.generations(ctx, &meta.Snapshot{Mirror: mirror, Suites: unread(snaps)})
			return err
		})
		return snaps, gens, err
	})
}

// MarkCorrupt implements meta.Notes.
func (s *Store) MarkCorrupt(ctx context.Context, b meta.CorruptBlob) error {
	return s.write(ctx, "mark corrupt", func(t *tx) error {
		return t.putDoc(ctx, b, "insert into corrupt (sha256, doc) values ($1, $2) on conflict (sha256) do update set doc = excluded.doc", b.Digest[:])
	})
}

// ClearCorrupt implements meta.Notes.
func (s *Store) ClearCorrupt(ctx context.Context, digests ...cas.Digest) error {
	if len(digests) == 0 {
		return nil
	}
	return s.write(ctx, "clear corrupt", func(t *tx) error {
		_, err := t.exec(ctx, "delete from corrupt where sha256 = any($1)", bytesOf(digests))
		return err
	})
}

// CorruptBlobs implements meta.Catalog.
func (s *Store) CorruptBlobs(ctx context.Context) ([]meta.CorruptBlob, error) {
	return ask(ctx, s, func(t *tx) ([]meta.CorruptBlob, error) {
		return values(docs[meta.CorruptBlob](ctx, t, "select doc from corrupt order by sha256"))
	})
}

// HeldBlobs implements meta.Catalog.
func (s *Store) HeldBlobs(ctx context.Context, kind byte, after cas.Digest, limit int) (held []cas.Digest, next cas.Digest, err error) {
	table, condition := "ref", "kind = $3"
	if kind == meta.OwnerPackage {
		table, condition = "pfile", "$3::smallint > 0"
	}
	err = s.read(ctx, func(t *tx) error {
		held, next = nil, cas.Digest{}
		n := 0
		var sum []byte
		var yes bool
		err := t.each(ctx, []any{&sum, &yes}, func() error {
			n++
			next = cas.Digest(sum)
			if yes {
				held = append(held, next)
			}
			return nil
		}, `select sha256, exists (select from `+table+` r where r.sha256 = blob.sha256 and `+condition+`) from blob where sha256 > $1 order by sha256 limit $2`,
			after[:], limit, int16(kind))
		if n < limit {
			next = cas.Digest{}
		}
		return err
	})
	return held, next, err
}

// Names of notes of the installation.
const (
	idNote    = "installation.id"
	epochNote = "installation.epoch"
	cleanNote = "clean"
	cleanYes  = "yes"
	cleanNo   = "no"
	sinceNote = "known-since"
)

func (t *tx) note(ctx context.Context, name string) (value string, err error) {
	_, err = t.one(ctx, []any{&value}, "select value from note where name = $1", name)
	return value, err
}

func (t *tx) setNote(ctx context.Context, name, value string) error {
	_, err := t.exec(ctx, "insert into note (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value", name, value)
	return err
}

// Note implements meta.Collection.
func (s *Store) Note(ctx context.Context, name string) (string, error) {
	return ask(ctx, s, func(t *tx) (string, error) { return t.note(ctx, name) })
}

// SetNote implements meta.Collection.
func (s *Store) SetNote(ctx context.Context, name, value string) error {
	return s.write(ctx, "note "+name, func(t *tx) error { return t.setNote(ctx, name, value) })
}

// Identity implements meta.Installation.
func (s *Store) Identity(ctx context.Context) (meta.Identity, error) {
	return ask(ctx, s, func(t *tx) (id meta.Identity, err error) {
		if id.ID, err = t.note(ctx, idNote); err != nil {
			return id, err
		}
		text, err := t.note(ctx, epochNote)
		if err == nil && text != "" {
			if id.Epoch, err = strconv.ParseInt(text, 10, 64); err != nil {
				err = fmt.Errorf("%w: epoch %q", meta.ErrCorrupt, text)
			}
		}
		if err != nil {
			return id, err
		}
		_, err = t.one(ctx, []any{&id.Empty}, "select not exists (select from ref) and not exists (select from pfile)")
		return id, err
	})
}

// SetEpoch implements meta.Installation. If several nodes start at once, only one sets
// the id, and the others get ErrExists. The epoch never decreases.
func (s *Store) SetEpoch(ctx context.Context, id string, epoch int64, knownSince time.Time) error {
	return s.write(ctx, "epoch", func(t *tx) error {
		n, err := t.exec(ctx, "insert into note (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value where note.value in ('', excluded.value)", idNote, id)
		if err == nil && n == 0 {
			err = fmt.Errorf("installation %s: %w: another node has just named this installation", id, meta.ErrExists)
		}
		if err == nil {
			_, err = t.exec(ctx, `insert into note (name, value) values ($1, $2::bigint::text)
				on conflict (name) do update set value = greatest(note.value::bigint, excluded.value::bigint)::text`, epochNote, epoch)
		}
		if err == nil && !knownSince.IsZero() {
			err = t.setNote(ctx, sinceNote, knownSince.UTC().Format(time.RFC3339Nano))
		}
		return err
	})
}

// knownSince returns the time since which this metadata has recorded every stored blob,
// or the zero time if it always has.
func (t *tx) knownSince(ctx context.Context) (at time.Time, err error) {
	text, err := t.note(ctx, sinceNote)
	if err != nil || text == "" {
		return at, err
	}
	if at, err = time.Parse(time.RFC3339, text); err != nil {
		err = fmt.Errorf("%w: time %q", meta.ErrCorrupt, text)
	}
	return at, err
}

// SetClean implements meta.Installation.
func (s *Store) SetClean(ctx context.Context, clean bool) (before bool, err error) {
	value := cleanNo
	if clean {
		value = cleanYes
	}
	err = s.write(ctx, "clean", func(t *tx) error {
		was, err := t.note(ctx, cleanNote)
		before = was != cleanNo
		if err != nil {
			return err
		}
		return t.setNote(ctx, cleanNote, value)
	})
	return before, err
}

// NameOnce implements meta.Installation.
func (s *Store) NameOnce(ctx context.Context, name, value string) (have string, err error) {
	if have, err = s.Note(ctx, name); err != nil || have != "" {
		return have, err
	}
	err = s.write(ctx, "name "+name, func(t *tx) error {
		if _, err := t.exec(ctx, "insert into note (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value where note.value = ''", name, value); err != nil {
			return err
		}
		have, err = t.note(ctx, name)
		return err
	})
	return have, err
}

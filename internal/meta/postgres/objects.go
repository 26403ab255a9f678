package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/objects"
)

// Objects returns the index of objects in this metadata.
func (s *Store) Objects() objects.Index { return objectIndex{s} }

type objectIndex struct{ s *Store }

// States of an object.
const (
	objectPresent = 0
	objectRemoved = 1
	objectGarbage = 2

	objectCondemned = 3 // garbage without a time; not stored as such
)

// objectColumns are the columns that an objectRow reads.
const objectColumns = "sha256, n, size, modified, stored"

// objectRow is the destination for scanning objectColumns.
type objectRow struct {
	sum              []byte
	n, size          int64
	modified, stored *int64
}

func (r *objectRow) dest() []any { return []any{&r.sum, &r.n, &r.size, &r.modified, &r.stored} }

func (r *objectRow) object() objects.Object {
	return objects.Object{Key: objects.Key{Digest: cas.Digest(r.sum), N: uint64(r.n)}, Size: r.size, ModTime: timeOf(r.modified), Stored: timeOf(r.stored)}
}

// seconds returns a time as Unix seconds, as it is stored; nil (null) for the zero time.
func seconds(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := t.Unix()
	return &n
}

func timeOf(n *int64) time.Time {
	if n == nil {
		return time.Time{}
	}
	return time.Unix(*n, 0).UTC()
}

// columns returns the two parts of keys as arrays for unnest.
func columns(keys []objects.Key) (digests [][]byte, numbers []int64) {
	for _, k := range keys {
		digests = append(digests, k.Digest[:])
		numbers = append(numbers, int64(k.N))
	}
	return digests, numbers
}

// lockObjects locks all rows with the given digests until the end of the transaction, in a
// fixed order, and returns their states. The state of a condemned object is
// objectCondemned.
func (t *tx) lockObjects(ctx context.Context, digests [][]byte) (map[objects.Key]int16, error) {
	states := map[objects.Key]int16{}
	var sum []byte
	var n int64
	var state int16
	err := t.each(ctx, []any{&sum, &n, &state}, func() error {
		states[objects.Key{Digest: cas.Digest(sum), N: uint64(n)}] = state
		return nil
	}, "select sha256, n, case when state = $2::smallint and since is null then $3::smallint else state end from object where sha256 = any($1) order by sha256, n for update", digests, objectGarbage, objectCondemned)
	return states, err
}

// replacePresent turns the present objects of the given digests into garbage.
func (t *tx) replacePresent(ctx context.Context, digests [][]byte, at time.Time) error {
	_, err := t.exec(ctx, "update object set state = $2, since = $3 where sha256 = any($1) and state = $4", digests, objectGarbage, seconds(at), objectPresent)
	return err
}

// Reserve implements objects.Index. Numbers are at least the server's time in
// milliseconds, so that a database that was restored from an older copy, or a standby
// that lost commits, does not assign numbers again.
func (x objectIndex) Reserve(ctx context.Context, digests []cas.Digest, at time.Time) (keys []objects.Key, err error) {
	if len(digests) == 0 {
		return nil, nil
	}
	err = x.s.write(ctx, "reserve objects", func(t *tx) error {
		var last int64
		_, err := t.one(ctx, []any{&last}, `
			insert into object_counter as c (n) values ((extract(epoch from clock_timestamp()) * 1000)::bigint + $1)
			on conflict (one) do update set n = greatest(c.n, excluded.n - $1) + $1 returning n`, len(digests))
		if err != nil {
			return err
		}
		keys = make([]objects.Key, len(digests))
		for i, d := range digests {
			keys[i] = objects.Key{Digest: d, N: uint64(last - int64(len(digests)-1-i))}
		}
		sums, numbers := columns(keys)
		_, err = t.exec(ctx, "insert into object (sha256, n, state, since) select d, n, $3::smallint, $4::bigint from unnest($1::bytea[], $2::bigint[]) q (d, n)", sums, numbers, objectGarbage, seconds(at))
		return err
	})
	return keys, err
}

// Add implements objects.Index.
func (x objectIndex) Add(ctx context.Context, list []objects.Object, at time.Time) error {
	if len(list) == 0 {
		return nil
	}
	keys := make([]objects.Key, len(list))
	for i, o := range list {
		keys[i] = o.Key
	}
	all, _ := columns(keys)
	return x.s.write(ctx, "add objects", func(t *tx) error {
		states, err := t.lockObjects(ctx, all)
		if err != nil {
			return err
		}
		var added []objects.Key
		var sizes []int64
		var modified, stored []*int64
		for _, o := range list {
			switch state, ok := states[o.Key]; {
			case ok && state == objectPresent:
				continue // added by an earlier call
			case !ok || state != objectGarbage:
				return fmt.Errorf("%w: the upload of %s took too long and was abandoned", cas.ErrUnavailable, o.Digest)
			}
			added = append(added, o.Key)
			sizes = append(sizes, o.Size)
			modified, stored = append(modified, seconds(o.ModTime)), append(stored, seconds(o.Stored))
		}
		sums, numbers := columns(added)
		if err := t.replacePresent(ctx, sums, at); err != nil {
			return err
		}
		_, err = t.exec(ctx, `update object o set state = $6, since = null, size = q.size, modified = q.modified, stored = q.stored
			from unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) q (d, n, size, modified, stored) where o.sha256 = q.d and o.n = q.n`,
			sums, numbers, sizes, modified, stored, objectPresent)
		return err
	})
}

// Present implements objects.Index.
func (x objectIndex) Present(ctx context.Context, d cas.Digest) (objects.Object, error) {
	var r objectRow
	err := x.s.pool.QueryRow(ctx, "select "+objectColumns+" from object where sha256 = $1 and state = 0", d[:]).Scan(r.dest()...)
	if err == pgx.ErrNoRows {
		return objects.Object{}, fmt.Errorf("%w: %s", cas.ErrNotFound, d)
	} else if err != nil {
		return objects.Object{}, mapped(err)
	}
	return r.object(), nil
}

// Which implements objects.Index.
func (x objectIndex) Which(ctx context.Context, all []cas.Digest) (map[cas.Digest]bool, error) {
	sums := make([][]byte, len(all))
	for i := range all {
		sums[i] = all[i][:]
	}
	rows, err := x.s.pool.Query(ctx, "select sha256 from object where sha256 = any($1) and state = 0", sums)
	if err != nil {
		return nil, mapped(err)
	}
	found := make(map[cas.Digest]bool, len(all))
	var sum []byte
	if _, err := pgx.ForEachRow(rows, []any{&sum}, func() error { found[cas.Digest(sum)] = true; return nil }); err != nil {
		return nil, mapped(err)
	}
	return found, nil
}

// List implements objects.Index.
func (x objectIndex) List(ctx context.Context, after cas.Digest, n int) ([]objects.Object, error) {
	return ask(ctx, x.s, func(t *tx) (out []objects.Object, err error) {
		var r objectRow
		// No blob has the zero digest.
		err = t.each(ctx, r.dest(), func() error { out = append(out, r.object()); return nil },
			"select "+objectColumns+" from object where sha256 > $1 and state = 0 order by sha256 limit $2", after[:], n)
		return out, err
	})
}

// Remove implements objects.Index.
func (x objectIndex) Remove(ctx context.Context, k objects.Key, why string, at time.Time) (removed bool, err error) {
	err = x.s.write(ctx, "remove object", func(t *tx) error {
		n, err := t.exec(ctx, "update object set state = $3, since = $4, why = $5 where sha256 = $1 and n = $2 and state = $6",
			k.Digest[:], int64(k.N), objectRemoved, seconds(at), why, objectPresent)
		removed = n > 0
		return err
	})
	return removed, err
}

// removedObjects returns at most limit removed objects, oldest first. If before is not zero,
// it returns only those that were removed before that time.
func (t *tx) removedObjects(ctx context.Context, before time.Time, limit int, lock string) (out []objects.Removed, err error) {
	var r objectRow
	var since *int64
	var why string
	err = t.each(ctx, append(r.dest(), &since, &why), func() error {
		out = append(out, objects.Removed{Object: r.object(), At: timeOf(since), Why: why})
		return nil
	}, "select "+objectColumns+", since, why from object where state = 1 and ($1::bigint is null or since < $1) order by since, sha256, n limit $2 "+lock, seconds(before), limit)
	return out, err
}

// Quarantine implements objects.Index.
func (x objectIndex) Quarantine(ctx context.Context) ([]objects.Removed, error) {
	return ask(ctx, x.s, func(t *tx) ([]objects.Removed, error) { return t.removedObjects(ctx, time.Time{}, noLimit, "") })
}

// Restore implements objects.Index.
func (x objectIndex) Restore(ctx context.Context, k objects.Key, at time.Time) error {
	return x.s.write(ctx, "restore object", func(t *tx) error {
		all := [][]byte{k.Digest[:]}
		states, err := t.lockObjects(ctx, all)
		if err != nil {
			return err
		}
		if state, ok := states[k]; !ok || state != objectRemoved {
			return fmt.Errorf("%w: %s in the quarantine", cas.ErrNotFound, k.Digest)
		}
		if err := t.replacePresent(ctx, all, at); err != nil {
			return err
		}
		_, err = t.exec(ctx, "update object set state = $3, since = null, why = '' where sha256 = $1 and n = $2", k.Digest[:], int64(k.N), objectPresent)
		return err
	})
}

// Condemn implements objects.Index.
func (x objectIndex) Condemn(ctx context.Context, before time.Time, n int) (out []objects.Removed, err error) {
	if before.IsZero() {
		return nil, nil
	}
	err = x.s.write(ctx, "condemn objects", func(t *tx) (err error) {
		if out, err = t.removedObjects(ctx, before, n, "for update"); err != nil || len(out) == 0 {
			return err
		}
		keys := make([]objects.Key, len(out))
		for i, r := range out {
			keys[i] = r.Key
		}
		sums, numbers := columns(keys)
		_, err = t.exec(ctx, "update object o set state = $3, since = null, why = '' from unnest($1::bytea[], $2::bigint[]) q (d, n) where o.sha256 = q.d and o.n = q.n", sums, numbers, objectGarbage)
		return err
	})
	return out, err
}

// Garbage implements objects.Index.
func (x objectIndex) Garbage(ctx context.Context, before time.Time, n int, busy func(objects.Key) bool) (out []objects.Key, err error) {
	err = x.s.write(ctx, "condemn garbage", func(t *tx) error {
		out = nil
		var r objectRow
		err := t.each(ctx, r.dest(), func() error {
			if k := r.object().Key; busy == nil || !busy(k) {
				out = append(out, k)
			}
			return nil
		}, "select "+objectColumns+" from object where state = 2 and (since is null or since < $1) order by since nulls first, sha256, n limit $2 for update", before.Unix(), n)
		if err != nil || len(out) == 0 {
			return err
		}
		sums, numbers := columns(out)
		_, err = t.exec(ctx, "update object o set since = null from unnest($1::bytea[], $2::bigint[]) q (d, n) where o.sha256 = q.d and o.n = q.n and o.since is not null", sums, numbers)
		return err
	})
	return out, err
}

// Forget implements objects.Index.
func (x objectIndex) Forget(ctx context.Context, keys []objects.Key) error {
	if len(keys) == 0 {
		return nil
	}
	sums, numbers := columns(keys)
	return x.s.write(ctx, "forget objects", func(t *tx) error {
		_, err := t.exec(ctx, "delete from object o using unnest($1::bytea[], $2::bigint[]) q (d, n) where o.sha256 = q.d and o.n = q.n and o.state = $3", sums, numbers, objectGarbage)
		return err
	})
}

// Package migrate copies an installation from one pair of stores, for metadata and for
// blobs, to another. Each store may have any engine.
//
// The source must not be running, and is not changed. The target is marked as incomplete
// from before its first entry until everything was compared: blobs by their digests while
// they are copied, metadata by the sums of two dumps at the end. Blobs that the target
// already has are not copied again, so an interrupted run can be continued.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

var (
	// ErrSource means that the source cannot be copied in its present state.
	ErrSource = errclass.New(errclass.Conflict, "source refused")
	// ErrTarget means that the target contains other data.
	ErrTarget = errclass.New(errclass.Conflict, "target refused")
	// ErrDamaged means that blobs of the source are damaged or missing, or that the copy
	// differs from the source.
	ErrDamaged = errclass.New(errclass.Security, "damaged")
	// ErrIncomplete means that a migration to an installation was not completed.
	ErrIncomplete = errclass.New(errclass.Conflict, "a migration to it was not completed")
)

// Lease is the name of the lease of a target.
const Lease = "migrate"

// Clock is the clock of the target's blob store. It can be set, because the time at which
// a blob was quarantined is copied too.
type Clock struct {
	Now func() time.Time
	at  atomic.Pointer[time.Time]
}

// Time returns the time that was set, or otherwise the present time.
func (c *Clock) Time() time.Time {
	if at := c.at.Load(); at != nil {
		return *at
	}
	return c.Now()
}

// Copy is one run.
type Copy struct {
	From, To  meta.Store
	FromBlobs cas.Store
	ToBlobs   cas.Store
	Clock     *Clock // of ToBlobs
	ID        meta.Identity
	P         *acquire.Progress
	Result    *api.MigrateResult
	sums      *meta.Sums // sums of the dump of From that was copied
}

// names returns the first of many names, for messages.
func names(all []string) string {
	const most = 3
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], "; "), len(all)-most)
	}
	return strings.Join(all, "; ")
}

// CheckSource checks that the metadata of a source is sound and complete. ErrSource.
func CheckSource(ctx context.Context, st meta.Store, p *acquire.Progress) (meta.Identity, error) {
	p.SetPhase("checking the metadata")
	id, err := st.Identity(ctx)
	if err != nil {
		return id, err
	}
	repair := "start snapd with it and run snapctl fsck --repair"
	switch damage := st.Damage(); {
	case damage != nil:
		return id, fmt.Errorf("%w: its metadata is damaged: %w; %s", ErrSource, damage, repair)
	case id.ID == "":
		return id, fmt.Errorf("%w: its metadata has no id: snapd has not run with it", ErrSource)
	case id.Torn != "":
		return id, fmt.Errorf("%w: its metadata %s; %s", ErrSource, id.Torn, repair)
	}
	if note, err := st.Note(ctx, meta.MigratingNote); err != nil {
		return id, err
	} else if note != "" {
		return id, fmt.Errorf("%w: %w", ErrSource, ErrIncomplete)
	}
	faults, err := st.Verify(ctx)
	if err != nil {
		return id, err
	}
	var found []string
	for _, f := range faults {
		found = append(found, f.Error())
	}
	if len(found) == 0 {
		if found, err = st.Contradictions(ctx); err != nil {
			return id, err
		}
	}
	if len(found) > 0 {
		return id, fmt.Errorf("%w: its metadata has %d faults (%s); %s", ErrSource, len(found), names(found), repair)
	}
	corrupt, err := st.CorruptBlobs(ctx)
	if err == nil && len(corrupt) > 0 {
		err = fmt.Errorf("%w: %d blobs are known to be corrupt, the first is %s; %s", ErrSource, len(corrupt), corrupt[0].Digest, repair)
	}
	return id, err
}

// errRow ends a dump at its first row.
var errRow = errors.New("not empty")

// Claim marks the metadata of a target as incomplete, or accepts a mark of an earlier run
// with the same location of blobs: the metadata may already record which blobs are there.
// marked means that the target's data directory has that mark. complete means that the
// copy was complete, and only the mark is left. ErrTarget.
func Claim(ctx context.Context, from, to meta.Store, id meta.Identity, blobs string, marked bool) (complete bool, err error) {
	known, err := to.Identity(ctx)
	if err != nil {
		return false, err
	}
	note, err := to.Note(ctx, meta.MigratingNote)
	if err != nil {
		return false, err
	}
	was, place, _ := strings.Cut(note, " ")
	switch {
	case was == id.ID && place == blobs:
		if err := knownFreezes(ctx, from, to); err != nil {
			return false, err
		}
		// The source may have been started since, after the earlier run was stopped.
		return false, to.SetEpoch(ctx, id.ID, id.Epoch, time.Time{})
	case was == id.ID:
		return false, fmt.Errorf("%w: a migration into its metadata with the blobs in %s was not completed, now they are to be in %s: use the former place, or an empty database", ErrTarget, place, blobs)
	case note != "":
		return false, fmt.Errorf("%w: a migration of installation %s into its metadata was not completed, this one is %s", ErrTarget, was, id.ID)
	case marked && known.ID == id.ID:
		return true, nil
	case known.ID != "":
		return false, fmt.Errorf("%w: its metadata is of installation %s%s, expected none", ErrTarget, known.ID, held(ctx, to))
	}
	err = to.Dump(ctx, func(r *meta.Row) error { return fmt.Errorf("%w: %v", errRow, r.Table) })
	if errors.Is(err, errRow) {
		err = fmt.Errorf("%w: its metadata is %w%s", ErrTarget, err, held(ctx, to))
	}
	if err != nil {
		return false, err
	}
	mark := id.ID + " " + blobs
	switch note, err = to.NameOnce(ctx, meta.MigratingNote, mark); {
	case err != nil:
		return false, err
	case note != mark:
		return false, fmt.Errorf("%w: another migration into its metadata has just begun: %s", ErrTarget, note)
	}
	return false, to.SetEpoch(ctx, id.ID, id.Epoch, time.Time{})
}

// held describes the freezes of a target for a message; "" if it has none.
func held(ctx context.Context, to meta.Freezes) string {
	all, err := to.Freezes(ctx)
	if err != nil || len(all) == 0 {
		return ""
	}
	var list []string
	for _, f := range all {
		list = append(list, string(f.Name))
	}
	return fmt.Sprintf(", with %d freezes (%s)", len(list), names(list))
}

// knownFreezes refuses a target with freezes that the source does not have.
func knownFreezes(ctx context.Context, from, to meta.Freezes) error {
	all, err := to.Freezes(ctx)
	if err != nil {
		return err
	}
	for _, f := range all {
		known, err := from.Freeze(ctx, f.Name)
		if err == nil && known.Manifest.SHA256 == f.Manifest.SHA256 {
			continue
		}
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		return fmt.Errorf("%w: its metadata has the freeze %s with manifest %s, which the source does not have", ErrTarget, f.Name, f.Manifest.SHA256)
	}
	return nil
}

// Run copies blobs and metadata, and compares them. Everything is durable when it returns
// nil. ErrSource, ErrDamaged.
func (c *Copy) Run(ctx context.Context) error {
	if err := c.missing(ctx); err != nil {
		return err
	}
	if err := c.quarantine(ctx); err != nil {
		return err
	}
	if err := c.blobs(ctx); err != nil {
		return err
	}
	if n := len(c.Result.Faults); n > 0 {
		c.Result.Exit = api.ExitVerify
		return fmt.Errorf("%w: %d blobs of the source are damaged or missing; the first is %s: %s", ErrDamaged, n, c.Result.Faults[0].Object, c.Result.Faults[0].Message)
	}
	if err := c.metadata(ctx); err != nil {
		return err
	}
	return c.complete(ctx)
}

// missing looks for blobs that the source should have but has lost.
func (c *Copy) missing(ctx context.Context) error {
	c.P.SetPhase("looking for missing blobs")
	var after cas.Digest
	for more := true; more; {
		promised, next, left, err := c.From.PromisedBlobs(ctx, after, 1000)
		if err != nil {
			return err
		}
		after, more = next, left
		for _, d := range promised {
			if _, err := c.FromBlobs.Stat(ctx, d); errors.Is(err, cas.ErrNotFound) {
				c.fault(d, "is missing")
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Copy) fault(d cas.Digest, message string) {
	c.Result.Faults = append(c.Result.Faults, api.VerifyFault{Object: "blob " + d.String(), Message: message})
}

// metadata copies the metadata and compares the copy.
func (c *Copy) metadata(ctx context.Context) error {
	count := func() { c.P.Files.Add(1) }
	start := func(phase string, total int64) {
		c.P.SetPhase(phase)
		c.P.Files.Store(0)
		c.P.FilesTotal.Store(total)
		c.P.Bytes.Store(0)
		c.P.BytesTotal.Store(0)
	}
	start("reading the metadata", 0)
	want, err := meta.SumDump(ctx, c.From, nil)
	if err != nil {
		return err
	}
	c.sums = want
	c.Result.Entries = want.Rows()
	start("copying the metadata", want.Rows())
	if err := c.To.Load(meta.WithoutLeases(ctx), &counted{c.From, func() { start("copying the metadata", want.Rows()) }, count}); err != nil {
		return err
	}
	start("comparing the metadata", want.Rows())
	got, err := meta.SumDump(ctx, c.To, count)
	if err != nil {
		return err
	}
	if differ := got.Differences(want); len(differ) > 0 {
		return fmt.Errorf("%w: the copy of the metadata differs from the source: %s", ErrDamaged, names(differ))
	}
	return nil
}

// counted reports the progress of a dump.
type counted struct {
	meta.Dumper
	start, count func()
}

// Dump implements meta.Dumper.
func (d *counted) Dump(ctx context.Context, f func(*meta.Row) error) error {
	d.start()
	return d.Dumper.Dump(ctx, func(r *meta.Row) error {
		d.count()
		return f(r)
	})
}

// complete makes sure that the source did not change, for example because a node that was
// cut off from its database came back: its metadata must still be what was copied. It
// also copies the time since which the source has recorded every blob, so that
// collections keep older blobs in the copy, too.
func (c *Copy) complete(ctx context.Context) error {
	c.P.SetPhase("completing")
	id, err := c.From.Identity(ctx)
	if err != nil {
		return err
	}
	if id.Epoch != c.ID.Epoch {
		return fmt.Errorf("%w: snapd was started with it meanwhile: stop it and repeat the migration", ErrSource)
	}
	now, err := meta.SumDump(ctx, c.From, nil)
	if err != nil {
		return err
	}
	if differ := now.Differences(c.sums); len(differ) > 0 {
		return fmt.Errorf("%w: its metadata changed meanwhile: %s; stop all nodes and repeat the migration", ErrSource, names(differ))
	}
	since, err := c.From.Note(ctx, "known-since")
	if err != nil || since == "" {
		return err
	}
	return c.To.SetEpoch(ctx, c.ID.ID, c.ID.Epoch, c.Clock.Time())
}

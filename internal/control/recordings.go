package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// StartRecording starts a recording of the snapshots that the request names, or of the
// newest snapshot of each mirror. If clients of a mirror would download packages from
// another server, the error is ErrOtherServer.
func (c *Control) StartRecording(ctx context.Context, req *api.RecordStart) (*api.Recording, error) {
	if err := c.catalog.CheckName(ctx, req.Name); err != nil {
		return nil, err
	}
	if err := c.acquirer.CheckSpace(ctx); err != nil {
		return nil, err
	}
	var warnings []string
	var snaps []*meta.Snapshot
	for _, m := range req.Mirrors {
		if !strings.Contains(m, "@") {
			m += "@" + catalog.Latest
		}
		ref, later, err := c.catalog.ResolvePast(ctx, m)
		if err != nil {
			return nil, err
		}
		snap := ref.Snapshot
		if slices.ContainsFunc(snaps, func(o *meta.Snapshot) bool { return o.Mirror == snap.Mirror }) {
			return nil, fmt.Errorf("%w: mirror %s is named twice", errclass.Usage, snap.Mirror)
		}
		if later != "" {
			warnings = append(warnings, later)
		}
		snaps = append(snaps, snap)
	}
	if len(req.Mirrors) == 0 {
		var err error
		if snaps, err = c.catalog.LatestOfAll(ctx); err != nil {
			return nil, fmt.Errorf("recording %s: %w", req.Name, err)
		}
	}
	for _, snap := range snaps {
		bases, err := c.catalog.AlternateBases(ctx, snap)
		if err != nil {
			return nil, err
		}
		if len(bases) > 0 {
			return nil, fmt.Errorf("recording %s: %w: %s lists packages at %s, where clients would fetch them unrecorded; choose other mirrors, or freeze this one",
				req.Name, ErrOtherServer, snap.ID(), remote.Redact(bases[0]))
		}
	}
	rec := &meta.Recording{Name: req.Name, Started: c.now().UTC().Truncate(time.Second), Resigned: req.Resigned}
	for _, snap := range snaps {
		rec.Pins = append(rec.Pins, meta.RecordingPin{Mirror: snap.Mirror, Timestamp: snap.Timestamp})
	}
	if err := c.st.StartRecording(ctx, rec); err != nil {
		return nil, c.takenBy(ctx, rec.Name, err)
	}
	out, err := c.recordingView(ctx, rec, false)
	if err != nil {
		return nil, err
	}
	for _, snap := range snaps {
		w, err := c.expired(ctx, snap, req.Resigned)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, w...)
	}
	out.Warnings = warnings
	return out, nil
}

// takenBy adds a hint to the error of StartRecording if another recording has the name:
// how to show and remove that recording.
func (c *Control) takenBy(ctx context.Context, name string, err error) error {
	if !errors.Is(err, meta.ErrTaken) {
		return err
	}
	if _, rerr := c.st.Recording(ctx, name); rerr != nil {
		return err
	}
	e, _ := Error(err)
	e.Hint = fmt.Sprintf("choose another name; see that recording with: snapctl record show %s, and remove it with: snapctl record rm %s", name, name)
	return e
}

// expired returns a warning for each Release file of a snapshot that has expired.
func (c *Control) expired(ctx context.Context, snap *meta.Snapshot, resigned bool) ([]string, error) {
	gens, err := c.st.Generations(ctx, snap)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, g := range gens {
		if g.ValidUntil.IsZero() || g.ValidUntil.After(c.now()) {
			continue
		}
		w := fmt.Sprintf("the Release of %s in %s expired on %s", g.Suite, snap.ID(), g.ValidUntil.UTC().Format(time.RFC3339))
		if resigned {
			w += ": it is served signed by this server"
		} else {
			w += ": clients refuse it; --resigned serves it signed by this server"
		}
		out = append(out, w)
	}
	return out, nil
}

// recordingOutline describes a recording without the fetched files.
func (c *Control) recordingOutline(rec *meta.Recording) *api.Recording {
	out := &api.Recording{Name: rec.Name, Started: rec.Started, Stopped: optional(rec.Stopped), Resigned: rec.Resigned, Mirrors: []api.RecordMirror{}}
	for _, p := range rec.Pins {
		out.Mirrors = append(out.Mirrors, api.RecordMirror{
			Mirror: string(p.Mirror), Snapshot: string(p.Mirror) + "@" + meta.FormatTimestamp(p.Timestamp), URL: c.url("record", rec.Name, string(p.Mirror)),
		})
	}
	if u, err := url.Parse(c.cfg.Conf.Server.PublicURL); err == nil {
		u.User, u.Path = url.User(rec.Name), ""
		out.Proxy = u.String()
	}
	return out
}

// recordingView describes a recording. With entries, it includes the recorded files.
func (c *Control) recordingView(ctx context.Context, rec *meta.Recording, entries bool) (*api.Recording, error) {
	out := c.recordingOutline(rec)
	noted, err := c.st.RecordingEntries(ctx, rec.Name)
	if err != nil {
		return nil, err
	}
	_, digest := meta.CanonicalRecording(noted)
	out.Digest = digest.String()
	out.Files = len(noted)
	for _, e := range noted {
		out.Bytes += e.Size
		if entries {
			out.Entries = append(out.Entries, api.RecordEntry{
				Mirror: string(e.Mirror), Path: e.Path, Size: e.Size, SHA256: e.SHA256.String(), First: e.First, Last: e.Last, Count: e.Count,
			})
		}
	}
	return out, nil
}

// StopRecording stops a recording. Its entries are kept, and no more files are recorded.
func (c *Control) StopRecording(ctx context.Context, req *api.RecordRef) (*api.Recording, error) {
	rec, err := c.st.StopRecording(ctx, req.Name, c.now().UTC().Truncate(time.Second))
	if err != nil {
		return nil, err
	}
	return c.recordingView(ctx, rec, false)
}

// Recording describes a recording and its entries. If the request contains a build
// manifest, the result lists the packages in it that were not recorded.
func (c *Control) Recording(ctx context.Context, req *api.RecordRef) (*api.Recording, error) {
	rec, err := c.st.Recording(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	out, err := c.recordingView(ctx, rec, true)
	if err != nil || req.Status == nil {
		return out, err
	}
	installed, err := buildlist.Parse(req.Status.Name, bytes.NewReader(req.Status.Data), "")
	if err != nil {
		return nil, err
	}
	out.Unfetched, err = c.unfetched(ctx, rec.Name, installed)
	return out, err
}

// fetchedKey is a package as a build manifest may name it. An empty version or
// architecture matches any. A version without its epoch has a leading dash.
type fetchedKey struct{ name, version, arch string }

// anyArch is the architecture in keys of packages for all architectures.
const anyArch = "*"

func noEpoch(version string) string {
	_, rest, ok := strings.Cut(version, ":")
	if !ok {
		rest = version
	}
	return "-" + rest
}

// fetchedBy returns all keys of the packages in a recording.
func (c *Control) fetchedBy(ctx context.Context, name string) (map[fetchedKey]bool, error) {
	out := map[fetchedKey]bool{}
	noted, err := c.st.RecordingEntries(ctx, name)
	if err != nil {
		return nil, err
	}
	for page := range slices.Chunk(noted, 500) {
		digests := make([]cas.Digest, len(page))
		for i := range page {
			digests[i] = page[i].SHA256
		}
		owners, err := c.st.OwnersOf(ctx, digests)
		if err != nil {
			return nil, err
		}
		for i, owned := range owners {
			for _, f := range owned {
				if f.Kind != repo.KindSource {
					c.addFetched(out, page[i].Mirror, f.Fact)
				}
			}
		}
	}
	return out, nil
}

func (c *Control) addFetched(to map[fetchedKey]bool, mirror meta.MirrorName, f *meta.Fact) {
	archs := []string{"", f.Arch}
	if m, err := c.catalog.Mirror(mirror); err == nil {
		if format, err := c.cfg.Formats.Of(m.Type); err == nil && f.Arch == format.AnyArch() {
			archs = append(archs, anyArch)
		}
	}
	for _, arch := range archs {
		for _, version := range []string{"", f.Version, noEpoch(f.Version)} {
			to[fetchedKey{f.Name, version, arch}] = true
		}
	}
}

// unfetched lists the binary packages in a build manifest that are not in a recording.
func (c *Control) unfetched(ctx context.Context, name string, installed *buildlist.Manifest) ([]string, error) {
	fetched, err := c.fetchedBy(ctx, name)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, e := range installed.Entries {
		if e.Source || e.Name == "" {
			continue
		}
		k := fetchedKey{e.Name, e.Version, e.Arch}
		if e.EpochUnknown {
			k.version = noEpoch(e.Version)
		}
		if !fetched[k] && (e.Arch == "" || !fetched[fetchedKey{k.name, k.version, anyArch}]) {
			out = append(out, e.String())
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Recordings lists the recordings.
func (c *Control) Recordings(ctx context.Context, _ *api.Empty) (*api.RecordList, error) {
	out := &api.RecordList{Recordings: []api.Recording{}}
	recs, err := c.st.Recordings(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range recs {
		v, err := c.recordingView(ctx, r, false)
		if errors.Is(err, meta.ErrNotFound) {
			continue // removed in the meantime
		} else if err != nil {
			return nil, err
		}
		out.Recordings = append(out.Recordings, *v)
	}
	return out, nil
}

// RemoveRecording removes a recording and its entries.
func (c *Control) RemoveRecording(ctx context.Context, req *api.RecordRef) (*api.RemoveResult, error) {
	defer c.catalog.Changed()
	if err := c.st.RemoveRecording(ctx, req.Name); err != nil {
		return nil, err
	}
	return &api.RemoveResult{Removed: req.Name}, nil
}

package control

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze/plan"
	"example.org/snapd/internal/meta"
)

var (
	// ErrToken means that a request has no valid token.
	ErrToken = errclass.New(errclass.Usage, "unauthorized")
	// ErrForbidden means that a token does not allow a request.
	ErrForbidden = errclass.New(errclass.Usage, "forbidden")
	// ErrManyTokens means that one address sent too many invalid tokens.
	ErrManyTokens = errclass.New(errclass.Transient, "too many invalid tokens")
	// ErrBody means that the body of a request is too large.
	ErrBody = errclass.New(errclass.Usage, "body too large")
)

// Caller is the user or token that makes a request.
type Caller struct {
	Who     string   // "user root (0)", "token ci"
	From    string   // "socket", or an address
	Local   bool     // on the control socket
	Role    string   // of api.Roles
	Mirrors []string // it may change; empty: all
	Names   []string // globs of names it may change; empty: all
}

// Has reports whether a role includes another.
func Has(role, needed string) bool {
	all := api.Roles()
	return slices.Index(all, role) >= slices.Index(all, needed) && slices.Contains(all, needed)
}

// Touch is what a request changes.
type Touch struct {
	What       string   // for the audit list
	Mirrors    []string // affected
	AllMirrors bool     // all mirrors are affected
	Names      []string // of freezes, recordings, channels and kits that it changes
	Unlimited  bool     // only callers without limits on mirrors and names may do it
	Local      string   // what only callers on the control socket may have read; "": nothing
	ReadOnly   bool     // nothing changes: there is no audit entry if it is allowed
}

// CheckRole returns ErrForbidden if the caller's role is not sufficient for a verb.
func (c *Caller) CheckRole(verb, needed string) error {
	if Has(c.Role, needed) {
		return nil
	}
	return fmt.Errorf("%w: %s has the role %s, and %s needs the role %s", ErrForbidden, c.Who, c.Role, verb, needed)
}

// Check returns ErrForbidden if the caller may not make the change that t describes.
func (c *Caller) Check(t *Touch) error {
	if t.Local != "" && !c.Local {
		return fmt.Errorf("%w: %s is read on the server: use the control socket on that machine", ErrForbidden, t.Local)
	}
	if t.Unlimited && len(c.Mirrors)+len(c.Names) > 0 {
		return fmt.Errorf("%w: %s is limited to some mirrors or names, but this needs a token without limits", ErrForbidden, c.Who)
	}
	if len(c.Mirrors) > 0 {
		for _, m := range t.Mirrors {
			if !slices.Contains(c.Mirrors, m) {
				return fmt.Errorf("%w: %s is limited to the mirrors %s, but this affects %s", ErrForbidden, c.Who, strings.Join(c.Mirrors, ", "), m)
			}
		}
		if t.AllMirrors {
			return fmt.Errorf("%w: %s is limited to the mirrors %s, but this affects all mirrors", ErrForbidden, c.Who, strings.Join(c.Mirrors, ", "))
		}
	}
	if len(c.Names) == 0 {
		return nil
	}
	for _, n := range t.Names {
		if !slices.ContainsFunc(c.Names, func(glob string) bool { ok, err := path.Match(glob, n); return ok && err == nil }) {
			return fmt.Errorf("%w: %s is limited to names like %s, but this changes %s", ErrForbidden, c.Who, strings.Join(c.Names, ", "), n)
		}
	}
	return nil
}

// mirrorOf returns the mirror of M or M@T.
func mirrorOf(ref string) string {
	m, _, _ := strings.Cut(ref, "@")
	return m
}

// touchMirrors returns a Touch of the mirrors of refs, or of all mirrors if refs is
// empty.
func touchMirrors(what string, refs []string, names ...string) *Touch {
	t := &Touch{What: what, Names: names, AllMirrors: len(refs) == 0}
	for _, r := range refs {
		if m := mirrorOf(r); !slices.Contains(t.Mirrors, m) {
			t.Mirrors = append(t.Mirrors, m)
		}
	}
	return t
}

// mirrorsOf returns the mirrors of the freezes, recordings and channels with these names.
// A name that does not exist has none.
func (c *Control) mirrorsOf(ctx context.Context, names ...string) (mirrors []string, err error) {
	for _, name := range names {
		rec, err := c.st.Recording(ctx, name)
		if err == nil {
			for _, p := range rec.Pins {
				mirrors = append(mirrors, string(p.Mirror))
			}
		} else if !errors.Is(err, meta.ErrNotFound) {
			return nil, err
		}
		ref, err := c.catalog.ResolveRef(ctx, name)
		if err == nil && ref.Frozen != nil {
			for _, m := range ref.Frozen.Mirrors {
				mirrors = append(mirrors, string(m.Mirror))
			}
		} else if err != nil && !errors.Is(err, meta.ErrNotFound) && !errors.Is(err, meta.ErrGone) && !errors.Is(err, catalog.ErrRef) {
			return nil, err
		}
	}
	return mirrors, nil
}

// touchNamed returns a Touch of a freeze, recording or channel, and therefore of its
// mirrors.
func (c *Control) touchNamed(ctx context.Context, what, name string) (*Touch, error) {
	mirrors, err := c.mirrorsOf(ctx, name)
	return &Touch{What: what, Mirrors: mirrors, Names: []string{name}}, err
}

// TouchSync returns what a sync changes. A dry run changes nothing, but it makes this
// server send requests, so the caller's limits apply. A dry run from a URL that the
// caller chose is also audited.
func (c *Control) TouchSync(_ context.Context, req *api.SyncRequest) (*Touch, error) {
	what := "all mirrors"
	if len(req.Mirrors) > 0 {
		what = strings.Join(req.Mirrors, " ")
	}
	t := touchMirrors(what, req.Mirrors)
	if from := remote.NewURL(req.FromURL); req.FromURL != "" && from.Scheme() != "http" && from.Scheme() != "https" {
		t.Local = from.String()
	}
	t.ReadOnly = req.DryRun && req.FromURL == ""
	return t, nil
}

// TouchRef returns what a removal changes.
func (c *Control) TouchRef(ctx context.Context, req *api.RefRequest) (*Touch, error) {
	if strings.Contains(req.Ref, "@") {
		return touchMirrors(req.Ref, []string{req.Ref}), nil
	}
	return c.touchNamed(ctx, req.Ref, req.Ref)
}

// TouchPin returns what a pin or an unpin changes.
func (c *Control) TouchPin(ctx context.Context, req *api.PinRequest) (*Touch, error) {
	return c.TouchRef(ctx, &api.RefRequest{Ref: req.Ref})
}

// TouchFreeze returns what a freeze changes: nothing in a dry run. Its mirrors are those
// that the request names, or else those of its recording or base, or else all.
func (c *Control) TouchFreeze(ctx context.Context, req *api.FreezeRequest) (*Touch, error) {
	if req.DryRun {
		return nil, nil
	}
	refs := slices.Clone(req.Mirrors)
	var named []string
	for _, r := range req.Replace {
		if _, ref, ok := strings.Cut(r, "@"); ok && strings.Contains(ref, "@") {
			refs = append(refs, ref)
		} else if ok {
			named = append(named, ref)
		}
	}
	if plan.OfItsRecording(req) && len(req.Mirrors) == 0 {
		switch _, err := c.st.Recording(ctx, req.Name); {
		case err == nil:
			req.Recording = req.Name // even if the recording is removed before the freeze starts
		case !errors.Is(err, meta.ErrNotFound):
			return nil, err
		}
	}
	for _, name := range []string{req.Recording, req.Base} {
		if name != "" {
			named = append(named, name)
		}
	}
	more, err := c.mirrorsOf(ctx, named...)
	if err != nil {
		return nil, err
	}
	refs = append(refs, more...)
	return touchMirrors(req.Name, refs, req.Name), nil
}

// TouchRecordStart returns what the start of a recording changes.
func (c *Control) TouchRecordStart(_ context.Context, req *api.RecordStart) (*Touch, error) {
	return touchMirrors(req.Name, req.Mirrors, req.Name), nil
}

// TouchRecord returns what the stop or removal of a recording changes.
func (c *Control) TouchRecord(ctx context.Context, req *api.RecordRef) (*Touch, error) {
	return c.touchNamed(ctx, req.Name, req.Name)
}

// TouchAdd returns what the addition of packages to a local mirror changes.
func (c *Control) TouchAdd(_ context.Context, req *api.AddRequest) (*Touch, error) {
	return &Touch{What: strings.Join(append([]string{req.Mirror}, req.Files...), " "), Mirrors: []string{req.Mirror}}, nil
}

// TouchOwnRemove returns what the removal of packages from a local mirror changes.
func (c *Control) TouchOwnRemove(_ context.Context, req *api.OwnRemove) (*Touch, error) {
	return &Touch{What: strings.Join(append([]string{req.Mirror}, req.Packages...), " "), Mirrors: []string{req.Mirror}}, nil
}

// TouchImage returns what the addition of an image changes.
func (c *Control) TouchImage(ctx context.Context, req *api.ImageAdd) (*Touch, error) {
	return c.touchNamed(ctx, req.Name, req.Name)
}

// TouchAttest returns what the addition of an attestation changes.
func (c *Control) TouchAttest(ctx context.Context, req *api.AttestAdd) (*Touch, error) {
	return c.touchNamed(ctx, req.Name, req.Name)
}

// TouchComparison returns what the addition of a comparison changes.
func (c *Control) TouchComparison(ctx context.Context, req *api.AttestComparison) (*Touch, error) {
	return c.touchNamed(ctx, req.Name, req.Name)
}

// TouchAttestRemove returns what the removal of an attestation changes.
func (c *Control) TouchAttestRemove(ctx context.Context, req *api.AttestRemove) (*Touch, error) {
	return c.touchNamed(ctx, req.Name+" sha256:"+req.SHA256, req.Name)
}

// TouchRebuilds returns what the addition of rebuilders' results changes.
func (c *Control) TouchRebuilds(ctx context.Context, req *api.AttestRebuilds) (*Touch, error) {
	return c.touchNamed(ctx, req.Name, req.Name)
}

// TouchLabel returns what a change of labels changes.
func (c *Control) TouchLabel(ctx context.Context, req *api.LabelRequest) (*Touch, error) {
	return c.touchNamed(ctx, req.Name, req.Name)
}

// TouchKits returns what the publication of kits changes. The names of kits are their
// paths below /iuk/.
func (c *Control) TouchKits(_ context.Context, req *api.KitPublish) (*Touch, error) {
	t := &Touch{AllMirrors: true} // files do not say from which mirrors they were made
	for _, f := range req.Files {
		if p, ok := kitPath(f.Path); ok {
			t.Names = append(t.Names, p)
		}
	}
	t.What = strings.Join(t.Names, " ")
	return t, nil
}

// TouchImport returns what an import changes. The name of the freeze is known only after
// its manifest has been read.
func (c *Control) TouchImport(_ context.Context, req *api.ImportRequest) (*Touch, error) {
	return &Touch{What: req.Dir, Unlimited: true}, nil
}

// TouchImportTar returns what an import changes. The name of the freeze is known only
// after its manifest has been read.
func (c *Control) TouchImportTar(context.Context, *api.ImportTar) (*Touch, error) {
	return &Touch{What: "an export", Unlimited: true}, nil
}

// TouchExport returns what an export changes: a directory of the server.
func (c *Control) TouchExport(_ context.Context, req *api.ExportRequest) (*Touch, error) {
	return &Touch{What: req.Ref + " to " + req.Dir}, nil
}

// TouchBackup returns what a backup changes. A backup contains the signing key.
func (c *Control) TouchBackup(_ context.Context, req *api.BackupRequest) (*Touch, error) {
	return &Touch{What: req.Dir, AllMirrors: true}, nil
}

// TouchGC returns what a garbage collection changes: nothing if it only explains.
func (c *Control) TouchGC(_ context.Context, req *api.GCRequest) (*Touch, error) {
	if req.DryRun || req.Explain != "" {
		return nil, nil
	}
	return &Touch{What: "expired snapshots and unreferenced blobs", AllMirrors: true}, nil
}

// TouchFsck returns what fsck changes: it records damage, and with repair it downloads
// blobs.
func (c *Control) TouchFsck(_ context.Context, req *api.FsckRequest) (*Touch, error) {
	if !req.Repair {
		return nil, nil
	}
	return &Touch{What: "damaged and lost blobs", AllMirrors: true}, nil
}

// TouchReload returns what a reload of the configuration changes.
func (c *Control) TouchReload(context.Context, *api.Empty) (*Touch, error) {
	return &Touch{What: "the configuration", AllMirrors: true}, nil
}

// TouchToken returns what the creation of a token changes.
func (c *Control) TouchToken(_ context.Context, req *api.TokenCreate) (*Touch, error) {
	return &Touch{What: fmt.Sprintf("%s, role %s", req.Name, req.Role), Unlimited: true}, nil
}

// TouchTokenRef returns what the revocation of a token changes.
func (c *Control) TouchTokenRef(_ context.Context, req *api.TokenRef) (*Touch, error) {
	return &Touch{What: req.Name, Unlimited: true}, nil
}

package iuk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/squashfs"
)

// ErrNotNew means that the old image and the kit do not result in the new image.
var ErrNotNew = errors.New("old image and kit do not make the new image")

// VerifyOptions are the inputs of Verify.
type VerifyOptions struct {
	Kit      Input
	Old, New Input
	// Workers bounds the number of goroutines. Default: GOMAXPROCS.
	Workers int
	// Progress is called with the steps done.
	Progress func(done, total int64)
}

// VerifyReport describes what Verify proved.
type VerifyReport struct {
	Provenance *Provenance `json:"provenance,omitempty"` // nil if the kit has none
	Names      int64       `json:"names"`                // names in the new image
	FromKit    int64       `json:"from_kit"`             // names in the new image that come from the kit
	Whiteouts  int64       `json:"whiteouts"`            // names of the old image that the kit hides
	Ignored    int64       `json:"ignored"`              // files with the right content whose attributes may differ
	Hidden     int64       `json:"hidden"`               // character devices 0:0 of the new image, which no overlay can show
	BootFiles  int         `json:"boot_files"`           // other members of the overlay
}

// Verify proves, without mounts, that an overlay of the old image and the kit's
// difference shows the new image: every path, type, mode, owner, size, time, content,
// link target, device number, xattr and hard-link group. With ISO images it also
// proves that the kit's other members are those that Create would make. The error
// wraps ErrWrongBase if the kit was made for another old image, ErrBase if overlayfs
// cannot show the old image, ErrNotNew if the result is not the new image, and ErrKit
// if the kit is bad.
func Verify(ctx context.Context, o VerifyOptions) (*VerifyReport, error) {
	limits := squashfs.Limits{CacheBytes: 1, MetaCacheBytes: 512 << 10}
	from, err := o.Old.open(limits)
	if err != nil {
		return nil, err
	}
	if err := checkBase(ctx, from); err != nil {
		return nil, err
	}
	to, err := o.New.open(limits)
	if err != nil {
		return nil, err
	}
	k, err := openKitFile(ctx, o.Kit)
	if err != nil {
		return nil, err
	}
	rep := &VerifyReport{Provenance: k.prov}
	if k.prov != nil {
		if err := k.checkImages(ctx, from, to); err != nil {
			return rep, fmt.Errorf("verify %s: %w", o.Kit.Name, err)
		}
	}
	diff, err := k.diff()
	if err != nil {
		return rep, fmt.Errorf("verify %s: %w", o.Kit.Name, err)
	}
	if err := checkUpper(ctx, diff); err != nil {
		return rep, fmt.Errorf("verify %s: %w", o.Kit.Name, err)
	}
	if err := verifyOverlay(ctx, from.r, diff, to.r, k.prov, o, rep); err != nil {
		return rep, fmt.Errorf("verify %s: %w", o.Kit.Name, err)
	}
	if err := k.verifyBoot(ctx, from, to, rep); err != nil {
		return rep, fmt.Errorf("verify %s: %w", o.Kit.Name, err)
	}
	return rep, nil
}

// checkImages compares the images with the digests in the kit's provenance.
func (k *kitReader) checkImages(ctx context.Context, from, to *openInput) error {
	var d [2]cas.Digest
	g, ctx := errgroup.WithContext(ctx)
	for i, in := range []*openInput{from, to} {
		g.Go(func() error {
			var err error
			d[i], err = in.digest(ctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if d[0] != k.prov.Base.SHA256 {
		return fmt.Errorf("old image %s: expected SHA-256 %v (version %s), found %v: %w", from.in.Name, k.prov.Base.SHA256, k.prov.Base.Version, d[0], ErrWrongBase)
	}
	if d[1] != k.prov.New.SHA256 {
		return fmt.Errorf("new image %s: expected SHA-256 %v (version %s), found %v: %w", to.in.Name, k.prov.New.SHA256, k.prov.New.Version, d[1], ErrNotNew)
	}
	return nil
}

// verifyBoot compares the kit's other members with those that Create would make.
func (k *kitReader) verifyBoot(ctx context.Context, from, to *openInput, rep *VerifyReport) error {
	if k.prov != nil && (!k.prov.New.ISO || !k.prov.Base.ISO) || to.iso == nil || from.iso == nil {
		return nil
	}
	members, remove, err := bootMembers(ctx, from, to)
	if err != nil {
		return err
	}
	if k.prov != nil && !slices.Equal(k.delete, remove) {
		return fmt.Errorf("control.yml: delete_files: expected %q, found %q: %w", remove, k.delete, ErrNotNew)
	}
	want := map[string]kitMember{}
	for _, m := range members {
		if m.content != nil {
			want[fold(strings.TrimPrefix(m.name, "overlay/"))] = m
		}
	}
	for _, f := range k.files {
		if "live/"+k.diffs[0] == f.path {
			continue
		}
		m, ok := want[fold(f.path)]
		if !ok {
			return fmt.Errorf("overlay/%s: the new image does not need it: %w", f.path, ErrNotNew)
		}
		delete(want, fold(f.path))
		a, err := k.fs.Open("overlay/" + f.path)
		if err != nil {
			return err
		}
		b, err := m.content()
		if err != nil {
			return err
		}
		same, err := sameContent(ctx, a, b)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("overlay/%s: content differs from the new image's: %w", f.path, ErrNotNew)
		}
		rep.BootFiles++
	}
	for _, m := range members {
		if _, ok := want[fold(strings.TrimPrefix(m.name, "overlay/"))]; ok && m.content != nil {
			return fmt.Errorf("%s: the kit does not have it: %w", m.name, ErrNotNew)
		}
	}
	return nil
}

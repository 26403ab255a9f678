package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/sign"
)

// Status describes the server, its keys, its mirrors, and their problems.
func (c *Control) Status(ctx context.Context, _ *api.Empty) (*api.Status, error) {
	// Damaged metadata is only a warning here, so that the rest is shown.
	damaged := func(err error) error {
		if errors.Is(err, meta.ErrCorrupt) || c.st.Damage() != nil {
			return nil
		}
		return err
	}
	u, err := c.countUsage(ctx)
	if damaged(err) != nil {
		return nil, err
	}
	conf := c.cfg.Conf
	out := &api.Status{
		Version: c.cfg.Version, Listen: conf.Server.Listen, PublicURL: conf.Server.PublicURL, DataDir: conf.DataDir, ConfigFile: c.cfg.ConfigFile,
		Key: *c.Key(), Reserve: c.acquirer.Reserve(),
		Blobs: u.Blobs, BlobBytes: u.BlobBytes, IndexBytes: u.IndexBytes, ImageBytes: u.ImageBytes, KitBytes: u.KitBytes, MetaBytes: u.Meta.Used, MetaData: u.Meta.Data,
		Damaged: []string{}, Quarantined: u.Quarantined, Warnings: append(append([]string{}, c.cfg.Warnings...), c.cfg.Conditions()...), Mirrors: []api.MirrorStatus{},
	}
	out.Key.Armored = ""
	if out.Free, err = c.blobs().Free(ctx); err != nil {
		return nil, err
	}
	if out.Free < out.Reserve {
		out.Warnings = append(out.Warnings, fmt.Sprintf("free space is below the reserve: %d bytes free, %d reserved; syncs and recordings are stopped", out.Free, out.Reserve))
	}
	if w := c.expires(c.cfg.Signer.Expiry()); w != "" {
		out.Warnings = append(out.Warnings, "the signing key "+w+" (snapctl key renew)")
	}
	if made := c.cfg.Signer.CreatedAt(); made.After(c.now()) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("the signing key was made at %s, later than the system clock: clients refuse what it signs until then", made.UTC().Format(time.RFC3339)))
	}
	corrupt, cerr := c.st.CorruptBlobs(ctx)
	users, err := c.st.Users(ctx)
	if err := errors.Join(cerr, err); damaged(err) != nil {
		return nil, err
	}
	if users == nil {
		users = &meta.Users{}
	}
	out.Frozen, out.Recordings = len(users.Freezes), len(users.Recordings)
	for _, b := range corrupt {
		out.Damaged = append(out.Damaged, b.Digest.String())
	}
	if len(out.Damaged) > 0 {
		out.Warnings = append(out.Warnings, countOf(len(out.Damaged), "blob is", "blobs are")+" damaged or lost: run 'snapctl fsck --repair', with --from if there is a backup or another snapd")
	}
	if log, err := c.LogStatus(ctx, &api.LogRequest{}); err == nil {
		out.Log = log
		for _, w := range logWarnings(log) {
			if !slices.Contains(out.Warnings, w) {
				out.Warnings = append(out.Warnings, w)
			}
		}
	}
	out.Warnings = append(out.Warnings, c.expiringKeys(ctx, users.Freezes)...)
	if err := c.sharedStatus(ctx, out); damaged(err) != nil {
		return nil, err
	}
	mirrors, err := c.Mirrors(ctx, nil)
	if damaged(err) != nil {
		return nil, err
	}
	out.Mirrors = mirrors.Mirrors // those that could be read
	for i, m := range out.Mirrors {
		u.project(&out.Mirrors[i])
		if out.Snapshots += m.Snapshots; m.Error != "" || m.Stale {
			out.Exit = api.ExitPartial
		}
	}
	out.Warnings = append(out.Warnings, c.damageWarnings()...)
	return out, nil
}

// damageWarnings describe damaged metadata, and what to do.
func (c *Control) damageWarnings() (out []string) {
	d := c.st.Damage()
	if d == nil {
		return nil
	}
	if c.cfg.Salvaged != "" {
		out = append(out, c.cfg.Salvaged)
	}
	return append(out, fmt.Sprintf("the metadata is damaged and read-only, and nothing is collected: run 'snapctl fsck --repair'; if faults remain, restore a backup with 'snapd restore' (docs/OPERATE.md, \"When meta.db is lost or damaged\"): %v", d))
}

// expires describes when a key expires, or returns "" if it never does.
func (c *Control) expires(e time.Time) string {
	switch {
	case e.IsZero():
		return ""
	case e.After(c.now()):
		return fmt.Sprintf("expires on %s: apt refuses what it signed from then on", e.UTC().Format(time.DateOnly))
	}
	return fmt.Sprintf("expired on %s: apt refuses what it signed", e.UTC().Format(time.DateOnly))
}

// expiringKeys warns about earlier signing keys and keys of imported freezes that expire,
// because freezes that they signed are still served with them.
func (c *Control) expiringKeys(ctx context.Context, frozen []*meta.Frozen) []string {
	signed := map[cas.Digest][]string{}
	var keys []cas.Digest
	for _, f := range frozen {
		if f.Key == c.cfg.Signer.Fingerprint() {
			continue // it is served with its current expiry
		}
		if signed[f.KeyBlob] == nil {
			keys = append(keys, f.KeyBlob)
		}
		signed[f.KeyBlob] = append(signed[f.KeyBlob], string(f.Name))
	}
	var out []string
	for _, d := range keys {
		data, err := cas.ReadAll(ctx, c.blobs(), d, 1<<20)
		if err != nil {
			continue // fsck reports it
		}
		ring, err := sign.ParseKeyring(data)
		if err != nil {
			continue
		}
		for _, k := range ring.Keys() {
			w := c.expires(k.Expires)
			if w == "" {
				continue
			}
			of := signed[d][0]
			if n := len(signed[d]) - 1; n > 0 {
				of += " and " + countOf(n, "more freeze", "more freezes")
			}
			out = append(out, fmt.Sprintf("key %s, which signed %s, %s", k.Fingerprint, of, w))
		}
	}
	return out
}

// Key describes the signing key.
func (c *Control) Key() *api.KeyInfo {
	k := c.cfg.Signer.Public()
	out := &api.KeyInfo{
		Fingerprint: string(k.Fingerprint), UserID: k.UserID, Created: k.Created, Expires: optional(k.Expires), Algorithm: k.Algorithm,
		Armored: c.cfg.Signer.PublicKeyArmored(),
	}
	if len(c.cfg.Conf.Signing.Command) == 0 {
		out.File = c.cfg.Conf.Signing.KeyFile
	}
	return out
}

// countOf returns a number with its noun.
func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

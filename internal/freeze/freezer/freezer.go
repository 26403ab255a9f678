// Package freezer combines the packages that make, verify, export, import and describe
// freezes.
package freezer

import (
	"log/slog"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze/build"
	"example.org/snapd/internal/freeze/bundle"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/freeze/plan"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Config contains the parts of a Freezer.
type Config struct {
	Formats  []repo.Format
	Catalog  *catalog.Catalog
	Acquirer *acquire.Acquirer
	Meta     meta.Store
	Blobs    cas.Store
	Signer   *sign.Signer
	TLog     proof.TransparencyLog // nil: none
	// PublicURL is the base of the URLs in client configurations.
	PublicURL string
	// LocalURL is the URL of the server on this machine, for the dependency
	// resolvers.
	LocalURL string
	Version  string // version of this program
	// Node is the name of this process in leases.
	Node string
	Log  *slog.Logger     // nil: none
	Now  func() time.Time // nil: time.Now
}

// Freezer makes, verifies, exports, imports and describes freezes. It is safe for
// concurrent use.
type Freezer struct {
	*build.Builder
	*bundle.Bundler
	*client.Client
	*proof.Verifier
	History *history.History
}

// New returns a Freezer.
func New(cfg Config) *Freezer {
	cat, acquirer, st, blobs := cfg.Catalog, cfg.Acquirer, cfg.Meta, cfg.Blobs
	proofs := repo.ByType[proof.Format](cfg.Formats...)
	past := history.New(cat, repo.ByType[history.Format](cfg.Formats...), st)
	clients := client.New(client.Config{
		Formats: repo.ByType[client.Format](cfg.Formats...), Catalog: cat, Keeper: acquirer, Meta: st, Blobs: blobs, Signer: cfg.Signer, History: past, PublicURL: cfg.PublicURL, Version: cfg.Version, Now: cfg.Now,
	})
	plans := plan.New(plan.Config{Formats: repo.ByType[plan.Format](cfg.Formats...), Catalog: cat, Keyrings: acquirer, Meta: st, Blobs: blobs, Corrupt: acquirer.Corrupt, LocalURL: cfg.LocalURL})
	builder := build.New(build.Config{
		Formats: repo.ByType[build.Format](cfg.Formats...), Catalog: cat, Fetcher: acquirer, Keeper: acquirer, Meta: st, Blobs: blobs, Plans: plans, Clients: clients,
		Signer: cfg.Signer, Version: cfg.Version, Log: cfg.Log, Now: cfg.Now, Node: cfg.Node,
	})
	return &Freezer{
		Builder:  builder,
		Bundler:  bundle.New(bundle.Config{Formats: proofs, Catalog: cat, Keeper: acquirer, Meta: st, Blobs: blobs, Publisher: builder.Publisher, TLog: cfg.TLog, Log: cfg.Log, Now: cfg.Now}),
		Client:   clients,
		History:  past,
		Verifier: proof.New(proof.Config{Formats: proofs, Catalog: cat, Keeper: acquirer, Meta: st, Blobs: blobs, Signer: cfg.Signer, Log: cfg.TLog}),
	}
}

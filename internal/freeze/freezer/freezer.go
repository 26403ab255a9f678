// Package freezer puts together what works with freezes: the packages that make,
// prove, move and describe them, over one engine.
package freezer

import (
	"log/slog"
	"time"

	"example.org/snapd/internal/freeze/build"
	"example.org/snapd/internal/freeze/bundle"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/freeze/plan"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/sign"
)

// Config are the parts of a Freezer.
type Config struct {
	Engine *mirror.Engine
	Signer *sign.Signer
	// PublicURL is the base of the URLs that clients are told.
	PublicURL string
	// LocalURL is where the server can be reached on this machine, for the resolvers
	// that run here.
	LocalURL string
	Version  string           // of this program
	Log      *slog.Logger     // nil: none
	Now      func() time.Time // nil: time.Now
}

// Freezer makes, proves, moves and describes freezes. It is safe for concurrent use.
type Freezer struct {
	*build.Builder
	*bundle.Bundler
	*client.Client
	*proof.Verifier
}

// New makes a Freezer.
func New(cfg Config) *Freezer {
	e := cfg.Engine
	st, blobs := e.Store(), e.Blobs()
	clients := client.New(client.Config{
		Catalog: e, Keeper: e, Meta: st, Blobs: blobs, Signer: cfg.Signer, PublicURL: cfg.PublicURL, Version: cfg.Version, Now: cfg.Now,
	})
	plans := plan.New(plan.Config{Catalog: e, Keyrings: e, Meta: st, Blobs: blobs, Corrupt: e.Corrupt, LocalURL: cfg.LocalURL})
	builder := build.New(build.Config{
		Catalog: e, Fetcher: e, Keeper: e, Meta: st, Blobs: blobs, Plans: plans, Clients: clients,
		Signer: cfg.Signer, Version: cfg.Version, Log: cfg.Log, Now: cfg.Now,
	})
	return &Freezer{
		Builder:  builder,
		Bundler:  bundle.New(bundle.Config{Catalog: e, Keeper: e, Meta: st, Blobs: blobs, Publisher: builder.Publisher, Log: cfg.Log, Now: cfg.Now}),
		Client:   clients,
		Verifier: proof.New(proof.Config{Catalog: e, Keeper: e, Meta: st, Blobs: blobs, Signer: cfg.Signer}),
	}
}

package deb

import (
	"context"
	"io"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// BaseURLs returns the configured URLs: Debian repositories do not list mirrors.
func (Format) BaseURLs(_ context.Context, _ repo.Getter, m config.Mirror) ([]remote.URL, error) {
	return m.BaseURLs(), nil
}

// CheckPackage returns nil: Debian relies on the digest in the signed index, and
// does not sign packages.
func (Format) CheckPackage(config.Mirror, *repo.Record, *sign.Keyring) (io.WriteCloser, error) {
	return nil, nil
}

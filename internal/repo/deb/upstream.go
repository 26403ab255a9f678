package deb

import (
	"context"
	"io"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// BaseURLs returns the configured URLs: Debian repositories name no others.
func (Format) BaseURLs(_ context.Context, _ repo.Getter, m config.Mirror) ([]remote.URL, error) {
	return m.BaseURLs(), nil
}

// CheckPackage has nothing to check: packages have no signature that Debian
// relies on, only their digest in the signed index.
func (Format) CheckPackage(config.Mirror, *repo.Record, *sign.Keyring) (io.WriteCloser, error) {
	return nil, nil
}

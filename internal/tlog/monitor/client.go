package monitor

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/torchwood"
	modtlog "golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/tlog"
)

// Limits on what is fetched, in bytes.
const (
	maxEntriesTile = torchwood.TileWidth * (2 + 0xffff)
	maxDocument    = 64 << 20
)

// client fetches from a log. Its callers check what it fetches.
type client struct {
	base string // without a slash at the end
	http *http.Client
}

// refuseRedirect returns a redirection to the caller.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// get fetches a path below the log's URL. A path that begins with ../ is relative to the
// parent of that URL. If the server has no such file, the error is fs.ErrNotExist.
func (c *client) get(ctx context.Context, path string, max int64) ([]byte, error) {
	base := c.base
	if rest, ok := strings.CutPrefix(path, "../"); ok {
		base, path = base[:strings.LastIndexByte(base, '/')], rest
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("URL %q: expected the http or https URL of a log, like https://mirror.example.org/log", c.base)
	}
	u = u.JoinPath(path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone, http.StatusFound:
		return nil, fmt.Errorf("%s: %s: %w", u, res.Status, fs.ErrNotExist)
	default:
		return nil, fmt.Errorf("%s: %s", u, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("%s: larger than %d bytes", u, max)
	}
	return data, err
}

// hashes reads hashes of a tree, and checks each against the root of the tree.
func (c *client) hashes(ctx context.Context, tree *tlog.Checkpoint) modtlog.HashReader {
	return modtlog.TileHashReader(modtlog.Tree{N: tree.Size, Hash: tree.Root}, &tiles{ctx: ctx, c: c, have: map[modtlog.Tile][]byte{}})
}

// entries fetches the n-th tile of entries of a log.
func (c *client) entries(ctx context.Context, size, n int64) (out [][]byte, err error) {
	width := min(size-n*torchwood.TileWidth, torchwood.TileWidth)
	path := torchwood.TilePath(modtlog.Tile{H: torchwood.TileHeight, L: -1, N: n, W: int(width)})
	data, err := c.get(ctx, path, maxEntriesTile)
	if err != nil {
		return nil, err
	}
	for range width {
		entry, rest, err := torchwood.ReadTileEntry(data)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", tlog.ErrProof, path, err)
		}
		out, data = append(out, entry), rest
	}
	return out, nil
}

// tiles implements modtlog.TileReader, and caches the last few tiles.
type tiles struct {
	ctx  context.Context
	c    *client
	dir  string // with a copy, which is asked first; "": none
	have map[modtlog.Tile][]byte
}

// maxTiles limits the cached tiles.
const maxTiles = 1024

func (t *tiles) Height() int { return torchwood.TileHeight }

func (t *tiles) ReadTiles(list []modtlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(list))
	for i, tile := range list {
		if data, ok := t.have[tile]; ok {
			out[i] = data
			continue
		}
		path := torchwood.TilePath(tile)
		if t.dir != "" {
			data, err := os.ReadFile(filepath.Join(t.dir, filepath.FromSlash(path)))
			if err == nil && len(data) == tile.W*modtlog.HashSize {
				out[i] = data
				continue
			}
		}
		data, err := t.c.get(t.ctx, path, torchwood.TileWidth*modtlog.HashSize)
		if err != nil {
			return nil, err
		}
		out[i] = data
	}
	return out, nil
}

func (t *tiles) SaveTiles(list []modtlog.Tile, data [][]byte) {
	if len(t.have) > maxTiles {
		clear(t.have)
	}
	for i, tile := range list {
		t.have[tile] = data[i]
	}
}

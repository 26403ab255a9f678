package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/cache"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/follow"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
)

// maxSkew is how far the clock of a node that syncs and signs may differ from the
// database's.
const maxSkew = time.Minute

// errNoLeader means that a node that only serves was started before any node that signs.
var errNoLeader = errclass.New(errclass.Conflict, "the installation has no keys yet")

// follows returns the metadata through a follow.Store if nodes share it, otherwise nil.
// It returns mirror.ErrClock if this node's clock differs too much from the database's.
func follows(ctx context.Context, cfg *config.Config, st meta.Store, o Options) (*follow.Store, error) {
	src, ok := st.(follow.Source)
	if !ok {
		return nil, nil
	}
	s := follow.New(src, follow.Options{Log: o.Log, Now: o.Now})
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	if skew := s.State().Skew; skew.Abs() > maxSkew && !cfg.Store.Serves() {
		side := "ahead of"
		if skew < 0 {
			side = "behind"
		}
		return nil, fmt.Errorf("%w: it is %v %s the clock of the database in store.metadata, expected at most %v: set the clocks of this machine and of the database",
			mirror.ErrClock, skew.Abs().Round(time.Second), side, maxSkew)
	}
	return s, nil
}

// followed is called after changes by other nodes. lost means that the database lost
// commits.
func (d *daemon) followed(lost bool) {
	if lost {
		d.catalog.Forget()
	}
	d.catalog.Changed()
}

// name identifies this node to others. It stays the same across restarts.
func (d *daemon) name() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	if _, port, err := net.SplitHostPort(d.cfg.Server.Listen); err == nil {
		return net.JoinHostPort(host, port)
	}
	return host
}

// who identifies this process in leases.
func (d *daemon) who() string {
	if d.shared != nil {
		return d.name()
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s, process %d", host, os.Getpid())
}

// self describes the state of this node to others.
func (d *daemon) self() meta.NodeState {
	n := meta.NodeState{
		Name: d.name(), Role: d.cfg.Store.Role, Version: d.o.Version, Key: string(d.signer.Fingerprint()), Started: d.started.UTC(),
		Skew: d.shared.State().Skew.Seconds(), Lag: d.shared.Lag().Seconds(), CacheSize: int64(d.cfg.Store.Cache),
	}
	if c, ok := cas.Find[*cache.Store](d.blobs); ok {
		n.Cache = c.Stats().Bytes
	}
	return n
}

// published is the data of signing nodes that a node that only serves needs. It contains
// no secret.
type published struct {
	Certificate     string `json:"certificate"`
	LogKey          string `json:"log_key"`
	LogKeySignature []byte `json:"log_key_signature"`
}

// publishedNote is the name of the note with this data.
const publishedNote = "published"

// publishKeys stores the public keys for nodes that only serve.
func (d *daemon) publishKeys(ctx context.Context) error {
	if d.shared == nil || d.tlog.Key() == nil {
		return nil
	}
	p := published{Certificate: d.signer.PublicKeyArmored(), LogKey: d.tlog.Key().Text}
	var err error
	if p.LogKeySignature, err = d.signer.SignDetached([]byte(p.LogKey+"\n"), d.signer.CreatedAt()); err != nil {
		d.log.Error("the key of the transparency log is not signed", "err", err)
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	have, err := d.store.Note(ctx, publishedNote)
	if err == nil && have != string(text) {
		err = d.store.SetNote(ctx, publishedNote, string(text))
	}
	return err
}

// checkShared returns ErrLost if this node has no signing key but other nodes have one.
func (d *daemon) checkShared(ctx context.Context) error {
	if d.shared == nil || len(d.cfg.Signing.Command) > 0 {
		return nil
	}
	if _, err := os.Stat(d.cfg.Signing.KeyFile); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	text, err := d.store.Note(ctx, publishedNote)
	if err != nil || text == "" {
		return err
	}
	p := new(published)
	if err := json.Unmarshal([]byte(text), p); err != nil {
		return fmt.Errorf("%w: note %s: %w", meta.ErrCorrupt, publishedNote, err)
	}
	s, err := sign.PublicSigner([]byte(p.Certificate))
	if err == nil {
		err = fmt.Errorf("%w: the signing key %s is missing, and the nodes of this installation sign with %s: copy the key and the log's key from another node, or set store.role = %q",
			ErrLost, d.cfg.Signing.KeyFile, s.Fingerprint(), config.RoleServe)
	}
	return err
}

// openKeys opens the signing key and the transparency log. A node that only serves does
// so without private keys, unless it has the signing key.
func (d *daemon) openKeys(ctx context.Context) (err error) {
	if !d.cfg.Store.Serves() {
		if err := d.checkShared(ctx); err != nil {
			return err
		}
		if d.signer, err = loadSigner(ctx, d.cfg, d.store, d.o.Now(), d.log); err != nil {
			return err
		}
		return d.openLog(ctx)
	}
	text, err := d.store.Note(ctx, publishedNote)
	if err == nil && text == "" {
		err = fmt.Errorf("store.role = %q: %w: start a node with the role %q first", d.cfg.Store.Role, errNoLeader, config.RoleAll)
	}
	if err != nil {
		return err
	}
	d.public = new(published)
	if err := json.Unmarshal([]byte(text), d.public); err != nil {
		return fmt.Errorf("%w: note %s: %w", meta.ErrCorrupt, publishedNote, err)
	}
	if _, err := os.Stat(d.cfg.Signing.KeyFile); errors.Is(err, fs.ErrNotExist) {
		d.signer, err = sign.PublicSigner([]byte(d.public.Certificate))
		if err != nil {
			return err
		}
	} else if d.signer, err = loadSigner(ctx, d.cfg, d.store, d.o.Now(), d.log); err != nil {
		return err
	}
	key, err := tlog.ParseVerifierKey(d.public.LogKey)
	if err != nil {
		return fmt.Errorf("%w: note %s: %w", meta.ErrCorrupt, publishedNote, err)
	}
	d.tlog, err = sequencer.Open(ctx, sequencer.Config{Store: d.store, Log: d.log, Signer: tlog.PublicSigner(key)})
	return err
}

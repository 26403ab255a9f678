package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
)

// witnessTime bounds one connection to a witness.
const witnessTime = 15 * time.Second

// openLog opens the transparency log, or starts it. Damaged metadata does not prevent
// serving, but nothing is published then.
func (d *daemon) openLog(ctx context.Context) error {
	origin, restart, err := d.logOrigin(ctx)
	if err != nil && !errors.Is(err, meta.ErrCorrupt) {
		return err
	}
	conf := sequencer.Config{
		Store: d.store, Restart: restart, Log: d.log, Client: &http.Client{Timeout: witnessTime, CheckRedirect: refuseRedirect},
	}
	if err == nil {
		if conf.Signer, err = loadLogSigner(d.cfg, origin, d.log.Info); err != nil {
			return err
		}
		if d.cfg.Log.Policy != "" {
			if conf.Policy, err = tlog.LoadPolicy(d.cfg.Log.Policy); err != nil {
				return fmt.Errorf("[log] policy: %w", err)
			}
		}
		d.tlog, err = sequencer.Open(ctx, conf)
		if errors.Is(err, meta.ErrCorrupt) {
			d.tlog, err = d.repairLog(ctx, conf, err)
		}
	}
	if errors.Is(err, meta.ErrCorrupt) {
		d.log.Error("the transparency log cannot be used, and nothing is published", "err", err)
		d.warnings = append(d.warnings, fmt.Sprintf("the transparency log cannot be used, and nothing is published: %v", err))
		d.tlog, err = sequencer.Broken(conf, err), nil
	}
	return err
}

// repairLog opens a log with damaged tiles after it has replaced the tiles that can be
// rebuilt. These lead to the signed root, so nothing is lost. If that is not enough, it
// returns the first error.
func (d *daemon) repairLog(ctx context.Context, conf sequencer.Config, damage error) (*sequencer.Log, error) {
	if d.store.Damage() != nil {
		return nil, damage
	}
	faults, repaired, err := sequencer.Repair(ctx, conf)
	if err != nil || len(repaired) == 0 {
		d.log.Error("the tiles of the transparency log cannot be rebuilt", "faults", faults, "err", err)
		return nil, damage
	}
	l, err := sequencer.Open(ctx, conf)
	if err == nil {
		d.warnings = append(d.warnings, fmt.Sprintf("damaged tiles of the transparency log were rebuilt: %v", damage))
	}
	return l, err
}

// refuseRedirect keeps a request to a witness from being sent to another server.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// logOrigin returns the name with which the log was started, or will be started. restart
// means that another log begins: its name is configured, and the key of the old log is
// gone.
func (d *daemon) logOrigin(ctx context.Context) (origin string, restart bool, err error) {
	want := d.cfg.Log.Origin
	h, err := d.store.LogHead(ctx)
	switch {
	case errors.Is(err, meta.ErrNotFound):
		if want == "" {
			u, err := url.Parse(d.cfg.Server.PublicURL)
			if err != nil {
				return "", false, err
			}
			want = u.Host + "/log"
		}
		return want, false, d.checkLogKey(want)
	case err != nil:
		return "", false, err
	case want != "" && want != h.Origin:
		if _, err := os.Stat(d.cfg.Log.KeyFile); !errors.Is(err, fs.ErrNotExist) {
			return "", false, fmt.Errorf("%w: it was started as %s, [log] origin is %s; an origin never changes: to give this log up and begin another, move %s away",
				sequencer.ErrOrigin, h.Origin, want, d.cfg.Log.KeyFile)
		}
		return want, true, nil
	}
	if _, err := os.Stat(d.cfg.Log.KeyFile); errors.Is(err, fs.ErrNotExist) {
		return "", false, fmt.Errorf("%w: the log key %s is missing, but it signed the transparency log %s of %d entries; restore it from a backup, or set another [log] origin to begin a new log",
			ErrLost, d.cfg.Log.KeyFile, h.Origin, h.Size)
	}
	return h.Origin, false, nil
}

// checkLogKey returns ErrOrigin if the key is that of another log than the one to start.
func (d *daemon) checkLogKey(want string) error {
	if len(d.cfg.Log.Command) > 0 {
		return nil
	}
	key, err := tlog.LoadKey(d.cfg.Log.KeyFile)
	if err != nil || key.Name() == want {
		return nil // loadLogSigner creates a key, or reports what is wrong with it
	}
	from := "[log] origin"
	if d.cfg.Log.Origin == "" {
		from = "public_url or listen in [server]"
	}
	return fmt.Errorf("%w: the key %s is of log %s, but %s makes it %s; to keep the log, set origin = %q in [log]; to begin another one, move the key away",
		sequencer.ErrOrigin, d.cfg.Log.KeyFile, key.Name(), from, want, key.Name())
}

// loadLogSigner opens the key of the log, or creates one for a log that starts.
func loadLogSigner(cfg *config.Config, origin string, info func(string, ...any)) (tlog.Signer, error) {
	if len(cfg.Log.Command) > 0 {
		data, err := regfile.Read(cfg.Log.KeyFile, tlog.MaxKey)
		if err != nil {
			return nil, fmt.Errorf("public key of the log signing command: %w", err)
		}
		key, err := tlog.ParseVerifierKey(string(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cfg.Log.KeyFile, err)
		}
		if key.Name() != origin || key.Cosigns() {
			return nil, fmt.Errorf("%w: %s is of %s, expected a key of log %s (to keep the log of this key, set origin = %q in [log])", tlog.ErrKey, cfg.Log.KeyFile, key.Name(), origin, key.Name())
		}
		return tlog.NewCommandSigner(cfg.Log.Command, key), nil
	}
	s, made, err := tlog.LoadOrMakeKey(cfg.Log.KeyFile, origin)
	if made && err == nil {
		info("made a log key", "log", origin, "file", cfg.Log.KeyFile)
	}
	return s, err
}

// recoverLog makes the log and the metadata consistent, and logs the key that signs. A
// log that witnesses refuse is served unchanged, and nothing is published.
func (d *daemon) recoverLog(ctx context.Context) error {
	err := d.tlog.Check(ctx)
	if err == nil && d.store.Damage() == nil {
		var withdrawn []string
		withdrawn, err = d.logged.Recover(ctx, d.who())
		for _, name := range withdrawn {
			text := fmt.Sprintf("%s was announced in the transparency log and not finished: the log now says so, and the name is not used for anything else", name)
			d.log.Warn(text)
			d.warnings = append(d.warnings, text)
		}
		if err == nil {
			public := []byte(d.signer.PublicKeyArmored())
			err = d.tlog.Append(ctx, &tlog.Key{Use: "freeze", Fingerprint: string(d.signer.Fingerprint()), Digest: cas.Sum(public)})
		}
	}
	if errors.Is(err, sequencer.ErrBehind) || errors.Is(err, meta.ErrCorrupt) {
		d.log.Error("nothing is published", "err", err)
		d.warnings = append(d.warnings, err.Error())
		return nil
	}
	return err
}

// Package witness cosigns the checkpoints of transparency logs (tlog-witness). A witness
// signs a state of a log only if it extends the state that it signed last, so that all
// readers see the same history. The package also contains the client that logs use to ask
// a witness.
package witness

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
	modtlog "golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/tlog"
)

// sizeType is the media type of an answer that consists of the size of a tree.
const sizeType = "text/x.tlog.size"

// maxRequest limits a request, in bytes.
const maxRequest = 64 << 10

// Config has the parts of a Witness.
type Config struct {
	Signer tlog.Signer
	Logs   []*tlog.VerifierKey
	// Dir contains one file for each log: the last cosigned checkpoint.
	Dir string
	Log *slog.Logger // nil: none
}

// Witness cosigns checkpoints. It is safe for concurrent use; only one process may use
// its directory.
type Witness struct {
	cfg  Config
	lock *os.File
	logs map[string]*state // by origin
}

// state is the state of one log, as the witness knows it.
type state struct {
	mu   sync.Mutex
	keys []*tlog.VerifierKey
	last *tlog.Checkpoint // nil: none
	file string
}

// New returns a Witness. It reads the checkpoints that it has cosigned before.
func New(cfg Config) (_ *Witness, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("state of the witness: %w", err)
	}
	w := &Witness{cfg: cfg, logs: map[string]*state{}}
	if w.lock, err = os.OpenFile(filepath.Join(cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("state of the witness: %w", err)
	}
	defer func() {
		if err != nil {
			w.lock.Close()
		}
	}()
	if err := unix.Flock(int(w.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("state of the witness: %s is used by another process", cfg.Dir)
	}
	for _, k := range cfg.Logs {
		s := w.logs[k.Name()]
		if s == nil {
			s = &state{file: filepath.Join(cfg.Dir, url.PathEscape(k.Name())+".checkpoint")}
			w.logs[k.Name()] = s
		}
		s.keys = append(s.keys, k)
	}
	for origin, s := range w.logs {
		if err := s.load(origin); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Close releases the directory.
func (w *Witness) Close() error { return w.lock.Close() }

// load reads the last cosigned checkpoint. A file that cannot be used stops the witness,
// because it must never forget.
func (s *state) load(origin string) error {
	data, err := regfile.Read(s.file, tlog.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("state of the witness: %w", err)
	}
	c, err := tlog.ParseCheckpoint(data)
	if err != nil {
		return fmt.Errorf("state of the witness: %s: %w", s.file, err)
	}
	if c.Origin != origin {
		return fmt.Errorf("state of the witness: %s: %w: it is of log %s, expected %s", s.file, tlog.ErrProof, c.Origin, origin)
	}
	s.last = c
	return nil
}

// refusal is an answer that is not a cosignature.
type refusal struct {
	status int
	size   int64 // with StatusConflict; -1: none
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, -1, fmt.Sprintf(format, args...)}
}

// ServeHTTP implements http.Handler.
func (w *Witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/add-checkpoint" {
		http.NotFound(rw, r)
		return
	}
	if r.Method != http.MethodPost {
		rw.Header().Set("Allow", http.MethodPost)
		http.Error(rw, "expected POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxRequest))
	if err != nil {
		http.Error(rw, "the request cannot be read, or is too large", http.StatusBadRequest)
		return
	}
	lines, err := w.Add(r.Context(), body)
	if x, ok := errors.AsType[*refusal](err); ok {
		w.cfg.Log.Warn("refused", "from", r.RemoteAddr, "status", x.status, "err", x.text)
		if x.size >= 0 {
			rw.Header().Set("Content-Type", sizeType)
			rw.WriteHeader(x.status)
			fmt.Fprintf(rw, "%d\n", x.size)
			return
		}
		http.Error(rw, x.text, x.status)
		return
	}
	if err != nil {
		w.cfg.Log.Error("not cosigned", "err", err)
		http.Error(rw, "the state of the witness could not be kept", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = rw.Write(lines)
}

// Add checks a request and cosigns its checkpoint. The cosigned state is durable before
// Add returns.
func (w *Witness) Add(ctx context.Context, body []byte) ([]byte, error) {
	a, err := tlog.ParseAddCheckpoint(body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%v", err)
	}
	c, err := tlog.ParseCheckpoint(a.Checkpoint)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%v", err)
	}
	s := w.logs[c.Origin]
	if s == nil {
		return nil, refuse(http.StatusNotFound, "unknown log %q", c.Origin)
	}
	if !s.signed(a.Checkpoint) {
		return nil, refuse(http.StatusForbidden, "the checkpoint is not signed by a known key of %s", c.Origin)
	}
	if a.Old > c.Size {
		return nil, refuse(http.StatusBadRequest, "the old size %d is larger than the checkpoint's %d", a.Old, c.Size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.follows(a, c); err != nil {
		return nil, err
	}
	text, _, _ := strings.Cut(string(a.Checkpoint), "\n\n")
	signed, err := note.Sign(&note.Note{Text: text + "\n"}, w.cfg.Signer)
	if err != nil {
		return nil, err
	}
	if s.last == nil || s.last.Size != c.Size {
		if err := durable.WriteFile(s.file, a.Checkpoint, 0o600); err != nil {
			return nil, err
		}
		s.last = c
		w.cfg.Log.Info("cosigned", "log", c.Origin, "size", c.Size)
	}
	_, lines, _ := strings.Cut(string(signed), "\n\n")
	return []byte(lines), ctx.Err()
}

// signed reports whether a checkpoint is signed by a known key.
func (s *state) signed(checkpoint []byte) bool {
	for _, k := range s.keys {
		if _, err := tlog.OpenCheckpoint(checkpoint, k); err == nil {
			return true
		}
	}
	return false
}

// follows checks that a checkpoint extends the one that was cosigned last.
func (s *state) follows(a *tlog.AddCheckpoint, c *tlog.Checkpoint) error {
	last := s.last
	if last == nil {
		last = &tlog.Checkpoint{}
	}
	switch {
	case a.Old != last.Size:
		return &refusal{http.StatusConflict, last.Size, "old size " + strconv.FormatInt(a.Old, 10) + ", expected " + strconv.FormatInt(last.Size, 10)}
	case last.Size == 0 && len(a.Hashes) > 0, last.Size == c.Size && len(a.Hashes) > 0:
		return refuse(http.StatusUnprocessableEntity, "a proof where none is expected")
	case c.Size == 0 && c.Root != modtlog.Hash(sha256.Sum256(nil)):
		return refuse(http.StatusUnprocessableEntity, "log %s of no entries has root %s, expected the one of the empty tree", c.Origin, c.Root)
	case last.Size == 0:
		return nil
	case last.Size == c.Size:
		if last.Root != c.Root {
			return &refusal{http.StatusConflict, last.Size, fmt.Sprintf("log %s has two roots at %d entries: %s and %s", c.Origin, c.Size, last.Root, c.Root)}
		}
		return nil
	}
	if err := modtlog.CheckTree(a.Hashes, c.Size, c.Root, last.Size, last.Root); err != nil {
		return refuse(http.StatusUnprocessableEntity, "log %s at %d entries does not extend the log at %d: %v", c.Origin, c.Size, last.Size, err)
	}
	return nil
}

package sequencer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"example.org/snapd/internal/meta"
	logfmt "example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/witness"
)

const (
	askTime   = 10 * time.Second // one request to a witness
	waitTime  = 2 * time.Second  // how long an append waits for witnesses
	retryTime = time.Minute      // until a witness that failed is asked again
)

// witnesses asks the witnesses of the policy, each in a separate goroutine, so that a
// witness that does not answer delays the others only briefly.
type witnesses struct {
	l    *Log
	stop context.CancelFunc
	all  []*asked
	done sync.WaitGroup
	file sync.Mutex // one update of the checkpoint at a time

	mu      sync.Mutex
	changed chan struct{} // closed when a witness has answered
}

// asked is the state of one witness.
type asked struct {
	logfmt.PolicyWitness
	kick chan struct{}

	// Under the lock of witnesses:
	size    int64 // last cosigned by it, if known
	tried   int64 // size of the last checkpoint sent to the witness
	signed  int64 // size of the last checkpoint that it cosigned for this log
	down    bool  // the last request failed
	refusal error // the witness has seen more entries than this log has, or different ones
	err     error // of the last request
}

func newWitnesses(l *Log) *witnesses {
	ctx, stop := context.WithCancel(context.Background())
	ws := &witnesses{l: l, stop: stop, changed: make(chan struct{})}
	if l.cfg.Policy == nil {
		return ws
	}
	for _, w := range l.cfg.Policy.Witnesses {
		if w.URL != "" {
			ws.all = append(ws.all, &asked{PolicyWitness: w, kick: make(chan struct{}, 1)})
		}
	}
	for _, a := range ws.all {
		ws.done.Go(func() { ws.run(ctx, a) })
	}
	return ws
}

func (ws *witnesses) close() {
	ws.stop()
	ws.done.Wait()
}

// run asks one witness whenever the log has grown, and again after a failure.
func (ws *witnesses) run(ctx context.Context, a *asked) {
	tick := time.NewTicker(retryTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-a.kick:
		}
		h, err := ws.l.store.LogHead(ctx)
		if err == nil {
			err = ws.ask(ctx, a, h)
		}
		if ctx.Err() != nil {
			return
		}
		ws.note(a, h, err)
	}
}

// note records the outcome of a request, and wakes waiting goroutines.
func (ws *witnesses) note(a *asked, h *meta.LogHead, err error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	was := a.err
	a.err, a.down, a.refusal = err, err != nil, nil
	if h != nil {
		a.tried = h.Size
		if err == nil {
			a.signed = h.Size
		}
	}
	if errors.Is(err, ErrBehind) {
		a.refusal, a.down = err, false
	}
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		ws.l.log.Warn("the log was not cosigned", "witness", a.Name, "err", err)
	case err == nil && was != nil:
		ws.l.log.Info("the log is cosigned again", "witness", a.Name)
	}
	close(ws.changed)
	ws.changed = make(chan struct{})
}

// ask asks a witness for a cosignature of the current checkpoint.
func (ws *witnesses) ask(ctx context.Context, a *asked, h *meta.LogHead) error {
	ws.mu.Lock()
	old, signed := a.size, a.signed
	ws.mu.Unlock()
	if signed == h.Size {
		return nil
	}
	for range 3 {
		if old > h.Size {
			return fmt.Errorf("%w: the log here has %d entries, witness %s has cosigned %d", ErrBehind, h.Size, a.Name, old)
		}
		req := &logfmt.AddCheckpoint{Old: old, Checkpoint: h.Checkpoint}
		if old > 0 && old < h.Size {
			proof, err := tlog.ProveTree(h.Size, old, newHashes(ctx, ws.l.store))
			if err != nil {
				return err
			}
			req.Hashes = proof
		}
		lines, err := ws.send(ctx, a, req)
		var other *witness.SizeError
		switch {
		case errors.As(err, &other):
			old = other.Size
			if old > h.Size {
				// Another process may have appended.
				if h, err = ws.l.store.LogHead(ctx); err != nil {
					return err
				}
			}
			continue
		case errors.Is(err, witness.ErrForked):
			return fmt.Errorf("%w: witness %s refuses the log at %d entries: %w", ErrBehind, a.Name, h.Size, err)
		case err != nil:
			return fmt.Errorf("witness %s: %w", a.Name, err)
		}
		ws.mu.Lock()
		a.size = h.Size
		ws.mu.Unlock()
		return ws.keep(ctx, a, h, lines)
	}
	return fmt.Errorf("witness %s did not say which size it has cosigned", a.Name)
}

func (ws *witnesses) send(ctx context.Context, a *asked, req *logfmt.AddCheckpoint) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return witness.Ask(ctx, ws.l.cfg.Client, a.URL, req)
}

// keep adds a cosignature to the stored checkpoint.
func (ws *witnesses) keep(ctx context.Context, a *asked, asked *meta.LogHead, lines []byte) error {
	ws.file.Lock()
	defer ws.file.Unlock()
	h, err := ws.l.store.LogHead(ctx)
	if err != nil {
		return err
	}
	checkpoint := asked.Checkpoint
	switch asked.Size {
	case h.Size:
		checkpoint = h.Checkpoint
	case h.WitnessedSize:
		checkpoint = h.Witnessed
	}
	signed := logfmt.AddCosignatures(checkpoint, lines, a.Key)
	by, err := ws.l.cfg.Policy.CosignedBy(signed)
	if err != nil {
		return err
	}
	if !slices.Contains(by, a.Name) {
		return fmt.Errorf("witness %s: %w: its answer has no cosignature by %s", a.Name, logfmt.ErrProof, a.Key.Text)
	}
	return ws.l.store.CosignLog(ctx, meta.LogCosigned{Size: asked.Size, Checkpoint: signed, Quorum: ws.l.cfg.Policy.Satisfied(by)})
}

// wait wakes the witnesses. It waits until the log has a quorum of cosignatures, or until
// no witness is left that might answer soon. It returns ErrBehind if witnesses refuse the
// log.
func (ws *witnesses) wait(ctx context.Context) error {
	if len(ws.all) == 0 {
		return nil
	}
	h, err := ws.l.store.LogHead(ctx)
	if err != nil {
		return err
	}
	for _, a := range ws.all {
		select {
		case a.kick <- struct{}{}:
		default:
		}
	}
	limit := time.NewTimer(waitTime)
	defer limit.Stop()
	for {
		ws.mu.Lock()
		changed := ws.changed
		var names []string
		open := false
		for _, a := range ws.all {
			if a.signed >= h.Size {
				names = append(names, a.Name)
			} else if !a.down && a.refusal == nil && a.tried < h.Size {
				open = true
			}
		}
		ws.mu.Unlock()
		if !open || len(names) > 0 && ws.l.cfg.Policy.Satisfied(names) {
			return ws.refused()
		}
		select {
		case <-changed:
		case <-limit.C:
			return ws.refused() // continue without a quorum; the witnesses are asked again
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Check asks every witness about the current state before anything is appended. It
// returns ErrBehind if they have seen more entries than this log has, or different ones.
func (l *Log) Check(ctx context.Context) error { return l.witnesses.wait(ctx) }

// refused returns ErrBehind if witnesses have seen another log than this one, unless more
// of them, and a quorum, have cosigned its current state. So a single lying witness
// cannot stop the log.
func (ws *witnesses) refused() error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var refusals []error
	var names []string
	for _, a := range ws.all {
		switch {
		case a.refusal != nil:
			refusals = append(refusals, a.refusal)
		case a.signed > 0:
			names = append(names, a.Name)
		}
	}
	if len(refusals) == 0 || len(names) > len(refusals) && ws.l.cfg.Policy.Satisfied(names) {
		return nil
	}
	return fmt.Errorf("%w; nothing is signed: restore the newest backup, or begin a new log: move the file log-key away and set another [log] origin", refusals[0])
}

// WitnessStatus is the state of one witness.
type WitnessStatus struct {
	Name  string
	URL   string
	Size  int64  // size of the log at the last cosignature
	Error string // "": none
}

// Status is the state of the log.
type Status struct {
	Origin    string
	Key       string // vkey
	Size      int64
	Root      string // base64
	Witnesses []WitnessStatus
	Cosigned  int  // number of witnesses that have cosigned the current state
	Known     int  // number of witnesses in the policy
	Quorum    bool // enough witnesses have cosigned
	Refused   string
	Damage    string // of stored tiles, as far as it was noticed; "": none
}

// Witnessed returns how many witnesses have cosigned, such as "2/3", or "" without
// witnesses.
func (s *Status) Witnessed() string {
	if s.Known == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.Cosigned, s.Known)
}

// Status returns the state of the log.
func (l *Log) Status(ctx context.Context) (*Status, error) {
	h, err := l.head(ctx)
	if err != nil {
		return nil, err
	}
	c, err := logfmt.ParseCheckpoint(h.Checkpoint)
	if err != nil {
		return nil, err
	}
	s := &Status{Origin: h.Origin, Key: l.Key().Text, Size: h.Size, Root: c.Root.String(), Quorum: true}
	if err := l.witnesses.refused(); err != nil {
		s.Refused = err.Error()
	}
	if text := l.damage.Load(); text != nil {
		s.Damage = *text
	}
	if l.cfg.Policy == nil {
		return s, nil
	}
	by, err := l.cfg.Policy.CosignedBy(h.Checkpoint)
	if err != nil {
		return nil, err
	}
	s.Cosigned, s.Known, s.Quorum = len(by), len(l.cfg.Policy.Witnesses), l.cfg.Policy.Satisfied(by)
	ws := l.witnesses
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, a := range ws.all {
		w := WitnessStatus{Name: a.Name, URL: a.URL, Size: a.signed}
		if a.err != nil {
			w.Error = strings.TrimPrefix(a.err.Error(), "witness "+a.Name+": ")
		}
		s.Witnesses = append(s.Witnesses, w)
	}
	return s, nil
}

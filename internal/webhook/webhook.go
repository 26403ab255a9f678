// Package webhook reports events in snapd to receivers outside of it. It queues the
// events that the metadata lists, and delivers each to a URL or a command until the
// receiver accepts it or three days have passed.
//
// The metadata records an event in the transaction of the change that it is about, and a
// delivery with the time of its next attempt, so that neither a crash nor a restart loses
// one. A receiver may get an event twice, with the same ID, if snapd is killed after the
// answer of the receiver but before it was recorded.
//
// Deliveries to one webhook are made one after the other, by the node that holds its
// lease. They delay neither the work that caused the event nor other webhooks.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/webhook/signature"
)

// ErrUnknown means that no webhook of that name is configured.
var ErrUnknown = errclass.New(errclass.NotFound, "no such webhook")

// Metadata is the part of meta.Store that webhooks use.
type Metadata interface {
	meta.Events
	meta.Leases
	Latest(ctx context.Context, mirror meta.MirrorName) (*meta.Snapshot, error)
	Note(ctx context.Context, name string) (string, error)
}

// Config has the parts of an Engine.
type Config struct {
	Meta      Metadata
	Client    *fetch.Client
	Webhooks  []config.Webhook
	Mirrors   func() []config.Mirror // mirrors whose max_age is watched
	PublicURL string
	Node      string // name of this node in leases
	Log       *slog.Logger
	Now       func() time.Time
	Fatal     func(error) // is called with errors of the metadata, some of which end the daemon

	// Backoff replaces the pauses after failed attempts in tests.
	Backoff []time.Duration
}

// Times of the engine.
const (
	pollTime   = time.Second      // interval of the search for work
	recordTime = 10 * time.Second // limit for recording a delivery when the program ends
	watchTime  = time.Minute      // interval of the search for stale suites
	keepTime   = 30 * 24 * time.Hour
	freshTime  = 3 * 24 * time.Hour // events older than this are not queued
)

// Limits of one transaction.
const (
	queueLimit = 100
	trimLimit  = 1000
)

// backoff are the pauses after failed attempts, as proposed by the Standard Webhooks
// specification. After the last pause and attempt, the delivery has failed.
var backoff = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// hook is a usable webhook.
type hook struct {
	config.Webhook
	keys *signature.Keys // nil: the webhook is a command
}

// Counts are the results of the attempts of a webhook since the start.
type Counts struct {
	Delivered int64
	Retried   int64 // attempts that failed and are repeated
	Failed    int64 // deliveries that were given up
}

// Engine delivers events. It is safe for concurrent use. A nil Engine has no webhooks.
type Engine struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	hooks   []*hook
	busy    map[string]bool // webhooks that are being worked on
	counts  map[string]*Counts
	trouble map[string]string // the last error of the metadata, by webhook
}

// New makes an Engine. It reads the files with secrets.
func New(cfg Config) (*Engine, error) {
	if cfg.Backoff == nil {
		cfg.Backoff = backoff
	}
	e := &Engine{cfg: cfg, log: cfg.Log, busy: map[string]bool{}, counts: map[string]*Counts{}, trouble: map[string]string{}}
	apply, err := e.Prepare(cfg.Webhooks)
	if err != nil {
		return nil, err
	}
	apply()
	return e, nil
}

// Prepare reads the secrets of webhooks and returns a function that puts them into
// effect. If it returns an error, nothing changes. Attempts in progress continue.
func (e *Engine) Prepare(all []config.Webhook) (apply func(), err error) {
	var hooks []*hook
	for _, w := range all {
		h := &hook{Webhook: w}
		if w.SecretFile != "" {
			if h.keys, err = signature.Load(w.SecretFile); err != nil {
				return nil, fmt.Errorf("secret_file of webhook %s: %w", w.Name, err)
			}
		}
		hooks = append(hooks, h)
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.hooks = hooks
		for _, h := range hooks {
			if e.counts[h.Name] == nil {
				e.counts[h.Name] = &Counts{}
			}
		}
	}, nil
}

// Webhooks returns the webhooks, in the order of the configuration.
func (e *Engine) Webhooks() (out []config.Webhook) {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.hooks {
		out = append(out, h.Webhook)
	}
	return out
}

// find returns a webhook, or ErrUnknown.
func (e *Engine) find(name string) (*hook, error) {
	if e == nil {
		return nil, fmt.Errorf("webhook %s: %w", name, ErrUnknown)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.hooks, func(h *hook) bool { return h.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("webhook %s: %w", name, ErrUnknown)
	}
	return e.hooks[i], nil
}

// Counts returns the counts of the webhooks in use, by name.
func (e *Engine) Counts() map[string]Counts {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]Counts{}
	for _, h := range e.hooks {
		out[h.Name] = *e.counts[h.Name]
	}
	return out
}

func (e *Engine) count(name string, f func(*Counts)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(e.counts[name])
}

// Run delivers events until ctx ends.
func (e *Engine) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	var watched, trimmed time.Time
	for {
		for _, w := range e.Webhooks() {
			if e.take(w.Name) {
				running.Go(func() {
					defer e.leave(w.Name)
					e.note(ctx, w.Name, e.serve(ctx, w.Name))
				})
			}
		}
		if now := e.cfg.Now(); now.Sub(watched).Abs() >= watchTime && e.take("") {
			watched = now
			trim := now.Sub(trimmed).Abs() >= time.Hour
			if trim {
				trimmed = now
			}
			running.Go(func() {
				defer e.leave("")
				err := e.watch(ctx)
				if trim {
					err = errors.Join(err, e.trim(ctx))
				}
				e.note(ctx, "", err)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// take marks a webhook as being worked on, and reports false if it already was. "" is the
// work that concerns no webhook.
func (e *Engine) take(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy[name] {
		return false
	}
	e.busy[name] = true
	return true
}

func (e *Engine) leave(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.busy, name)
}

// note logs an error of the metadata, unless it equals the previous one.
func (e *Engine) note(ctx context.Context, name string, err error) {
	if ctx.Err() != nil {
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
		if e.cfg.Fatal != nil {
			e.cfg.Fatal(err)
		}
	}
	e.mu.Lock()
	before := e.trouble[name]
	e.trouble[name] = text
	e.mu.Unlock()
	if text != "" && text != before {
		e.log.Error("events cannot be read or recorded: their deliveries wait", "webhook", name, "err", err)
	}
}

// serve makes the due deliveries to a webhook, unless another node does.
func (e *Engine) serve(ctx context.Context, name string) error {
	w, err := e.cfg.Meta.WebhookWork(ctx, name)
	if err != nil || !w.Behind && (w.Pending == 0 || w.Next.After(e.cfg.Now())) {
		return err
	}
	err = meta.Lead(ctx, e.cfg.Meta, meta.LeaseWebhook+name, e.cfg.Node, func(ctx context.Context) error {
		return e.deliver(ctx, name)
	})
	if errors.Is(err, meta.ErrLeased) || errors.Is(err, meta.ErrFenced) {
		return nil // another node delivers
	}
	return err
}

// queue makes deliveries of the events that are new to a webhook.
func (e *Engine) queue(ctx context.Context, name string) error {
	h, err := e.find(name)
	if err != nil {
		return nil // removed meanwhile
	}
	for more := true; more; {
		now := e.cfg.Now()
		if more, err = e.cfg.Meta.QueueDeliveries(ctx, name, h.Events, now.Add(-freshTime), now, queueLimit); err != nil {
			return err
		}
	}
	return nil
}

// Start registers the webhooks in the metadata, which lists events for them from then on.
func (e *Engine) Start(ctx context.Context) error {
	for _, w := range e.Webhooks() {
		err := e.queue(ctx, w.Name)
		if errors.Is(err, meta.ErrCorrupt) {
			return nil // reported as damage, and retried
		} else if err != nil {
			return err
		}
	}
	return nil
}

// deliver makes the due deliveries, one by one, so that changes by an administrator apply
// from the next one on. It also queues new events meanwhile, before they are too old.
func (e *Engine) deliver(ctx context.Context, name string) error {
	var queued time.Time
	for {
		if now := e.cfg.Now(); now.Sub(queued).Abs() >= watchTime {
			queued = now
			if err := e.queue(ctx, name); err != nil {
				return err
			}
		}
		due, err := e.cfg.Meta.DueDeliveries(ctx, name, e.cfg.Now(), 1)
		if err != nil || len(due) == 0 {
			return err
		}
		h, err := e.find(name)
		if err != nil {
			return nil // removed meanwhile
		}
		if !e.attempt(ctx, h, &due[0]) {
			return ctx.Err()
		}
		if err := e.record(ctx, &due[0]); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// record records the result of a delivery, even if ctx ended after it succeeded.
func (e *Engine) record(ctx context.Context, d *meta.Delivery) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	if err := e.cfg.Meta.PutDelivery(ctx, d); err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	return nil
}

// watch adds an event for each suite whose upstream Date is older than max_age.
func (e *Engine) watch(ctx context.Context) error {
	now := e.cfg.Now()
	var errs []error
	for _, m := range e.cfg.Mirrors() {
		if m.MaxAge == 0 {
			continue
		}
		snap, err := e.cfg.Meta.Latest(ctx, m.Name)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, s := range snap.Suites {
			if s.Date.IsZero() || now.Sub(s.Date) <= m.MaxAge.D() {
				continue
			}
			once := meta.EventOnce{Note: meta.StaleNote(m.Name, string(s.Suite)), Value: meta.FormatTimestamp(s.Date)}
			if have, err := e.cfg.Meta.Note(ctx, once.Note); err != nil || have == once.Value {
				errs = append(errs, err)
				continue
			}
			errs = append(errs, e.cfg.Meta.AppendEvent(ctx, meta.Event{
				Type: meta.EventStale, Time: now.UTC(), Stale: &meta.EventAge{Mirror: m.Name, Suite: string(s.Suite), Date: s.Date, MaxAge: m.MaxAge.D()},
			}, once))
		}
	}
	return errors.Join(errs...)
}

// trim removes old events and their deliveries.
func (e *Engine) trim(ctx context.Context) error {
	for {
		n, err := e.cfg.Meta.TrimEvents(ctx, e.cfg.Now().Add(-keepTime), trimLimit)
		if err != nil || n < trimLimit {
			return err
		}
	}
}

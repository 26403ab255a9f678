package webhook

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/webhook/signature"
)

// ErrNotDelivered means that a receiver did not accept an event.
var ErrNotDelivered = errclass.New(errclass.Unavailable, "not delivered")

// maxError bounds the text of an error that is recorded, in bytes.
const maxError = 500

// outcome is the result of one attempt.
type outcome struct {
	status int
	after  time.Duration // pause that the receiver asks for
	over   bool          // the receiver will never accept the event
	err    error
}

// attempt delivers an event once, and records the result in the delivery. It returns
// false if the attempt does not count, because ctx ended before it succeeded.
func (e *Engine) attempt(ctx context.Context, h *hook, d *meta.Delivery) bool {
	start := e.cfg.Now()
	o := e.send(ctx, h, &d.Event)
	if o.err != nil && ctx.Err() != nil {
		return false
	}
	d.Attempts++
	d.Last, d.Took, d.Status, d.Error = start.UTC().Truncate(time.Millisecond), max(e.cfg.Now().Sub(start), 0).Round(time.Millisecond), o.status, ""
	if o.err == nil {
		d.State, d.Next = meta.DeliveryDelivered, time.Time{}
		e.count(h.Name, func(c *Counts) { c.Delivered++ })
		e.log.Info("delivered", "webhook", h.Name, "event", d.Event.ID, "type", d.Event.Type, "what", d.Event.Subject(), "attempt", d.Attempts)
		return true
	}
	d.Error = excerpt.Clip(remote.Scrub(o.err.Error()), maxError)
	if o.over || d.Attempts > len(e.cfg.Backoff) {
		d.State, d.Next = meta.DeliveryFailed, time.Time{}
		e.count(h.Name, func(c *Counts) { c.Failed++ })
		e.log.Error("not delivered, and given up", "webhook", h.Name, "event", d.Event.ID, "type", d.Event.Type, "what", d.Event.Subject(), "attempts", d.Attempts, "err", d.Error)
		return true
	}
	wait := max(spread(e.cfg.Backoff[d.Attempts-1]), o.after)
	d.Next = e.cfg.Now().Add(wait).UTC().Truncate(time.Millisecond)
	e.count(h.Name, func(c *Counts) { c.Retried++ })
	e.log.Warn("not delivered, retrying later", "webhook", h.Name, "event", d.Event.ID, "type", d.Event.Type, "what", d.Event.Subject(), "attempt", d.Attempts, "next", d.Next, "err", d.Error)
	return true
}

// spread makes a pause up to a tenth longer, so that many deliveries are not retried at
// the same time.
func spread(d time.Duration) time.Duration { return d + time.Duration(rand.Float64()*0.1*float64(d)) }

// send makes one attempt.
func (e *Engine) send(ctx context.Context, h *hook, ev *meta.Event) outcome {
	body, err := e.body(h, ev)
	if err != nil {
		return outcome{err: err, over: true}
	}
	ctx, cancel := context.WithTimeout(ctx, h.Timeout.D())
	defer cancel()
	if len(h.Command) > 0 {
		return h.run(ctx, ev, body)
	}
	header := http.Header{"Content-Type": {"application/json"}, signature.HeaderID: {ev.ID}}
	timestamp, sig := h.keys.Sign(ev.ID, e.cfg.Now(), body)
	header.Set(signature.HeaderTimestamp, timestamp)
	header.Set(signature.HeaderSignature, sig)
	a, err := e.cfg.Client.Post(ctx, fetch.PostRequest{URL: h.URL, Header: header, Body: body, AllowPrivate: h.AllowPrivate})
	return outcome{status: a.Status, after: a.After, over: a.Status == http.StatusGone, err: err}
}

// Limits of a command.
const (
	maxOutput = 4 << 10 // bytes of its messages that are kept
	waitTime  = time.Second
)

// run runs a command in a separate process group. It gets the event on standard input,
// and none of snapd's environment.
func (h *hook) run(ctx context.Context, ev *meta.Event, body []byte) outcome {
	cmd := exec.CommandContext(ctx, h.Command[0], h.Command[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SNAPD_EVENT_ID=" + ev.ID, "SNAPD_EVENT_TYPE=" + ev.Type}
	cmd.Stdin = bytes.NewReader(body)
	out := &bounded{}
	cmd.Stderr = out
	cmd.WaitDelay = waitTime
	// Kill the command's children with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil:
		return outcome{} // snapd does not wait for background processes of the command
	case ctx.Err() != nil:
		return outcome{err: fmt.Errorf("%s: killed after %s", h.Command[0], h.Timeout)}
	case errors.As(err, &exit):
		err = fmt.Errorf("%s: %w", h.Command[0], err)
		if line, _, _ := strings.Cut(strings.TrimSpace(string(out.b)), "\n"); line != "" {
			err = fmt.Errorf("%w: %s", err, excerpt.Of(strings.ToValidUTF8(line, "?")))
		}
		return outcome{status: max(exit.ExitCode(), 0), err: err}
	}
	return outcome{err: err}
}

// bounded keeps the beginning of the data written to it.
type bounded struct{ b []byte }

func (b *bounded) Write(p []byte) (int, error) {
	b.b = append(b.b, p[:min(len(p), maxOutput-len(b.b))]...)
	return len(p), nil
}

// Test sends an event of the type "test" to a webhook, once and immediately. The event is
// not recorded. It returns ErrUnknown, or ErrNotDelivered together with the outcome.
func (e *Engine) Test(ctx context.Context, name string) (*api.WebhookTest, error) {
	h, err := e.find(name)
	if err != nil {
		return nil, err
	}
	start := e.cfg.Now()
	ev := &meta.Event{ID: crand.Text(), Type: api.TypeTest, Time: start.UTC().Truncate(time.Millisecond)}
	o := e.send(ctx, h, ev)
	if o.err != nil {
		return nil, fmt.Errorf("test event to webhook %s: %w: %s", name, ErrNotDelivered, remote.Scrub(o.err.Error()))
	}
	return &api.WebhookTest{Webhook: name, Event: ev.ID, Status: o.status, Millis: max(e.cfg.Now().Sub(start), 0).Milliseconds()}, nil
}

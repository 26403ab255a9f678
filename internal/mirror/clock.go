package mirror

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// A snapshot's timestamp is taken from the system clock, is kept forever, and is
// later than the one before. If the clock were far ahead during one sync, it
// would determine the timestamps of all later ones. So a sync first checks
// whether the clock can be right:
//
//   - It is behind: before 2020, or more than maxJump before the newest snapshot.
//   - It is continuous: at most maxJump has passed since the last successful sync.
//     No other check is needed.
//   - It jumped, or this is the first sync: another clock must agree within
//     maxJump. Each HTTP response has the time of its server. After months, a
//     machine that was off agrees with its upstreams; one whose clock is wrong does
//     not.
//   - There is no other clock, because upstream is a directory or on this machine:
//     the jump is refused after maxAlone.
//
// A server's clock can only cause a sync to be refused; timestamps are never
// taken from it. SyncOptions.AcceptClock overrides all of this.

// ErrClock means that the system clock cannot be right.
var ErrClock = errclass.New(errclass.Transient, "the system clock cannot be right")

const (
	// maxJump is how far the clock may be from what is known about the time.
	maxJump = 24 * time.Hour
	// maxAlone is how much time may pass between two syncs if only the system
	// clock measures it.
	maxAlone = 366 * 24 * time.Hour
	// firstYear is the first year in which this program can run.
	firstYear = 2020
)

// clockError is an ErrClock.
type clockError struct {
	ahead bool // the clock seems to be ahead, so that everything looks older than it is
	text  string
}

func (e *clockError) Error() string { return ErrClock.Error() + ": " + e.text }
func (e *clockError) Unwrap() error { return ErrClock }

// clock is what a sync knows about the time from sources other than the system clock.
type clock struct {
	newest *meta.Snapshot // of the mirror, or nil
	last   meta.Check
	began  time.Time // on the machine's monotonic clock
	start  time.Time // on the system clock, at the same moment

	mu      sync.Mutex
	servers []serverTime
}

// serverTime is the time that the server of a URL reported.
type serverTime struct {
	url string // for messages
	at  time.Time
}

func (c *clock) begin(now time.Time, newest *meta.Snapshot, last meta.Check) {
	c.newest, c.last, c.began, c.start = newest, last, time.Now(), now
}

func (c *clock) answered(url string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = append(c.servers, serverTime{url, at})
}

// behind returns why the system clock is behind what was recorded earlier, or
// nil.
func (c *clock) behind(now time.Time) error {
	if err := CheckYear(now); err != nil {
		return err
	}
	if c.newest != nil && c.newest.Timestamp.Sub(now) > maxJump && !c.newest.Timestamp.Equal(c.last.Ahead) {
		return &clockError{text: fmt.Sprintf("it is at %s, more than a day before the newest snapshot %s", stamp(now), c.newest.ID())}
	}
	return nil
}

// jumped returns why the system clock is not plausible after the last sync, once
// upstream has answered, or nil. root is the newest upstream date.
func (c *clock) jumped(now, root time.Time) error {
	seen, since := c.seen(now)
	if !seen.IsZero() && now.Sub(seen) <= maxJump {
		return nil
	}
	independent, local := c.votes(now)
	switch {
	case independent.agree:
		return nil
	case independent.against != nil:
		return independent.refusal(now, since)
	case !local.agree && local.against != nil:
		return local.refusal(now, since)
	case seen.IsZero():
		return nil
	}
	if root.After(seen) {
		seen, since = root, "upstream's newest date is "+stamp(root)
	}
	if now.Sub(seen) > maxAlone {
		return &clockError{ahead: true, text: fmt.Sprintf("it is at %s, %s, and no other machine's clock confirms it", stamp(now), since)}
	}
	return nil
}

// seen returns the latest time before now that was right for an earlier sync, and
// a description of it.
func (c *clock) seen(now time.Time) (t time.Time, words string) {
	words = "this is the first sync"
	if c.newest != nil {
		t, words = c.newest.Timestamp, "the newest snapshot is "+c.newest.ID()
	}
	if c.last.OK.After(t) && !c.last.OK.After(now) {
		t, words = c.last.OK, "the last sync succeeded at "+stamp(c.last.OK)
	}
	return t, words
}

// vote is what several servers say about the system clock.
type vote struct {
	agree   bool
	against *serverTime // the closest server that does not agree
}

func (v vote) refusal(now time.Time, since string) error {
	return &clockError{
		ahead: now.After(v.against.at),
		text:  fmt.Sprintf("it is at %s, the clock of %s is at %s, and %s", stamp(now), v.against.url, stamp(v.against.at), since),
	}
}

// votes counts the servers on other machines and those on this one. The latter
// use the same clock if they agree.
func (c *clock) votes(now time.Time) (independent, local vote) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.servers {
		s := &c.servers[i]
		v := &independent
		if onThisMachine(s.url) {
			v = &local
		}
		switch d := now.Sub(s.at).Abs(); {
		case d <= maxJump:
			v.agree = true
		case v.against == nil || d < now.Sub(v.against.at).Abs():
			v.against = s
		}
	}
	return independent, local
}

func onThisMachine(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// set returns why the system clock was changed between the sync's start and now,
// or nil.
func (c *clock) set(now time.Time) error {
	if passed := time.Since(c.began); (now.Sub(c.start) - passed).Abs() > maxJump {
		return &clockError{
			ahead: now.After(c.start),
			text:  fmt.Sprintf("it went from %s to %s during %v of this sync", stamp(c.start), stamp(now), passed.Round(time.Second)),
		}
	}
	return nil
}

// accept turns a refusal into a warning if the user declared the clock to be right.
func (a *attempt) accept(err error) error {
	if err == nil || !a.o.AcceptClock {
		return err
	}
	a.warn(err.Error() + "; accepted")
	return nil
}

// judgedByTime reports whether a root was refused because of the system clock.
func judgedByTime(err error) bool {
	return errors.Is(err, repo.ErrExpired) || errors.Is(err, repo.ErrFuture) || errors.Is(err, sign.ErrExpired)
}

// checkClock is called after upstream has answered, with the outcome for each
// root. A wrong clock is the better explanation for a root that seems to be
// expired. It may also explain a signature from the future, but never hides a
// security error.
func (a *attempt) checkClock(rootErr error) error {
	if rootErr != nil && !judgedByTime(rootErr) && !isSecurity(rootErr) || a.history() && a.head.Snapshot != nil && !a.o.As.After(a.head.Snapshot.Timestamp) {
		return rootErr // the timestamp of an older state is As, not the clock's
	}
	var newest time.Time
	for _, s := range a.suites {
		date := s.gen.Date
		if s.root != nil {
			date = s.root.Date
		}
		if date.After(newest) {
			newest = date
		}
	}
	err := a.clock.jumped(a.clock.start, newest)
	switch {
	case err != nil && rootErr != nil && !a.o.AcceptClock && judgedByTime(rootErr):
		return fmt.Errorf("%w (%v)", err, rootErr)
	case err != nil && rootErr != nil && !a.o.AcceptClock:
		return fmt.Errorf("%w; %w", err, rootErr)
	case rootErr != nil:
		return rootErr
	}
	return a.accept(err)
}

// note records the outcome of asking upstream, at now.
func (r *SyncResult) note(c *meta.Check, now time.Time, err error) {
	c.Checked, c.Error = now.UTC().Truncate(time.Second), ""
	if err != nil {
		c.Error = err.Error()
		if ce, ok := errors.AsType[*clockError](err); ok {
			c.Doubt = time.Time{}
			if ce.ahead {
				c.Doubt = c.Checked
			}
		}
		return
	}
	c.OK, c.Doubt = c.Checked, time.Time{}
	if r.Snapshot.Timestamp.Sub(now) > maxJump {
		c.Ahead = r.Snapshot.Timestamp // accepted: the following syncs accept it, too
	}
}

// CheckYear returns an error that wraps ErrClock if the system clock is at a year before
// this program existed: the clock was never set.
func CheckYear(now time.Time) error {
	if now.Year() < firstYear {
		return &clockError{text: fmt.Sprintf("it is at %s, expected %d or later", stamp(now), firstYear)}
	}
	return nil
}

// CheckClock returns an error that wraps ErrClock if a sync was refused because the
// system clock seems to be ahead, and the clock has not been set back since. Ages cannot
// be judged with such a clock.
func CheckClock(mirrors []meta.MirrorState, now time.Time) error {
	for _, m := range mirrors {
		if c := m.Check; !c.Doubt.IsZero() && c.Doubt.Sub(now) <= maxJump {
			return &clockError{ahead: true, text: fmt.Sprintf("it is at %s, and a sync of mirror %s was refused because of it (%s)", stamp(now), m.Mirror, c.Error)}
		}
	}
	return nil
}

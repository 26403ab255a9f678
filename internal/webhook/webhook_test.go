package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/meta/postgres"
	"example.org/snapd/internal/meta/postgres/pgtest"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// receiver is a server that checks what it gets as receivers do, with the library of the
// specification's authors.
type receiver struct {
	t      *testing.T
	srv    *httptest.Server
	answer func(n int) int // the status for the nth request; nil: 204

	mu  sync.Mutex
	ids []string // of the requests
}

func newReceiver(t *testing.T, answer func(n int) int) *receiver {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, answer: answer}
	r.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err == nil {
			err = wh.VerifyIgnoringTimestamp(body, req.Header) // some tests are ahead of time
		}
		if err != nil || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("receiver: %v, %v: %s", err, req.Header, body)
		}
		r.mu.Lock()
		r.ids = append(r.ids, req.Header.Get("webhook-id"))
		n := len(r.ids)
		r.mu.Unlock()
		status := http.StatusNoContent
		if r.answer != nil {
			status = r.answer(n)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.srv.Close)
	return r
}

func (r *receiver) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids)
}

// hook is the configuration of a webhook for the receiver.
func (r *receiver) hook(name string) config.Webhook {
	file := filepath.Join(r.t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return config.Webhook{
		Name: name, URL: remote.NewURL(r.srv.URL + "/s3cret"), Events: config.WebhookEvents(), SecretFile: file, AllowPrivate: true, Timeout: config.Duration(30 * time.Second),
	}
}

// world is an engine and its metadata.
type world struct {
	t    *testing.T
	st   meta.Store
	conf Config
	e    *Engine
	end  func() // stops the engine
}

func openBolt(t *testing.T, dir string) *bolt.Store {
	t.Helper()
	st, err := bolt.Open(filepath.Join(dir, "meta.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// start runs an engine on metadata until the test ends or calls w.end.
func start(t *testing.T, st meta.Store, hooks ...config.Webhook) *world {
	return startWith(t, st, func(*Config) {}, hooks...)
}

func startWith(t *testing.T, st meta.Store, change func(*Config), hooks ...config.Webhook) *world {
	t.Helper()
	client := fetch.New(fetch.Config{})
	t.Cleanup(client.Close)
	w := &world{t: t, st: st, conf: Config{
		Meta: st, Client: client, Webhooks: hooks, Mirrors: func() []config.Mirror { return nil }, PublicURL: "https://mirror.example.org", Node: t.Name(),
		Log: slog.New(slog.DiscardHandler), Now: time.Now, Backoff: slices.Repeat([]time.Duration{10 * time.Millisecond}, 3),
	}}
	change(&w.conf)
	var err error
	if w.e, err = New(w.conf); err != nil {
		t.Fatal(err)
	}
	if err := w.e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.e.Run(ctx)
	}()
	w.end = func() {
		cancel()
		<-done
	}
	t.Cleanup(w.end)
	return w
}

// fails makes syncs of a mirror fail, each for another reason: an event each.
func (w *world) fails(n int) {
	w.t.Helper()
	for i := range n {
		if err := w.st.SetCheck(w.t.Context(), "debian", meta.Check{Checked: time.Now(), Error: fmt.Sprint("refused ", i, time.Now().UnixNano())}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// log returns the deliveries to a webhook, the oldest event first.
func (w *world) log(name string) []meta.Delivery {
	w.t.Helper()
	all, err := w.st.Deliveries(w.t.Context(), name, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Reverse(all)
	return all
}

// states waits until the deliveries to a webhook have certain states.
func (w *world) states(name string, want ...string) []meta.Delivery {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		all := w.log(name)
		var got []string
		for _, d := range all {
			got = append(got, d.State)
		}
		if slices.Equal(got, want) {
			return all
		}
		if time.Now().After(end) {
			w.t.Fatalf("deliveries to %s: %+v, expected %q", name, all, want)
		}
	}
}

func repeated(s string, n int) []string { return slices.Repeat([]string{s}, n) }

// Events from before a webhook was there are not delivered; later ones are, in their
// order, and only those that it asked for.
func TestDeliver(t *testing.T) {
	st := openBolt(t, t.TempDir())
	defer st.Close()
	r := newReceiver(t, nil)
	(&world{t: t, st: st}).fails(1)
	one, two := r.hook("one"), newReceiver(t, nil).hook("two")
	two.Events = []string{meta.EventFreeze}
	w := start(t, st, one, two)
	w.fails(5)
	all := w.states("one", repeated(meta.DeliveryDelivered, 5)...)
	var ids []string
	for _, d := range all {
		ids = append(ids, d.Event.ID)
		if d.Attempts != 1 || d.Status != http.StatusNoContent || d.Error != "" || d.Last.IsZero() || !d.Next.IsZero() {
			t.Errorf("%+v", d)
		}
	}
	if got := r.got(); !slices.Equal(got, ids) {
		t.Errorf("events %q, expected %q", got, ids)
	}
	w.states("two")
	if c := w.e.Counts(); c["one"] != (Counts{Delivered: 5}) || c["two"] != (Counts{}) {
		t.Errorf("counts %+v", c)
	}
	// One of them again.
	if _, err := st.Redeliver(t.Context(), "one", ids[2], time.Now()); err != nil {
		t.Fatal(err)
	}
	w.states("one", repeated(meta.DeliveryDelivered, 5)...)
	for end := time.Now().Add(time.Minute); len(r.got()) < 6 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := r.got(); len(got) != 6 || got[5] != ids[2] {
		t.Errorf("redelivered: %q", got)
	}
}

// What failed is tried again after a restart, with the same id, and given up after the
// last attempt, or at once if the receiver says that it is gone.
func TestRetries(t *testing.T) {
	dir := t.TempDir()
	down := http.StatusServiceUnavailable
	r := newReceiver(t, func(n int) int {
		if n < 3 {
			return down
		}
		return http.StatusOK
	})
	st := openBolt(t, dir)
	hour := func(c *Config) { c.Backoff = []time.Duration{time.Hour} }
	w := startWith(t, st, hour, r.hook("ci"))
	w.fails(1)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if all := w.log("ci"); len(all) == 1 && all[0].Attempts == 1 {
			if d := all[0]; d.State != meta.DeliveryPending || d.Status != down || !strings.HasSuffix(d.Error, "status 503") || d.Next.Sub(d.Last) < time.Hour || d.Next.Sub(d.Last) > 67*time.Minute {
				t.Errorf("after an attempt: %+v", d)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("no attempt")
		}
	}
	w.end()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	// An hour later, in another process.
	st = openBolt(t, dir)
	defer st.Close()
	w = startWith(t, st, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(2 * time.Hour) } }, r.hook("ci"))
	d := w.states("ci", meta.DeliveryDelivered)[0]
	if d.Attempts != 3 || d.Status != http.StatusOK || d.Error != "" {
		t.Errorf("delivered: %+v", d)
	}
	if got := r.got(); len(got) != 3 || got[0] != d.Event.ID || got[1] != got[0] || got[2] != got[0] {
		t.Errorf("ids %q, expected three times %s", got, d.Event.ID)
	}
	w.end()
	// Never, and gone.
	never := newReceiver(t, func(int) int { return http.StatusInternalServerError })
	gone := newReceiver(t, func(int) int { return http.StatusGone })
	moved := newReceiver(t, func(int) int { return http.StatusFound })
	w = start(t, st, never.hook("never"), gone.hook("gone"), moved.hook("moved"))
	w.fails(1)
	for name, c := range map[string]struct {
		attempts int
		err      string
	}{"never": {4, "status 500"}, "gone": {1, "status 410"}, "moved": {4, "redirects are not followed"}} {
		if d := w.states(name, meta.DeliveryFailed)[0]; d.Attempts != c.attempts || !strings.Contains(d.Error, c.err) || !d.Next.IsZero() {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if c := w.e.Counts()["never"]; c != (Counts{Retried: 3, Failed: 1}) {
		t.Errorf("counts %+v", c)
	}
}

// An address that is not public is refused, and named.
func TestPrivateAddress(t *testing.T) {
	st := openBolt(t, t.TempDir())
	defer st.Close()
	r := newReceiver(t, nil)
	h := r.hook("ci")
	h.AllowPrivate = false
	w := start(t, st, h)
	w.fails(1)
	d := w.states("ci", meta.DeliveryFailed)[0]
	if !strings.Contains(d.Error, "127.0.0.1 is a loopback address, expected a public one") || d.Status != 0 || strings.Contains(d.Error, "s3cret") {
		t.Errorf("%+v", d)
	}
	if _, err := w.e.Test(t.Context(), "ci"); !errors.Is(err, ErrNotDelivered) || !strings.Contains(err.Error(), "loopback address") {
		t.Errorf("test event: %v", err)
	}
	if got := r.got(); len(got) > 0 {
		t.Errorf("the receiver got %q", got)
	}
}

// A receiver that does not answer holds up neither other webhooks nor the changes.
func TestSlow(t *testing.T) {
	st := openBolt(t, t.TempDir())
	defer st.Close()
	stuck := make(chan struct{})
	slow := newReceiver(t, func(int) int {
		<-stuck
		return http.StatusOK
	})
	defer close(stuck)
	h := slow.hook("slow")
	h.Timeout = config.Duration(2 * time.Second)
	quick := newReceiver(t, nil)
	w := start(t, st, h, quick.hook("quick"))
	w.fails(1)
	for end := time.Now().Add(time.Minute); len(slow.got()) == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	start := time.Now()
	w.fails(3)
	if took := time.Since(start); took > time.Second {
		t.Errorf("changes took %v while a receiver was slow", took)
	}
	w.states("quick", repeated(meta.DeliveryDelivered, 4)...)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if d := w.log("slow")[0]; d.Attempts > 0 {
			if !strings.Contains(d.Error, "timed out") {
				t.Errorf("%+v", d)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("the attempt does not end")
		}
	}
}

// A reload changes, adds and removes webhooks; a bad secret changes nothing.
func TestPrepare(t *testing.T) {
	st := openBolt(t, t.TempDir())
	defer st.Close()
	one, two := newReceiver(t, nil), newReceiver(t, nil)
	w := start(t, st, one.hook("one"))
	bad := two.hook("two")
	bad.SecretFile = filepath.Join(t.TempDir(), "none")
	if _, err := w.e.Prepare([]config.Webhook{bad}); err == nil || !strings.Contains(err.Error(), "secret_file of webhook two: ") {
		t.Errorf("a bad secret: %v", err)
	}
	w.fails(1)
	w.states("one", meta.DeliveryDelivered)
	apply, err := w.e.Prepare([]config.Webhook{two.hook("two")})
	if err != nil {
		t.Fatal(err)
	}
	apply()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		work, err := st.WebhookWork(t.Context(), "two")
		if err != nil {
			t.Fatal(err)
		}
		if !work.Behind {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the new webhook is not known")
		}
	}
	w.fails(1)
	w.states("two", meta.DeliveryDelivered)
	if len(one.got()) != 1 || len(two.got()) != 1 {
		t.Errorf("%q and %q", one.got(), two.got())
	}
	if _, err := w.e.Test(t.Context(), "one"); !errors.Is(err, ErrUnknown) {
		t.Errorf("a webhook that was removed: %v", err)
	}
	res, err := w.e.Test(t.Context(), "two")
	if err != nil || res.Status != http.StatusNoContent || res.Event != two.got()[1] {
		t.Errorf("test event: %+v, %v", res, err)
	}
}

// Nodes that share a database deliver each event once, in order, and one goes on for
// another that ends.
func TestNodes(t *testing.T) {
	srv := pgtest.Start(t)
	url := srv.Database(t)
	open := func() *postgres.Store {
		st, err := postgres.Open(t.Context(), postgres.Options{URL: url, Connections: 8})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { st.Close() })
		return st
	}
	r := newReceiver(t, nil)
	a, b := start(t, open(), r.hook("ci")), start(t, open(), r.hook("ci"))
	const n = 40
	for i := range n {
		if i%2 == 0 {
			a.fails(1)
		} else {
			b.fails(1)
		}
		if i == n/2 {
			a.end()
		}
	}
	var want []string
	for _, d := range b.states("ci", repeated(meta.DeliveryDelivered, n)...) {
		want = append(want, d.Event.ID)
	}
	if got := r.got(); !slices.Equal(got, want) {
		t.Errorf("%d deliveries, expected %d: %q, expected %q", len(got), n, got, want)
	}
	if one, two := a.e.Counts()["ci"].Delivered, b.e.Counts()["ci"].Delivered; one+two != n || two == 0 {
		t.Errorf("%d and %d deliveries, expected %d together", one, two, n)
	}
}

// A suite that upstream does not update is reported once for each Date.
func TestStale(t *testing.T) {
	st := openBolt(t, t.TempDir())
	defer st.Close()
	day := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	seal := func(at time.Time) {
		t.Helper()
		s := &meta.Sealing{Snapshot: meta.Snapshot{Mirror: "debian", Type: "deb", Suites: []meta.SnapshotSuite{{Suite: "stable", Gen: 1, Date: at}}}}
		if _, err := st.Seal(t.Context(), s, at); err != nil {
			t.Fatal(err)
		}
	}
	seal(day)
	now := day
	e, err := New(Config{
		Meta: st, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler), PublicURL: "https://mirror.example.org",
		Mirrors: func() []config.Mirror {
			return []config.Mirror{{Name: "debian", MaxAge: config.Duration(24 * time.Hour)}, {Name: "new", MaxAge: 1}, {Name: "any"}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   time.Time
		seal bool
		want int // events
	}{
		{at: day.Add(24 * time.Hour), want: 0},
		{at: day.Add(25 * time.Hour), want: 1},
		{at: day.Add(26 * time.Hour), want: 1},
		{at: day.Add(27 * time.Hour), seal: true, want: 1},
		{at: day.Add(52 * time.Hour), want: 2},
	} {
		if now = c.at; c.seal {
			seal(now)
		}
		for range 2 {
			if err := e.watch(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		all, err := st.Events(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		all = slices.DeleteFunc(all, func(e meta.Event) bool { return e.Type != meta.EventStale })
		if len(all) != c.want || c.want > 0 && all[len(all)-1].Subject() != "debian stable" {
			t.Errorf("%s: %+v, expected %d", c.at, all, c.want)
		}
	}
	now = day.AddDate(0, 3, 0)
	if err := e.trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all, err := st.Events(t.Context(), 0, 100); err != nil || len(all) > 0 {
		t.Errorf("after three months: %+v, %v", all, err)
	}
}

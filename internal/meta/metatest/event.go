package metatest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/meta"
)

// hook is the name of a webhook.
const hook = "ci.example.org"

// staleEvent is the event of a suite whose upstream stopped on a date.
func staleEvent(date time.Time) meta.Event {
	return meta.Event{Type: meta.EventStale, Time: date.Add(time.Hour), Stale: &meta.EventAge{Mirror: mirror, Suite: "stable", Date: date, MaxAge: time.Hour}}
}

// stale reports a suite as stale.
func stale(ctx context.Context, s meta.Store) error {
	return s.AppendEvent(ctx, staleEvent(day.Add(-time.Hour)), meta.EventOnce{Note: meta.StaleNote(mirror, "stable"), Value: meta.FormatTimestamp(day)})
}

// queue queues the deliveries of stale suites.
func queue(ctx context.Context, s meta.Store) error {
	_, err := s.QueueDeliveries(ctx, hook, []string{meta.EventStale}, day.Add(-time.Hour), day, 10)
	return err
}

// deliver delivers the newest event.
func deliver(ctx context.Context, s meta.Store) error {
	all, err := s.Deliveries(ctx, hook, 1)
	if err != nil {
		return err
	}
	d := all[0]
	d.State, d.Attempts, d.Next, d.Last, d.Status = meta.DeliveryDelivered, 1, time.Time{}, day, 204
	return s.PutDelivery(ctx, &d)
}

// describeEvents reads the events, the deliveries and the audit list.
func (c *contents) describeEvents(t testing.TB, s meta.Store) {
	t.Helper()
	fail := failing(t)
	var err error
	c.Audit, err = s.AuditEntries(t.Context(), time.Time{}, 0, 1000)
	fail(err)
	c.Events, err = s.Events(t.Context(), 0, 1000)
	fail(err)
	c.Deliveries, err = s.Deliveries(t.Context(), hook, 1000)
	fail(err)
	for i := range c.Events {
		c.Events[i].ID, c.Events[i].Seq = "", 0
	}
	for i := range c.Deliveries {
		c.Deliveries[i].Event.ID, c.Deliveries[i].Event.Seq = "", 0
	}
}

// testEvents checks that each change adds its event exactly once. Long because each kind
// of change follows the others.
func testEvents(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx, fail := t.Context(), failing(t)
	var seen int64
	ids := map[string]bool{}
	added := func(what string, want ...string) {
		t.Helper()
		all, err := s.Events(ctx, seen, 100)
		fail(err)
		var got []string
		for _, e := range all {
			if e.Seq <= seen || e.ID == "" || ids[e.ID] {
				t.Errorf("%s: event %d with the id %q", what, e.Seq, e.ID)
			}
			seen, ids[e.ID] = e.Seq, true
			got = append(got, e.Type+" "+e.Subject())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: events %q, expected %q", what, got, want)
		}
	}
	added("nothing")
	one, two, _ := history(t, s)
	all, err := s.Events(ctx, 0, 1)
	fail(err)
	if len(all) != 1 || all[0].Type != meta.EventSnapshot || all[0].Snapshot.ID() != one.ID() || len(all[0].Snapshot.Suites) != len(one.Suites) {
		t.Errorf("the first event: %+v", all)
	}
	last, err := s.Events(ctx, 0, 100)
	fail(err)
	seen = last[len(last)-1].Seq
	if len(last) < 2 || last[1].Snapshot.ID() != two.ID() {
		t.Errorf("events of snapshots: %+v", last)
	}
	f := freeze("4.1", "one")
	fail(s.Publish(ctx, f))
	added("a freeze", "freeze 4.1")
	if all, err = s.Events(ctx, seen-1, 1); err != nil || all[0].Freeze.Manifest != f.Manifest.SHA256 || len(all[0].Freeze.Mirrors) != len(f.Mirrors) {
		t.Errorf("the event of a freeze: %+v, %v", all, err)
	}
	fail(s.Publish(ctx, f))
	added("the same freeze again")
	if err := s.Publish(ctx, freeze("4.1", "two")); !errors.Is(err, meta.ErrExists) {
		t.Errorf("another freeze: %v", err)
	}
	added("a refused freeze")
	fail(s.MoveChannel(ctx, channel("4.1", day)))
	fail(s.RemoveChannel(ctx, "stable", day.Add(time.Hour), "user 1"))
	added("a channel", "channel stable to 4.1", "channel stable removed")
	// A sync that fails again for the same reason adds no event.
	for _, c := range []struct {
		what  string
		check meta.Check
		want  []string
	}{
		{what: "success", check: meta.Check{Checked: day, OK: day}},
		{"a failure", meta.Check{Checked: day.Add(time.Hour), OK: day, Error: "unreachable"}, []string{"failure " + mirror}},
		{what: "the same failure", check: meta.Check{Checked: day.Add(2 * time.Hour), OK: day, Error: "unreachable"}},
		{"another failure", meta.Check{Checked: day.Add(3 * time.Hour), OK: day, Error: "wrong signature"}, []string{"failure " + mirror}},
		{what: "success again", check: meta.Check{Checked: day.Add(4 * time.Hour), OK: day.Add(4 * time.Hour)}},
		{"a failure after it", meta.Check{Checked: day.Add(5 * time.Hour), OK: day, Error: "unreachable"}, []string{"failure " + mirror}},
	} {
		fail(s.SetCheck(ctx, mirror, c.check))
		added(c.what, c.want...)
	}
	if all, err = s.Events(ctx, seen-1, 1); err != nil || all[0].Failure.Error != "unreachable" || !all[0].Failure.OK.Equal(day) || !all[0].Time.Equal(day.Add(5*time.Hour)) {
		t.Errorf("the event of a failure: %+v, %v", all, err)
	}
	fail(stale(ctx, s))
	fail(stale(ctx, s))
	added("a stale suite", "stale "+mirror+" stable")
	fail(s.AppendEvent(ctx, staleEvent(day), meta.EventOnce{}))
	fail(s.AppendEvent(ctx, staleEvent(day), meta.EventOnce{}))
	added("without a note", "stale "+mirror+" stable", "stale "+mirror+" stable")
	// With several writers, a reader who follows the numbers misses no event.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.AppendEvent(ctx, staleEvent(day), meta.EventOnce{}); err != nil {
				t.Error(err)
			}
		})
	}
	found := 0
	for end := time.Now().Add(time.Minute); found < 8 && time.Now().Before(end); {
		all, err := s.Events(ctx, seen, 100)
		fail(err)
		for _, e := range all {
			seen = e.Seq
			found++
		}
	}
	wg.Wait()
	if found != 8 {
		t.Errorf("%d events, expected 8", found)
	}
}

// testDeliveries checks which deliveries are queued, made, requested again and removed.
// Long because it follows the same deliveries from start to end.
func testDeliveries(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx, fail := t.Context(), failing(t)
	types := []string{meta.EventStale, meta.EventFailure}
	event := func(hours int) {
		t.Helper()
		fail(s.AppendEvent(ctx, staleEvent(day.Add(time.Duration(hours)*time.Hour)), meta.EventOnce{}))
	}
	queue := func(hook string, limit int, wantMore bool) {
		t.Helper()
		if more, err := s.QueueDeliveries(ctx, hook, types, day, day, limit); err != nil || more != wantMore {
			t.Errorf("queue: %v, %v, expected %v", more, err, wantMore)
		}
	}
	due := func(at time.Time, limit int) (out []meta.Delivery) {
		t.Helper()
		out, err := s.DueDeliveries(ctx, hook, at, limit)
		fail(err)
		return out
	}
	work := func(want meta.WebhookWork) {
		t.Helper()
		if got, err := s.WebhookWork(ctx, hook); err != nil || !cmp.Equal(want, got) {
			t.Errorf("work: %v; -want +got\n%s", err, cmp.Diff(want, got))
		}
	}
	work(meta.WebhookWork{Behind: true})
	event(0)
	queue(hook, 10, false) // a new webhook gets no earlier events
	queue(hook, 10, false)
	work(meta.WebhookWork{})
	event(1)
	event(-5) // too old
	fail(s.SetCheck(ctx, mirror, meta.Check{Checked: day.Add(3 * time.Hour), Error: "unreachable"}))
	fail(s.Publish(ctx, freeze("4.1", "one"))) // a type that the webhook did not ask for
	event(4)
	work(meta.WebhookWork{Behind: true})
	queue(hook, 2, true)
	queue(hook, 10, false)
	work(meta.WebhookWork{Pending: 3, Next: day, Oldest: day.Add(2 * time.Hour)})
	all := due(day, 10)
	if len(all) != 3 || all[0].Event.Stale == nil || all[1].Event.Failure == nil || all[2].Event.Stale == nil || all[0].State != meta.DeliveryPending || all[0].Webhook != hook {
		t.Fatalf("due: %+v", all)
	}
	if len(due(day, 2)) != 2 || len(due(day.Add(-time.Second), 10)) != 0 {
		t.Error("due deliveries before their time, or more than the limit")
	}
	// The first is delivered, the second will be tried again, the third has failed.
	one, two, three := all[0], all[1], all[2]
	one.State, one.Attempts, one.Next, one.Last, one.Took, one.Status = meta.DeliveryDelivered, 1, time.Time{}, day, time.Second, 204
	two.Attempts, two.Next, two.Last, two.Status, two.Error = 1, day.Add(time.Minute), day, 503, "status 503"
	three.State, three.Attempts, three.Next, three.Last, three.Error = meta.DeliveryFailed, 9, time.Time{}, day, "refused"
	for _, d := range []meta.Delivery{one, two, three, two} {
		fail(s.PutDelivery(ctx, &d))
	}
	work(meta.WebhookWork{Pending: 1, Next: day.Add(time.Minute), Oldest: day.Add(3 * time.Hour)})
	if all = due(day.Add(time.Minute), 10); len(all) != 1 || !cmp.Equal(two, all[0]) {
		t.Errorf("to be tried again: -want +got\n%s", cmp.Diff([]meta.Delivery{two}, all))
	}
	list := func(hook string, limit int, want ...meta.Delivery) {
		t.Helper()
		if got, err := s.Deliveries(ctx, hook, limit); err != nil || !cmp.Equal(want, got) {
			t.Errorf("deliveries: %v; -want +got\n%s", err, cmp.Diff(want, got))
		}
	}
	list(hook, 10, three, two, one)
	list(hook, 2, three, two)
	list("other", 10)
	if _, err := s.Redeliver(ctx, hook, "none", day); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("redeliver nothing: %v", err)
	}
	if _, err := s.Redeliver(ctx, "other", three.Event.ID, day); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("redeliver to another webhook: %v", err)
	}
	again, err := s.Redeliver(ctx, hook, three.Event.ID, day.Add(time.Hour))
	fail(err)
	three.State, three.Attempts, three.Next = meta.DeliveryPending, 0, day.Add(time.Hour)
	if !cmp.Equal(&three, again) {
		t.Errorf("redeliver: -want +got\n%s", cmp.Diff(&three, again))
	}
	list(hook, 10, three, two, one)
	// Old events are removed together with their deliveries.
	if n, err := s.TrimEvents(ctx, day.Add(2*time.Hour+time.Minute), 1); err != nil || n != 1 {
		t.Errorf("trim one: %d, %v", n, err)
	}
	if n, err := s.TrimEvents(ctx, day.Add(2*time.Hour+time.Minute), 10); err != nil || n != 2 {
		t.Errorf("trim the others: %d, %v", n, err)
	}
	list(hook, 10, three, two)
	if err := s.PutDelivery(ctx, &one); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("a delivery whose event was removed: %v", err)
	}
	if n, err := s.TrimEvents(ctx, day.AddDate(1, 0, 0), 10); err != nil || n != 3 {
		t.Errorf("trim all: %d, %v", n, err)
	}
	list(hook, 10)
	work(meta.WebhookWork{})
	event(7)
	queue(hook, 10, false)
	if all = due(day, 10); len(all) != 1 {
		t.Errorf("after all were removed: %+v", all)
	}
}

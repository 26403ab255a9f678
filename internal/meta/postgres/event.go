package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"example.org/snapd/internal/meta"
)

// putEvent adds an event. Like changed, it must be called at the end of a transaction: a
// lock keeps the numbers in the order of commits, so that a reader who has seen an event
// never misses an earlier one.
func (t *tx) putEvent(ctx context.Context, e *meta.Event) error {
	if _, err := t.exec(ctx, "select pg_advisory_xact_lock($1)", changeLock); err != nil {
		return err
	}
	one := *e
	one.ID = rand.Text()
	return t.putDoc(ctx, &one, "insert into event (at, id, doc) values ($1, $2, $3)", one.Time, one.ID)
}

// AppendEvent implements meta.Events.
func (s *Store) AppendEvent(ctx context.Context, e meta.Event, once meta.EventOnce) error {
	return s.write(ctx, "event", func(t *tx) error {
		if once.Note != "" {
			if err := t.lockName(ctx, "/event/"+once.Note); err != nil {
				return err
			}
			have, err := t.note(ctx, once.Note)
			if err != nil || have == once.Value {
				return err
			}
			if err := t.setNote(ctx, once.Note, once.Value); err != nil {
				return err
			}
		}
		return t.putEvent(ctx, &e)
	})
}

// Events implements meta.Events.
func (s *Store) Events(ctx context.Context, after int64, limit int) ([]meta.Event, error) {
	return ask(ctx, s, func(t *tx) ([]meta.Event, error) { return t.events(ctx, after, limit) })
}

func (t *tx) events(ctx context.Context, after int64, limit int) (out []meta.Event, err error) {
	var n int64
	var data []byte
	err = t.each(ctx, []any{&n, &data}, func() error {
		e := meta.Event{Seq: n}
		err := undoc(data, &e)
		out = append(out, e)
		return err
	}, "select n, doc from event where n > $1 order by n limit $2", after, limit)
	return out, err
}

// TrimEvents implements meta.Events.
func (s *Store) TrimEvents(ctx context.Context, before time.Time, limit int) (n int, err error) {
	err = s.write(ctx, "trim events", func(t *tx) error {
		gone, err := t.exec(ctx, `delete from event where n in (
			select n from event where n < coalesce((select min(n) from event where at >= $1), (select max(n) + 1 from event)) order by n limit $2)`, before, limit)
		n = int(gone)
		return err
	})
	return n, err
}

// cursor returns the number of the last event that was queued for a webhook, and the
// number of the newest event. ok is false if the webhook is new. Events whose commits
// were lost do not count.
func (t *tx) cursor(ctx context.Context, webhook string) (seq, last int64, ok bool, err error) {
	if _, err := t.one(ctx, []any{&last}, "select coalesce(max(n), 0) from event"); err != nil {
		return 0, 0, false, err
	}
	text, err := t.note(ctx, meta.WebhookCursor(webhook))
	if err != nil || text == "" {
		return 0, last, false, err
	}
	if seq, err = strconv.ParseInt(text, 10, 64); err != nil {
		return 0, 0, false, fmt.Errorf("%w: cursor %q of webhook %s", meta.ErrCorrupt, text, webhook)
	}
	if last > 0 {
		seq = min(seq, last)
	}
	return seq, last, true, nil
}

func (t *tx) setCursor(ctx context.Context, webhook string, seq int64) error {
	return t.setNote(ctx, meta.WebhookCursor(webhook), strconv.FormatInt(seq, 10))
}

// QueueDeliveries implements meta.Events.
func (s *Store) QueueDeliveries(ctx context.Context, webhook string, types []string, since, now time.Time, limit int) (more bool, err error) {
	err = s.write(ctx, "queue deliveries", func(t *tx) error {
		more = false
		if err := t.lockName(ctx, "/webhook/"+webhook); err != nil {
			return err
		}
		at, last, ok, err := t.cursor(ctx, webhook)
		if err != nil {
			return err
		}
		if !ok {
			return t.setCursor(ctx, webhook, last)
		}
		all, err := t.events(ctx, at, limit)
		if err != nil || len(all) == 0 {
			return err
		}
		for _, e := range all {
			at = e.Seq
			if !e.Wanted(types, since) {
				continue
			}
			d := meta.Delivery{Webhook: webhook, State: meta.DeliveryPending, Next: now.UTC(), Event: e}
			if err := t.putDelivery(ctx, &d); err != nil {
				return err
			}
		}
		more = at < last
		return t.setCursor(ctx, webhook, at)
	})
	return more, err
}

// deliveries runs a query for deliveries d and events e.
func (t *tx) deliveries(ctx context.Context, where string, args ...any) (out []meta.Delivery, err error) {
	var n int64
	var event, doc []byte
	err = t.each(ctx, []any{&n, &event, &doc}, func() error {
		d := meta.Delivery{Event: meta.Event{Seq: n}}
		if err := undoc(event, &d.Event); err != nil {
			return err
		}
		err := undoc(doc, &d)
		out = append(out, d)
		return err
	}, "select e.n, e.doc, d.doc from delivery d join event e on e.n = d.n where "+where, args...)
	return out, err
}

// putDelivery replaces a delivery.
func (t *tx) putDelivery(ctx context.Context, d *meta.Delivery) error {
	pending := d.State == meta.DeliveryPending
	var next *time.Time
	if pending {
		next = &d.Next
	}
	return t.putDoc(ctx, d, `insert into delivery (webhook, n, pending, next, doc) values ($1, $2, $3, $4, $5)
		on conflict (webhook, n) do update set pending = excluded.pending, next = excluded.next, doc = excluded.doc`, d.Webhook, d.Event.Seq, pending, next)
}

// WebhookWork implements meta.Events.
func (s *Store) WebhookWork(ctx context.Context, webhook string) (meta.WebhookWork, error) {
	return ask(ctx, s, func(t *tx) (w meta.WebhookWork, err error) {
		at, last, ok, err := t.cursor(ctx, webhook)
		if err != nil {
			return w, err
		}
		w.Behind = !ok || at < last
		var next, oldest *time.Time
		if _, err := t.one(ctx, []any{&w.Pending, &next, &oldest}, `select count(*), min(d.next), min(e.at) from delivery d join event e on e.n = d.n
			where d.webhook = $1 and d.pending`, webhook); err != nil || w.Pending == 0 {
			return w, err
		}
		w.Next, w.Oldest = next.UTC(), oldest.UTC()
		return w, nil
	})
}

// DueDeliveries implements meta.Events.
func (s *Store) DueDeliveries(ctx context.Context, webhook string, now time.Time, limit int) ([]meta.Delivery, error) {
	return ask(ctx, s, func(t *tx) ([]meta.Delivery, error) {
		return t.deliveries(ctx, "d.webhook = $1 and d.pending and d.next <= $2 order by d.n limit $3", webhook, now, limit)
	})
}

// Deliveries implements meta.Events.
func (s *Store) Deliveries(ctx context.Context, webhook string, limit int) ([]meta.Delivery, error) {
	return ask(ctx, s, func(t *tx) ([]meta.Delivery, error) {
		return t.deliveries(ctx, "d.webhook = $1 order by d.n desc limit $2", webhook, limit)
	})
}

// PutDelivery implements meta.Events.
func (s *Store) PutDelivery(ctx context.Context, d *meta.Delivery) error {
	return s.write(ctx, "delivery", func(t *tx) error {
		var one int
		ok, err := t.one(ctx, []any{&one}, "select 1 from event where n = $1 for key share", d.Event.Seq)
		if err != nil {
			return err
		}
		if !ok {
			return meta.NoDelivery(d.Webhook, d.Event.ID)
		}
		return t.putDelivery(ctx, d)
	})
}

// Redeliver implements meta.Events.
func (s *Store) Redeliver(ctx context.Context, webhook, id string, now time.Time) (found *meta.Delivery, err error) {
	err = s.write(ctx, "redeliver", func(t *tx) error {
		found = nil
		all, err := t.deliveries(ctx, "d.webhook = $1 and e.id = $2 for update of d", webhook, id)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return meta.NoDelivery(webhook, id)
		}
		found = &all[0]
		found.Again(now)
		return t.putDelivery(ctx, found)
	})
	return found, err
}

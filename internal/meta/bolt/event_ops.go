package bolt

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.org/snapd/internal/meta"
)

// eventBucket holds events by number. deliveryBucket holds their deliveries, by state
// (pending or over), webhook and number.
const (
	eventBucket    = "event"
	deliveryBucket = "delivery"
)

// First bytes of the keys of deliveries.
const (
	deliveryPending = 'p'
	deliveryOver    = 'o'
)

func deliveryPrefix(state byte, webhook string) key { return key(nil).one(state).str(webhook) }

func deliveryKey(state byte, webhook string, seq int64) key {
	return deliveryPrefix(state, webhook).u64(uint64(seq))
}

// deliverySeq is the number of the event in the key of a delivery.
func deliverySeq(k []byte) int64 { return int64(be64(k[len(k)-8:])) }

// putEvent adds an event.
func (t *txn) putEvent(e *meta.Event) error {
	b := t.b(eventBucket)
	n, err := b.NextSequence()
	if err != nil {
		return err
	}
	one := *e
	one.ID = rand.Text()
	return putJSON(b, key(nil).u64(n), &one)
}

// event reads an event. ErrNotFound.
func (t *txn) event(seq int64) (e meta.Event, err error) {
	e.Seq = seq
	return e, getJSON(t.b(eventBucket), key(nil).u64(uint64(seq)), &e)
}

// AppendEvent implements meta.Events.
func (s *Store) AppendEvent(ctx context.Context, e meta.Event, once meta.EventOnce) error {
	return s.update(ctx, "event", func(tx *txn) error {
		if once.Note != "" {
			if tx.Meta(once.Note) == once.Value {
				return nil
			}
			if err := tx.SetMeta(once.Note, once.Value); err != nil {
				return err
			}
		}
		return tx.putEvent(&e)
	})
}

// Events implements meta.Events.
func (s *Store) Events(ctx context.Context, after int64, limit int) ([]meta.Event, error) {
	return ask(ctx, s, func(tx *txn) ([]meta.Event, error) { return tx.events(after, limit) })
}

func (t *txn) events(after int64, limit int) (out []meta.Event, err error) {
	b := t.b(eventBucket)
	c := b.Cursor()
	for k, _ := c.Seek(key(nil).u64(uint64(after) + 1)); k != nil && len(out) < limit; k, _ = c.Next() {
		e := meta.Event{Seq: int64(be64(k))}
		if err := getJSON(b, k, &e); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// TrimEvents implements meta.Events.
func (s *Store) TrimEvents(ctx context.Context, before time.Time, limit int) (n int, err error) {
	err = s.update(ctx, "trim events", func(tx *txn) error {
		n = 0
		all, err := tx.events(0, limit)
		if err != nil {
			return err
		}
		last := int64(0)
		for _, e := range all {
			if !e.Time.Before(before) {
				break
			}
			n, last = n+1, e.Seq
			if err := tx.b(eventBucket).Delete(key(nil).u64(uint64(e.Seq))); err != nil {
				return err
			}
		}
		if n == 0 {
			return nil
		}
		b := tx.b(deliveryBucket)
		var old [][]byte
		if err := b.ForEach(func(k, _ []byte) error {
			if deliverySeq(k) <= last {
				old = append(old, clone(k))
			}
			return nil
		}); err != nil {
			return err
		}
		for _, k := range old {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// cursor returns the number of the last event that was queued for a webhook. It returns
// false for a new webhook. Events whose commits were lost do not count.
func (t *txn) cursor(webhook string) (seq int64, ok bool, err error) {
	text := t.Meta(meta.WebhookCursor(webhook))
	if text == "" {
		return 0, false, nil
	}
	if seq, err = strconv.ParseInt(text, 10, 64); err != nil {
		return 0, false, fmt.Errorf("%w: cursor %q of webhook %s", meta.ErrCorrupt, text, webhook)
	}
	return min(seq, t.lastEvent()), true, nil
}

// lastEvent is the number of the newest event, even if it was removed.
func (t *txn) lastEvent() int64 { return int64(t.b(eventBucket).b.Sequence()) }

func (t *txn) setCursor(webhook string, seq int64) error {
	return t.SetMeta(meta.WebhookCursor(webhook), strconv.FormatInt(seq, 10))
}

// QueueDeliveries implements meta.Events.
func (s *Store) QueueDeliveries(ctx context.Context, webhook string, types []string, since, now time.Time, limit int) (more bool, err error) {
	err = s.update(ctx, "queue deliveries", func(tx *txn) error {
		more = false
		at, ok, err := tx.cursor(webhook)
		if err != nil {
			return err
		}
		if !ok {
			return tx.setCursor(webhook, tx.lastEvent())
		}
		all, err := tx.events(at, limit)
		if err != nil || len(all) == 0 && at >= tx.lastEvent() {
			return err
		}
		if len(all) == 0 { // the events up to the last number were removed
			at = tx.lastEvent()
		}
		for _, e := range all {
			at = e.Seq
			if !e.Wanted(types, since) {
				continue
			}
			d := meta.Delivery{Webhook: webhook, State: meta.DeliveryPending, Next: now.UTC()}
			if err := putJSON(tx.b(deliveryBucket), deliveryKey(deliveryPending, webhook, e.Seq), &d); err != nil {
				return err
			}
		}
		more = at < tx.lastEvent()
		return tx.setCursor(webhook, at)
	})
	return more, err
}

// eachDelivery calls f for the deliveries to a webhook in a state, in the order of their
// events or backwards, until it returns false.
func (t *txn) eachDelivery(state byte, webhook string, backwards bool, f func(d *meta.Delivery) (bool, error)) error {
	prefix := deliveryPrefix(state, webhook)
	b := t.b(deliveryBucket)
	c := b.Cursor()
	k, _ := c.Seek(prefix)
	step := c.Next
	if backwards {
		k, _ = seekLast(c, prefix, deliveryKey(state, webhook, -1))
		step = c.Prev
	}
	for ; k != nil && bytes.HasPrefix(k, prefix); k, _ = step() {
		var d meta.Delivery
		err := getJSON(b, k, &d)
		if err == nil {
			d.Event, err = t.event(deliverySeq(k))
		}
		if errors.Is(err, meta.ErrNotFound) {
			continue // lost in damage that was repaired
		} else if err != nil {
			return err
		}
		if on, err := f(&d); err != nil || !on {
			return err
		}
	}
	return nil
}

// WebhookWork implements meta.Events.
func (s *Store) WebhookWork(ctx context.Context, webhook string) (meta.WebhookWork, error) {
	return ask(ctx, s, func(tx *txn) (w meta.WebhookWork, err error) {
		at, ok, err := tx.cursor(webhook)
		if err != nil {
			return w, err
		}
		w.Behind = !ok || at < tx.lastEvent()
		err = tx.eachDelivery(deliveryPending, webhook, false, func(d *meta.Delivery) (bool, error) {
			if w.Pending == 0 || d.Next.Before(w.Next) {
				w.Next = d.Next
			}
			if w.Pending == 0 || d.Event.Time.Before(w.Oldest) {
				w.Oldest = d.Event.Time
			}
			w.Pending++
			return true, nil
		})
		return w, err
	})
}

// DueDeliveries implements meta.Events.
func (s *Store) DueDeliveries(ctx context.Context, webhook string, now time.Time, limit int) ([]meta.Delivery, error) {
	return ask(ctx, s, func(tx *txn) (out []meta.Delivery, err error) {
		err = tx.eachDelivery(deliveryPending, webhook, false, func(d *meta.Delivery) (bool, error) {
			if !d.Next.After(now) {
				out = append(out, *d)
			}
			return len(out) < limit, nil
		})
		return out, err
	})
}

// Deliveries implements meta.Events.
func (s *Store) Deliveries(ctx context.Context, webhook string, limit int) ([]meta.Delivery, error) {
	return ask(ctx, s, func(tx *txn) (out []meta.Delivery, err error) {
		for _, state := range []byte{deliveryPending, deliveryOver} {
			n := 0
			if err := tx.eachDelivery(state, webhook, true, func(d *meta.Delivery) (bool, error) {
				out = append(out, *d)
				n++
				return n < limit, nil
			}); err != nil {
				return nil, err
			}
		}
		slices.SortFunc(out, func(a, b meta.Delivery) int { return int(b.Event.Seq - a.Event.Seq) })
		return out[:min(limit, len(out))], nil
	})
}

// putDelivery replaces a delivery.
func (t *txn) putDelivery(d *meta.Delivery) error {
	state, other := byte(deliveryPending), byte(deliveryOver)
	if d.State != meta.DeliveryPending {
		state, other = other, state
	}
	b := t.b(deliveryBucket)
	if err := b.Delete(deliveryKey(other, d.Webhook, d.Event.Seq)); err != nil {
		return err
	}
	return putJSON(b, deliveryKey(state, d.Webhook, d.Event.Seq), d)
}

// PutDelivery implements meta.Events.
func (s *Store) PutDelivery(ctx context.Context, d *meta.Delivery) error {
	return s.update(ctx, "delivery", func(tx *txn) error {
		if _, err := tx.event(d.Event.Seq); errors.Is(err, meta.ErrNotFound) {
			return meta.NoDelivery(d.Webhook, d.Event.ID)
		} else if err != nil {
			return err
		}
		return tx.putDelivery(d)
	})
}

// Redeliver implements meta.Events.
func (s *Store) Redeliver(ctx context.Context, webhook, id string, now time.Time) (found *meta.Delivery, err error) {
	err = s.update(ctx, "redeliver", func(tx *txn) error {
		found = nil
		for _, state := range []byte{deliveryPending, deliveryOver} {
			if err := tx.eachDelivery(state, webhook, true, func(d *meta.Delivery) (bool, error) {
				if d.Event.ID == id {
					found = d
				}
				return found == nil, nil
			}); err != nil {
				return err
			}
		}
		if found == nil {
			return meta.NoDelivery(webhook, id)
		}
		found.Again(now)
		return tx.putDelivery(found)
	})
	return found, err
}

package meta

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
)

// Types of events.
const (
	EventSnapshot = "snapshot" // a snapshot was sealed
	EventFreeze   = "freeze"   // a freeze was published
	EventChannel  = "channel"  // a channel was moved or removed
	EventFailure  = "failure"  // a sync failed that had succeeded before, or for another reason
	EventStale    = "stale"    // upstream's Date of a suite is older than the mirror's max_age
)

// Event is something that webhooks report. The transaction that makes a change also adds
// the event, so that a crash loses both or neither.
type Event struct {
	Seq  int64     `json:"-"`  // grows in the order of commits
	ID   string    `json:"id"` // random, the same for all deliveries of the event
	Type string    `json:"type"`
	Time time.Time `json:"time"`

	// One of these is set, by the type of the event.
	Snapshot *Snapshot    `json:"snapshot,omitempty"`
	Freeze   *EventFrozen `json:"freeze,omitempty"`
	Channel  *ChannelMove `json:"channel,omitempty"`
	Failure  *EventFailed `json:"failure,omitempty"`
	Stale    *EventAge    `json:"stale,omitempty"`
}

// EventFrozen is what an event says of a freeze.
type EventFrozen struct {
	Name     string     `json:"name"`
	Date     time.Time  `json:"date"`
	Manifest cas.Digest `json:"manifest"`
	Mirrors  []string   `json:"mirrors"`
	Packages int        `json:"packages"`
	Sources  int        `json:"sources"`
	Bytes    int64      `json:"bytes"`
	Imported bool       `json:"imported,omitempty"`
}

// EventFailed is what an event says of a failed sync.
type EventFailed struct {
	Mirror string    `json:"mirror"`
	Error  string    `json:"error"`
	OK     time.Time `json:"ok,omitzero"` // the last success
}

// EventAge is what an event says of a suite that upstream does not update.
type EventAge struct {
	Mirror string        `json:"mirror"`
	Suite  string        `json:"suite"`
	Date   time.Time     `json:"date"` // upstream's
	MaxAge time.Duration `json:"max_age"`
}

// Subject names what an event is about.
func (e *Event) Subject() string {
	switch {
	case e.Snapshot != nil:
		return e.Snapshot.ID()
	case e.Freeze != nil:
		return e.Freeze.Name
	case e.Channel != nil && e.Channel.Freeze == "":
		return e.Channel.Channel + " removed"
	case e.Channel != nil:
		return e.Channel.Channel + " to " + e.Channel.Freeze
	case e.Failure != nil:
		return e.Failure.Mirror
	case e.Stale != nil:
		return e.Stale.Mirror + " " + e.Stale.Suite
	}
	return ""
}

// SnapshotEvent is the event of a snapshot that is sealed at a time. Engines call it and
// the following ones in the transactions that make the changes.
func SnapshotEvent(s *Snapshot, at time.Time) *Event {
	snap := *s
	return &Event{Type: EventSnapshot, Time: at.UTC(), Snapshot: &snap}
}

// FreezeEvent is the event of a freeze that is published.
func FreezeEvent(f *Frozen) *Event {
	e := &EventFrozen{
		Name: f.Name, Date: f.Date, Manifest: f.Manifest.SHA256, Mirrors: []string{}, Packages: f.Packages, Sources: f.Sources, Bytes: f.Bytes, Imported: f.Imported,
	}
	for _, m := range f.Mirrors {
		e.Mirrors = append(e.Mirrors, m.Mirror)
	}
	return &Event{Type: EventFreeze, Time: f.Created.UTC(), Freeze: e}
}

// ChannelEvent is the event of a channel that is moved.
func ChannelEvent(m *ChannelMove) *Event {
	move := *m
	return &Event{Type: EventChannel, Time: m.Moved.UTC(), Channel: &move}
}

// FailureEvent is the event of a sync whose outcome is c, after that of the sync before;
// nil if it succeeded, or failed for the same reason as before.
func FailureEvent(mirror string, before, c *Check) *Event {
	if c.Error == "" || c.Error == before.Error {
		return nil
	}
	return &Event{Type: EventFailure, Time: c.Checked.UTC(), Failure: &EventFailed{Mirror: mirror, Error: c.Error, OK: c.OK}}
}

// States of a Delivery.
const (
	DeliveryPending   = "pending"   // it is due at Next
	DeliveryDelivered = "delivered" // the receiver accepted it
	DeliveryFailed    = "failed"    // all attempts failed
)

// Delivery is an event and what became of telling a webhook about it.
type Delivery struct {
	Webhook string `json:"webhook"`
	Event   Event  `json:"-"`
	State   string `json:"state"`
	// Attempts counts those since the delivery was queued or asked for again.
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next,omitzero"` // of the next attempt, while pending
	// Last is the time of the last attempt, Took how long it took, Status the status of
	// the HTTP response or the exit status of the command, and Error why it failed.
	Last   time.Time     `json:"last,omitzero"`
	Took   time.Duration `json:"took,omitempty"`
	Status int           `json:"status,omitempty"`
	Error  string        `json:"error,omitempty"`
}

// WebhookWork is what there is to do for a webhook.
type WebhookWork struct {
	Behind  bool      // there are events that are not queued
	Pending int       // deliveries
	Next    time.Time // when the first of them is due; zero if none is pending
	Oldest  time.Time // the time of the oldest event among them
}

// LeaseWebhook, followed by the name of a webhook, is the lease of its deliveries.
const LeaseWebhook = "webhook/"

// Events is the list of events and their deliveries to webhooks. A webhook has a name
// and is otherwise unknown to the metadata.
type Events interface {
	// AppendEvent adds an event that no other change adds. If once is set, it does so
	// only if the note of that name has another value, which it replaces.
	AppendEvent(ctx context.Context, e Event, once EventOnce) error
	// Events returns at most limit events after a number, oldest first.
	Events(ctx context.Context, after int64, limit int) ([]Event, error)
	// TrimEvents removes at most limit events that are older than before, oldest first,
	// with their deliveries. It returns how many.
	TrimEvents(ctx context.Context, before time.Time, limit int) (int, error)

	// QueueDeliveries makes deliveries that are due now of those among the next limit
	// events that have one of the types and are not older than since. The first call for
	// a webhook makes none: it is told only of what happens later. more is true if there
	// are further events.
	QueueDeliveries(ctx context.Context, webhook string, types []string, since, now time.Time, limit int) (more bool, err error)
	// WebhookWork returns what there is to do for a webhook.
	WebhookWork(ctx context.Context, webhook string) (WebhookWork, error)
	// DueDeliveries returns at most limit pending deliveries that are due, in the order
	// of their events.
	DueDeliveries(ctx context.Context, webhook string, now time.Time, limit int) ([]Delivery, error)
	// PutDelivery replaces what is known about a delivery after an attempt. ErrNotFound
	// if its event was removed.
	PutDelivery(ctx context.Context, d *Delivery) error
	// Deliveries returns at most limit deliveries to a webhook, the newest event first.
	Deliveries(ctx context.Context, webhook string, limit int) ([]Delivery, error)
	// Redeliver makes a delivery of the event with an ID pending and due, whatever
	// became of it before, and returns it. ErrNotFound.
	Redeliver(ctx context.Context, webhook, id string, now time.Time) (*Delivery, error)
}

// EventOnce is a note that keeps an event from being added again. With the zero value, the event is always added.
type EventOnce struct{ Note, Value string }

// WebhookCursor is the name of the note with the number of the last event that was queued
// for a webhook.
func WebhookCursor(webhook string) string { return "webhook." + webhook }

// StaleNote is the name of the note with the last Date for which a suite was reported as
// stale.
func StaleNote(mirror, suite string) string { return "stale." + mirror + "/" + suite }

// NoDelivery is the error for a delivery that does not exist: ErrNotFound.
func NoDelivery(webhook, id string) error {
	return fmt.Errorf("delivery of event %s to webhook %s: %w", id, webhook, ErrNotFound)
}

// Again makes a delivery pending and due at a time.
func (d *Delivery) Again(now time.Time) {
	d.State, d.Attempts, d.Next = DeliveryPending, 0, now.UTC()
}

// Wanted reports whether an event is to be queued for a webhook.
func (e *Event) Wanted(types []string, since time.Time) bool {
	return !e.Time.Before(since) && slices.Contains(types, e.Type)
}

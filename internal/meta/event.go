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

// EventFrozen describes a freeze in an event.
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

// EventFailed describes a failed sync in an event.
type EventFailed struct {
	Mirror MirrorName `json:"mirror"`
	Error  string     `json:"error"`
	OK     time.Time  `json:"ok,omitzero"` // the last success
}

// EventAge describes a suite that upstream does not update, in an event.
type EventAge struct {
	Mirror MirrorName    `json:"mirror"`
	Suite  string        `json:"suite"`
	Date   time.Time     `json:"date"` // of upstream's Release
	MaxAge time.Duration `json:"max_age"`
}

// Subject returns the name of the object that an event is about.
func (e *Event) Subject() string {
	switch {
	case e.Snapshot != nil:
		return e.Snapshot.ID()
	case e.Freeze != nil:
		return e.Freeze.Name
	case e.Channel != nil && e.Channel.Freeze == "":
		return e.Channel.Channel + " removed"
	case e.Channel != nil:
		return e.Channel.Channel + " to " + string(e.Channel.Freeze)
	case e.Failure != nil:
		return string(e.Failure.Mirror)
	case e.Stale != nil:
		return string(e.Stale.Mirror) + " " + e.Stale.Suite
	}
	return ""
}

// SnapshotEvent is the event of a snapshot that is sealed at a time. Engines call this
// and the following functions within the transactions that make the changes.
func SnapshotEvent(s *Snapshot, at time.Time) *Event {
	snap := *s
	return &Event{Type: EventSnapshot, Time: at.UTC(), Snapshot: &snap}
}

// FreezeEvent is the event of a freeze that is published.
func FreezeEvent(f *Frozen) *Event {
	e := &EventFrozen{
		Name: string(f.Name), Date: f.Date, Manifest: f.Manifest.SHA256, Mirrors: []string{}, Packages: f.Packages, Sources: f.Sources, Bytes: f.Bytes, Imported: f.Imported,
	}
	for _, m := range f.Mirrors {
		e.Mirrors = append(e.Mirrors, string(m.Mirror))
	}
	return &Event{Type: EventFreeze, Time: f.Created.UTC(), Freeze: e}
}

// ChannelEvent is the event of a channel that is moved.
func ChannelEvent(m *ChannelMove) *Event {
	move := *m
	return &Event{Type: EventChannel, Time: m.Moved.UTC(), Channel: &move}
}

// FailureEvent is the event of a sync with the outcome c, after one with the outcome
// before. It is nil if the sync succeeded, or failed for the same reason as before.
func FailureEvent(mirror MirrorName, before, c *Check) *Event {
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

// Delivery is the delivery of an event to a webhook.
type Delivery struct {
	Webhook string `json:"webhook"`
	Event   Event  `json:"-"`
	State   string `json:"state"`
	// Attempts counts the attempts since the delivery was queued or last requested again.
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next,omitzero"` // of the next attempt, while pending
	// The last attempt: its time, its duration, the status of the HTTP response or the
	// exit status of the command, and why it failed.
	Last   time.Time     `json:"last,omitzero"`
	Took   time.Duration `json:"took,omitempty"`
	Status int           `json:"status,omitempty"`
	Error  string        `json:"error,omitempty"`
}

// WebhookWork describes the deliveries that a webhook is waiting for.
type WebhookWork struct {
	Behind  bool      // there are events that are not queued
	Pending int       // pending deliveries
	Next    time.Time // when the first of them is due; zero: none is pending
	Oldest  time.Time // time of the oldest event among them
}

// LeaseWebhook, followed by the name of a webhook, is the lease of its deliveries.
const LeaseWebhook = "webhook/"

// Events stores events and their deliveries to webhooks. A webhook is only a name here.
type Events interface {
	// AppendEvent adds an event that no change of the metadata adds. If once.Note is set,
	// AppendEvent adds the event only if that note has a value other than once.Value, and
	// sets the note.
	AppendEvent(ctx context.Context, e Event, once EventOnce) error
	// Events returns at most limit events after a number, oldest first.
	Events(ctx context.Context, after int64, limit int) ([]Event, error)
	// TrimEvents removes at most limit events that are older than before, oldest first,
	// with their deliveries. It returns how many.
	TrimEvents(ctx context.Context, before time.Time, limit int) (int, error)

	// QueueDeliveries reads the next limit events for a webhook. It adds deliveries, due
	// now, of those that have one of the types and are not older than since. The first
	// call for a webhook adds none: a webhook gets only later events. more is true if
	// there are further events.
	QueueDeliveries(ctx context.Context, webhook string, types []string, since, now time.Time, limit int) (more bool, err error)
	// WebhookWork describes the deliveries that a webhook is waiting for.
	WebhookWork(ctx context.Context, webhook string) (WebhookWork, error)
	// DueDeliveries returns at most limit pending deliveries that are due, in the order
	// of their events.
	DueDeliveries(ctx context.Context, webhook string, now time.Time, limit int) ([]Delivery, error)
	// PutDelivery replaces a delivery after an attempt. ErrNotFound if its event was
	// removed.
	PutDelivery(ctx context.Context, d *Delivery) error
	// Deliveries returns at most limit deliveries to a webhook, the newest event first.
	Deliveries(ctx context.Context, webhook string, limit int) ([]Delivery, error)
	// Redeliver makes the delivery of the event with an ID pending and due, in whatever
	// state it was, and returns it. ErrNotFound.
	Redeliver(ctx context.Context, webhook, id string, now time.Time) (*Delivery, error)
}

// EventOnce is a note that keeps an event from being added again. With the zero value, the event is always added.
type EventOnce struct{ Note, Value string }

// WebhookCursor is the name of the note with the number of the last event that was queued
// for a webhook.
func WebhookCursor(webhook string) string { return "webhook." + webhook }

// StaleNote is the name of the note with the last Date for which a suite was reported as
// stale.
func StaleNote(mirror MirrorName, suite string) string {
	return "stale." + string(mirror) + "/" + suite
}

// NoDelivery is the error for a delivery that does not exist: ErrNotFound.
func NoDelivery(webhook, id string) error {
	return fmt.Errorf("delivery of event %s to webhook %s: %w", id, webhook, ErrNotFound)
}

// Again makes a delivery pending and due at a time.
func (d *Delivery) Again(now time.Time) {
	d.State, d.Attempts, d.Next = DeliveryPending, 0, now.UTC()
}

// Wanted reports whether an event should be queued for a webhook.
func (e *Event) Wanted(types []string, since time.Time) bool {
	return !e.Time.Before(since) && slices.Contains(types, e.Type)
}

package api

import "time"

// Event is sent to a webhook as the JSON body of a POST, or to a command on its standard
// input. Fields are never removed and never change their meaning; new fields and new
// types of events may be added.
type Event struct {
	ID        string    `json:"id"`        // the same for each delivery of the event
	Type      string    `json:"type"`      // says what data is
	Timestamp time.Time `json:"timestamp"` // of the change
	Server    string    `json:"server"`    // public_url of the server
	Data      any       `json:"data"`      // an EventSnapshot, EventFreeze, EventChannel, EventFailure, EventStale or EventTest
}

// Types of events.
const (
	TypeSnapshot = "snapshot"
	TypeFreeze   = "freeze"
	TypeChannel  = "channel"
	TypeFailure  = "failure"
	TypeStale    = "stale"
	TypeTest     = "test"
)

// EventSnapshot says that a snapshot was made.
type EventSnapshot struct {
	Snapshot  string       `json:"snapshot"` // its id
	Mirror    string       `json:"mirror"`
	Timestamp time.Time    `json:"timestamp"`
	Suites    []EventSuite `json:"suites"`
	URL       string       `json:"url"` // of its directory
}

// EventSuite is a suite of a snapshot.
type EventSuite struct {
	Suite string     `json:"suite"`
	Date  *time.Time `json:"date,omitempty"` // upstream's
}

// EventFreeze says that a freeze was published, or imported.
type EventFreeze struct {
	Name     string    `json:"name"`
	Date     time.Time `json:"date"`
	Manifest string    `json:"manifest"` // SHA-256 of the freeze manifest
	Mirrors  []string  `json:"mirrors"`
	Packages int       `json:"packages"`
	Sources  int       `json:"sources"`
	Bytes    int64     `json:"bytes"`
	Imported bool      `json:"imported"`
	URL      string    `json:"url"`
}

// EventChannel says that a channel was moved or removed.
type EventChannel struct {
	Channel string    `json:"channel"`
	Freeze  string    `json:"freeze"` // that it shows now; "": the channel was removed
	From    string    `json:"from"`   // that it showed before; "": nothing
	Moved   time.Time `json:"moved"`
	By      string    `json:"by"`
	URL     string    `json:"url"`
}

// EventFailure says that a sync failed. If the sync before it failed for the same reason,
// no event is sent.
type EventFailure struct {
	Mirror      string     `json:"mirror"`
	Error       string     `json:"error"`
	LastSuccess *time.Time `json:"last_success,omitempty"`
}

// EventStale says that upstream's Date of a suite is older than max_age. One event is
// sent for each Date.
type EventStale struct {
	Mirror string    `json:"mirror"`
	Suite  string    `json:"suite"`
	Date   time.Time `json:"date"`
	MaxAge string    `json:"max_age"` // as in the configuration
}

// EventTest is sent by `snapctl webhook test`.
type EventTest struct {
	Webhook string `json:"webhook"`
}

// WebhookList is `snapctl webhook list`.
type WebhookList struct {
	Webhooks []Webhook `json:"webhooks"`
}

// Webhook is one webhook of the configuration.
type Webhook struct {
	Name    string           `json:"name"`
	Target  string           `json:"target"` // scheme and host of the URL, or the program
	Events  []string         `json:"events"`
	Pending int              `json:"pending"`          // pending deliveries
	Oldest  *time.Time       `json:"oldest,omitempty"` // the time of the oldest pending event
	Last    *WebhookDelivery `json:"last,omitempty"`   // the newest attempted delivery
}

// WebhookRef names a webhook.
type WebhookRef struct {
	Name string `json:"name"`
}

// WebhookLogRequest is `snapctl webhook log`.
type WebhookLogRequest struct {
	Name  string     `json:"name,omitempty"`  // "": all webhooks of the configuration
	State string     `json:"state,omitempty"` // "": any
	Since *time.Time `json:"since,omitempty"` // of the events
}

// WebhookLog is the log of deliveries, newest event first: at most 1,000 for each webhook.
type WebhookLog struct {
	Deliveries []WebhookDelivery `json:"deliveries"`
}

// WebhookDelivery is an event and the state of its delivery to a webhook.
type WebhookDelivery struct {
	Webhook  string     `json:"webhook"`
	Event    string     `json:"event"` // its id
	Type     string     `json:"type"`
	Subject  string     `json:"subject"`
	Time     time.Time  `json:"time"`     // of the event
	State    string     `json:"state"`    // of DeliveryStates
	Attempts int        `json:"attempts"` // since it was queued or redelivered
	Last     *time.Time `json:"last,omitempty"`
	Millis   int64      `json:"millis,omitempty"` // duration of the last attempt
	Status   int        `json:"status,omitempty"` // HTTP status, or exit status of a command
	Error    string     `json:"error,omitempty"`  // of the last attempt
	Next     *time.Time `json:"next,omitempty"`   // time of the next attempt of a pending delivery
}

// DeliveryStates are the states of a delivery.
func DeliveryStates() []string { return []string{"pending", "delivered", "failed"} }

// WebhookRedeliver is `snapctl webhook redeliver`.
type WebhookRedeliver struct {
	Name  string `json:"name"`
	Event string `json:"event"`
}

// WebhookTest is the outcome of `snapctl webhook test`.
type WebhookTest struct {
	Webhook string `json:"webhook"`
	Event   string `json:"event"`            // its id
	Status  int    `json:"status,omitempty"` // HTTP status
	Millis  int64  `json:"millis"`
}

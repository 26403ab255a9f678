package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/api"
)

func webhookVerb() *verb {
	return &verb{
		name:  "webhook",
		usage: "list webhooks, and test and repeat deliveries",
		about: `Each [[webhook]] in the configuration is a URL or a command that gets events as
JSON: new snapshots, freezes, moves of channels, failed syncs and stale suites
(docs/HOOKS.md). A failed delivery is repeated for three days.`,
		examples: []string{
			"snapctl webhook test ci.example.org",
			"snapctl webhook log --state failed",
		},
		verbs: []*verb{
			{
				name:     "list",
				usage:    "list webhooks, and how many events each has not accepted yet",
				examples: []string{"snapctl webhook list"},
				result:   new(api.WebhookList),
				run: func(ctx context.Context, c *call) error {
					var r api.WebhookList
					if err := c.ask(ctx, "webhook/list", api.Empty{}, &r); err != nil {
						return err
					}
					show(c.ui, &r, c.ui.webhooks)
					return nil
				},
			},
			{
				name: "log", args: "[WEBHOOK]", max: 1,
				usage:    "list deliveries, the newest event first",
				about:    `At most 1,000 deliveries of each webhook are listed, none older than 30 days.`,
				examples: []string{"snapctl webhook log", "snapctl webhook log ci.example.org --state pending --since 2026-11-22"},
				options: []option{
					{name: "state", value: "STATE", choices: api.DeliveryStates(), usage: "pending, delivered or failed"},
					{name: "since", value: "T", usage: "only events from this timestamp on"},
				},
				result: new(api.WebhookLog),
				run:    runWebhookLog,
			},
			{
				name: "test", args: "WEBHOOK", min: 1, max: 1,
				usage: "send an event of the type test, once",
				about: `The event is signed and sent like any other, even if "events" of the webhook
excludes it. It is neither recorded nor repeated.`,
				examples: []string{"snapctl webhook test ci.example.org"},
				result:   new(api.WebhookTest),
				run: func(ctx context.Context, c *call) error {
					var r api.WebhookTest
					if err := c.ask(ctx, "webhook/test", api.WebhookRef{Name: c.arg(0)}, &r); err != nil {
						return err
					}
					show(c.ui, &r, func(r *api.WebhookTest) {
						c.ui.printf("%s: accepted%s after %s\n", r.Webhook, statusText(r.Status), time.Duration(r.Millis)*time.Millisecond)
					})
					return nil
				},
			},
			{
				name: "redeliver", args: "WEBHOOK EVENT", min: 2, max: 2,
				usage:    "deliver an event again, even if it was delivered before",
				about:    `EVENT is the id of the event, as snapctl webhook log prints it.`,
				examples: []string{"snapctl webhook redeliver ci.example.org EQ5H6BZ3MUHKHDH4N3S5FRTUYV"},
				result:   new(api.WebhookDelivery),
				run: func(ctx context.Context, c *call) error {
					var r api.WebhookDelivery
					if err := c.ask(ctx, "webhook/redeliver", api.WebhookRedeliver{Name: c.arg(0), Event: c.arg(1)}, &r); err != nil {
						return err
					}
					show(c.ui, &r, func(r *api.WebhookDelivery) { c.ui.printf("%s: %s %s is due\n", r.Webhook, r.Type, r.Subject) })
					return nil
				},
			},
		},
	}
}

func runWebhookLog(ctx context.Context, c *call) error {
	req := api.WebhookLogRequest{Name: c.arg(0), State: c.str("state")}
	var err error
	if req.Since, err = c.timestamp("since"); err != nil {
		return err
	}
	var r api.WebhookLog
	if err := c.ask(ctx, "webhook/log", req, &r); err != nil {
		return err
	}
	show(c.ui, &r, c.ui.webhookLog)
	return nil
}

// webhooks prints webhooks.
func (u *ui) webhooks(r *api.WebhookList) {
	if len(r.Webhooks) == 0 {
		u.printf("no webhooks\n")
		return
	}
	rows := [][]string{{"WEBHOOK", "TARGET", "EVENTS", "PENDING", "LAST ATTEMPT"}}
	for _, w := range r.Webhooks {
		pending := strconv.Itoa(w.Pending)
		if w.Oldest != nil {
			pending += " since " + timeText(*w.Oldest)
		}
		last := "none"
		if w.Last != nil {
			last = timePtr(w.Last.Last) + " " + deliveryText(w.Last)
		}
		rows = append(rows, []string{w.Name, w.Target, strings.Join(w.Events, " "), pending, last})
	}
	u.table(rows...)
}

// webhookLog prints deliveries.
func (u *ui) webhookLog(r *api.WebhookLog) {
	rows := [][]string{{"TIME", "WEBHOOK", "TYPE", "WHAT", "EVENT", "STATE"}}
	for i := range r.Deliveries {
		d := &r.Deliveries[i]
		rows = append(rows, []string{timeText(d.Time), d.Webhook, d.Type, d.Subject, d.Event, deliveryText(d)})
	}
	u.table(rows...)
}

// deliveryText is the state of a delivery.
func deliveryText(d *api.WebhookDelivery) string {
	text := d.State
	switch {
	case d.State == "delivered":
		text += statusText(d.Status)
	case d.Attempts > 0:
		text += fmt.Sprintf(" after %d attempts", d.Attempts)
	}
	if d.Next != nil && d.Attempts > 0 {
		text += ", next " + timeText(*d.Next)
	}
	if d.Error != "" && d.State != "delivered" {
		text += ": " + d.Error
	}
	return text
}

// statusText is an HTTP status, or nothing for a command.
func statusText(status int) string {
	if status == 0 {
		return ""
	}
	return fmt.Sprintf(" with status %d", status)
}

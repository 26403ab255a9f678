package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/webhook"
)

// maxDeliveries bounds the deliveries to one webhook that are listed.
const maxDeliveries = 1000

// Webhooks lists the configured webhooks, and the number of pending deliveries for each.
func (c *Control) Webhooks(ctx context.Context, _ *api.Empty) (*api.WebhookList, error) {
	out := &api.WebhookList{Webhooks: []api.Webhook{}}
	for _, w := range c.cfg.Webhooks.Webhooks() {
		work, err := c.st.WebhookWork(ctx, w.Name)
		if err != nil {
			return nil, err
		}
		one := api.Webhook{Name: w.Name, Target: w.Target(), Events: w.Events, Pending: work.Pending, Oldest: optional(work.Oldest)}
		all, err := c.st.Deliveries(ctx, w.Name, maxDeliveries)
		if err != nil {
			return nil, err
		}
		var last *meta.Delivery
		for i := range all {
			if last == nil || all[i].Last.After(last.Last) {
				last = &all[i]
			}
		}
		if last != nil && !last.Last.IsZero() {
			one.Last = deliveryView(last)
		}
		out.Webhooks = append(out.Webhooks, one)
	}
	return out, nil
}

// deliveryView is a delivery as clients see it.
func deliveryView(d *meta.Delivery) *api.WebhookDelivery {
	return &api.WebhookDelivery{
		Webhook: d.Webhook, Event: d.Event.ID, Type: d.Event.Type, Subject: d.Event.Subject(), Time: d.Event.Time.UTC(), State: d.State,
		Attempts: d.Attempts, Last: optional(d.Last), Millis: d.Took.Milliseconds(), Status: d.Status, Error: d.Error, Next: optional(d.Next),
	}
}

// WebhookLog lists deliveries, newest event first. Deliveries of a webhook that is no
// longer configured are listed by its name.
func (c *Control) WebhookLog(ctx context.Context, req *api.WebhookLogRequest) (*api.WebhookLog, error) {
	if req.State != "" && !slices.Contains(api.DeliveryStates(), req.State) {
		return nil, fmt.Errorf("%w: state %q: expected one of %s", errclass.Usage, req.State, strings.Join(api.DeliveryStates(), ", "))
	}
	var names []string
	known := false
	for _, w := range c.cfg.Webhooks.Webhooks() {
		names = append(names, w.Name)
		known = known || w.Name == req.Name
	}
	if req.Name != "" {
		names = []string{req.Name}
	}
	var all []meta.Delivery
	for _, name := range names {
		some, err := c.st.Deliveries(ctx, name, maxDeliveries)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	if req.Name != "" && !known && len(all) == 0 {
		return nil, fmt.Errorf("webhook %s: %w", req.Name, webhook.ErrUnknown)
	}
	slices.SortStableFunc(all, func(a, b meta.Delivery) int { return int(b.Event.Seq - a.Event.Seq) })
	out := &api.WebhookLog{Deliveries: []api.WebhookDelivery{}}
	for i := range all {
		d := &all[i]
		if req.State != "" && d.State != req.State || req.Since != nil && d.Event.Time.Before(*req.Since) {
			continue
		}
		out.Deliveries = append(out.Deliveries, *deliveryView(d))
	}
	return out, nil
}

// TestWebhook sends a test event to a webhook.
func (c *Control) TestWebhook(ctx context.Context, req *api.WebhookRef) (*api.WebhookTest, error) {
	return c.cfg.Webhooks.Test(ctx, req.Name)
}

// Redeliver makes a delivery due again.
func (c *Control) Redeliver(ctx context.Context, req *api.WebhookRedeliver) (*api.WebhookDelivery, error) {
	d, err := c.st.Redeliver(ctx, req.Name, req.Event, c.now())
	if err != nil {
		return nil, err
	}
	return deliveryView(d), nil
}

// WebhookCounts returns, by webhook, the outcomes of attempts since the start, and the
// number of pending deliveries.
func (c *Control) WebhookCounts(ctx context.Context) (counts map[string]webhook.Counts, pending map[string]int, err error) {
	counts, pending = c.cfg.Webhooks.Counts(), map[string]int{}
	for name := range counts {
		w, err := c.st.WebhookWork(ctx, name)
		if err != nil {
			return counts, nil, err
		}
		pending[name] = w.Pending
	}
	return counts, pending, nil
}

// TouchWebhook returns what a test event changes: nothing on the server, but it is sent
// to others.
func (c *Control) TouchWebhook(_ context.Context, req *api.WebhookRef) (*Touch, error) {
	return &Touch{What: req.Name, Unlimited: true}, nil
}

// TouchRedeliver returns what a repeated delivery changes.
func (c *Control) TouchRedeliver(_ context.Context, req *api.WebhookRedeliver) (*Touch, error) {
	return &Touch{What: req.Event + " to " + req.Name, Unlimited: true}, nil
}

package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/webhook/signature"
)

// Webhook is a receiver of events: a URL, which gets a POST, or a command.
type Webhook struct {
	// Name identifies the webhook in the log, the metrics and the stored deliveries;
	// default: the host of the URL, or the last part of the command's path.
	Name         string     `toml:"name"`
	URL          remote.URL `toml:"url"`
	Command      []string   `toml:"command"`       // a program and its arguments; the event is on standard input
	Events       []string   `toml:"events"`        // of WebhookEvents; default: all
	SecretFile   string     `toml:"secret_file"`   // secrets that sign deliveries to the URL
	AllowPrivate bool       `toml:"allow_private"` // the URL may lead to loopback, link-local and private addresses
	Timeout      Duration   `toml:"timeout"`       // of one attempt; default 30s
}

// WebhookEvents returns the types of events that webhooks can receive.
func WebhookEvents() []string { return []string{"snapshot", "freeze", "channel", "failure", "stale"} }

// Bounds of Webhook.Timeout.
const (
	webhookTimeout    = 30 * time.Second
	minWebhookTimeout = time.Second
	maxWebhookTimeout = 10 * time.Minute
)

// Target describes the receiver without its secrets: the URLs of chat services have a
// secret in their path.
func (w *Webhook) Target() string {
	if len(w.Command) > 0 {
		return w.Command[0]
	}
	return w.URL.Scheme() + "://" + w.URL.Host()
}

// fill sets the defaults.
func (w *Webhook) fill() {
	if w.Name == "" {
		if len(w.Command) > 0 {
			w.Name = filepath.Base(w.Command[0])
		} else {
			w.Name, _, _ = strings.Cut(w.URL.Host(), ":")
		}
	}
	if w.Events == nil {
		w.Events = WebhookEvents()
	}
	if w.Timeout == 0 {
		w.Timeout = Duration(webhookTimeout)
	}
}

// checkWebhooks checks the webhooks.
func (c *Config) checkWebhooks(bad func(table string, i int, key, format string, args ...any) error) error {
	seen := map[string]bool{}
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		b := func(key, format string, args ...any) error {
			return bad("webhook", i, key, "webhook "+strconv.Quote(w.Name)+": "+format, args...)
		}
		if err := w.check(b); err != nil {
			return err
		}
		switch {
		case !ValidName(w.Name):
			return b("name", "expected a name of letters, digits and .+~_- (at most 100)")
		case seen[w.Name]:
			return b("name", "there are two of this name: give each a name")
		case c.Store.Serves():
			return b("url", "store.role is %q: nodes with the role %q deliver events", RoleServe, RoleAll)
		}
		seen[w.Name] = true
	}
	return nil
}

func (w *Webhook) check(bad func(key, format string, args ...any) error) error {
	switch {
	case w.URL.IsZero() == (len(w.Command) == 0):
		return bad("url", "expected either url or command")
	case w.Timeout.D() < minWebhookTimeout || w.Timeout.D() > maxWebhookTimeout:
		return bad("timeout", "%s: expected %s to %s", w.Timeout, Duration(minWebhookTimeout), Duration(maxWebhookTimeout))
	case len(w.Events) == 0:
		return bad("events", "is empty: leave it out for all")
	}
	for i, e := range w.Events {
		if !slices.Contains(WebhookEvents(), e) {
			return bad("events", "%q: expected one of %s", e, strings.Join(WebhookEvents(), ", "))
		}
		if slices.Contains(w.Events[:i], e) {
			return bad("events", "%q is given twice", e)
		}
	}
	if len(w.Command) > 0 {
		switch {
		case !filepath.IsAbs(w.Command[0]):
			return bad("command", "%q: expected the absolute path of a program", w.Command[0])
		case w.SecretFile != "":
			return bad("secret_file", "is only for url: a command needs no signature, it reads the event from snapd itself")
		case w.AllowPrivate:
			return bad("allow_private", "is only for url")
		}
		return nil
	}
	switch {
	case w.URL.HasUser():
		return bad("url", "%q: a URL must not have a user name or password: deliveries are signed with the secret in secret_file", w.Target())
	case w.URL.Scheme() != "http" && w.URL.Scheme() != "https" || w.URL.Host() == "":
		return bad("url", "%q: expected an http or https URL", w.Target())
	case w.SecretFile == "":
		return bad("secret_file", "is missing: receivers check the signature of a delivery")
	}
	return nil
}

// loadSecrets checks the files of the webhooks.
func (c *Config) loadSecrets(at position) error {
	for i, w := range c.Webhooks {
		if w.SecretFile == "" {
			continue
		}
		if _, err := signature.Load(w.SecretFile); err != nil {
			return fmt.Errorf("%w: %s: secret_file: webhook %q: %w", ErrInvalid, at("webhook", i, "secret_file"), w.Name, err)
		}
	}
	return nil
}

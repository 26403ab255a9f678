package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/deb/debtest"
)

const hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// hookReceiver collects events whose signature is good, while it is up.
type hookReceiver struct {
	srv *httptest.Server
	up  atomic.Bool

	mu     sync.Mutex
	events []string // "type: data"
}

func newHookReceiver(t *testing.T) *hookReceiver {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(hookSecret)
	if err != nil {
		t.Fatal(err)
	}
	r := &hookReceiver{}
	r.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err == nil {
			err = wh.Verify(body, req.Header)
		}
		var e struct {
			Type string
			Data json.RawMessage
		}
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		if err != nil {
			t.Errorf("receiver: %v: %s", err, body)
		}
		if !r.up.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e.Type+": "+string(e.Data))
	}))
	t.Cleanup(r.srv.Close)
	return r
}

// has reports whether exactly one event contains each of these texts, and no other came.
func (r *hookReceiver) has(want ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range want {
		if len(slices.DeleteFunc(slices.Clone(r.events), func(e string) bool { return !strings.Contains(e, text) })) != 1 {
			return false
		}
	}
	return len(r.events) == len(want)
}

// Webhooks are told of snapshots, freezes, moves of channels and failed syncs, across a
// restart while the receiver was down, and after a reload. Long because it follows one
// installation.
func TestWebhooks(t *testing.T) {
	a, url := upstream(t)
	rec := newHookReceiver(t)
	secret := filepath.Join(t.TempDir(), "hook.secret")
	if err := os.WriteFile(secret, []byte(hookSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hook := func(name, more string) string {
		return fmt.Sprintf("[[webhook]]\nname = %q\nurl = %q\nsecret_file = %q\nallow_private = true\n%s\n", name, rec.srv.URL+"/s3cret", secret, more)
	}
	text := listenAnywhere + mirrorText(a, "debian", url, "download = \"all\"")
	r := startFile(t, text+hook("ci", ""))
	call := func(verb string, req, res any) {
		t.Helper()
		if err := r.ctl.Call(t.Context(), verb, req, res, nil); err != nil {
			t.Fatalf("%s: %v\n%s", verb, err, r.log)
		}
	}
	call("sync", api.SyncRequest{}, &api.SyncResult{})
	pending := func() int {
		var l api.WebhookList
		call("webhook/list", api.Empty{}, &l)
		return l.Webhooks[0].Pending
	}
	r.eventually("an attempt has failed", func() bool {
		var l api.WebhookLog
		call("webhook/log", api.WebhookLogRequest{Name: "ci"}, &l)
		return len(l.Deliveries) == 1 && l.Deliveries[0].Attempts == 1 && l.Deliveries[0].Status == http.StatusBadGateway
	})
	call("freeze", api.FreezeRequest{Name: "4.1", Mirrors: []string{"debian"}}, &api.FreezeResult{})
	call("channel/set", api.ChannelSet{Name: "stable", Freeze: "4.1"}, &api.ChannelResult{})
	r.end()
	rec.up.Store(true)
	r.run = startWith(t, r.cfg, Options{})
	r.eventually("all is delivered after a restart", func() bool {
		return rec.has(`snapshot: {"snapshot":"debian@`, `freeze: {"name":"4.1"`, `channel: {"channel":"stable","freeze":"4.1"`)
	})
	r.eventually("nothing is pending", func() bool { return pending() == 0 })
	if _, text := get(t, r.public+"/metrics"); !strings.Contains(text, "snapd_webhook_pending{webhook=\"ci\"} 0\n") || !strings.Contains(text, `snapd_webhook_deliveries_total{result="delivered",webhook="ci"} `) {
		t.Error("the metrics lack the webhook")
	}
	r.end()

	// A reload changes webhooks; a bad secret is an error, and the earlier ones stay.
	r = startFile(t, text+hook("one", ""))
	r.write(t, text+hook("ci", "events = [\"failure\"]"))
	r.hangup <- syscall.SIGHUP
	r.eventually("the reload", func() bool { return strings.Contains(r.log.String(), "reloaded the configuration") })
	if err := os.WriteFile(secret, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.reload(t); err == nil || !strings.Contains(err.Error(), "no usable webhook secret") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a bad secret: %v", err)
	}
	var test api.WebhookTest
	call("webhook/test", api.WebhookRef{Name: "ci"}, &test)
	if test.Status != http.StatusOK {
		t.Errorf("test event: %+v", test)
	}
	if err := os.WriteFile(secret, []byte(hookSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A refused sync: the archive is signed by another key.
	r.write(t, listenAnywhere+mirrorText(debtest.New(t), "debian", url, "")+hook("ci", "events = [\"failure\"]"))
	if _, err := r.reload(t); err != nil {
		t.Fatal(err)
	}
	a.Publish(time.Now())
	for range 2 {
		_ = r.ctl.Call(t.Context(), "sync", api.SyncRequest{}, nil, nil)
	}
	r.eventually("the failure is delivered, once", func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		n := len(slices.DeleteFunc(slices.Clone(rec.events), func(e string) bool { return !strings.HasPrefix(e, `failure: {"mirror":"debian","error":"`) }))
		return n == 1
	})
	if strings.Contains(r.log.String(), "s3cret") {
		t.Error("the log has the path of the URL")
	}
}

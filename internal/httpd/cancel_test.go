package httpd_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
)

// A job that another administrator cancels says so, and the audit list who it was. A
// client that is cancelled while it follows a job cancels the job, over the network as well.
func TestCancelFollowed(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	held := make(chan struct{})
	s.Archive.Hook = func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-held:
		case <-r.Context().Done():
		}
		return false
	}
	t.Cleanup(func() { close(held) })
	admin, other := s.as(s.token(api.TokenCreate{Name: "admin", Role: api.RoleAdmin})), s.as(s.token(api.TokenCreate{Name: "other", Role: api.RoleAdmin}))
	var id string
	_, err := admin.Sync(t.Context(), api.SyncRequest{}, func(api.Progress) {
		list, err := other.Jobs(t.Context())
		if err != nil || len(list.Jobs) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		id = list.Jobs[0].ID
		if _, err := other.JobsCancel(t.Context(), api.JobRef{ID: id}); err != nil {
			t.Fatal(err)
		}
	})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeInterrupted || e.Message != "sync: the job was cancelled" {
		t.Errorf("cancelled by another: %v", err)
	}
	if got, want := s.audit(), "token other | jobs/cancel | job "+id+": sync all mirrors | ok"; !slices.Contains(got, want) {
		t.Errorf("audit list %q, expected %q", got, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := admin.Sync(ctx, api.SyncRequest{}, func(api.Progress) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("the sync: %v", err)
	}
	for range 100 {
		list, err := admin.Jobs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Jobs) == 2 && list.Jobs[0].State == api.JobCancelled {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	list, err := admin.Jobs(t.Context())
	t.Errorf("the job was not cancelled: %+v, %v", list, err)
}

// A job that changes nothing says what it is about, too.
func TestJobOfReader(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1", DryRun: true}, nil)
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	s.call("verify", api.VerifyRequest{Ref: "4.1"}, nil)
	var list api.JobList
	s.call("jobs", api.Empty{}, &list)
	var got []string
	for _, j := range list.Jobs {
		if j.Verb != "sync" {
			got = append(got, j.Verb+" "+j.What)
		}
	}
	if slices.Sort(got); !slices.Equal(got, []string{"freeze 4.1", "freeze 4.1", "verify 4.1"}) {
		t.Errorf("jobs %q", got)
	}
}

// A request that is repeated with its key is the same, whatever happened to the recording
// of the freeze's name.
func TestRepeatedFreeze(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("record/start", api.RecordStart{Name: "4.1"}, nil)
	s.call("record/stop", api.RecordRef{Name: "4.1"}, nil)
	secret := s.token(api.TokenCreate{Name: "ci", Role: api.RoleReleaser})
	freeze := func() string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.network.URL+api.Path+"freeze", strings.NewReader(`{"name":"4.1","allow_empty":true}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + secret}, "Idempotency-Key": {"once"}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatalf("status %d, %v\n%s", resp.StatusCode, err, body)
		}
		return resp.Header.Get("Location")
	}
	first := freeze()
	s.call("record/rm", api.RecordRef{Name: "4.1"}, nil)
	if again := freeze(); again != first {
		t.Errorf("job %s, then %s", first, again)
	}
}

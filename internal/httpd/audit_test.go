package httpd_test

import (
	"strings"
	"testing"

	"example.org/snapd/internal/api"
)

// A sync whose answer has the fault of a mirror is not "ok" in the audit list, and its job
// not "done".
func TestAuditOfFailedSync(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	good := s.Archive.Get("dists/stable/InRelease")
	for _, c := range []struct {
		release []byte
		result  string
		detail  string
	}{
		{[]byte(strings.Replace(string(good), "Suite: ", "Suite: x", 1)), api.AuditFailed, "debian: "},
		{good, api.AuditOK, ""},
	} {
		s.Archive.Set("dists/stable/InRelease", c.release)
		var r api.SyncResult
		s.call("sync", api.SyncRequest{}, &r)
		if failed := r.Exit != 0; failed != (c.result == api.AuditFailed) {
			t.Fatalf("%+v", r)
		}
		var l api.AuditList
		s.call("audit", api.AuditRequest{}, &l)
		if e := l.Entries[len(l.Entries)-1]; e.Verb != "sync" || e.Result != c.result || !strings.HasPrefix(e.Detail, c.detail) || (e.Detail == "") != (c.detail == "") {
			t.Errorf("%+v, expected %s with %q", e, c.result, c.detail)
		}
		var jobs api.JobList
		s.call("jobs", api.Empty{}, &jobs)
		if want := map[string]string{api.AuditFailed: api.JobFailed, api.AuditOK: api.JobDone}[c.result]; jobs.Jobs[0].State != want {
			t.Errorf("the job is %s, expected %s", jobs.Jobs[0].State, want)
		}
	}
}

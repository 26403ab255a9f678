package httpd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/meta"
)

// token makes a token and returns its secret.
func (s *site) token(req api.TokenCreate) string {
	s.t.Helper()
	var t api.NewToken
	s.call("token/create", req, &t)
	return t.Secret
}

// as is a client of the control API over the network.
func (s *site) as(secret string) *client.Client {
	s.t.Helper()
	c, err := client.Remote(s.network.URL, secret, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// post sends a request as it is and returns the status and the problem of the answer.
func (s *site) post(path, secret, body string) (*http.Response, api.ProblemDetails) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.network.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var p api.ProblemDetails
	if resp.StatusCode >= 400 {
		if err := json.Unmarshal(data, &p); err != nil {
			s.t.Fatalf("%s: %v in %s", path, err, data)
		}
	}
	return resp, p
}

// audit returns the audit list as "who verb what result" lines.
func (s *site) audit() (out []string) {
	s.t.Helper()
	var l api.AuditList
	s.call("audit", api.AuditRequest{}, &l)
	for _, e := range l.Entries {
		who, _, _ := strings.Cut(e.Who, " (") // the name of the user that runs the test
		if strings.HasPrefix(who, "user ") {
			who = "user"
		}
		out = append(out, strings.Join([]string{who, e.Verb, e.What, e.Result}, " | "))
	}
	return out
}

// Each role may do what it says, and nothing more.
func TestRoles(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	need := map[string]string{
		"status": api.RoleReader, "list": api.RoleReader, "jobs": api.RoleReader,
		"record/stop": api.RoleBuilder, "record/rm": api.RoleBuilder, "attest/comparison": api.RoleBuilder, "attest/rm": api.RoleReleaser,
		"pin": api.RoleReleaser, "unpin": api.RoleReleaser, "image/add": api.RoleReleaser,
		"channel/list": api.RoleReader, "channel/set": api.RoleReleaser, "channel/rm": api.RoleAdmin,
		"rm": api.RoleAdmin, "token/list": api.RoleAdmin, "audit": api.RoleAdmin, "gc": api.RoleAdmin,
		"fsck": "", "backup": "", "key/show": "", // on the socket alone
	}
	rank := map[string]int{api.RoleReader: 1, api.RoleBuilder: 2, api.RoleReleaser: 3, api.RoleAdmin: 4, "": 5}
	for _, role := range api.Roles() {
		secret := s.token(api.TokenCreate{Name: role, Role: role})
		for verb, needed := range need {
			resp, p := s.post(api.Path+verb, secret, "{}")
			if allowed := rank[role] >= rank[needed]; allowed == (resp.StatusCode == http.StatusForbidden) {
				t.Errorf("%s as %s: status %d", verb, role, resp.StatusCode)
			}
			if resp.StatusCode == http.StatusForbidden && (p.Code != api.CodeForbidden || needed != "" && !strings.HasSuffix(p.Detail, "needs the role "+needed)) {
				t.Errorf("%s as %s: %+v", verb, role, p)
			}
		}
	}
}

// Tokens that do not let anybody in.
func TestTokensRefused(t *testing.T) {
	s := newSite(t, nil)
	expires := time.Now().Add(time.Hour)
	expired := s.token(api.TokenCreate{Name: "expired", Role: api.RoleAdmin, Expires: &expires})
	revoked := s.token(api.TokenCreate{Name: "revoked", Role: api.RoleAdmin})
	good := s.token(api.TokenCreate{Name: "good", Role: api.RoleReader})
	s.call("token/revoke", api.TokenRef{Name: "revoked"}, nil)
	s.clock = func() time.Time { return time.Now().Add(2 * time.Hour) }
	for name, c := range map[string]struct{ secret, detail string }{
		"none":    {"", "the request has no token"},
		"unknown": {"snapd_x", "this server has no such token"},
		"expired": {expired, "token expired expired on "},
		"revoked": {revoked, "token revoked was revoked on "},
	} {
		resp, p := s.post(api.Path+"status", c.secret, "{}")
		if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" || p.Code != api.CodeUnauthorized || p.Type != "urn:snapd:problem:unauthorized" || !strings.Contains(p.Detail, c.detail) {
			t.Errorf("%s: %d %+v", name, resp.StatusCode, p)
		}
	}
	if resp, p := s.post(api.Path+"status", good, "{}"); resp.StatusCode != 200 {
		t.Errorf("a good token: %+v", p)
	}
	var list api.TokenList
	s.call("token/list", api.Empty{}, &list)
	states := map[string]string{}
	for _, k := range list.Tokens {
		states[k.Name] = k.State
		if (k.Used != nil) != (k.Name == "good") {
			t.Errorf("%s: last use %v", k.Name, k.Used)
		}
	}
	if d := cmp.Diff(map[string]string{"expired": "expired", "good": "valid", "revoked": "revoked"}, states); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	for _, secret := range []string{expired, revoked, good} {
		if data, err := json.Marshal(list); err != nil || strings.Contains(string(data), secret) {
			t.Errorf("the list has a secret: %v", err)
		}
	}
}

// An address that tries many tokens is not told about them any more; good tokens from
// there are answered, also those that were not used before.
func TestTokenGuesses(t *testing.T) {
	s := newSite(t, nil)
	good := s.token(api.TokenCreate{Name: "good", Role: api.RoleReader})
	limited := 0
	for range 30 {
		switch resp, p := s.post(api.Path+"status", "snapd_guess", ""); resp.StatusCode {
		case 429:
			limited++
			if resp.Header.Get("Retry-After") == "" || p.Code != api.CodeRateLimited {
				t.Errorf("%+v", p)
			}
		case 401:
		default:
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	if limited < 10 {
		t.Errorf("%d of 30 guesses were limited", limited)
	}
	if resp, _ := s.post(api.Path+"status", good, ""); resp.StatusCode != 200 {
		t.Errorf("a good token: status %d", resp.StatusCode)
	}
}

// The address of a client is that of its connection, or the one that a proxy names
// which the configuration trusts.
func TestTrustedProxies(t *testing.T) {
	network := func(text string) (n config.Network) {
		if err := n.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, c := range []struct {
		name    string
		trusted []config.Network
		header  []string
		want    string
	}{
		{"none is trusted", nil, []string{"192.0.2.7"}, "127.0.0.1"},
		{"another is trusted", []config.Network{network("192.0.2.0/24")}, []string{"192.0.2.7"}, "127.0.0.1"},
		{"trusted", []config.Network{network("127.0.0.1")}, []string{"198.51.100.9, 192.0.2.7"}, "192.0.2.7"},
		{"several headers", []config.Network{network("127.0.0.1")}, []string{"198.51.100.9", "192.0.2.7"}, "192.0.2.7"},
		{"two proxies", []config.Network{network("127.0.0.0/8"), network("192.0.2.7")}, []string{"198.51.100.8", "198.51.100.9,192.0.2.7"}, "198.51.100.9"},
		{"only proxies", []config.Network{network("127.0.0.0/8"), network("192.0.2.0/24")}, []string{"192.0.2.9,192.0.2.7"}, "192.0.2.9"},
		{"no header", []config.Network{network("127.0.0.1")}, nil, "127.0.0.1"},
		{"no address", []config.Network{network("127.0.0.1")}, []string{"192.0.2.7, " + strings.Repeat("x", 4000)}, "127.0.0.1"},
		{"a zone", []config.Network{network("127.0.0.1")}, []string{"fe80::1%" + strings.Repeat("x", 4000)}, "127.0.0.1"},
		{"IPv4 in IPv6", []config.Network{network("127.0.0.1")}, []string{"::ffff:192.0.2.7"}, "192.0.2.7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: "127.0.0.1:4711", Header: http.Header{"X-Forwarded-For": c.header}}
			if got := httpd.ClientAddr(r, c.trusted); got != c.want {
				t.Errorf("%s, expected %s", got, c.want)
			}
		})
	}
}

// A caller who may change nothing cannot bury the changes in the audit list: only some of
// what it tried has entries, and the next one says how many have none.
func TestAuditRefused(t *testing.T) {
	s := newSite(t, nil)
	at := time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)
	s.clock = func() time.Time { return at }
	secret := s.token(api.TokenCreate{Name: "reader", Role: api.RoleReader})
	try := func(n int) {
		t.Helper()
		for range n {
			if resp, _ := s.post(api.Path+"rm", secret, ""); resp.StatusCode != http.StatusForbidden {
				t.Fatalf("status %d", resp.StatusCode)
			}
		}
	}
	try(100)
	var l api.AuditList
	s.call("audit", api.AuditRequest{}, &l)
	if len(l.Entries) != 21 {
		t.Errorf("%d entries, expected the token and 20 refusals", len(l.Entries))
	}
	s.token(api.TokenCreate{Name: "other", Role: api.RoleReader}) // what is done has an entry
	at = at.Add(10 * time.Minute)
	try(1)
	s.call("audit", api.AuditRequest{}, &l)
	if n := len(l.Entries); n != 23 || !strings.Contains(l.Entries[n-1].Detail, "(80 more did not begin since the last entry") {
		t.Errorf("%d entries, the last is %+v", n, l.Entries[n-1])
	}
	if resp, _ := s.post(api.Path+"rm", "snapd_guess", ""); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d", resp.StatusCode)
	}
	if got := s.audit(); len(got) != 23 {
		t.Errorf("a caller without a token has an entry: %q", got[len(got)-1])
	}
	// The same holds for what its role allows and cannot be begun.
	for range 100 {
		if resp, _ := s.post(api.Path+"jobs/cancel", secret, `{"id":"nothing"}`); resp.StatusCode != http.StatusNotFound {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	if got := s.audit(); len(got) > 43 {
		t.Errorf("%d entries after jobs that are not there were cancelled", len(got))
	}
}

// Files of the server are read for the control socket alone, and what copies out of it
// has an entry in the audit list.
func TestFilesOfServer(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	c := s.as(s.token(api.TokenCreate{Name: "root", Role: api.RoleAdmin}))
	as := s.Now().Add(-time.Hour)
	dir := t.TempDir()
	for _, from := range []string{"file://" + dir, "FILE:" + dir, "file:/etc", dir} {
		err := c.Call(t.Context(), "sync", api.SyncRequest{Mirrors: []string{"debian"}, FromURL: from, As: &as}, nil, nil)
		if e, ok := err.(*api.Error); !ok || e.Code != api.CodeForbidden || !strings.Contains(e.Message, "use the control socket") {
			t.Errorf("%s: %v", from, err)
		}
	}
	var synced api.SyncResult
	s.call("sync", api.SyncRequest{Mirrors: []string{"debian"}, FromURL: "file://" + dir, As: &as}, &synced)
	if e := synced.Mirrors[0].Error; e == nil || !strings.Contains(e.Message, dir) {
		t.Errorf("on the socket: %+v", e)
	}
	s.call("export", api.ExportRequest{Ref: "4.1", Dir: dir + "/4.1"}, nil)
	_ = s.fails("backup", api.BackupRequest{Dir: "relative"})
	got := s.audit()
	if d := cmp.Diff([]string{"user | export | 4.1 to " + dir + "/4.1 | ok", "user | backup | relative | failed"}, got[len(got)-2:]); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// A token for some mirrors and names changes nothing else.
func TestTokenScope(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	at := "debian@" + s.sync()
	secret := s.token(api.TokenCreate{Name: "some", Role: api.RoleAdmin, Mirrors: []string{"debian"}, Names: []string{"build-*", "4.?"}})
	c := s.as(secret)
	type call struct {
		verb string
		req  any
		want string // of the error; "": none
	}
	check := func(c *client.Client, calls ...call) {
		t.Helper()
		for _, call := range calls {
			err := c.Call(t.Context(), call.verb, call.req, nil, nil)
			if call.want == "" && err != nil {
				t.Errorf("%s %+v: %v", call.verb, call.req, err)
			}
			var e *api.Error
			if call.want != "" && (!errors.As(err, &e) || e.Code != api.CodeForbidden || !strings.Contains(e.Message, call.want)) {
				t.Errorf("%s %+v: %v, expected %q", call.verb, call.req, err, call.want)
			}
		}
	}
	check(c, []call{
		{"record/start", api.RecordStart{Name: "build-1", Mirrors: []string{"debian"}}, ""},
		{"record/start", api.RecordStart{Name: "build-2"}, "this affects all mirrors"},
		{"record/start", api.RecordStart{Name: "other", Mirrors: []string{"debian"}}, "this changes other"},
		{"record/stop", api.RecordRef{Name: "build-1"}, ""},
		{"freeze", api.FreezeRequest{Name: "build-1", AllowEmpty: true}, ""},
		{"freeze", api.FreezeRequest{Name: "4.1"}, "this affects all mirrors"},
		{"freeze", api.FreezeRequest{Name: "4.1", Mirrors: []string{"fedora@latest"}}, "this affects fedora"},
		{"freeze", api.FreezeRequest{Name: "4.1", Mirrors: []string{at}}, ""},
		{"freeze", api.FreezeRequest{Name: "5.1", Mirrors: []string{at}}, "this changes 5.1"},
		// A recording of this name does not matter where the request says otherwise.
		{"record/start", api.RecordStart{Name: "build-3", Mirrors: []string{"debian"}}, ""},
		{"record/stop", api.RecordRef{Name: "build-3"}, ""},
		{"freeze", api.FreezeRequest{Name: "build-3", Query: "*"}, "this affects all mirrors"},
		{"freeze", api.FreezeRequest{Name: "build-3", All: true}, "this affects all mirrors"},
		{"freeze", api.FreezeRequest{Name: "build-3", NoRecording: true}, "this affects all mirrors"},
		{"freeze", api.FreezeRequest{Name: "build-3", Packages: []string{"a"}}, "this affects all mirrors"},
		{"pin", api.PinRequest{Ref: at}, ""},
		{"pin", api.PinRequest{Ref: "fedora@latest"}, "this affects fedora"},
		{"sync", api.SyncRequest{Mirrors: []string{"debian"}}, ""},
		{"sync", api.SyncRequest{}, "this affects all mirrors"},
		{"sync", api.SyncRequest{Mirrors: []string{"debian"}, DryRun: true}, ""},
		{"sync", api.SyncRequest{Mirrors: []string{"fedora"}, DryRun: true}, "this affects fedora"},
		{"sync", api.SyncRequest{DryRun: true}, "this affects all mirrors"},
		{"rm", api.RefRequest{Ref: "5.0"}, "this changes 5.0"},
		{"rm", api.RefRequest{Ref: "4.1"}, ""},
		{"gc", api.GCRequest{}, "this affects all mirrors"},
		{"gc", api.GCRequest{DryRun: true}, ""},
		{"token/create", api.TokenCreate{Name: "all", Role: api.RoleAdmin}, "needs a token without limits"},
		{"token/revoke", api.TokenRef{Name: "some"}, "needs a token without limits"},
	}...)
	// What is named by a freeze or a recording concerns its mirrors.
	const otherSecret = "snapd_dG9rZW4gb2YgYSBtaXJyb3IgdGhhdCBpcyBnb25lLi4uLi4"
	if err := s.Store().PutToken(t.Context(), &meta.Token{
		Name: "other", Hash: cas.Sum([]byte(otherSecret)), Role: api.RoleAdmin, Mirrors: []string{"elsewhere"}, Created: time.Unix(0, 0),
	}); err != nil {
		t.Fatal(err)
	}
	other := s.as(otherSecret)
	check(other,
		call{"rm", api.RefRequest{Ref: "build-1"}, "this affects debian"},
		call{"record/rm", api.RecordRef{Name: "build-1"}, "this affects debian"},
		call{"freeze", api.FreezeRequest{Name: "4.2", Mirrors: []string{"elsewhere"}, Replace: []string{"a@build-1"}}, "this affects debian"},
		call{"channel/set", api.ChannelSet{Name: "stable", Freeze: "build-1"}, "this affects debian"},
	)
}

// Every change is in the audit list, with who made it; what only reads is not.
func TestAudit(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	secret := s.token(api.TokenCreate{Name: "ci", Role: api.RoleReleaser})
	c := s.as(secret)
	for _, call := range []struct {
		verb string
		req  any
	}{
		{"freeze", api.FreezeRequest{Name: "4.1", DryRun: true}}, {"list", api.ListRequest{}},
		{"freeze", api.FreezeRequest{Name: "4.1"}},
		{"freeze", api.FreezeRequest{Name: "4.1", Base: "4.0"}},
		{"rm", api.RefRequest{Ref: "4.1"}},
	} {
		_ = c.Call(t.Context(), call.verb, call.req, nil, nil)
	}
	s.call("rm", api.RefRequest{Ref: "4.1"}, nil)
	if d := cmp.Diff([]string{
		"user | token/create | ci, role releaser | ok",
		"token ci | freeze | 4.1 | ok",
		"token ci | freeze | 4.1 | failed",
		"token ci | rm |  | refused",
		"user | rm | 4.1 | ok",
	}, s.audit()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	var l api.AuditList
	s.call("audit", api.AuditRequest{}, &l)
	if e := l.Entries[1]; e.From != "127.0.0.1" || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}
	if e := l.Entries[2]; !strings.Contains(e.Detail, "4.0: not found") {
		t.Errorf("%+v", e)
	}
	// A change that is not begun has an entry too.
	for _, name := range []string{"5.0", "5.1"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.network.URL+"/api/v1/label", strings.NewReader(`{"name":"`+name+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + secret}, "Idempotency-Key": {"once"}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	s.call("audit", api.AuditRequest{}, &l)
	if e := l.Entries[len(l.Entries)-1]; e.What != "5.1" || e.Result != api.AuditFailed || !strings.Contains(e.Detail, "Idempotency-Key") {
		t.Errorf("a key that was used for another request: %+v", e)
	}
	since := time.Now().Add(time.Hour)
	s.call("audit", api.AuditRequest{Since: &since}, &l)
	if len(l.Entries) != 0 {
		t.Errorf("entries of the future: %+v", l.Entries)
	}
	s.restart() // the list outlives the server
	if got := s.audit(); len(got) != 7 {
		t.Errorf("after a restart: %q", got)
	}
}

// A body that is larger than max_upload is refused.
func TestMaxUpload(t *testing.T) {
	s := newSite(t, nil, func(c *config.Config) { c.API.MaxUpload = 1 << 20 })
	secret := s.token(api.TokenCreate{Name: "ci", Role: api.RoleReleaser})
	resp, p := s.post(api.Path+"freeze", secret, `{"name":"`+strings.Repeat("a", 1<<20)+`"}`)
	if resp.StatusCode != http.StatusRequestEntityTooLarge || p.Code != api.CodeTooLarge {
		t.Errorf("%d %+v", resp.StatusCode, p)
	}
}

// Each verb takes a body as large as it needs, whoever asks.
func TestRequestLimits(t *testing.T) {
	s := newSite(t, nil)
	reader := s.token(api.TokenCreate{Name: "reader", Role: api.RoleReader})
	releaser := s.token(api.TokenCreate{Name: "releaser", Role: api.RoleReleaser})
	space := func(n int) string { return "{}" + strings.Repeat(" ", n-2) }
	for _, c := range []struct {
		verb, secret string
		size, status int
	}{
		{"status", reader, 1 << 20, 200},
		{"status", reader, 1<<20 + 1, 413},
		{"sources", reader, 1<<20 + 1, 400}, // it has a list of packages, and this one none
		{"sources", reader, 32<<20 + 1, 413},
		{"channel/set", releaser, 1<<20 + 1, 413},
		{"freeze", releaser, 32<<20 + 1, 202},
	} {
		resp, p := s.post(api.Path+c.verb, c.secret, space(c.size))
		if resp.StatusCode != c.status || c.status == 413 && (p.Code != api.CodeTooLarge || !strings.Contains(p.Detail, "expected at most")) {
			t.Errorf("%s with %d bytes: %d %+v, expected %d", c.verb, c.size, resp.StatusCode, p, c.status)
		}
	}
}

// A freeze is exported and imported over the network, and what was changed on the way
// is refused.
func TestExportOverNetwork(t *testing.T) {
	s := newSite(t, nil)
	s.Archive.Add(pkg("a", "1"))
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.1"}, nil)
	reader := s.as(s.token(api.TokenCreate{Name: "reader", Role: api.RoleReader}))
	var tape bytes.Buffer
	if err := reader.ReceiveStream(t.Context(), "export/tar", api.ExportTar{Ref: "4.1"}, &tape, nil); err != nil {
		t.Fatal(err)
	}
	var e *api.Error
	if err := reader.ReceiveStream(t.Context(), "export/tar", api.ExportTar{Ref: "4.2"}, io.Discard, nil); !errors.As(err, &e) || e.Code != api.CodeNotFound {
		t.Errorf("no such freeze: %v", err)
	}
	other := newSite(t, nil)
	clients := map[string]*client.Client{}
	for _, role := range []string{api.RoleBuilder, api.RoleReleaser} {
		clients[role] = other.as(other.token(api.TokenCreate{Name: role, Role: role}))
	}
	send := func(role string, data []byte) (*api.TransferResult, error) {
		c := clients[role]
		res := new(api.TransferResult)
		return res, c.SendStream(t.Context(), "import/tar", api.ImportTar{}, func(_ context.Context, w io.Writer) error {
			_, err := w.Write(data)
			return err
		}, res, nil)
	}
	for _, c := range []struct {
		role, code string
		data       []byte
	}{
		{api.RoleBuilder, api.CodeForbidden, tape.Bytes()},
		{api.RoleReleaser, api.CodeUsage, []byte(strings.Repeat("x", 1024))},
		{api.RoleReleaser, api.CodeVerify, bytes.Replace(tape.Bytes(), []byte(`"mirrors"`), []byte(`"mirrorz"`), 1)},
	} {
		if _, err := send(c.role, c.data); !errors.As(err, &e) || e.Code != c.code || strings.Contains(e.Message, other.Dir) {
			t.Errorf("%s: %v, expected %s and no path of the server", c.role, err, c.code)
		}
	}
	if res, err := send(api.RoleReleaser, tape.Bytes()); err != nil || res.Name != "4.1" {
		t.Fatalf("%+v, %v", res, err)
	}
	got := other.audit()
	if last := got[len(got)-1]; !strings.HasSuffix(last, " | import/tar | 4.1 | ok") {
		t.Errorf("audit list: %q", got)
	}
	if left, err := os.ReadDir(filepath.Join(other.Dir, ".imports")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if a := other.get("/frozen/4.1/manifest.json"); a.StatusCode != 200 {
		t.Errorf("status %d", a.StatusCode)
	}
}

// The secret of a new token is shown once, also to a request that is repeated.
func TestTokenOnce(t *testing.T) {
	s := newSite(t, nil)
	secret := s.token(api.TokenCreate{Name: "admin", Role: api.RoleAdmin})
	for n, want := range []int{http.StatusOK, http.StatusConflict} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.network.URL+"/api/v1/token/create", strings.NewReader(`{"name":"ci","role":"reader"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+secret)
		r.Header.Set("Idempotency-Key", "one")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want || strings.Contains(string(body), "snapd_") != (n == 0) {
			t.Errorf("request %d: status %d, expected %d; %v", n, resp.StatusCode, want, err)
		}
	}
}

// A client without a token that announces a body and sends none holds its connection
// only as long as one may stall.
func TestStalledRequest(t *testing.T) {
	httpd.SetStallTime(t, 200*time.Millisecond)
	s := newSite(t, nil)
	u, err := url.Parse(s.network.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api/v1/status", "/api/v1/nothing", "/api/v1/openapi.json"} {
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1\r\n\r\n", path, u.Host)
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("%s: %v, expected the end of the connection", path, err)
		}
	}
}

package main

import (
	"archive/tar"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
)

// snapctl sends requests to the server that --server or the environment names, with the
// token in the file, and never sends a token unencrypted.
func TestServer(t *testing.T) {
	x := newTester(t)
	x.fake.set(func() { x.fake.answers["mirror/list"] = api.MirrorList{Mirrors: []api.MirrorStatus{}} })
	var mu sync.Mutex
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = append(got, r.Header.Get("Authorization")+" "+r.URL.Path)
		mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/moved") {
			http.Redirect(w, r, "https://other.example.org/", http.StatusFound)
			return
		}
		x.fake.ServeHTTP(w, r)
	}))
	defer srv.Close()
	dir := t.TempDir()
	token, empty, open := filepath.Join(dir, "token"), filepath.Join(dir, "empty"), filepath.Join(dir, "open")
	write(t, token, "snapd_secret\n")
	write(t, empty, "\n")
	write(t, open, "snapd_secret\n")
	for name, mode := range map[string]os.FileMode{token: 0o600, empty: 0o640} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		exit int
		want string // of the error
		sent string // header and path
	}{
		{name: "options", args: []string{"--server", srv.URL, "--token-file", token}, sent: "Bearer snapd_secret /api/v1/mirror/list"},
		{name: "below a path", args: []string{"--server", srv.URL + "/a/", "--token-file", token}, exit: 2, want: "no such verb", sent: "Bearer snapd_secret /a/api/v1/mirror/list"},
		{name: "environment", env: map[string]string{"SNAPCTL_SERVER": srv.URL, "SNAPCTL_TOKEN_FILE": token}, sent: "Bearer snapd_secret /api/v1/mirror/list"},
		{name: "option before environment", env: map[string]string{"SNAPCTL_SERVER": "http://127.0.0.1:1", "SNAPCTL_TOKEN_FILE": empty}, args: []string{"--server", srv.URL, "--token-file", token}, sent: "Bearer snapd_secret /api/v1/mirror/list"},
		{name: "socket before environment", env: map[string]string{"SNAPCTL_SERVER": srv.URL}, args: []string{"--socket", x.fake.socket}},
		{name: "both", args: []string{"--server", srv.URL, "--socket", x.fake.socket}, exit: 2, want: "cannot be combined"},
		{name: "token of another server", env: map[string]string{"SNAPCTL_SERVER": "https://mirror.example.org", "SNAPCTL_TOKEN_FILE": token}, args: []string{"--server", srv.URL}, exit: 2, want: "expected --token-file, since $SNAPCTL_TOKEN_FILE is for $SNAPCTL_SERVER"},
		{name: "no token", args: []string{"--server", srv.URL}, exit: 2, want: "expected --token-file or $SNAPCTL_TOKEN_FILE"},
		{name: "token for any server", env: map[string]string{"SNAPCTL_TOKEN_FILE": token}, args: []string{"--server", srv.URL}, sent: "Bearer snapd_secret /api/v1/mirror/list"},
		{name: "empty token", args: []string{"--server", srv.URL, "--token-file", empty}, exit: 1, want: "expected a token in its first line"},
		{name: "token that others can read", args: []string{"--server", srv.URL, "--token-file", open}, exit: 1, want: "every user can read it (mode 0644), expected 0600 or 0640"},
		{name: "token for the socket", args: []string{"--socket", x.fake.socket, "--token-file", token}, exit: 2, want: "--token-file needs --server"},
		{name: "http to another machine", args: []string{"--server", "http://mirror.example.org", "--token-file", token}, exit: 1, want: "a token is not sent over http to another machine"},
		{name: "redirect", args: []string{"--server", srv.URL + "/moved", "--token-file", token}, exit: 1, want: "the server redirects to https://other.example.org/", sent: "Bearer snapd_secret /moved/api/v1/mirror/list"},
		{name: "nobody there", args: []string{"--server", "http://127.0.0.1:1", "--token-file", token}, exit: 1, want: "the server does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mu.Lock()
			got = nil
			mu.Unlock()
			x.env = c.env
			o := x.run("", append([]string{"mirror", "list"}, c.args...)...)
			if o.Exit != c.exit || !strings.Contains(o.Err, c.want) {
				t.Errorf("exit %d, %s", o.Exit, o.Err)
			}
			mu.Lock()
			defer mu.Unlock()
			if strings.Join(got, "\n") != c.sent {
				t.Errorf("sent %q, expected %q", got, c.sent)
			}
		})
	}
}

// An export from another machine is written beside its directory until it is complete.
// It removes neither files that it did not write nor those of another export to the
// same directory. Long because of its table of cases.
func TestExportHere(t *testing.T) {
	x := newTester(t)
	var during func() // the first answer
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if f := during; f != nil {
			during = nil
			f()
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", api.BytesType)
		if strings.Contains(string(body), "broken") {
			io.WriteString(w, strings.Repeat("x", 1024))
			return
		}
		const manifest = `{"name":"4.1"}`
		tw := tar.NewWriter(w)
		tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Mode: 0o644, Size: int64(len(manifest))})
		io.WriteString(tw, manifest)
		tw.Close()
	}))
	defer srv.Close()
	base := t.TempDir()
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "snapd_secret\n")
	if err := os.Chmod(token, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "4.1")
	export := func(ref string) outcome {
		return x.run("", "export", ref, dir, "--server", srv.URL, "--token-file", token)
	}
	holds := func(want ...string) {
		t.Helper()
		if got, err := os.ReadDir(base); err != nil || len(got) != len(want) {
			t.Errorf("there are %v, %v, expected %q", got, err, want)
		}
		for _, name := range want {
			if _, err := os.Stat(filepath.Join(base, name)); err != nil {
				t.Error(err)
			}
		}
	}
	empty := func() {
		t.Helper()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Mkdir(dir+".partial", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir+".partial", "keep"), "")
	for _, prepare := range []func(){func() {}, empty} {
		prepare()
		if o := export("4.1"); o.Exit != 0 {
			t.Errorf("exit %d: %s", o.Exit, o.Err)
		}
		holds("4.1/manifest.json", "4.1.partial/keep")
	}
	if o := export("4.1"); o.Exit != api.ExitUsage || !strings.Contains(o.Err, "is not empty") {
		t.Errorf("not empty: exit %d: %s", o.Exit, o.Err)
	}

	empty()
	if o := export("broken"); o.Exit == 0 {
		t.Error("a broken export succeeded")
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("after a failure: %v, %v", st, err)
	}
	holds("4.1", "4.1.partial/keep")

	var second outcome
	during = func() { second = export("4.1") }
	if first := export("4.1"); first.Exit == 0 || second.Exit != 0 {
		t.Errorf("two at the same time: exit %d and %d: %s%s", first.Exit, second.Exit, first.Err, second.Err)
	}
	holds("4.1/manifest.json", "4.1.partial/keep")

	empty()
	needs.Tmpfs(t, dir, "1m")
	asked = 0
	if o := export("4.1"); o.Exit != api.ExitUsage || !strings.Contains(o.Err, "is a mount point") || asked > 0 {
		t.Errorf("mount point: exit %d, %d requests: %s", o.Exit, asked, o.Err)
	}
	holds("4.1", "4.1.partial/keep")
}

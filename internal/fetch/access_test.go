package fetch_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/fetchtest"
	"example.org/snapd/internal/fetch/remote"
)

// asked is what a server saw of a request.
type asked struct {
	path, user, password string
	cert                 bool
}

// watch is a handler that keeps what it was asked and answers "x", or a redirect.
type watch struct {
	mu    sync.Mutex
	asked []asked
	to    string
}

func (w *watch) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	user, password, _ := r.BasicAuth()
	w.asked = append(w.asked, asked{r.URL.Path, user, password, r.TLS != nil && len(r.TLS.PeerCertificates) > 0})
	if w.to != "" {
		http.Redirect(out, r, w.to, http.StatusFound)
		return
	}
	fmt.Fprint(out, "x")
}

func (w *watch) take() []asked {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.asked
	w.asked = nil
	return a
}

func authFile(t *testing.T, text string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "auth.conf")
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func load(t *testing.T, f remote.Files) *remote.Access {
	t.Helper()
	a, err := remote.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A mirror's credentials, authority and client certificate are used for that
// mirror and no other, and stay with their host.
func TestAccess(t *testing.T) {
	ca := fetchtest.NewCA(t)
	cert, key := ca.Issue("client")
	var own, other, plain watch
	srv, second := ca.Server(&own, true), ca.Server(&other, false)
	clear := httptest.NewServer(&plain)
	t.Cleanup(clear.Close)
	auth := authFile(t, "machine "+strings.TrimPrefix(srv.URL, "https://")+"/r login alice password s3cret\n")
	whole := load(t, remote.Files{Auth: auth, CA: ca.File, ClientCert: cert, ClientKey: key})
	c := fetch.New(fetch.Config{Retries: -1})
	t.Cleanup(c.Close)
	var scope fetch.Scope
	get := func(a *remote.Access, u remote.URL) error {
		_, _, err := c.GetBytes(t.Context(), fetch.Request{URLs: []remote.URL{u}, Size: -1, MaxSize: 100, Access: a, Scope: &scope})
		return err
	}
	u := remote.NewURL(srv.URL + "/r/f")

	if err := get(whole, u); err != nil {
		t.Fatal(err)
	}
	if got, want := own.take(), []asked{{"/r/f", "alice", "s3cret", true}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("asked %v, expected %v", got, want)
	}
	// Of a mirror without them, on the same client: connections are not shared.
	for name, a := range map[string]*remote.Access{
		"nothing":           nil,
		"no client":         load(t, remote.Files{Auth: auth, CA: ca.File}),
		"no authority":      load(t, remote.Files{ClientCert: cert, ClientKey: key}),
		"another authority": load(t, remote.Files{CA: fetchtest.NewCA(t).File, ClientCert: cert, ClientKey: key}),
	} {
		if err := get(a, u); err == nil {
			t.Errorf("%s: no error", name)
		} else if got := own.take(); got != nil {
			t.Errorf("%s: asked %v", name, got)
		}
	}
	// Another path of that host has no entry.
	if err := get(whole, remote.NewURL(srv.URL+"/f")); err != nil {
		t.Fatal(err)
	}
	if got, want := own.take(), []asked{{"/f", "", "", true}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("asked %v, expected %v", got, want)
	}

	// A redirect to another host takes neither along; within the host, both.
	own.to = second.URL + "/r/f"
	if err := get(whole, u); err != nil {
		t.Fatal(err)
	}
	own.to = ""
	own.take()
	if got, want := other.take(), []asked{{"/r/f", "", "", false}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after a redirect: asked %v, expected %v", got, want)
	}
	// What a repository's content names, is shown no certificate.
	if err := get(whole, remote.NewURL(second.URL+"/r/f").Foreign()); err != nil {
		t.Fatal(err)
	}
	if got, want := other.take(), []asked{{"/r/f", "", "", false}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a foreign URL: asked %v, expected %v", got, want)
	}

	// No password in the clear, unless the entry says so.
	host := strings.TrimPrefix(clear.URL, "http://")
	for conf, want := range map[string]asked{
		"machine " + host + " login alice password s3cret":        {path: "/f"},
		"machine http://" + host + " login alice password s3cret": {path: "/f", user: "alice", password: "s3cret"},
	} {
		if err := get(load(t, remote.Files{Auth: authFile(t, conf)}), remote.NewURL(clear.URL+"/f")); err != nil {
			t.Fatal(err)
		}
		if got := plain.take(); fmt.Sprint(got) != fmt.Sprint([]asked{want}) {
			t.Errorf("%s: asked %v, expected %v", conf, got, want)
		}
	}
}

// What a server sends back of a secret is in no error and no log, whichever part
// of the answer it is in.
func TestErrorsHideSecrets(t *testing.T) {
	const secret = "s3cret-t0ken"
	for name, h := range map[string]http.HandlerFunc{
		"status": func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprintf(conn, "HTTP/1.1 403 no %s here\r\nContent-Length: 0\r\n\r\n", secret)
			conn.Close()
		},
		"unexpected status": func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprintf(conn, "HTTP/1.1 299 %s\r\nContent-Length: 0\r\n\r\n", secret)
			conn.Close()
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "ftp://a:"+secret+"@h/"+secret+"?x="+secret)
			w.WriteHeader(302)
		},
		"no location": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://a:"+secret+"@%zz/")
			w.WriteHeader(302)
		},
		"loop": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/"+secret+"?token="+secret)
			w.WriteHeader(302)
		},
		"dead redirect": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://a:"+secret+"@127.0.0.1:1/?x="+secret)
			w.WriteHeader(302)
		},
		"encoding": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", secret)
			fmt.Fprint(w, "x")
		},
		"page": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; x="+secret)
			fmt.Fprint(w, "<html>"+secret)
		},
		"size":   func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.Repeat("x", 200)) },
		"broken": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"garbage": func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprintf(conn, "%s http://a:%s@h/\r\n\r\n", secret, secret)
			conn.Close()
		},
		"header": func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n%s\r\n\r\n", secret)
			conn.Close()
		},
	} {
		srv := httptest.NewServer(h)
		host := strings.TrimPrefix(srv.URL, "http://")
		a := load(t, remote.Files{Auth: authFile(t, "machine http://"+host+" login alice password "+secret)})
		for form, u := range map[string]string{
			"auth_file": srv.URL + "/f",
			"user":      "http://alice:" + secret + "@" + host + "/f",
			"token":     "http://" + secret + ":@" + host + "/f",
			"query":     srv.URL + "/f?token=" + secret + "&arch=x86_64",
			"fragment":  srv.URL + "/f#" + secret,
		} {
			if form == "fragment" && name != "size" {
				continue // it is not sent
			}
			var log bytes.Buffer
			c := fetch.New(fetch.Config{Retries: -1, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			_, res, err := c.GetBytes(t.Context(), fetch.Request{URLs: remote.NewURLs(u), Size: -1, MaxSize: 100, Access: a})
			c.Close()
			if err == nil {
				t.Errorf("%s, %s: no error", name, form)
				continue
			}
			if text := fmt.Sprintf("%v %+v %#v %+v %s", err, err, err, res, log.String()); strings.Contains(text, secret) {
				t.Errorf("%s, %s: %s", name, form, text)
			}
		}
		srv.Close()
	}
}

// A login in the URL of a proxy is in no error. It is read once in a
// process, so the test is a process of its own.
func TestProxyErrorHidesSecrets(t *testing.T) {
	if os.Getenv("FETCH_TEST_PROXY") != "" {
		c := fetch.New(fetch.Config{Retries: -1})
		_, _, err := c.GetBytes(t.Context(), fetch.Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: -1, MaxSize: 100})
		fmt.Println("ERROR:", err)
		return
	}
	for proxy, want := range map[string]string{
		"http://alice:s3cret@127.0.0.1:1/":   "connection refused",
		"ftp://alice:s3cret@127.0.0.1:1/":    "upstream unavailable",
		"socks5://alice:s3cret@127.0.0.1:1/": "connection refused",
	} {
		cmd := testCommand(t, "TestProxyErrorHidesSecrets", "FETCH_TEST_PROXY=1", "http_proxy="+proxy, "HTTP_PROXY="+proxy)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if text := string(out); strings.Contains(text, "s3cret") || !strings.Contains(text, want) {
			t.Errorf("proxy %s: expected %q and no secret\n%s", proxy, want, text)
		}
	}
}

// A file that cannot be used is refused with the key that names it.
func TestLoadRefuses(t *testing.T) {
	ca := fetchtest.NewCA(t)
	cert, key := ca.Issue("client")
	_, otherKey := ca.Issue("other")
	file := func(text string, mode os.FileMode) string {
		f := authFile(t, text)
		if err := os.Chmod(f, mode); err != nil {
			t.Fatal(err)
		}
		return f
	}
	good := "machine h login u password s3cret"
	for _, c := range []struct {
		name  string
		files remote.Files
		want  string
	}{
		{"no file", remote.Files{Auth: "/nowhere/auth.conf"}, "auth_file: open /nowhere/auth.conf: no such file"},
		{"open to all", remote.Files{Auth: file(good, 0o644)}, "every user can read it (mode 0644), expected 0600 or 0640"},
		{"not the format", remote.Files{Auth: file("alice:s3cret", 0o600)}, `found no "machine"`},
		{"empty", remote.Files{Auth: file("", 0o600)}, `found no "machine"`},
		{"a directory", remote.Files{Auth: t.TempDir()}, "auth_file: "},
		{"no authority", remote.Files{CA: "/nowhere/ca.pem"}, "ca_file: open /nowhere/ca.pem: no such file"},
		{"no PEM", remote.Files{CA: file("s3cret", 0o644)}, "expected a PEM certificate, found none"},
		{"a key for an authority", remote.Files{CA: key}, "expected a PEM certificate, found none"},
		{"bad PEM", remote.Files{CA: file("-----BEGIN CERTIFICATE-----\nczNjcmV0\n-----END CERTIFICATE-----\n", 0o644)}, "certificate 1: "},
		{"no key", remote.Files{ClientCert: cert}, "client_cert: client_key is missing"},
		{"no certificate", remote.Files{ClientKey: key}, "client_key: client_cert is missing"},
		{"another's key", remote.Files{ClientCert: cert, ClientKey: otherKey}, "client_key: "},
		{"no such key", remote.Files{ClientCert: cert, ClientKey: "/nowhere/k"}, "client_key: open /nowhere/k: no such file"},
		{"a certificate for a key", remote.Files{ClientCert: cert, ClientKey: cert}, "client_key: "},
		{"a key for a certificate", remote.Files{ClientCert: key, ClientKey: key}, "client_cert: "},
	} {
		_, err := remote.Load(c.files)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, expected …%s…", c.name, err, c.want)
		}
	}
	if a, err := remote.Load(remote.Files{Auth: file(good, 0o640), CA: ca.File, ClientCert: cert, ClientKey: key}); err != nil {
		t.Error(err)
	} else if text := fmt.Sprintf("%v %+v %#v", a, *a, a); strings.Contains(text, "s3cret") {
		t.Error(text)
	}
}

func testCommand(t *testing.T, name string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run", "^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

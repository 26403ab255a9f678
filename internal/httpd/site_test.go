package httpd_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/httpd/fastfile"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
	"example.org/snapd/internal/webhook"
)

// site is an upstream, an engine and a server of both sides.
type site struct {
	*mirrortest.World
	t       testing.TB
	signer  *sign.Signer
	conf    *config.Config
	freezer *freezer.Freezer
	srv     *httpd.Server
	public  *httptest.Server
	control *client.Client
	socket  net.Listener
	clock   func() time.Time // nil: time.Now
	network *httptest.Server // the control API
	done    sync.Once
}

func newSite(t testing.TB, change func(*config.Mirror), conf ...func(*config.Config)) *site {
	t.Helper()
	s := &site{World: mirrortest.New(t, change), t: t, signer: signtest.Signer(t, signtest.NewKey(t, "snapd"))}
	c := config.Default()
	for _, f := range conf {
		f(&c)
	}
	c.DataDir = s.Dir
	s.conf = &c
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

// serverOf makes a server from the parts of a snapd and a Config with the rest.
func serverOf(t testing.TB, p *mirrortest.Parts, z *freezer.Freezer, now func() time.Time, c httpd.Config) *httpd.Server {
	t.Helper()
	c.Catalog, c.Acquirer, c.Meta, c.Blobs, c.Freezer, c.Version = p.Catalog, p.Acquirer, p.Store(), p.Blobs(), z, "test"
	hooks, err := webhook.New(webhook.Config{Meta: p.Store(), Webhooks: c.Conf.Webhooks, Log: c.Log, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	c.Control = control.New(control.Config{
		Formats: repo.ByType[control.Format](p.Formats()...), Engine: p.Engine, Catalog: p.Catalog, Acquirer: p.Acquirer, Meta: p.Store(), Blobs: p.Blobs(), Freezer: z,
		Collector: gc.New(gc.Config{Formats: repo.ByType[gc.Format](p.Formats()...), Catalog: p, Acquirer: p, Meta: p.Store(), Blobs: p.Blobs(), Making: z.Making}),
		Signer:    c.Signer, TLog: c.TLog, Webhooks: hooks, Conf: c.Conf, Version: "test", Log: c.Log, Now: now,
	})
	srv, err := httpd.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return srv
}

// start serves what is in the World's directory.
func (s *site) start() {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.conf.Server.Listen = l.Addr().String()
	s.conf.Server.PublicURL = "http://" + s.conf.Server.Listen
	now := func() time.Time {
		if s.clock != nil {
			return s.clock()
		}
		return time.Now()
	}
	s.freezer = freezer.New(freezer.Config{Formats: s.Formats(), Catalog: s.Catalog, Acquirer: s.Acquirer, Meta: s.Store(), Blobs: s.Blobs(), Signer: s.signer, PublicURL: s.conf.Server.PublicURL, Version: "test", Now: now})
	log := slog.New(slog.NewTextHandler(logTo{s.t}, nil))
	s.srv = serverOf(s.t, s.Parts, s.freezer, now, httpd.Config{Signer: s.signer, Conf: s.conf, Log: log, Latency: &s.Latency})
	s.public = &httptest.Server{Listener: s.srv.Listen(l, 4096), Config: &http.Server{Handler: s.srv.Public(), ConnContext: fastfile.ConnContext, ConnState: fastfile.ConnState, DisableGeneralOptionsHandler: true}}
	s.public.Start()
	dir, err := os.MkdirTemp("", "httpd")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	sock := filepath.Join(dir, "s")
	if s.socket, err = net.Listen("unix", sock); err != nil {
		s.t.Fatal(err)
	}
	h := &http.Server{Handler: s.srv.Control(), ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
		return httpd.WithPeer(ctx, &httpd.Peer{UID: uint32(os.Geteuid())})
	}}
	go h.Serve(s.socket)
	s.network = httptest.NewServer(s.srv.API())
	s.control = client.Local(sock)
	s.done = sync.Once{}
}

func (s *site) stop() {
	s.done.Do(func() {
		s.srv.Close()
		s.public.CloseClientConnections()
		s.public.Close()
		s.network.CloseClientConnections()
		s.network.Close()
		s.socket.Close()
	})
}

// restart closes everything and opens the directory again.
func (s *site) restart() {
	s.t.Helper()
	s.stop()
	s.CloseAll()
	s.Open()
	s.start()
}

// logTo writes the server's log into the test's.
type logTo struct{ t testing.TB }

func (l logTo) Write(p []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

// call runs a verb that must succeed.
func (s *site) call(verb string, req, res any) {
	s.t.Helper()
	if err := s.control.Call(s.t.Context(), verb, req, res, nil); err != nil {
		s.t.Fatalf("%s: %v", verb, err)
	}
}

// fails runs a verb that must fail and returns why.
func (s *site) fails(verb string, req any) *api.Error {
	s.t.Helper()
	err := s.control.Call(s.t.Context(), verb, req, nil, nil)
	e, ok := err.(*api.Error)
	if !ok {
		s.t.Fatalf("%s: error %v, expected an *api.Error", verb, err)
	}
	return e
}

// answer is a response read whole.
type answer struct {
	*http.Response
	body string
	err  error // of the body
}

// raw sends a request line and headers as they are.
func (s *site) raw(line string, headers ...string) answer {
	s.t.Helper()
	c, err := net.Dial("tcp", s.conf.Server.Listen)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	method, _, _ := strings.Cut(line, " ")
	fmt.Fprintf(c, "%s HTTP/1.1\r\nConnection: close\r\n", line)
	if !slices.ContainsFunc(headers, func(h string) bool { return strings.HasPrefix(h, "Host: ") }) {
		fmt.Fprint(c, "Host: snapd.example.org\r\n")
	}
	for _, h := range headers {
		fmt.Fprintf(c, "%s\r\n", h)
	}
	fmt.Fprint(c, "\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp, string(body), err}
}

// get sends a GET.
func (s *site) get(path string, headers ...string) answer {
	s.t.Helper()
	return s.raw("GET "+path, headers...)
}

// publish makes upstream's next state, an hour after the last.
func (s *site) publish() {
	s.t.Helper()
	s.SetNow(s.Now().Add(time.Hour))
	s.Archive.Publish(s.Now())
}

// sync syncs and returns the snapshot's part of /archive URLs.
func (s *site) sync() string {
	s.t.Helper()
	return meta.FormatTimestamp(s.MustSync().Snapshot.Timestamp)
}

// blobFile is where a blob lies on disk.
func (s *site) blobFile(data []byte) string { return filepath.Join(s.Dir, casdir.Name(cas.Sum(data))) }

func pkg(name, version string) debtest.Package { return debtest.Package{Name: name, Version: version} }

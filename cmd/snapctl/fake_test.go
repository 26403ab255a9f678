package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/buildenv"
	"example.org/snapd/internal/image"
	"example.org/snapd/internal/squashfs"
)

// errHangUp as an answer closes the connection without one.
var errHangUp = errors.New("hang up")

// fakeSnapd answers on a control socket and records the requests.
type fakeSnapd struct {
	socket string

	mu       sync.Mutex
	answers  map[string]any // a result, or an *api.Error
	progress map[string][]api.Progress
	requests []string          // "verb body", and "file DIGEST" for each file that is sent
	images   map[string]string // by digest: files with the bytes
	hang     chan struct{}
}

func newFakeSnapd(t *testing.T) *fakeSnapd {
	t.Helper()
	dir, err := os.MkdirTemp("", "snapctl") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fakeSnapd{socket: filepath.Join(dir, "s"), answers: map[string]any{}, progress: map[string][]api.Progress{}}
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: f}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return f
}

func (f *fakeSnapd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb := strings.TrimPrefix(r.URL.Path, api.Path)
	if job, ok := strings.CutPrefix(verb, "jobs/"); ok && r.Method == http.MethodGet {
		f.events(w, r, strings.ReplaceAll(strings.TrimSuffix(job, "/events"), ".", "/"))
		return
	}
	body, files := received(r)
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+verb+" "+string(body))
	for _, digest := range files {
		f.requests = append(f.requests, "file "+digest)
	}
	if verb == "image/get" {
		var req api.ImageGet
		json.Unmarshal(body, &req)
		name := f.images[req.SHA256]
		f.mu.Unlock()
		w.Header().Set("Content-Type", api.BytesType)
		http.ServeFile(w, r, name)
		return
	}
	answer, ok := f.answers[verb]
	if answer == errHangUp {
		f.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	if im, is := answer.(api.Image); is && len(files) == 1 {
		im.SHA256 = files[0]
		answer = im
	}
	if proposed, is := answer.(api.AttestStatement); is {
		var req api.AttestRequest
		json.Unmarshal(body, &req)
		if s, err := attest.ParseStatement(proposed.Payload); err == nil {
			s.Tools = req.Tools
			proposed.Payload, _ = s.Encode()
			answer = proposed
		}
	}
	progress := f.progress[verb]
	hang := f.hang
	f.mu.Unlock()
	if len(progress) > 0 && len(files) == 0 {
		w.WriteHeader(http.StatusAccepted)
		json.NewEncoder(w).Encode(api.Job{ID: strings.ReplaceAll(verb, "/", ".")})
		return
	}
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		return
	}
	e, is := answer.(*api.Error)
	if !ok {
		e, is = &api.Error{Code: api.CodeUsage, Message: "no such verb: " + verb, Exit: api.ExitUsage}, true
	}
	if is {
		p := e.Problem()
		w.Header().Set("Content-Type", api.ProblemType)
		w.WriteHeader(p.Status)
		answer = p
	}
	json.NewEncoder(w).Encode(answer)
}

// events answers with the events of the job of a verb.
func (f *fakeSnapd) events(w http.ResponseWriter, r *http.Request, verb string) {
	f.mu.Lock()
	answer, progress, hang := f.answers[verb], f.progress[verb], f.hang
	f.mu.Unlock()
	event := func(n int, typ string, v any) {
		data, _ := json.Marshal(v)
		fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", n, typ, data)
		http.NewResponseController(w).Flush()
	}
	w.Header().Set("Content-Type", api.EventsType)
	for i, p := range progress {
		event(i+1, api.EventProgress, p)
	}
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
			return
		}
	}
	if e, is := answer.(*api.Error); is {
		event(len(progress)+1, api.EventError, e.Problem())
		return
	}
	event(len(progress)+1, api.EventResult, answer)
}

// received reads a request and the digests of the files that follow it.
func received(r *http.Request) (body []byte, files []string) {
	parts, err := r.MultipartReader()
	if err != nil {
		body, _ = io.ReadAll(r.Body)
		return body, nil
	}
	for {
		p, err := parts.NextPart()
		if err != nil {
			return body, files
		}
		data, _ := io.ReadAll(p)
		if p.FormName() == api.RequestPart {
			body = data
			continue
		}
		files = append(files, fmt.Sprintf("%x", sha256.Sum256(data)))
	}
}

// set changes the answers.
func (f *fakeSnapd) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// asked returns the requests since the last call.
func (f *fakeSnapd) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.requests
	f.requests = nil
	return out
}

// outcome is everything observable about one run of snapctl.
type outcome struct {
	Exit     int
	Out, Err string
	Requests []string
	Files    map[string]string
}

// tester runs snapctl in this process.
type tester struct {
	t     *testing.T
	fake  *fakeSnapd
	env   map[string]string
	stdin string
	m     machine
	build builder
	envs  environments
	now   time.Time
}

func newTester(t *testing.T) *tester {
	f := newFakeSnapd(t)
	return &tester{
		t: t, fake: f, env: map[string]string{"SNAPCTL_SOCKET": f.socket},
		m:     machine{root: os.DirFS("/"), architectures: func() []string { return []string{"amd64"} }},
		build: fakeBuilder, envs: fakeEnvironments, now: time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC),
	}
}

// run runs snapctl. The files in dir are part of the outcome, in which DIR replaces its
// name.
func (x *tester) run(dir string, args ...string) outcome {
	x.t.Helper()
	return x.runCtx(x.t.Context(), dir, args...)
}

func (x *tester) runCtx(ctx context.Context, dir string, args ...string) outcome {
	x.t.Helper()
	var out, errOut bytes.Buffer
	p := &program{
		stdin: strings.NewReader(x.stdin), stdout: &out, stderr: &errOut,
		getenv:  func(k string) string { return x.env[k] },
		now:     func() time.Time { return x.now },
		machine: x.m, builder: x.build, environments: x.envs,
	}
	x.fake.asked()
	o := outcome{Exit: p.run(ctx, args), Out: out.String(), Err: errOut.String(), Requests: x.fake.asked()}
	if dir != "" {
		o.Files = map[string]string{}
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(p)
			rel, _ := filepath.Rel(dir, p)
			o.Files[rel] = strings.ReplaceAll(string(b), dir, "DIR")
			return err
		})
		if err != nil {
			x.t.Fatal(err)
		}
		o.Out, o.Err = strings.ReplaceAll(o.Out, dir, "DIR"), strings.ReplaceAll(o.Err, dir, "DIR")
		for i := range o.Requests {
			o.Requests[i] = strings.ReplaceAll(o.Requests[i], dir, "DIR")
		}
	}
	return o
}

// fakeBuilder makes images that contain their spec.
var fakeBuilder = builder{
	architecture: func(context.Context) (string, error) { return "amd64", nil },
	tools: func(context.Context) (image.Tools, error) {
		return image.Tools{"mmdebstrap": "1.3.5", "apt": "2.6.1", "dpkg": "1.21.22"}, nil
	},
	build: func(ctx context.Context, w io.WriterAt, s image.Spec, o image.Options) error {
		io.WriteString(o.Log, "I: chroot\nI: downloading packages with apt...\nI: inst")
		io.WriteString(o.Log, "alling remaining packages...\n")
		o.Progress(1)
		files := smallTar(map[string]string{
			"etc/apt/sources.list": s.Upstream,
			"spec":                 strings.Join(append([]string{s.Variant, s.Architecture}, s.Include...), " "),
		}, s.Epoch)
		if s.Format == "tar" || s.Format == "oci" {
			_, err := w.WriteAt(append([]byte(s.Format+"\n"), files...), 0)
			return err
		}
		_, err := squashfs.FromTar(ctx, w, bytes.NewReader(files), squashfs.Options{Epoch: s.Epoch})
		return err
	},
}

// fakeEnvironments run a command that writes its settings to its output.
var fakeEnvironments = environments{
	cpus:  func() int { return 4 },
	check: func(context.Context) error { return nil },
	reach: func(context.Context, string) error { return nil },
	root: func(_ context.Context, w io.Writer, s image.Spec, o image.Options) ([]image.Installed, error) {
		io.WriteString(o.Log, "I: running apt-get update...\n")
		o.Progress(1)
		var list []image.Installed
		for _, p := range append([]string{s.Variant}, s.Include...) {
			list = append(list, image.Installed{Name: p, Version: "5.2.15-2+b2", Architecture: "amd64"})
		}
		_, err := io.WriteString(w, "root")
		return list, err
	},
	rpmTools: func(context.Context) (map[string]string, string, error) {
		return map[string]string{"dnf": "4.14.0", "rpm": "4.18.0"}, "x86_64", nil
	},
	rpmRoot: func(_ context.Context, r buildenv.RPMRoot) ([]buildenv.Package, error) {
		var list []buildenv.Package
		for _, p := range r.Packages {
			list = append(list, buildenv.Package{Name: p, Version: "1.0-1", Architecture: "x86_64"})
		}
		return list, os.WriteFile(r.File, []byte("root"), 0o600)
	},
	run: func(_ context.Context, c buildenv.Config) (int, error) {
		c.Progress("run")
		text, err := json.Marshal(map[string]any{"command": c.Command, "sources": c.Sources})
		if err != nil {
			return 0, err
		}
		if c.Command[0] == "false" {
			return 7, nil
		}
		if c.Command[0] == "date" {
			text = append(text, c.Settings.Env["TZ"]...)
		}
		return 0, os.WriteFile(filepath.Join(c.Output, "settings"), text, 0o644)
	},
}

package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/errclass"
)

// maxRequest bounds a control request, in bytes: manifests travel in it.
const maxRequest = 512 << 20

// progressEvery is the shortest time between two progress lines of one task.
const progressEvery = 100 * time.Millisecond

// verb answers one kind of request: body is the request as JSON.
type verb func(ctx context.Context, body []byte, report func(api.Progress)) (any, error)

// decode reads a request. Fields that Req does not have are refused: a client
// that asks for more than this server knows must not get less.
func decode[Req any](body []byte) (*Req, error) {
	req := new(Req)
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(req); err != nil {
		return nil, fmt.Errorf("%w: request: %w", errclass.Usage, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: request: more than one JSON value", errclass.Usage)
	}
	return req, nil
}

// reporting makes a verb of a function that reports its own progress.
func reporting[Req, Res any](f func(context.Context, *Req, func(api.Progress)) (*Res, error)) verb {
	return func(ctx context.Context, body []byte, report func(api.Progress)) (any, error) {
		req, err := decode[Req](body)
		if err != nil {
			return nil, err
		}
		return f(ctx, req, report)
	}
}

// counting makes a verb of a function that counts its work; task names what a
// request is about.
func counting[Req, Res any](task func(*Req) string, f func(context.Context, *Req, *acquire.Progress) (*Res, error)) verb {
	return reporting(func(ctx context.Context, req *Req, report func(api.Progress)) (*Res, error) {
		return control.Counted(ctx, task(req), report, func(p *acquire.Progress) (*Res, error) { return f(ctx, req, p) })
	})
}

// simple makes a verb of a function that is over before anybody asks for its
// progress.
func simple[Req, Res any](f func(context.Context, *Req) (*Res, error)) verb {
	return reporting(func(ctx context.Context, req *Req, _ func(api.Progress)) (*Res, error) { return f(ctx, req) })
}

// verbs are the paths below /v1/ on the control socket.
func verbs(c *control.Control) map[string]verb {
	return map[string]verb{
		"status":       simple(c.Status),
		"mirror/list":  simple(c.Mirrors),
		"mirror/show":  simple(c.Mirror),
		"sync":         reporting(c.SyncAll),
		"list":         simple(c.List),
		"show":         simple(c.Show),
		"packages":     simple(c.Packages),
		"find":         simple(c.Find),
		"diff":         simple(c.Diff),
		"pin":          simple(c.Pin),
		"unpin":        simple(c.Unpin),
		"rm":           simple(c.Remove),
		"freeze":       counting(func(r *api.FreezeRequest) string { return r.Name }, c.Freeze),
		"sources":      simple(c.Sources),
		"verify":       counting(func(r *api.VerifyRequest) string { return r.Ref }, c.Verify),
		"export":       counting(func(r *api.ExportRequest) string { return r.Ref }, c.Export),
		"import":       counting(func(r *api.ImportRequest) string { return r.Dir }, c.Import),
		"sbom":         simple(c.SBOM),
		"image/add":    simple(c.AddImage),
		"image/list":   simple(c.Images),
		"record/start": simple(c.StartRecording),
		"record/stop":  simple(c.StopRecording),
		"record/show":  simple(c.Recording),
		"record/list":  simple(c.Recordings),
		"record/rm":    simple(c.RemoveRecording),
		"kit/publish":  reporting(c.PublishKits),
		"key/show":     simple(func(context.Context, *api.Empty) (*api.KeyInfo, error) { return c.Key(), nil }),
		"backup":       counting(func(*api.BackupRequest) string { return "backup" }, c.Backup),
		"gc":           simple(c.GC),
		"fsck":         counting(func(*api.FsckRequest) string { return "fsck" }, c.Fsck),
	}
}

// Control is the handler of the control socket. Callers must set the
// connection's peer with ConnContext.
func (s *Server) Control() http.Handler {
	table := verbs(s.control)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		out := &lines{w: w, rc: rc}
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Cache-Control", "no-store")
		fail := func(status int, e *api.Error) {
			w.WriteHeader(status)
			out.write(api.Line{Error: e})
		}
		if err := checkPeer(r.Context()); err != nil {
			fail(http.StatusForbidden, &api.Error{Code: api.CodeUsage, Message: err.Error(), Exit: api.ExitFailed})
			return
		}
		name, ok := strings.CutPrefix(r.URL.Path, "/v1/")
		verb := table[name]
		switch {
		case !ok || verb == nil:
			fail(http.StatusNotFound, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("this snapd does not know %q", strings.TrimPrefix(r.URL.Path, "/v1/")), Exit: api.ExitUsage})
			return
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			fail(http.StatusMethodNotAllowed, &api.Error{Code: api.CodeUsage, Message: "control requests are POST", Exit: api.ExitUsage})
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			fail(http.StatusRequestEntityTooLarge, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("read request: %v", err), Exit: api.ExitFailed})
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = rc.Flush()
		res, err := s.call(r.Context(), name, verb, body, out.progress)
		if err != nil {
			out.write(api.Line{Error: s.control.Error(name, err)})
			return
		}
		data, err := json.Marshal(res)
		if err != nil {
			out.write(api.Line{Error: s.control.Error(name, fmt.Errorf("encode the result of %s: %w", name, err))})
			return
		}
		out.write(api.Line{Result: data})
	})
}

// call runs a verb; a panic in it is a bug and fails this call only.
func (s *Server) call(ctx context.Context, name string, verb verb, body []byte, report func(api.Progress)) (res any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "verb", name, "err", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("bug in %s: %v", name, p)
		}
		s.control.CheckFatal(err)
	}()
	// A daemon that stops interrupts the calls that still run.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.base, cancel)
	defer stop()
	return verb(ctx, body, report)
}

// lines writes the answer's JSON lines.
type lines struct {
	mu   sync.Mutex
	w    io.Writer
	rc   *http.ResponseController
	last map[string]sent
	done bool
}

type sent struct {
	at    time.Time
	phase string
}

func (l *lines) write(line api.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return
	}
	l.done = line.Progress == nil
	// A client that is gone cancels the context; the error says nothing more.
	_ = json.NewEncoder(l.w).Encode(line)
	_ = l.rc.Flush()
}

func (l *lines) progress(p api.Progress) {
	l.mu.Lock()
	now := time.Now()
	s, ok := l.last[p.Task]
	if ok && s.phase == p.Phase && now.Sub(s.at) < progressEvery {
		l.mu.Unlock()
		return
	}
	if l.last == nil {
		l.last = map[string]sent{}
	}
	l.last[p.Task] = sent{now, p.Phase}
	l.mu.Unlock()
	l.write(api.Line{Progress: &p})
}

type peerKey struct{}

// WithPeer notes the credentials of a control connection's peer (unix(7),
// SO_PEERCRED) for http.Server.ConnContext.
func WithPeer(ctx context.Context, cred *unix.Ucred) context.Context {
	return context.WithValue(ctx, peerKey{}, cred)
}

// checkPeer lets this process's own user and root in.
func checkPeer(ctx context.Context) error {
	cred, ok := ctx.Value(peerKey{}).(*unix.Ucred)
	if !ok || cred == nil {
		return errors.New("control socket: the caller's user is not known")
	}
	if own := uint32(unix.Geteuid()); cred.Uid != 0 && cred.Uid != own {
		return fmt.Errorf("control socket: user %d may not control this snapd, only user %d and root", cred.Uid, own)
	}
	return nil
}

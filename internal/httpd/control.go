package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// apiPrefix is the path of the control API, on the socket and over the network.
const apiPrefix = "/api/v1/"

// Control returns the handler of the control socket. Callers must use ConnContext
// to set the connection's peer.
func (s *Server) Control() http.Handler {
	return &controlAPI{s: s, routes: routes(s.control, s.jobs), identify: s.peerCaller}
}

// API returns the handler of the control API over the network, for bearer tokens.
func (s *Server) API() http.Handler {
	return &controlAPI{s: s, routes: routes(s.control, s.jobs), identify: s.tokenCaller, remote: true}
}

// controlAPI answers control requests.
type controlAPI struct {
	s        *Server
	routes   map[string]route
	identify func(*http.Request) (*control.Caller, error)
	remote   bool // over the network
	openapi  description
}

// exchange is one request, its caller and its answer.
type exchange struct {
	a    *controlAPI
	w    http.ResponseWriter
	rc   *http.ResponseController
	r    *http.Request
	by   *control.Caller
	name string // of the verb
	rt   route
	// asked is the request as it was decoded, before route.touch completes it.
	asked json.RawMessage
}

func (a *controlAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h["X-Content-Type-Options"] = noSniff
	x := &exchange{a: a, w: w, rc: http.NewResponseController(w), r: r}
	if r.ContentLength != 0 {
		readSoon(x.rc) // even if nothing below reads the body
	}
	var under bool
	x.name, under = strings.CutPrefix(r.URL.Path, apiPrefix)
	if under && x.name == openAPIName {
		x.openAPI()
		return
	}
	var err error
	if x.by, err = a.identify(r); err != nil {
		x.fail(err)
		return
	}
	if id, ok := strings.CutPrefix(x.name, jobPath); ok && under && r.Method == http.MethodGet {
		x.jobResource(id)
		return
	}
	rt, ok := a.routes[x.name]
	if !under || !ok {
		x.fail(&api.Error{Code: api.CodeNotFound, Reason: "verb", Message: fmt.Sprintf("this snapd does not support %q", x.name), Exit: api.ExitUsage})
		return
	}
	x.rt = rt
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		x.fail(&api.Error{Code: api.CodeMethod, Message: "control requests must use POST", Exit: api.ExitUsage})
		return
	}
	if err := x.allowed(); err != nil {
		x.fail(err)
		return
	}
	x.do()
}

// allowed checks the caller's role.
func (x *exchange) allowed() error {
	if !x.a.remote {
		return nil
	}
	err := x.by.CheckRole(x.name, x.rt.role)
	if x.rt.role == "" {
		err = fmt.Errorf("%w: %s uses files of the server: use the control socket on that machine", control.ErrForbidden, x.name)
	}
	if err != nil && x.rt.touch != nil {
		x.notBegun(&control.Touch{}, err)
	}
	return err
}

// do reads the request and answers it.
func (x *exchange) do() {
	if x.rt.take != nil {
		x.takeFiles()
		return
	}
	body, err := x.body()
	if err != nil {
		x.fail(err)
		return
	}
	req, err := x.rt.decode(body)
	if err == nil {
		x.asked, err = json.Marshal(req)
	}
	if err != nil {
		x.fail(err)
		return
	}
	touch, err := x.touches(req)
	switch {
	case err != nil:
		x.fail(err)
	case x.rt.send != nil:
		x.sendBytes(req)
	case x.rt.long || touch != nil && !x.rt.secret && x.r.Header.Get("Idempotency-Key") != "":
		x.job(req, touch)
	default:
		ctx := control.WithCaller(context.WithValue(x.r.Context(), callerKey{}, x.by), x.by.Who)
		if x.rt.touch != nil {
			ctx = meta.Current(ctx)
		}
		res, err := x.a.s.call(ctx, x.name, func(ctx context.Context) (any, error) { return x.rt.run(ctx, req, nil) })
		x.audit(touch, control.Failure(res, err))
		x.reply(res, err)
	}
}

// limit bounds the request without its files, in bytes.
func (x *exchange) limit() int64 {
	if x.rt.limit > 0 {
		return x.rt.limit
	}
	return smallRequest
}

// body reads a request without files. An absent body counts as an empty request.
func (x *exchange) body() ([]byte, error) {
	limit := x.limit()
	if x.a.remote {
		limit = min(limit, int64(x.a.s.cfg.Conf.API.MaxUpload))
	}
	body, err := io.ReadAll(x.reader(limit))
	if len(body) == 0 && err == nil {
		body = []byte("{}")
	}
	return body, err
}

// reader reads the body of the request up to a limit. A client that stalls is cut.
func (x *exchange) reader(limit int64) io.Reader {
	return &bodyReader{r: http.MaxBytesReader(x.w, x.r.Body, limit), rc: x.rc, limit: limit}
}

type bodyReader struct {
	r     io.Reader
	rc    *http.ResponseController
	limit int64
}

func (b *bodyReader) Read(p []byte) (int, error) {
	readSoon(b.rc)
	n, err := b.r.Read(p)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		err = fmt.Errorf("request: %w: expected at most %d bytes", control.ErrBody, b.limit)
	case err != nil && err != io.EOF:
		err = fmt.Errorf("%w: the request ended early: %w", errclass.Usage, err)
	}
	if err == io.EOF {
		readAnyTime(b.rc) // or net/http waits for the rest of the body before it sends the answer
	}
	return n, err
}

// touches returns what the request changes, if the caller may change it.
func (x *exchange) touches(req any) (*control.Touch, error) {
	if x.rt.touch == nil {
		return nil, nil
	}
	// Check permissions against the current state, not against a cached copy.
	t, err := x.rt.touch(meta.Current(x.r.Context()), req)
	if err != nil {
		x.notBegun(&control.Touch{}, err)
		return nil, err
	}
	if t == nil {
		return nil, nil
	}
	if err := x.by.Check(t); err != nil {
		x.notBegun(t, err)
		return nil, err
	}
	if t.ReadOnly {
		return nil, nil
	}
	return t, nil
}

// notBegun records in the audit list a change that was refused or could not begin.
func (x *exchange) notBegun(t *control.Touch, err error) {
	if t != nil {
		x.a.s.control.NotBegun(x.r.Context(), x.by, x.name, t, err)
	}
}

// audit records the outcome of a change in the audit list.
func (x *exchange) audit(t *control.Touch, err error) {
	if t != nil {
		x.a.s.control.Audited(x.r.Context(), x.by, x.name, t, err)
	}
}

// reply answers with a result or an error.
func (x *exchange) reply(res any, err error) {
	if err != nil {
		x.fail(err)
		return
	}
	if p, ok := res.(*control.PackageStream); ok {
		x.packages(p)
		return
	}
	data, err := json.Marshal(res)
	if err != nil {
		x.fail(fmt.Errorf("encode the result of %s: %w", x.name, err))
		return
	}
	x.write(http.StatusOK, "application/json", data)
}

// fail answers with an error.
func (x *exchange) fail(err error) {
	p := x.a.s.control.Error(x.name, err).Problem()
	data, err := json.Marshal(p)
	if err != nil {
		p.Data = nil
		data, _ = json.Marshal(p)
	}
	switch p.Status {
	case http.StatusUnauthorized:
		x.w.Header().Set("WWW-Authenticate", `Bearer realm="snapd"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		x.w.Header().Set("Retry-After", "10")
	}
	x.write(p.Status, api.ProblemType, data)
}

func (x *exchange) write(status int, ctype string, data []byte) {
	x.w.Header().Set("Content-Type", ctype)
	x.w.WriteHeader(status)
	writeSoon(x.rc, len(data))
	// A failed write means that the client has disconnected.
	_, _ = x.w.Write(append(data, '\n'))
}

// call runs a verb. A panic is a bug, and fails only this call.
func (s *Server) call(ctx context.Context, name string, run func(context.Context) (any, error)) (res any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "verb", name, "err", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("bug in %s: %v", name, p)
		}
		s.control.CheckFatal(err)
	}()
	if err := s.control.Permit(name); err != nil {
		return nil, err
	}
	// A daemon that stops cancels calls in progress.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.base, cancel)
	defer stop()
	return run(ctx)
}

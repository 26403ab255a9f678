package s3test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is what happens to one request.
type Fault struct {
	// Status is the status of an answer that replaces the server's, and Code is the S3
	// error code in it. The request takes effect if After is set; otherwise it never
	// reaches the server.
	Status int
	Code   string
	After  bool
	// Hang means that the request is never answered. It takes effect if After is set. The
	// proxy closes the connection after HangTime; 0: the client closes it.
	Hang     bool
	HangTime time.Duration
	// Cut ends the body of the answer, and the connection, after so many bytes.
	// CutRequest does the same to the body of the request.
	Cut, CutRequest int64
	// Flip changes one byte in the answer's body.
	Flip bool
	// Pause waits before each piece of 1 KiB of the answer's body.
	Pause time.Duration
	// Hide removes keys from a listing.
	Hide *regexp.Regexp
}

// Proxy passes requests on to a server, and counts them.
type Proxy struct {
	next  *httputil.ReverseProxy
	freed chan struct{}

	mu     sync.Mutex
	decide func(op, path string) *Fault
	counts map[string]int

	sent, received atomic.Int64 // bytes of bodies, by clients
}

func newProxy(socket string) *Proxy {
	p := &Proxy{counts: map[string]int{}, freed: make(chan struct{})}
	p.next = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "s3"})
			r.Out.Host = r.In.Host // it is signed
		},
		Transport:     newBackend(socket),
		FlushInterval: -1,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, err error) { panic(http.ErrAbortHandler) },
	}
	return p
}

// release ends hanging requests.
func (p *Proxy) release() { close(p.freed) }

// Decide sets the function that decides about each request; nil: none fails. op is the
// operation: put, part, create, complete, abort, get, head, list, uploads, delete,
// deletes, bucket. The function may be called concurrently.
func (p *Proxy) Decide(f func(op, path string) *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decide = f
}

// Once makes the next request of a kind fail.
func (p *Proxy) Once(op string, f Fault) {
	done := false
	p.Decide(func(o, _ string) *Fault {
		if o != op || done {
			return nil
		}
		done = true
		return &f
	})
}

// Counts returns the number of requests of each kind since the last call.
func (p *Proxy) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.counts
	p.counts = map[string]int{}
	return out
}

// Bytes returns the bytes of bodies that clients sent and received since the last call.
func (p *Proxy) Bytes() (sent, received int64) { return p.sent.Swap(0), p.received.Swap(0) }

// countedBody counts the body of a request.
type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c countedBody) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// counted counts the body of an answer.
type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

// Unwrap is for http.ResponseController.
func (c counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// operation returns the kind of a request.
func operation(r *http.Request) string {
	q := r.URL.Query()
	object := strings.Contains(strings.TrimPrefix(r.URL.Path, "/"), "/") && !strings.HasSuffix(r.URL.Path, "/")
	switch {
	case r.Method == http.MethodPut && q.Has("uploadId"):
		return "part"
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "create"
	case r.Method == http.MethodPost && q.Has("uploadId"):
		return "complete"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "abort"
	case r.Method == http.MethodPost && q.Has("delete"):
		return "deletes"
	case r.Method == http.MethodGet && q.Has("uploads"):
		return "uploads"
	case !object && r.Method == http.MethodGet && (q.Has("list-type") || q.Has("prefix")):
		return "list"
	case !object:
		return "bucket"
	}
	return strings.ToLower(r.Method)
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op := operation(r)
	p.mu.Lock()
	p.counts[op]++
	decide := p.decide
	var f *Fault
	if decide != nil {
		f = decide(op, r.URL.Path)
	}
	p.mu.Unlock()
	if r.Body != http.NoBody {
		r.Body = countedBody{r.Body, &p.sent}
	}
	w = counted{w, &p.received}
	if f == nil {
		p.next.ServeHTTP(w, r)
		return
	}
	if f.CutRequest > 0 {
		r.Body = &cutBody{ReadCloser: r.Body, left: f.CutRequest}
	}
	if f.After || f.CutRequest > 0 {
		p.pass(discarded{http.Header{}}, r)
	} else if f.Status != 0 || f.Hang {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	switch {
	case f.Hang:
		var end <-chan time.Time // never
		if f.HangTime > 0 {
			end = time.After(f.HangTime)
		}
		select {
		case <-r.Context().Done():
		case <-p.freed:
		case <-end:
		}
		panic(http.ErrAbortHandler)
	case f.CutRequest > 0:
		panic(http.ErrAbortHandler)
	case f.Status != 0:
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(f.Status)
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>injected fault</Message></Error>`, f.Code)
	case f.Hide != nil:
		p.hide(w, r, f.Hide)
	default:
		p.next.ServeHTTP(&damaged{ResponseWriter: w, f: f}, r)
	}
}

// pass lets a request take effect, whatever happens to its answer.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request) {
	defer func() { _ = recover() }()
	p.next.ServeHTTP(w, r)
}

// discarded is an answer that nobody receives.
type discarded struct{ h http.Header }

func (d discarded) Header() http.Header         { return d.h }
func (d discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d discarded) WriteHeader(int)             {}

// cutBody is the body of a request whose sender disappears.
type cutBody struct {
	io.ReadCloser
	left int64
}

func (c *cutBody) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

// damaged passes an answer on with a fault.
type damaged struct {
	http.ResponseWriter
	f *Fault
	n int64
}

// Unwrap is for http.ResponseController.
func (d *damaged) Unwrap() http.ResponseWriter { return d.ResponseWriter }

func (d *damaged) Write(b []byte) (int, error) {
	b = bytes.Clone(b)
	if d.f.Flip && d.n == 0 && len(b) > 0 {
		b[len(b)/2] ^= 1
	}
	if d.f.Cut > 0 && d.n+int64(len(b)) > d.f.Cut {
		_, _ = d.ResponseWriter.Write(b[:d.f.Cut-d.n])
		_ = http.NewResponseController(d.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	d.n += int64(len(b))
	if d.f.Pause == 0 {
		return d.ResponseWriter.Write(b)
	}
	for i := 0; i < len(b); i += 1 << 10 {
		timer := time.NewTimer(d.f.Pause)
		<-timer.C
		if _, err := d.ResponseWriter.Write(b[i:min(i+1<<10, len(b))]); err != nil {
			return i, err
		}
		_ = http.NewResponseController(d.ResponseWriter).Flush()
	}
	return len(b), nil
}

var contentsRE = regexp.MustCompile(`(?s)<(Contents|Upload)>.*?</(Contents|Upload)>`)

// hide answers with a listing that lacks keys.
func (p *Proxy) hide(w http.ResponseWriter, r *http.Request, keys *regexp.Regexp) {
	rec := &recorded{header: http.Header{}}
	p.pass(rec, r)
	body := contentsRE.ReplaceAllFunc(rec.body.Bytes(), func(c []byte) []byte {
		if keys.Match(c) {
			return nil
		}
		return c
	})
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(rec.status)
	_, _ = w.Write(body)
}

type recorded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorded) Header() http.Header         { return r.header }
func (r *recorded) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorded) WriteHeader(status int)      { r.status = status }

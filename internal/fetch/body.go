package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"example.org/snapd/internal/fetch/internal/reveal"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/regfile"
)

// body is a response body, or a file, that is being read.
type body struct {
	c    *Client
	url  string // redacted
	hide secrets
	r    io.ReadCloser

	header      http.Header
	modified    time.Time
	length      int64 // announced, -1 if unknown
	validator   string
	partial     bool // the body continues from the requested offset
	restart     bool // the body cannot be appended to the bytes received before
	notModified bool
	openEnded   bool // only the end of the connection marks the end of the body
	checkHTML   bool // check whether the body starts like a web page

	dog    *time.Timer // nil for files
	dead   *atomic.Bool
	cancel context.CancelFunc
	host   *host // of the requested URL; holds turn
	turn   *turn
	closed bool
}

func (b *body) result() Result {
	return Result{
		URL: b.url, ETag: entityTag(b.header.Get("ETag")), LastModified: b.modified, ContentType: b.header.Get("Content-Type"),
	}
}

func (b *body) close() {
	if b.closed {
		return
	}
	b.closed = true
	if b.r != nil {
		b.r.Close()
	}
	if b.dog != nil {
		b.dog.Stop()
	}
	if b.cancel != nil {
		b.cancel()
	}
	if b.host != nil {
		b.host.leave(b.turn)
	}
}

// open requests URL i, starting at offset off. cuts is the number of times that the
// download had to give up its connection to others.
func (c *Client) open(ctx context.Context, req *Request, i int, off int64, validator string, cuts int) (*body, error) {
	raw := req.URLs[i].Full(reveal.Token{})
	if strings.HasPrefix(raw, "/") && req.URLs[i].IsConfigured() {
		return c.openFile(req, raw, off)
	}
	u, err := url.Parse(raw)
	if err != nil {
		// url.Error would quote the URL with its credentials.
		return nil, &failure{url: req.URLs[i].String(), err: fmt.Errorf("%w: the URL is invalid", ErrRefused)}
	}
	switch {
	case u.Scheme == "file" && (u.Host == "" || u.Host == "localhost") && req.URLs[i].IsConfigured():
		return c.openFile(req, u.Path, off)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, &failure{url: redact(u), err: fmt.Errorf("%w: expected an http, https or file URL", ErrRefused)}
	}
	return c.openHTTP(ctx, req, i, u, off, validator, cuts)
}

func (c *Client) openHTTP(ctx context.Context, req *Request, i int, u *url.URL, off int64, validator string, cuts int) (*body, error) {
	name := redact(u)
	h, outer := c.host(u), ctx
	ctx, cancel := context.WithCancel(ctx)
	t := &turn{cuts: cuts, end: cancel}
	if err := h.enter(outer, t, req.IgnorePauses); err != nil {
		cancel()
		var f *failure
		if errors.As(err, &f) {
			f.url = name
		}
		return nil, err
	}
	b := &body{c: c, url: name, host: h, turn: t, cancel: cancel, dead: new(atomic.Bool)}
	dead := b.dead
	b.dog = time.AfterFunc(c.cfg.HeaderTimeout, func() { dead.Store(true); cancel() })

	hdr := make(http.Header, 6)
	hdr["User-Agent"] = []string{c.cfg.UserAgent}
	if off > 0 {
		hdr["Range"] = []string{"bytes=" + strconv.FormatInt(off, 10) + "-"}
		if validator != "" {
			hdr["If-Range"] = []string{validator}
		}
	} else {
		if req.ETag != "" {
			hdr["If-None-Match"] = []string{req.ETag}
		}
		if !req.IfModifiedSince.IsZero() {
			hdr["If-Modified-Since"] = []string{req.IfModifiedSince.UTC().Format(http.TimeFormat)}
		}
	}
	resp, final, hide, err := c.roundTrip(ctx, req, i, u, hdr)
	b.dog.Stop()
	if err != nil {
		b.close()
		f := &failure{url: name, temp: true}
		var cert *tls.CertificateVerificationError
		f.err = fmt.Errorf("%w: %s", ErrUnavailable, cause(err))
		var network net.Error
		if final != u {
			h.setSilent(time.Time{}) // it answered with a redirect, and may answer with another
		} else if dead.Load() || errors.As(err, &network) && network.Timeout() {
			f.silent = h
		}
		switch {
		case errors.As(err, &f):
		case dead.Load():
			f.err = fmt.Errorf("%w: no response within %v", ErrUnavailable, c.cfg.HeaderTimeout)
		case errors.As(err, &cert):
			f.temp, f.err = false, fmt.Errorf("%w: %s", ErrCertificate, cause(err))
		}
		return nil, f
	}
	h.setSilent(time.Time{})
	b.url, b.hide, b.r, b.header, b.length = hide.in(redact(final)), hide, resp.Body, resp.Header, resp.ContentLength
	if at := serverClock(b.header); req.OnClock != nil && !at.IsZero() {
		req.OnClock(b.url, at)
	}
	if err := b.judge(req, resp, c.host(final), off, validator); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// roundTrip sends a request for URL i and follows redirects. Credentials and
// client certificates are sent only to their host. A redirect may lead to a
// public address, or to one of the kind that the redirecting server is at.
// roundTrip also returns the last URL and the secrets that were sent.
func (c *Client) roundTrip(ctx context.Context, req *Request, i int, u *url.URL, hdr http.Header) (*http.Response, *url.URL, secrets, error) {
	var sent secrets
	refuse := func(format string, args ...any) (*http.Response, *url.URL, secrets, error) {
		return nil, nil, nil, &failure{url: sent.in(redact(u)), err: fmt.Errorf("%w: %s", ErrRefused, sent.in(fmt.Sprintf(format, args...)))}
	}
	first, configured := *u, req.URLs[i].IsConfigured()
	may := anywhere
	if !configured {
		may = req.Scope.reach()
	}
	from := u // the URL that named u
	for n := 0; ; n++ {
		r := (&http.Request{
			Method: http.MethodGet, URL: u, Host: u.Host, Header: hdr,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		}).WithContext(ctx)
		user, pass, ok := "", "", u.User != nil
		if ok {
			user = u.User.Username()
			pass, _ = u.User.Password()
		} else {
			user, pass, ok = req.Access.Login(reveal.Token{}, u)
		}
		if ok {
			r.Header = hdr.Clone()
			r.SetBasicAuth(user, pass)
		}
		sent = sent.add(u, user, pass)
		withCert := !req.URLs[i].IsForeign() && u.Scheme == first.Scheme && u.Host == first.Host
		c.stats.requests.Add(1)
		resp, at, err := c.send(r, req.Access, withCert, may)
		var refused *addrError
		switch {
		case errors.As(err, &refused):
			what := "a redirect to " + clip(redact(u))
			if n == 0 {
				what = "a mirror list or an index names it"
			}
			return nil, nil, nil, &failure{url: sent.in(redact(from)), err: fmt.Errorf("%w: %s: %v", ErrRefused, sent.in(what), refused)}
		case err != nil:
			return nil, u, sent, err
		case n == 0 && configured:
			req.Scope.note(u, at)
		}
		from, may = u, public|at
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, u, sent, nil
		}
		drain(resp.Body)
		location := resp.Header.Get("Location")
		if len(location) > maxLocation {
			return refuse("a redirect to a URL of %d bytes, at most %d allowed", len(location), maxLocation)
		}
		to, err := u.Parse(location)
		switch {
		case location == "" || err != nil:
			return refuse("%s without a usable Location", statusText(resp.StatusCode))
		case to.Scheme != "http" && to.Scheme != "https" || to.Host == "":
			return refuse("a redirect to %s", clip(redact(to)))
		case u.Scheme == "https" && to.Scheme == "http":
			return refuse("a redirect from https to %s", clip(redact(to)))
		case n == maxRedirects:
			return refuse("more than %d redirects, the last to %s", maxRedirects, clip(redact(to)))
		}
		to.Fragment = ""
		to.RawQuery = escapeQuery(to.RawQuery)
		if to.User == nil && to.Host == u.Host {
			to.User = u.User
		}
		u = to
		if d := c.host(u).pauses(req.IgnorePauses); d > 0 {
			f := pausing(d)
			f.url = sent.in(redact(u))
			return nil, nil, nil, f
		}
	}
}

// send sends one request, if the kind of its address is allowed, and returns that
// kind. Through a proxy, only the host in the URL can be checked.
func (c *Client) send(r *http.Request, a *remote.Access, withCert bool, may reach) (*http.Response, reach, error) {
	at := public
	if addr, ok := literal(r.URL.Hostname()); ok {
		if at = c.cfg.reachOf(addr.Unmap()); at&may == 0 {
			return nil, at, &addrError{addr, at, may}
		}
	}
	if c.cfg.Transport == nil {
		if proxy, err := http.ProxyFromEnvironment(r); proxy != nil || err != nil {
			may = anywhere // address of the proxy
		} else {
			r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
				if tcp, ok := i.Conn.RemoteAddr().(*net.TCPAddr); ok {
					at = c.cfg.reachOf(tcp.AddrPort().Addr().Unmap())
				}
			}}))
		}
	}
	resp, err := c.transport(a, withCert, may).RoundTrip(r)
	return resp, at, err
}

// judge decides from the status and headers of a response whether to read its
// body.
func (b *body) judge(req *Request, resp *http.Response, answering *host, off int64, validator string) error {
	fail := func(temp bool, sentinel error, format string, args ...any) error {
		return &failure{url: b.url, temp: temp, err: fmt.Errorf("%w: %s", sentinel, b.hide.in(fmt.Sprintf(format, args...)))}
	}
	b.modified, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	if now := time.Now().UTC().Truncate(time.Second); b.modified.After(now) {
		// A time in the future would make all later states look older.
		b.modified = now
	}
	if resp.StatusCode < 400 && req.IgnorePauses > 0 {
		answering.lift(req.IgnorePauses)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
	case code == http.StatusPartialContent && off > 0:
		start, _, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || start != off {
			return fail(false, ErrRefused, "asked for bytes from %d, got Content-Range %q", off, clip(resp.Header.Get("Content-Range")))
		}
		b.partial = true
		switch {
		case total >= 0 && req.Size >= 0 && total != req.Size:
			return &failure{url: b.url, err: &MismatchError{URL: b.url, What: "size", Expected: strconv.FormatInt(req.Size, 10), Found: strconv.FormatInt(total, 10)}}
		case validator != "" && validator != strongValidator(resp):
			b.restart = true // If-Range was not honoured
		}
	case code == http.StatusPartialContent && b.isWhole(resp, req):
	case code == http.StatusRequestedRangeNotSatisfiable && off > 0:
		b.restart = true
	case code == http.StatusNotModified && off == 0 && (req.ETag != "" || !req.IfModifiedSince.IsZero()):
		b.notModified = true
		drain(resp.Body)
		return nil
	case code == http.StatusNotFound, code == http.StatusGone:
		b.drain()
		return fail(false, ErrNotFound, "%s", statusText(resp.StatusCode))
	case code == http.StatusTooManyRequests, code >= 500, code == http.StatusRequestTimeout, code == http.StatusTooEarly:
		b.drain()
		if d, ok := retryAfter(resp); ok && (code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable) {
			answering.pause(d, b.c.stats.pauses.Add(1))
			return &failure{url: b.url, temp: d <= maxWait, pause: d,
				err: fmt.Errorf("%w: %s, retry after %v", ErrUnavailable, statusText(resp.StatusCode), d.Round(time.Second))}
		}
		return fail(true, ErrUnavailable, "%s", statusText(resp.StatusCode))
	case code >= 400:
		b.drain()
		return &failure{url: b.url, status: code, err: fmt.Errorf("%w: %s", ErrDenied, b.hide.in(statusText(code)))}
	default:
		return fail(false, ErrRefused, "unexpected response %s", statusText(resp.StatusCode))
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") && !req.Want.pinned() {
		// Some servers set "x-gzip" for files that are gzip themselves. That is
		// harmless if the digest of the file is known.
		return fail(false, ErrRefused, "Content-Encoding %q, expected none", clip(enc))
	}
	if b.partial || b.restart {
		b.validator = validator
		return nil
	}
	b.validator = strongValidator(resp)
	b.openEnded = b.length < 0 && len(resp.TransferEncoding) == 0
	switch {
	case b.length >= 0 && req.Size >= 0 && b.length != req.Size:
		if b.isHTML(resp) {
			return b.page()
		}
		return &failure{url: b.url, err: &MismatchError{URL: b.url, What: "size", Expected: strconv.FormatInt(req.Size, 10), Found: strconv.FormatInt(b.length, 10)}}
	case b.length >= 0 && req.Size < 0 && b.length > req.MaxSize:
		return fail(false, ErrTooLarge, "%d bytes, at most %d allowed", b.length, req.MaxSize)
	}
	return nil
}

// isWhole reports whether the response to a request without a range is the whole
// file although its status says that it is a part: by its Content-Range, or
// without one by the digest, which will be checked.
func (b *body) isWhole(resp *http.Response, req *Request) bool {
	text := resp.Header.Get("Content-Range")
	if text == "" {
		return req.Want.pinned()
	}
	first, last, total, ok := contentRange(text)
	if !ok || first != 0 {
		return false
	}
	if req.Want.pinned() {
		return total < 0 || last+1 == total
	}
	return last+1 == total && resp.ContentLength == total
}

func (b *body) isHTML(resp *http.Response) bool {
	typ, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(typ), "text/html")
}

func (b *body) page() error {
	return &failure{url: b.url, err: fmt.Errorf("%w: expected a repository file, found an HTML page (Content-Type %q); is the URL right?",
		ErrNotRepository, b.hide.in(clip(b.header.Get("Content-Type"))))}
}

// read is like Read, with bounded waits and a limited rate. Its error is io.EOF, a
// failure, or the error of the context.
func (b *body) read(ctx context.Context, p []byte) (int, error) {
	if b.dog == nil {
		n, err := b.r.Read(p)
		b.c.stats.bytes.Add(int64(n))
		if err != nil && err != io.EOF {
			err = &failure{url: b.url, err: fmt.Errorf("%w: %v", ErrUnavailable, err)}
		}
		return n, err
	}
	limit := b.c.rate.Load()
	p = p[:min(len(p), limit.piece)]
	start := time.Now()
	t := b.turn
	t.since.Store(start.UnixNano())
	b.dog.Reset(b.c.cfg.StallTimeout)
	n, err := b.r.Read(p)
	b.dog.Stop()
	t.since.Store(0)
	waited := time.Duration(t.waited.Add(int64(time.Since(start))))
	got := t.got.Add(int64(n))
	b.c.stats.bytes.Add(int64(n))
	slow := b.c.cfg.MinRate > 0 && float64(got)/max(waited.Seconds(), 1e-9) < float64(b.c.cfg.MinRate)
	switch {
	case err == io.EOF:
	case err != nil:
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		f := &failure{url: b.url, temp: true}
		switch {
		case t.cut.Load():
			// The server is not to blame, unless it is too slow anyway.
			f.progress = !slow
			f.err = fmt.Errorf("%w: %d bytes in %v, while others waited for the connection", ErrUnavailable, got, waited.Round(time.Second))
		case b.dead.Load():
			f.err = fmt.Errorf("%w: no byte within %v", ErrUnavailable, b.c.cfg.StallTimeout)
		default:
			f.err = fmt.Errorf("%w: the body was cut off: %s", ErrUnavailable, cause(err))
		}
		return n, f
	case waited >= rateWindow:
		if slow {
			return n, &failure{url: b.url, temp: true, err: fmt.Errorf("%w: %d bytes in %v, expected at least %d a second",
				ErrUnavailable, got, waited.Round(time.Second), b.c.cfg.MinRate)}
		}
		t.waited.Store(0)
		t.got.Store(0)
	}
	if b.checkHTML && n > 0 {
		b.checkHTML = false
		if looksHTML(p[:n]) {
			return 0, b.page()
		}
	}
	if limit.limiter != nil && n > 0 {
		if werr := limit.limiter.WaitN(ctx, n); werr != nil {
			if ctx.Err() != nil {
				return n, context.Cause(ctx)
			}
			return n, fmt.Errorf("%w: %v", context.DeadlineExceeded, werr)
		}
	}
	return n, err
}

// drain reads the rest of a small response, so that the connection can be reused.
func (b *body) drain() {
	b.dog.Reset(min(b.c.cfg.StallTimeout, drainTime))
	drain(b.r)
	b.dog.Stop()
}

func drain(r io.ReadCloser) {
	io.CopyN(io.Discard, r, maxDrain)
	r.Close()
}

// looksHTML reports whether a document starts like a web page.
func looksHTML(p []byte) bool {
	p = bytes.TrimPrefix(p, []byte("\xef\xbb\xbf"))
	p = bytes.ToLower(bytes.TrimLeft(p[:min(len(p), 512)], " \t\r\n"))
	return bytes.HasPrefix(p, []byte("<!doctype html")) || bytes.HasPrefix(p, []byte("<html"))
}

// openFile opens a file below the request's tree. It follows neither ".." nor symbolic
// links out of the tree.
func (c *Client) openFile(req *Request, name string, off int64) (*body, error) {
	shown := (&url.URL{Scheme: "file", Path: name}).String()
	refuse := func(format string, args ...any) error {
		return &failure{url: shown, err: fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))}
	}
	tree := req.Tree
	if u, err := url.Parse(tree); err == nil && u.Scheme == "file" {
		tree = u.Path
	}
	if tree == "" {
		return nil, refuse("local files are not allowed here")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return nil, refuse("a path with ..")
		}
	}
	rel, ok := strings.CutPrefix(path.Clean(name), strings.TrimSuffix(path.Clean(tree), "/")+"/")
	if !ok {
		return nil, refuse("a path outside %s", tree)
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, &failure{url: shown, err: fmt.Errorf("%w: %v", ErrLocal, err)}
	}
	defer root.Close()
	// A symbolic link is followed if it stays below the tree. Only regular files
	// are opened: opening a device may have side effects.
	if fi, err := root.Stat(rel); err == nil && !fi.Mode().IsRegular() {
		return nil, refuse("not a regular file, but %s", regfile.Kind(fi.Mode()))
	}
	f, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not block
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &failure{url: shown, err: fmt.Errorf("%w: no such file", ErrNotFound)}
	}
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, &failure{url: shown, err: fmt.Errorf("%w: %v", ErrLocal, err)}
		}
		return nil, refuse("%v", err) // the path leads out of the tree
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, refuse("not a regular file")
	}
	b := &body{c: c, url: shown, r: f, header: http.Header{}, modified: fi.ModTime().UTC().Truncate(time.Second), length: fi.Size()}
	if since := req.IfModifiedSince; off == 0 && !since.IsZero() && !b.modified.After(since) {
		b.notModified = true
		return b, nil
	}
	switch {
	case req.Size >= 0 && fi.Size() != req.Size:
		f.Close()
		return nil, &failure{url: shown, err: &MismatchError{URL: shown, What: "size", Expected: strconv.FormatInt(req.Size, 10), Found: strconv.FormatInt(fi.Size(), 10)}}
	case req.Size < 0 && fi.Size() > req.MaxSize:
		f.Close()
		return nil, &failure{url: shown, err: fmt.Errorf("%w: %d bytes, at most %d allowed", ErrTooLarge, fi.Size(), req.MaxSize)}
	}
	if off > 0 {
		if _, err := f.Seek(off, io.SeekStart); err != nil {
			f.Close()
			return nil, &failure{url: shown, err: fmt.Errorf("%w: %v", ErrUnavailable, err)}
		}
		b.partial = true
	}
	return b, nil
}

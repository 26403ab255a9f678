package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/api"
)

// closedError is an ErrNoDaemon: this user has no access to the control socket, and so
// cannot tell whether snapd is running.
type closedError struct {
	where string
	err   error
}

func (e *closedError) Error() string   { return e.where + " is closed to this user: " + e.err.Error() }
func (e *closedError) Unwrap() []error { return []error{ErrNoDaemon, e.err} }

// Client calls snapd over its control socket, or over the network. It is safe for
// concurrent use.
type Client struct {
	base  string // URL that ends in api.Path
	where string // for errors
	token string
	local bool
	http  *http.Client
}

// Local returns a client for the control socket at path, which needs no token.
func Local(path string) *Client {
	return &Client{base: "http://snapd" + api.Path, where: "control socket " + path, local: true, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

var (
	// ErrNoDaemon means that nothing answers on the control socket.
	ErrNoDaemon = errors.New("snapd is not running")
	// ErrNoServer means that no snapd answers at the URL of the server.
	ErrNoServer = errors.New("the server does not answer")
	// ErrClearToken means that a token would be sent over an unencrypted connection to
	// another machine.
	ErrClearToken = errors.New("a token is not sent over http")
	// ErrRedirected means that the server answered with a redirect. The client does not
	// follow redirects, because it would send the token to another URL.
	ErrRedirected = errors.New("the server redirects")
)

// Remote returns a client for the control API below a base URL, with a token. Unless
// base is an https URL or an address of this machine, it returns ErrClearToken.
// transport may be nil.
func Remote(base, token string, transport http.RoundTripper) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("server %q: expected a URL like https://mirror.example.org:8443", base)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("server %q: expected a URL without user name, query or fragment", u.Redacted())
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("server %s: %w to another machine: use https", base, ErrClearToken)
	}
	base = strings.TrimRight(base, "/")
	return &Client{base: base + api.Path, where: "server " + base, token: token, http: &http.Client{
		Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// loopback reports whether a host is a loopback address, or the name localhost (RFC
// 6761). It does not resolve other names.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Call runs one verb. It decodes the answer into result; a *json.RawMessage gets the
// JSON as snapd sent it. progress may be nil. If the verb fails, Call returns an
// *Error. A long verb runs as a job, which Call follows even after the connection was
// lost. Cancelling ctx cancels the job, unless other clients wait for it too.
func (c *Client) Call(ctx context.Context, verb string, req, result any, progress func(Progress)) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	resp, err := c.request(ctx, verb, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return c.result(ctx, resp, result)
	}
	var job api.Job
	if err := c.result(ctx, resp, &job); err != nil {
		return err
	}
	return c.follow(ctx, job.ID, result, progress)
}

// Limits on repeating a request whose connection was lost, and on following a job.
const (
	attempts     = 8
	firstPause   = 200 * time.Millisecond
	longestPause = 10 * time.Second
	leaveTime    = 5 * time.Second
)

// request sends a request without files. Over the network, it sends the request again
// if the connection is lost; the Idempotency-Key keeps the server from running it
// twice.
func (c *Client) request(ctx context.Context, verb string, body []byte) (resp *http.Response, err error) {
	header := http.Header{"Content-Type": {"application/json"}}
	if c.token == "" {
		return c.do(ctx, http.MethodPost, verb, header, bytes.NewReader(body))
	}
	header.Set("Idempotency-Key", rand.Text())
	for try := range attempts {
		if resp, err = c.do(ctx, http.MethodPost, verb, header, bytes.NewReader(body)); !lost(err) {
			return resp, err
		}
		if err := pause(ctx, try); err != nil {
			return nil, err
		}
	}
	return nil, err
}

// lost reports whether an error means that an established connection was lost.
func lost(err error) bool {
	var op *net.OpError
	return err != nil && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.As(err, &op) && op.Op != "dial")
}

// pause waits before another attempt.
func pause(ctx context.Context, try int) error {
	t := time.NewTimer(min(firstPause<<try, longestPause))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// do sends one request.
func (c *Client) do(ctx context.Context, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if header != nil {
		r.Header = header.Clone()
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(r)
	switch {
	case err == nil && resp.StatusCode >= 300 && resp.StatusCode < 400:
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %w to %s: name that URL as the server", c.where, ErrRedirected, resp.Header.Get("Location"))
	case err == nil:
		return resp, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		if c.local && errors.Is(op.Err, fs.ErrPermission) {
			return nil, &closedError{c.where, op.Err}
		}
		if c.local {
			return nil, fmt.Errorf("%w at %s: %w", ErrNoDaemon, strings.TrimPrefix(c.where, "control socket "), op.Err)
		}
		return nil, fmt.Errorf("%s: %w: %w", c.where, ErrNoServer, op)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL
	}
	if !c.local && !lost(err) {
		return nil, fmt.Errorf("%s: %w: %w", c.where, ErrNoServer, err)
	}
	return nil, fmt.Errorf("%s: %w", c.where, err)
}

// maxProblem limits the body of an error, in bytes.
const maxProblem = 64 << 20

// problem returns the error of an answer; nil for a success.
func (c *Client) problem(resp *http.Response) error {
	if resp.StatusCode < 300 {
		return nil
	}
	var p api.ProblemDetails
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil || p.Code == "" {
		return fmt.Errorf("%s: %w: status %s, expected one of snapd", c.where, ErrNoServer, resp.Status)
	}
	return p.Err()
}

// result reads the result of an answer, or its error.
func (c *Client) result(ctx context.Context, resp *http.Response, result any) error {
	if err := c.problem(resp); err != nil {
		return err
	}
	data, err := io.ReadAll(resp.Body)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if text := resp.Trailer.Get(api.ProblemTrailer); text != "" {
		var p api.ProblemDetails
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return err
		}
		return p.Err()
	}
	if err != nil {
		return fmt.Errorf("snapd closed the connection before sending a result: %w", err)
	}
	return decodeResult(data, result)
}

func decodeResult(data []byte, result any) error {
	if result == nil {
		return nil
	}
	if raw, ok := result.(*json.RawMessage); ok {
		*raw = bytes.TrimSuffix(data, []byte("\n"))
		return nil
	}
	if err := json.Unmarshal(data, result); err != nil {
		return fmt.Errorf("snapd closed the connection before sending a result: %w", err)
	}
	return nil
}

// follow waits for the end of a job.
func (c *Client) follow(ctx context.Context, id string, result any, progress func(Progress)) error {
	f := &follower{result: result, progress: progress}
	for try := 0; ; try++ {
		before := f.last
		over, err := c.events(ctx, id, f)
		if f.last > before {
			try = 0
		}
		switch {
		case ctx.Err() != nil:
			c.leave(id)
			return ctx.Err()
		case over:
			return err
		case errors.Is(err, ErrNoDaemon):
			return fmt.Errorf("job %s ended with snapd: %w", id, err) // jobs end with snapd
		case try >= attempts:
			return fmt.Errorf("follow job %s (it continues: snapctl jobs): %w", id, err)
		}
		if pause(ctx, try) != nil {
			c.leave(id)
			return ctx.Err()
		}
	}
}

// leave cancels a job, unless other clients wait for it.
func (c *Client) leave(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	if resp, err := c.do(ctx, http.MethodPost, "jobs/cancel", nil, strings.NewReader(fmt.Sprintf(`{"id":%q,"leave":true}`, id))); err == nil {
		resp.Body.Close()
	}
}

// follower is the state of following a job.
type follower struct {
	last     int64 // number of the last event
	result   any
	progress func(Progress)
}

// events reads events of a job. over reports whether the outcome of the job is known,
// or can no longer become known.
func (c *Client) events(ctx context.Context, id string, f *follower) (over bool, err error) {
	header := http.Header{"Accept": {api.EventsType}}
	if f.last > 0 {
		header.Set("Last-Event-ID", strconv.FormatInt(f.last, 10))
	}
	resp, err := c.do(ctx, http.MethodGet, "jobs/"+id+"/events", header, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if err := c.problem(resp); err != nil {
		return true, err
	}
	r := bufio.NewReader(resp.Body)
	for {
		typ, data, err := f.event(r)
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return false, fmt.Errorf("snapd closed the connection before sending a result: %w", err)
		}
		switch typ {
		case api.EventProgress:
			var p Progress
			if err := json.Unmarshal(data, &p); err != nil {
				return true, err
			}
			if f.progress != nil {
				f.progress(p)
			}
		case api.EventResult:
			return true, decodeResult(data, f.result)
		case api.EventError:
			var p api.ProblemDetails
			if err := json.Unmarshal(data, &p); err != nil {
				return true, err
			}
			return true, p.Err()
		}
	}
}

// event reads one event.
func (f *follower) event(r *bufio.Reader) (typ string, data []byte, err error) {
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return "", nil, err
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch string(name) {
		case "":
			if len(line) == 0 && typ != "" {
				return typ, data, nil
			}
		case "id":
			if f.last, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return "", nil, err
			}
		case "event":
			typ = string(value)
		case "data":
			data = value
		}
	}
}

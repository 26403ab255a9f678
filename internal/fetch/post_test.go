package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/fetch/remote"
)

// A POST goes to public addresses only, unless others are allowed: what counts is the
// address that is connected to, after every look-up, and no redirect leads anywhere.
func TestPostAddresses(t *testing.T) {
	w := newWorld(t, publicIP, privateIP, loopbackIP, linkLocalIP)
	w.name("hook.example.org", publicIP)
	w.name("inside.example.org", privateIP)
	w.name("metadata.example.org", linkLocalIP)
	w.name("rebound.example.org", publicIP, loopbackIP) // another answer at the second look-up
	w.redirect("/moved", "http://"+loopbackIP+":PORT/x")
	post := func(host, path string, allow bool) (PostAnswer, error) {
		return w.client.Post(t.Context(), PostRequest{URL: remote.NewURL("http://" + host + ":" + w.port + path), Body: []byte("{}"), AllowPrivate: allow})
	}
	for _, c := range []struct {
		host, path string
		allow      bool
		at         string // the address that is asked
		want       string // error
	}{
		{host: "hook.example.org", path: "/", at: publicIP},
		{host: "inside.example.org", path: "/", want: "127.0.0.4 is a private address, expected a public one"},
		{host: "inside.example.org", path: "/", allow: true, at: privateIP},
		{host: "metadata.example.org", path: "/", want: "127.0.0.6 is a link-local address"},
		{host: loopbackIP, path: "/", want: "127.0.0.1 is a loopback address"},
		{host: loopbackIP, path: "/", allow: true, at: loopbackIP},
		{host: "[::ffff:127.0.0.1]", path: "/", want: "is a loopback address"},
		{host: "rebound.example.org", path: "/", at: publicIP},
		{host: "rebound.example.org", path: "/", want: "127.0.0.1 is a loopback address"},
		{host: "hook.example.org", path: "/moved", at: publicIP, want: "status 302: redirects are not followed"},
		{host: "hook.example.org", path: "/moved", allow: true, at: publicIP, want: "status 302: redirects are not followed"},
		{host: "none.example.org", path: "/s3cret", want: "no such host"},
	} {
		before := map[string]int{}
		for _, ip := range []string{publicIP, privateIP, loopbackIP, linkLocalIP} {
			before[ip] = w.asked(ip)
		}
		_, err := post(c.host, c.path, c.allow)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s%s: %v, expected %q", c.host, c.path, err, c.want)
		}
		if strings.Contains(c.want, "address") != errors.Is(err, ErrRefused) {
			t.Errorf("%s%s: %v: ErrRefused or not", c.host, c.path, err)
		}
		for ip, n := range before {
			want := n
			if ip == c.at {
				want++
			}
			if got := w.asked(ip); got != want {
				t.Errorf("%s%s: %d requests at %s, expected %d", c.host, c.path, got-n, ip, want-n)
			}
		}
	}
}

// A POST is sent once, whole, and ends with its context however slow the receiver is. Of
// the answer only the status and Retry-After count.
func TestPost(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || string(body) != "{}" || r.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(r.UserAgent(), "snapd") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		switch r.URL.Path {
		case "/busy":
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/slow":
			select {
			case <-stuck:
			case <-r.Context().Done():
			}
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(srv.Close)
	c := New(Config{})
	t.Cleanup(c.Close)
	for _, row := range []struct {
		path string
		want PostAnswer
		err  string
	}{
		{path: "/", want: PostAnswer{Status: 204}},
		{path: "/busy", want: PostAnswer{Status: 503, After: 2 * time.Minute}, err: "the receiver did not accept the request: status 503"},
		{path: "/endless", want: PostAnswer{Status: 200}},
		{path: "/slow?token=s3cret", err: "the receiver did not answer: the connection timed out"},
	} {
		limit := 30 * time.Second
		if strings.HasPrefix(row.path, "/slow") {
			limit = 100 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		a, err := c.Post(ctx, PostRequest{
			URL: remote.NewURL(srv.URL + row.path), Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte("{}"), AllowPrivate: true,
		})
		cancel()
		if a != row.want || (err == nil) != (row.err == "") || err != nil && (!strings.Contains(err.Error(), row.err) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s: %+v, %v, expected %+v, %q", row.path, a, err, row.want, row.err)
		}
	}
}

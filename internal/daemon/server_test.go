package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// stopper is a server whose requests for /slow wait.
type stopper struct {
	*server
	t        *testing.T
	l        net.Listener
	begun    chan struct{} // such a request has come
	end      chan struct{} // one of them may end
	accepted chan struct{}
}

func newStopper(t *testing.T) *stopper {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &stopper{t: t, l: l, begun: make(chan struct{}), end: make(chan struct{}), accepted: make(chan struct{}, 1000)}
	s.server = newServer(l, &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				s.begun <- struct{}{}
				<-s.end
			}
			fmt.Fprint(w, "ok")
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.accepted <- struct{}{}
			}
		},
	})
	return s
}

func (s *stopper) dial() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.l.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	<-s.accepted
	return c
}

func (s *stopper) send(c net.Conn, path string) {
	s.t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		s.t.Fatal(err)
	}
}

// answered checks that a request is answered, and that its connection is closed then.
func (s *stopper) answered(name string, c net.Conn) {
	s.t.Helper()
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "ok" || err != nil || !resp.Close {
		s.t.Errorf("%s: %q, %v, close %v", name, body, err, resp.Close)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		s.t.Errorf("%s: afterwards %v", name, err)
	}
}

// A server that stops answers the requests of all connections that it has accepted, also
// those that arrive after the stop has begun, and then closes them. Connections that are
// idle do not hold it up.
func TestStoppingAnswers(t *testing.T) {
	s := newStopper(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served, drained := make(chan error, 1), make(chan struct{})
	go func() { served <- s.serve(ctx) }()
	running, fresh, idle := s.dial(), s.dial(), s.dial()
	s.send(running, "/slow")
	<-s.begun
	s.send(idle, "/")
	if resp, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil || resp.Close {
		t.Fatalf("before the stop: %+v, %v", resp, err)
	}
	stop()
	go func() {
		s.drain(time.Minute)
		close(drained)
	}()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", s.l.Addr().String()); err == nil {
		t.Error("it still listens")
		c.Close()
	}
	if _, err := io.Copy(io.Discard, idle); err != nil {
		t.Errorf("an idle connection: %v", err)
	}
	s.send(fresh, "/")
	s.answered("fresh", fresh)
	select {
	case <-drained:
		t.Error("it has ended before the last answer")
	default:
	}
	s.end <- struct{}{}
	s.answered("running", running)
	<-drained
}

// A server whose listener fails says so at once, and still answers the requests of the
// connections that it has accepted. Those that take too long are cut off.
func TestListenerFails(t *testing.T) {
	s := newStopper(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.serve(ctx) }()
	running, hanging := s.dial(), s.dial()
	s.send(running, "/slow")
	<-s.begun
	s.l.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, expected net.ErrClosed", err)
	}
	stop()
	s.send(hanging, "/slow")
	<-s.begun
	go func() { s.end <- struct{}{} }() // one of the two
	drained := make(chan struct{})
	go func() {
		s.drain(2 * time.Second)
		close(drained)
	}()
	cut := 0
	for _, c := range []net.Conn{running, hanging} {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			cut++
			continue
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "ok" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}
	if cut != 1 {
		t.Errorf("%d of two requests were cut off, expected the one that takes too long", cut)
	}
	<-drained
	s.end <- struct{}{}
}

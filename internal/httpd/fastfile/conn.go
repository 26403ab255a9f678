// Package fastfile answers the simplest requests, GETs of small files that were
// requested before, as soon as they are read from the connection, without
// net/http.
//
// net/http spends two thirds of such a request on things that it does not need: a
// goroutine that watches the connection, and header maps. It still handles
// everything else: the first request of each connection, any header that could
// change the response, and every request that leaves room for interpretation.
package fastfile

import (
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// idleTime is how long a connection may be idle after a response. It replaces
	// http.Server.IdleTimeout.
	idleTime = 75 * time.Second
	// writeTime is how long a client may take to read a response.
	writeTime = 5 * time.Minute
	// closeTime is how long a response in progress may take while the server
	// shuts down.
	closeTime = time.Second
)

// Handler answers requests with Conn.Send.
type Handler interface {
	// AnswerFast answers a GET for a request target, which is as the client sent
	// it. If it returns false, it has done nothing and net/http handles the
	// request. It runs in the goroutine that reads the connection; an error
	// closes the connection.
	AnswerFast(c *Conn, target []byte) (answered bool, err error)
}

// Conn is a connection for http.Server, which must use ConnState.
type Conn struct {
	*net.TCPConn
	handler Handler
	release func()

	// Used by the goroutine that reads.
	idle    bool // net/http is waiting for a request and has read none of it
	given   bool // net/http has read bytes since it last waited
	whole   bool // these bytes were exactly one request
	never   bool // net/http may have read a part of the next request
	stamped time.Time
	head    []byte    // of the response
	vec     [2][]byte // header and body, for writev(2)

	mu      sync.Mutex
	busy    bool // a response is being written
	closing bool // close when the response is written
}

// NewConn wraps a connection. release is called after it is closed, possibly more
// than once.
func NewConn(c *net.TCPConn, h Handler, release func()) *Conn {
	return &Conn{TCPConn: c, handler: h, release: release}
}

// ConnState tells connections when net/http waits for their next request. It is
// for http.Server.ConnState.
func ConnState(c net.Conn, state http.ConnState) {
	if t, ok := c.(*Conn); ok && state == http.StateIdle {
		t.waits()
	}
}

// waits is called when net/http has answered a request and waits for another. If
// net/http was given anything but exactly one request, it may already have a part
// of the next, and then keeps this connection.
func (c *Conn) waits() {
	c.never = c.never || !c.whole
	c.idle = !c.never
	c.given, c.whole = false, false
}

// gave notes what net/http has read.
func (c *Conn) gave(b []byte) {
	if len(b) == 0 {
		return
	}
	c.idle = false
	h, ok := parseHead(b)
	c.whole = !c.given && ok && h.n == len(b) && !h.body
	c.given = true
}

// Read implements net.Conn for net/http.
func (c *Conn) Read(p []byte) (int, error) {
	for {
		n, err := c.TCPConn.Read(p)
		if n == 0 || err != nil || !c.idle {
			c.gave(p[:n])
			return n, err
		}
		rest := p[:n]
		for len(rest) > 0 {
			h, ok := parseHead(rest)
			if !ok || !h.plain {
				break
			}
			answered, err := c.handler.AnswerFast(c, h.uri)
			if err != nil {
				return 0, err
			}
			if !answered {
				break
			}
			rest = rest[h.n:]
		}
		if len(rest) > 0 {
			n = copy(p, rest)
			c.gave(p[:n])
			return n, nil
		}
	}
}

// Send writes a response: head, which Head made, then the date and body. It
// returns the number of body bytes written. start is the current time.
func (c *Conn) Send(start time.Time, head, body []byte) (int64, error) {
	if !c.begin() {
		return 0, net.ErrClosed
	}
	if start.Sub(c.stamped) > time.Second {
		c.stamped = start
		_ = c.SetReadDeadline(start.Add(idleTime))
		_ = c.SetWriteDeadline(start.Add(writeTime))
	}
	c.head = append(c.head[:0], head...)
	c.head = append(append(c.head, dateText(start)...), "\r\n\r\n"...)
	c.vec = [2][]byte{c.head, body}
	bufs := net.Buffers(c.vec[:])
	n, err := bufs.WriteTo(c.TCPConn)
	c.vec = [2][]byte{}
	if cerr := c.end(); err == nil {
		err = cerr
	}
	return max(n-int64(len(c.head)), 0), err
}

// begin and end enclose a response. While it is being written, Close only marks
// the connection to be closed.
func (c *Conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = !c.closing
	return c.busy
}

func (c *Conn) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	if c.closing {
		c.release()
		c.TCPConn.Close()
		return net.ErrClosed
	}
	return nil
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing = true; c.busy {
		return c.SetDeadline(time.Now().Add(closeTime))
	}
	c.release()
	return c.TCPConn.Close()
}

// Package fastfile answers the plainest requests that there are where the
// connection is read, before net/http sees them: a GET of a small file that was
// asked for before.
//
// net/http spends two thirds of such a request on what it does not need: a
// goroutine that watches the connection, maps of headers. It keeps everything
// else: the first request of each connection, every header that could change the
// answer, and whatever leaves room for interpretation.
package fastfile

import (
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// idleTime is how long a connection may be silent after an answer, in place of
	// http.Server.IdleTimeout.
	idleTime = 75 * time.Second
	// writeTime is how long a client may take to read an answer.
	writeTime = 5 * time.Minute
	// closeTime is how long an answer that is being written may take while the
	// server shuts down.
	closeTime = time.Second
)

// Handler answers requests with Conn.Send.
type Handler interface {
	// AnswerFast answers a GET of a request target, which is as the client sent it.
	// false: it has done nothing, and net/http gets the request. It runs in the
	// goroutine that reads the connection; an error ends the connection.
	AnswerFast(c *Conn, target []byte) (answered bool, err error)
}

// Conn is a connection for http.Server. Its http.Server must have ConnState.
type Conn struct {
	*net.TCPConn
	handler Handler
	release func()

	// Used by the goroutine that reads.
	idle    bool // net/http waits for a request and holds none of its bytes
	given   bool // net/http was given bytes since it last waited
	whole   bool // these were one request and no more
	never   bool // net/http may hold a part of the next request
	stamped time.Time
	head    []byte    // of the answer
	vec     [2][]byte // head and body, for writev(2)

	mu      sync.Mutex
	busy    bool // an answer is being written
	closing bool // to be closed when it is written
}

// NewConn wraps a connection. release is called once it is closed, perhaps more
// than once.
func NewConn(c *net.TCPConn, h Handler, release func()) *Conn {
	return &Conn{TCPConn: c, handler: h, release: release}
}

// ConnState tells connections when net/http waits for their next request; it is
// meant for http.Server.ConnState.
func ConnState(c net.Conn, state http.ConnState) {
	if t, ok := c.(*Conn); ok && state == http.StateIdle {
		t.waits()
	}
}

// waits is called when net/http has answered a request and waits for another.
// Where it was given anything but one whole request, it may have a part of the
// next, and this connection stays with it.
func (c *Conn) waits() {
	c.never = c.never || !c.whole
	c.idle = !c.never
	c.given, c.whole = false, false
}

// gave notes what net/http gets to read.
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

// Send writes an answer: head, which Head made, then the date and body. It returns
// how many bytes of body were written. start is the current time.
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

// begin and end enclose an answer. While it is written, Close only notes that the
// connection is to be closed.
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

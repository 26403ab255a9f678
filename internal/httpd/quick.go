package httpd

import (
	"bytes"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/cas"
)

// Most requests are the plainest there are: a GET of a small file that was asked
// for before. net/http spends two thirds of such a request on what it does not
// need (a goroutine that watches the connection, maps of headers), so these are
// answered where the connection is read, before net/http sees them. It keeps
// everything else: the first request of each connection, every header that
// could change the answer, and whatever leaves room for interpretation.

// quickIdle is how long a connection may be silent after such an answer, in
// place of http.Server.IdleTimeout.
const quickIdle = 75 * time.Second

// closeTime is how long an answer under way may take while the server shuts down.
const closeTime = time.Second

// ConnState tells connections when net/http waits for their next request; it is
// meant for http.Server.ConnState.
func ConnState(c net.Conn, state http.ConnState) {
	if t, ok := c.(*tcpConn); ok && state == http.StateIdle {
		t.idle()
	}
}

// quick is a connection's part of this.
type quick struct {
	on      bool // net/http waits for a request and holds none of its bytes
	given   bool // net/http was given bytes since it last waited
	whole   bool // these were one request and no more
	never   bool // net/http may hold a part of the next request
	stamped time.Time
	out     []byte    // head of the answer
	vec     [2][]byte // head and body, for writev(2)

	mu      sync.Mutex
	busy    bool // an answer is being written
	closing bool // to be closed when it is written
}

// idle is called when net/http has answered a request and waits for another.
// Where it was given anything but one whole request, it may have a part of the
// next, and this connection stays with it.
func (c *tcpConn) idle() {
	q := &c.quick
	q.never = q.never || !q.whole
	q.on = !q.never && c.server != nil
	q.given, q.whole = false, false
}

// gave notes what net/http gets to read.
func (q *quick) gave(b []byte) {
	if len(b) == 0 {
		return
	}
	q.on = false
	h, ok := parseHead(b)
	q.whole = !q.given && ok && h.n == len(b) && !h.body
	q.given = true
}

// Read implements net.Conn for net/http.
func (c *tcpConn) Read(p []byte) (int, error) {
	for {
		n, err := c.TCPConn.Read(p)
		if n == 0 || err != nil || !c.quick.on {
			c.quick.gave(p[:n])
			return n, err
		}
		rest := p[:n]
		for len(rest) > 0 {
			h, ok := parseHead(rest)
			if !ok || !h.plain {
				break
			}
			answered, err := c.server.answerQuickly(c, h.uri)
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
			c.quick.gave(p[:n])
			return n, nil
		}
	}
}

// begin and end stand around an answer. While it is written, Close only says
// that the connection is to be closed.
func (c *tcpConn) begin() bool {
	c.quick.mu.Lock()
	defer c.quick.mu.Unlock()
	c.quick.busy = !c.quick.closing
	return c.quick.busy
}

func (c *tcpConn) end() error {
	c.quick.mu.Lock()
	defer c.quick.mu.Unlock()
	c.quick.busy = false
	if c.quick.closing {
		c.release()
		c.TCPConn.Close()
		return net.ErrClosed
	}
	return nil
}

// Close implements net.Conn.
func (c *tcpConn) Close() error {
	c.quick.mu.Lock()
	defer c.quick.mu.Unlock()
	if c.quick.closing = true; c.quick.busy {
		return c.TCPConn.SetDeadline(time.Now().Add(closeTime))
	}
	c.release()
	return c.TCPConn.Close()
}

// answerQuickly answers a GET of an entity that was looked up before and whose
// bytes are small, here, and known to be right. False: nothing was done.
func (s *Server) answerQuickly(c *tcpConn, uri []byte) (bool, error) {
	var a area
	switch {
	case bytes.HasPrefix(uri, []byte("/archive/")):
		a = areaArchive
	case bytes.HasPrefix(uri, []byte("/frozen/")):
		a = areaFrozen
	default:
		return false, nil
	}
	e := s.lookups.get(s.e.Epoch(), uri)
	if e == nil || e.found.Size < 0 || e.found.Digest.IsZero() || e.data == nil && s.e.Corrupt(e.found.Digest) != nil {
		return false, nil
	}
	start := time.Now()
	if data, release := s.small(e); data != nil {
		defer release()
		return true, s.writeQuickly(c, e, a, data, start)
	}
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	data := s.readSmall(e, buf)
	if data == nil {
		return false, nil
	}
	return true, s.writeQuickly(c, e, a, data, start)
}

// readSmall reads a small blob that is here and was read whole before; nil
// where it is to be sent another way.
func (s *Server) readSmall(e *entity, buf *[block]byte) []byte {
	size := e.found.Size
	store, ok := s.blobs().(smallReader)
	if !ok || size >= block || s.cfg.Conf.Server.Accel != "" || !s.checked.has(e.found.Digest) {
		return nil
	}
	n, err := store.ReadInto(e.found.Digest, buf[:])
	if err != nil || int64(n) != size {
		return nil
	}
	return buf[:n]
}

// smallReader is a store that reads a small blob with few system calls, see
// cas.Dir.ReadInto.
type smallReader interface {
	ReadInto(d cas.Digest, buf []byte) (int, error)
}

func (s *Server) writeQuickly(c *tcpConn, e *entity, a area, data []byte, start time.Time) error {
	if !c.begin() {
		return net.ErrClosed
	}
	q := &c.quick
	if start.Sub(q.stamped) > time.Second {
		q.stamped = start
		_ = c.SetReadDeadline(start.Add(quickIdle))
		_ = c.SetWriteDeadline(start.Add(pieceTime))
	}
	q.out = append(q.out[:0], e.quickHead()...)
	q.out = append(append(q.out, dateLine(start)...), "\r\n\r\n"...)
	q.vec = [2][]byte{q.out, data}
	bufs := net.Buffers(q.vec[:])
	n, err := bufs.WriteTo(c.TCPConn)
	q.vec = [2][]byte{}
	if cerr := c.end(); err == nil {
		err = cerr
	}
	s.metrics.request(a, http.MethodGet, http.StatusOK, max(n-int64(len(q.out)), 0), time.Since(start))
	return err
}

// quickHead is the head of the whole entity's answer, up to the date.
func (e *entity) quickHead() []byte {
	if b := e.head.Load(); b != nil {
		return *b
	}
	b := []byte("HTTP/1.1 200 OK\r\n")
	for _, h := range []struct {
		name  string
		value []string
	}{
		{"Accept-Ranges", acceptRanges}, {"Cache-Control", e.control}, {"Content-Length", e.length}, {"Content-Type", e.ctype},
		{"Etag", e.etag}, {"Last-Modified", e.modified}, {"X-Content-Type-Options", noSniff},
	} {
		for _, v := range h.value {
			b = append(append(append(append(b, h.name...), ": "...), v...), "\r\n"...)
		}
	}
	b = append(b, "Date: "...)
	e.head.Store(&b)
	return b
}

// dateLine is the value of a Date header, made once a second.
func dateLine(t time.Time) []byte {
	sec := t.Unix()
	if d := lastDate.Load(); d != nil && d.sec == sec {
		return d.text
	}
	d := &date{sec, t.UTC().AppendFormat(nil, http.TimeFormat)}
	lastDate.Store(d)
	return d.text
}

type date struct {
	sec  int64
	text []byte
}

var lastDate atomic.Pointer[date]

// head is what parseHead found.
type head struct {
	n     int    // bytes, with the empty line
	uri   []byte // as it was sent
	body  bool   // a body may follow
	plain bool   // a GET of uri on this host that no header changes
}

var headEnd = []byte("\r\n\r\n")

// parseHead reads the head of a request that stands whole at the beginning of b
// and means the same to every reader (RFC 9112): one form of line end, one space,
// names of token characters, values of visible ones. ok is false of any other.
func parseHead(b []byte) (h head, ok bool) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return head{}, false
	}
	h.n = end + len(headEnd)
	line, rest := cutLine(b[:end+2])
	method, target, found := bytes.Cut(line, []byte(" "))
	get := string(method) == http.MethodGet
	if !found || !get && string(method) != http.MethodHead {
		return head{}, false
	}
	h.uri, found = bytes.CutSuffix(target, []byte(" HTTP/1.1"))
	if !found || len(h.uri) == 0 || h.uri[0] != '/' {
		return head{}, false
	}
	for _, c := range h.uri {
		if c <= ' ' || c >= 0x7f {
			return head{}, false
		}
	}
	h.plain = get
	hosts := 0
	for len(rest) > 0 {
		line, rest = cutLine(rest)
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return head{}, false
		}
		for _, c := range line[:colon] {
			if !tokenChars[c] {
				return head{}, false
			}
		}
		value := line[colon+1:]
		for _, c := range value {
			if c < ' ' && c != '\t' || c == 0x7f {
				return head{}, false
			}
		}
		switch kindOf(line[:colon]) {
		case headerHost:
			hosts++
			value = bytes.Trim(value, " ")
			h.plain = h.plain && len(value) > 0
			for _, c := range value {
				h.plain = h.plain && hostChars[c]
			}
		case headerKeep:
			h.plain = h.plain && bytes.EqualFold(bytes.Trim(value, " "), []byte("keep-alive"))
		case headerBody:
			h.body, h.plain = true, false
		case headerOther:
			h.plain = false
		}
	}
	h.plain = h.plain && hosts == 1
	return h, true
}

// cutLine cuts the first line, which CR LF ends, off.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.Index(b, headEnd[:2])
	return b[:i], b[i+2:]
}

type headerKind int

const (
	headerOther headerKind = iota // could change the answer
	headerIdle                    // does not
	headerHost
	headerKeep // Connection
	headerBody // says that a body follows
)

func kindOf(name []byte) headerKind {
	is := func(s string) bool { return len(name) == len(s) && bytes.EqualFold(name, []byte(s)) }
	switch {
	case is("Host"):
		return headerHost
	case is("User-Agent"), is("Accept"), is("Accept-Encoding"), is("Accept-Language"), is("Cache-Control"), is("Pragma"):
		return headerIdle
	case is("Connection"):
		return headerKeep
	case is("Content-Length"), is("Transfer-Encoding"):
		return headerBody
	}
	return headerOther
}

var tokenChars, hostChars = charSet("!#$%&'*+-.^_`|~"), charSet(".-:[]")

// charSet is the set of letters, digits and others.
func charSet(others string) (t [256]bool) {
	for c := range t {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte(others), byte(c)) >= 0
	}
	return t
}

package httpd

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"time"

	"example.org/snapd/internal/httpd/fastfile"
)

// AnswerFast implements fastfile.Handler. It answers a GET for an entity that was
// looked up before and whose content is small, stored and verified.
func (s *Server) AnswerFast(c *fastfile.Conn, target []byte) (bool, error) {
	var a area
	switch {
	case bytes.HasPrefix(target, []byte("/archive/")):
		a = areaArchive
	case bytes.HasPrefix(target, []byte("/frozen/")):
		a = areaFrozen
	case bytes.HasPrefix(target, []byte("/channel/")):
		a = areaChannel
	default:
		return false, nil
	}
	e := s.lookups.get(s.catalog.Epoch(), target)
	if e == nil || !e.found.Known() || e.data == nil && s.acquirer.Corrupt(e.found.Digest) != nil {
		return false, nil
	}
	start := time.Now()
	if data, counted := s.small(e); data != nil {
		defer s.memory.Add(-counted)
		return true, s.sendFast(c, e, a, data, start)
	}
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	data := s.readSmall(s.base, e, buf)
	if data == nil {
		return false, nil
	}
	return true, s.sendFast(c, e, a, data, start)
}

func (s *Server) sendFast(c *fastfile.Conn, e *entity, a area, data []byte, start time.Time) error {
	sent, err := c.Send(start, e.fastHead(), data)
	if sent == 0 && errors.Is(err, net.ErrClosed) {
		return err // the server is shutting down
	}
	s.metrics.stored(e)
	s.metrics.request(a, http.MethodGet, http.StatusOK, sent, time.Since(start))
	return err
}

// fastHead is the header of a response with the whole entity.
func (e *entity) fastHead() []byte {
	if b := e.head.Load(); b != nil {
		return *b
	}
	b := fastfile.Head(
		fastfile.Field{Name: "Accept-Ranges", Values: acceptRanges}, fastfile.Field{Name: "Cache-Control", Values: e.control},
		fastfile.Field{Name: "Content-Length", Values: e.length}, fastfile.Field{Name: "Content-Type", Values: e.ctype},
		fastfile.Field{Name: "Etag", Values: e.etag}, fastfile.Field{Name: "Last-Modified", Values: e.modified},
		fastfile.Field{Name: "X-Content-Type-Options", Values: noSniff},
	)
	e.head.Store(&b)
	return b
}

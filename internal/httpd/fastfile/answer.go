package fastfile

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Field is a header field with the values of http.Header.
type Field struct {
	Name   string
	Values []string
}

// Head is the header of a response with status 200, up to the value of its Date
// field, which Conn.Send adds.
func Head(fields ...Field) []byte {
	b := []byte("HTTP/1.1 200 OK\r\n")
	for _, f := range fields {
		for _, v := range f.Values {
			b = append(append(append(append(b, f.Name...), ": "...), v...), "\r\n"...)
		}
	}
	return append(b, "Date: "...)
}

// dateText is the value of a Date field, updated once a second.
func dateText(t time.Time) []byte {
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

package fastfile

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// What parseHead takes for a head is one to net/http, too, with the same
// meaning and the same end.
func FuzzParseHead(f *testing.F) {
	for _, s := range []string{
		"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a HTTP/1.1\r\nHost: x:80\r\nUser-Agent: Debian APT-HTTP/1.3 (2.6.1)\r\n\r\nGET /b", "HEAD / HTTP/1.1\r\nhost:[::1]\r\n\r\n",
		"GET /a HTTP/1.1\nHost: x\n\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n", "GET  /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://h/a HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", "GET /a HTTP/1.1\r\nHost : x\r\n\r\n", "GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET /a HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n",
		"GET /a HTTP/1.0\r\nHost: x\r\n\r\n", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a HTTP/1.1\r\n\r\n", "GET /a HTTP/1.1\r\nHost: x\rConnection: close\r\n\r\n", "\r\n\r\n", "GET /a HTTP/1.1\r\n\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseHead(b)
		if !ok {
			return
		}
		in := bytes.NewReader(b)
		r := bufio.NewReaderSize(in, max(len(b), 16))
		req, err := http.ReadRequest(r)
		if err != nil {
			if h.plain && !strings.Contains(err.Error(), "invalid URL escape") && !strings.Contains(err.Error(), "parse ") {
				t.Fatalf("net/http refuses what is plain: %v\n%q", err, b)
			}
			return
		}
		if used := len(b) - r.Buffered() - in.Len(); used != h.n {
			t.Fatalf("the head has %d bytes to us and %d to net/http\n%q", h.n, used, b)
		}
		if req.RequestURI != string(h.uri) {
			t.Fatalf("target %q to us and %q to net/http", h.uri, req.RequestURI)
		}
		if !h.body && (req.ContentLength != 0 || len(req.TransferEncoding) > 0) {
			t.Fatalf("a body that we do not see: %d, %v\n%q", req.ContentLength, req.TransferEncoding, b)
		}
		if h.plain && (req.Method != http.MethodGet || req.Close || req.Host == "" || !req.ProtoAtLeast(1, 1) || req.Header.Get("Range") != "" || len(req.Trailer) > 0) {
			t.Fatalf("not plain: %+v\n%q", req, b)
		}
	})
}

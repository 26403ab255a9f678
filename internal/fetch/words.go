package fetch

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"unicode"
)

// Messages are shown on terminals, in logs and on pages. They do not quote what a server
// sent, because that can be anything, even a secret if we should not have reached the
// host. The exceptions are short and made printable: see clip.

// cause describes a transport error. net/http quotes first lines, headers and
// trailers that it cannot parse, so only errors that are known to quote nothing
// are shown in their own words.
func cause(err error) string {
	var (
		dns    *net.DNSError
		op     *net.OpError
		errno  syscall.Errno
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
		proxy  *proxyError
	)
	switch {
	case errors.As(err, &proxy):
		return proxy.Error()
	case errors.Is(err, errProxyTLS):
		return errProxyTLS.Error()
	case errors.As(err, &cert):
		return clipTo(200, cert.Error()) // it may contain names from the certificate
	case errors.As(err, &record):
		return "the server does not speak TLS"
	case errors.As(err, &alert):
		return "the server refuses TLS: " + alert.Error()
	case errors.As(err, &dns):
		return clip(dns.Error())
	case errors.As(err, &op) && op.Op == "dial":
		return op.Error()
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the server does not speak TLS"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "the connection was closed too early"
	case strings.Contains(err.Error(), "server response headers exceeded"):
		return fmt.Sprintf("the headers of the answer have more than %d bytes", maxHeader)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "the connection timed out"
	}
	return "the answer is not valid HTTP"
}

// proxyError is the response of a proxy that refuses a tunnel.
type proxyError struct{ code int }

func (e *proxyError) Error() string { return "the proxy answered " + statusText(e.code) }

// statusText returns a status code with its standard text, not the server's.
func statusText(code int) string {
	return strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))
}

// clip shortens foreign text and makes it printable.
func clip(s string) string { return clipTo(80, s) }

func clipTo(most int, s string) string {
	cut := len(s) > most
	if cut {
		s = s[:most]
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if cut {
		s += "…"
	}
	return s
}

// escapeQuery escapes non-ASCII bytes in a query, which url.Parse leaves
// unescaped.
func escapeQuery(q string) string {
	var b strings.Builder
	for i := range len(q) {
		if q[i] < 0x80 {
			b.WriteByte(q[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", q[i])
		}
	}
	return b.String()
}

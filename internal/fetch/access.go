package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"example.org/snapd/internal/fetch/internal/reveal"
	"example.org/snapd/internal/fetch/remote"
)

// transportKey identifies connections that may be shared.
type transportKey struct {
	access   *remote.Access // nil without certificates
	withCert bool
	may      reach
}

// transport returns the connections for a mirror's requests to addresses of
// certain kinds. They are shared unless the mirror has certificates.
func (c *Client) transport(a *remote.Access, withCert bool, may reach) http.RoundTripper {
	withCert = withCert && a.HasCert()
	conf := a.TLS(reveal.Token{}, withCert)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.Transport != nil || conf == nil && may == anywhere {
		return c.rt
	}
	k := transportKey{a, withCert, may}
	if conf == nil {
		k.access = nil
	}
	rt := c.transports[k]
	if rt == nil {
		if c.transports == nil {
			c.transports = make(map[transportKey]http.RoundTripper)
		}
		rt = c.newTransport(conf, may)
		c.transports[k] = rt
	}
	return rt
}

// newTransport returns a pool of connections to addresses of certain kinds; conf
// is that of a mirror with certificates, or nil. Requests that may go to
// different kinds of addresses never share a connection, since names do not
// distinguish them.
func (c *Client) newTransport(conf *tls.Config, may reach) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second, Resolver: c.cfg.resolver}
	if may != anywhere {
		dialer.Control = c.guard(may)
	}
	only1 := new(http.Protocols)
	only1.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return proxy(r, conf != nil) },
		DialContext:            dialer.DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    dialTimeout,
		Protocols:              only1,
		DisableCompression:     true,
		MaxIdleConns:           0,
		MaxIdleConnsPerHost:    c.parallel,
		MaxConnsPerHost:        c.parallel, // without it, Go may open one connection too many, for a request that another connection then serves
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		ReadBufferSize:         32 << 10,
		ExpectContinueTimeout:  time.Second,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return &proxyError{resp.StatusCode}
			}
			return nil
		},
	}
}

var errProxyTLS = errors.New("ca_file and client_cert cannot be used through an https proxy")

// proxy is http.ProxyFromEnvironment, but refuses the combination of an https
// proxy and client certificates: net/http would show the mirror's client
// certificate to the proxy.
func proxy(r *http.Request, certificates bool) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(r)
	if u != nil && u.Scheme == "https" && certificates {
		return nil, errProxyTLS
	}
	return u, err
}

// secrets are values sent to a server. The server may send them back in a header that a
// message quotes.
type secrets []string

// minSecret is the length below which hiding a value would damage messages and
// protect nothing.
const minSecret = 4

func (s secrets) add(u *url.URL, user, password string) secrets {
	list := []string{user, password}
	for part := range strings.SplitSeq(u.RawQuery, "&") {
		_, value, _ := strings.Cut(part, "=")
		list = append(list, value)
		if v, err := url.QueryUnescape(value); err == nil && v != value {
			list = append(list, v)
		}
	}
	full := remote.Redact(u.String())
	for _, v := range list {
		if len(v) >= minSecret && !strings.Contains(full, v) {
			s = append(s, v, url.PathEscape(v), url.QueryEscape(v))
		}
	}
	return s
}

// in replaces the secrets in a text.
func (s secrets) in(text string) string {
	for _, v := range s {
		text = strings.ReplaceAll(text, v, "xxxxx")
	}
	return text
}

// Whole returns a URL with the values of its query. It is only for the metadata of an
// imported snapshot, whose packages are downloaded from there later.
func Whole(u remote.URL) string { return u.Full(reveal.Token{}) }

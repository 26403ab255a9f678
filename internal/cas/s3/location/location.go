// Package location parses the location of a bucket.
package location

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"example.org/snapd/internal/lazyregexp"
)

// Location is the location of a store:
//
//	s3://BUCKET[/PREFIX]?endpoint=URL[&region=R][&lookup=path|dns]
//
// The endpoint uses https unless its URL says http. Without an endpoint, it is Amazon's.
// A location never contains credentials.
type Location struct {
	Bucket string
	Prefix string // empty, or with a slash at its end
	Region string

	Host   string // of the endpoint, with its port
	Secure bool   // https
	DNS    bool   // the bucket is part of the host name

	text string
}

var bucketRE = lazyregexp.New(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Parse reads a location.
func Parse(text string) (l Location, err error) {
	bad := func(format string, args ...any) (Location, error) {
		return Location{}, fmt.Errorf("object store: "+format, args...)
	}
	u, err := url.Parse(text)
	if err != nil {
		return bad("not a URL") // the error would quote what may be a secret
	}
	switch {
	case u.User != nil:
		return bad("a password in the URL of %s: name a credentials_file instead", u.Host)
	case u.Scheme != "s3":
		return bad("%q: expected s3://BUCKET/PREFIX?endpoint=URL", text)
	case !bucketRE().MatchString(u.Host):
		return bad("%q is not the name of a bucket", u.Host)
	case u.Fragment != "":
		return bad("%q: expected no fragment", text)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("%q: %v", text, err)
	}
	l = Location{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Region: q.Get("region"), text: text}
	if l.Prefix != "" {
		for part := range strings.SplitSeq(l.Prefix, "/") {
			if part == "" || part == "." || part == ".." {
				return bad("prefix %q: expected names without empty parts, . and ..", l.Prefix)
			}
		}
		l.Prefix += "/"
	}
	for k, v := range q {
		if len(v) != 1 {
			return bad("%q: %s is given %d times", text, k, len(v))
		}
		switch k {
		case "endpoint", "region", "lookup":
		default:
			return bad("%q: unknown parameter %q (known: endpoint, region, lookup)", text, k)
		}
	}
	switch q.Get("lookup") {
	case "", "path":
	case "dns":
		l.DNS = true
	default:
		return bad("lookup %q: expected path or dns", q.Get("lookup"))
	}
	return l, l.setEndpoint(cmp.Or(q.Get("endpoint"), "https://s3.amazonaws.com"))
}

func (l *Location) setEndpoint(text string) error {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	e, err := url.Parse(text)
	if err != nil || e.Host == "" || e.Scheme != "https" && e.Scheme != "http" || e.User != nil || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" {
		return fmt.Errorf("object store: endpoint of bucket %s: expected https://HOST[:PORT]", l.Bucket)
	}
	l.Host, l.Secure = e.Host, e.Scheme == "https"
	return nil
}

// String returns the location as it was written.
func (l Location) String() string { return l.text }

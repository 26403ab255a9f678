package mirror

import (
	"net/url"
	"strings"
)

// join puts a repository path after a base URL, escaped.
func join(base, path string) string {
	return strings.TrimRight(base, "/") + (&url.URL{Path: "/" + path}).EscapedPath()
}

// redact drops the credentials of a URL.
func redact(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	u.User = nil
	return u.String()
}

// treeOf is the directory that file URLs may not leave: that of the first one
// up to where the URLs differ; the fetch client refuses anything else.
func treeOf(urls []string) string {
	for _, u := range urls {
		if rest, ok := strings.CutPrefix(u, "file://"); ok {
			if i := strings.Index(rest, "/dists/"); i >= 0 {
				return "file://" + rest[:i]
			}
			return "file://" + rest[:strings.LastIndex(rest, "/")+1]
		}
	}
	return ""
}

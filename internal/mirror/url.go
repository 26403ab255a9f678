package mirror

import (
	"strings"

	"example.org/snapd/internal/fetch/remote"
)

// foreign makes URLs of the places at which a repository's indices say that
// packages stand.
func foreign(list []string) []remote.URL {
	out := remote.NewURLs(list...)
	for i := range out {
		out[i] = out[i].Foreign()
	}
	return out
}

// treeOf is the directory that file URLs may not leave: that of the first one
// up to where the URLs differ; the fetch client refuses anything else.
func treeOf(urls []remote.URL) string {
	for _, u := range urls {
		if u.Scheme() != "file" {
			continue
		}
		// No secret is in the path of a file.
		rest := strings.TrimPrefix(u.String(), "file://")
		if i := strings.Index(rest, "/dists/"); i >= 0 {
			return "file://" + rest[:i]
		}
		return "file://" + rest[:strings.LastIndex(rest, "/")+1]
	}
	return ""
}

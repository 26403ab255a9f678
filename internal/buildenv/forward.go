package buildenv

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
)

// A Forwarder passes GET and HEAD requests for paths below a few prefixes to one
// server, and refuses all others. It records the packages and sources that were
// fetched.
type Forwarder struct {
	server *url.URL // scheme and host, and the path of a server below one
	below  []string // paths that are passed on, each with a slash at the end
	client *http.Client

	mu      sync.Mutex
	fetched map[string]string // digests, by path
}

// NewForwarder returns a Forwarder to a server, for requests with paths below the given
// ones.
func NewForwarder(server *url.URL, below []string) *Forwarder {
	f := &Forwarder{server: server, client: &http.Client{}, fetched: map[string]string{}}
	for _, b := range below {
		f.below = append(f.below, strings.TrimSuffix(b, "/")+"/")
	}
	return f
}

// Fetched returns the packages that were fetched, by path, with their SHA-256.
func (f *Forwarder) Fetched() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.fetched)
}

// requestHeaders and answerHeaders are the headers that are passed on.
var (
	requestHeaders = []string{"Accept", "Cache-Control", "If-Modified-Since", "If-None-Match", "If-Range", "Range", "User-Agent"}
	rangeHeaders   = []string{"If-Range", "Range"}
	answerHeaders  = []string{"Accept-Ranges", "Cache-Control", "Content-Length", "Content-Range", "Content-Type", "ETag", "Last-Modified", "Retry-After"}
)

// ServeHTTP answers one request of the environment.
func (f *Forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, r.Method+": expected GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	if !f.allowed(r) {
		http.Error(w, fmt.Sprintf("%s is not in the freeze or snapshot: expected a path below %s", r.URL.Path, strings.Join(f.below, ", ")), http.StatusForbidden)
		return
	}
	u := *f.server
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+r.URL.Path, ""
	req, err := http.NewRequestWithContext(r.Context(), r.Method, u.String(), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// Sizes and digests must be those of the uncompressed file.
	req.Header.Set("Accept-Encoding", "identity")
	pass(req.Header, r.Header, requestHeaders)
	noted := isPackage(r.URL.Path)
	if noted {
		// A part would have another digest. Clients also accept the whole file.
		for _, name := range rangeHeaders {
			req.Header.Del(name)
		}
	}
	resp, err := f.client.Do(req)
	if err != nil {
		http.Error(w, "the server did not answer: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	pass(w.Header(), resp.Header, answerHeaders)
	w.WriteHeader(resp.StatusCode)
	var sum hash.Hash
	body := io.Reader(resp.Body)
	if r.Method == http.MethodGet && resp.StatusCode == http.StatusOK && noted {
		sum = sha256.New()
		body = io.TeeReader(body, sum)
	}
	// A client that has all bytes may disconnect before the end of the answer.
	if n, err := io.Copy(w, body); err != nil && n != resp.ContentLength {
		panic(http.ErrAbortHandler) // so that the client notices that the answer is incomplete
	}
	if sum != nil {
		f.mu.Lock()
		f.fetched[r.URL.Path] = hex.EncodeToString(sum.Sum(nil))
		f.mu.Unlock()
	}
}

// isPackage reports whether a path is that of a package or of a part of a source
// package. All other files of a repository follow from its index, which is part of the
// request.
func isPackage(p string) bool {
	return strings.Contains(p, "/pool/") && !strings.HasSuffix(p, "/") || slices.Contains([]string{".deb", ".udeb", ".dsc", ".rpm"}, path.Ext(p))
}

func pass(to, from http.Header, names []string) {
	for _, name := range names {
		if v := from.Values(name); len(v) > 0 {
			to[http.CanonicalHeaderKey(name)] = slices.Clone(v)
		}
	}
}

// allowed reports whether a request is one for a path below one of f's.
func (f *Forwarder) allowed(r *http.Request) bool {
	if r.URL.Host != "" || r.URL.RawQuery != "" { // a request to a proxy, or one with a query
		return false
	}
	p := r.URL.Path
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	if p != clean || strings.ContainsAny(p, "\\\x00") {
		return false
	}
	return slices.ContainsFunc(f.below, func(b string) bool { return strings.HasPrefix(p, b) })
}

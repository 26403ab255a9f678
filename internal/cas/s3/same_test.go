package s3_test

import (
	"net/http"
	"strings"
	"testing"

	"example.org/snapd/internal/cas/castest"
	"example.org/snapd/internal/cas/s3"
	"example.org/snapd/internal/cas/s3/s3test"
)

// Same recognises that two locations are the same place, even with credentials that may
// not list the bucket. S3 then denies access to an absent object. If Same cannot find
// out, it returns no error.
func TestSame(t *testing.T) {
	srv := s3test.Start(t)
	one, alias, other := newStore(t, srv), newStore(t, srv), newStore(t, srv)
	alias.location = strings.Replace(one.location, "127.0.0.1", "localhost", 1)
	for _, w := range []*store{one, alias, other} {
		w.open(t, castest.Faults{})
	}
	for _, c := range []struct {
		name      string
		forbidden []string // operations
		alias     bool     // whether alias is found to be the same
	}{{"allowed", nil, true}, {"not to list", []string{"head"}, true}, {"only to read", []string{"head", "put"}, false}} {
		t.Run(c.name, func(t *testing.T) {
			for with, want := range map[*s3.Store]bool{alias.last: c.alias, other.last: false} {
				puts := 0
				srv.Decide(func(op, _ string) *s3test.Fault {
					if op == "put" {
						puts++ // the first is that of the other store
					}
					for _, f := range c.forbidden {
						if op == f && (op != "put" || puts > 1) {
							return &s3test.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
						}
					}
					return nil
				})
				same, err := one.last.Same(t.Context(), with)
				srv.Decide(nil)
				if err != nil || same != want {
					t.Errorf("%v, %v, expected %v", same, err, want)
				}
			}
		})
	}
}

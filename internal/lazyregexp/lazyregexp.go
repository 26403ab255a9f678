// Package lazyregexp compiles regular expressions when they are first used. Each call of
// snapctl is a new process, and compiling those of all packages would take a third of its
// time to start.
package lazyregexp

import (
	"os"
	"regexp"
	"strings"
	"sync"
)

// New returns a function that returns the compiled expression, and panics if expr is
// malformed. In a test, New itself compiles it, so that a malformed one is noticed.
func New(expr string) func() *regexp.Regexp {
	re := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
	if len(os.Args) > 0 && strings.HasSuffix(os.Args[0], ".test") {
		re()
	}
	return re
}

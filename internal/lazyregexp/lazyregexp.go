// Package lazyregexp compiles regular expressions when they are first used. Each call
// of snapctl is a new process, and compiling the expressions of all packages would take
// a third of its start-up time.
package lazyregexp

import (
	"os"
	"regexp"
	"strings"
	"sync"
)

// New returns a function that returns the compiled expression, and panics if expr is
// malformed. In a test, New compiles it at once, to detect a malformed expression.
func New(expr string) func() *regexp.Regexp {
	re := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
	if len(os.Args) > 0 && strings.HasSuffix(os.Args[0], ".test") {
		re()
	}
	return re
}

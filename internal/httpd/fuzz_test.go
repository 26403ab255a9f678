package httpd

import (
	"strings"
	"testing"
)

func FuzzParseRange(f *testing.F) {
	for _, v := range []string{"bytes=0-0", "bytes=5-", "bytes=-7", "bytes=9-5", "bytes=0-1,4-5", "bytes=", "bytes=-", "lines=1-2", "bytes=99999999999999999999-", "bytes= 1-2", "bytes=--1"} {
		for _, size := range []int64{0, 1, 10, 1 << 40} {
			f.Add(v, size)
		}
	}
	f.Fuzz(func(t *testing.T, v string, size int64) {
		if size < 0 {
			return
		}
		start, n, ok, satisfiable := parseRange(v, size)
		if ok && (!satisfiable || start < 0 || n <= 0 || start+n > size || start+n < start) {
			t.Errorf("parseRange(%q, %d) = %d, %d, %v, %v", v, size, start, n, ok, satisfiable)
		}
	})
}

func FuzzCleanPath(f *testing.F) {
	for _, p := range []string{"/", "//", "/a//b", "/../x", "/a/./b", "/a/..", "/..a/b", "a", "", "/\x00", "/a/..b/.c"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		got, ok := cleanPath(p)
		if !ok {
			return
		}
		if !strings.HasPrefix(got, "/") || strings.Contains(got, "//") || strings.Contains(got+"/", "/../") || strings.Contains(got+"/", "/./") || strings.ContainsRune(got, 0) {
			t.Errorf("cleanPath(%q) = %q", p, got)
		}
		if again, ok := cleanPath(got); !ok || again != got {
			t.Errorf("cleanPath(%q) is not stable: %q", p, again)
		}
	})
}

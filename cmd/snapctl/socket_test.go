package main

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// Without --socket, snapctl connects to the socket of the service if it exists.
func TestDefaultSocket(t *testing.T) {
	x := newTester(t)
	x.env = nil
	for _, c := range []struct {
		files fstest.MapFS
		want  string
	}{
		{nil, "/var/lib/frozen-snapd/snapd.sock"},
		{fstest.MapFS{"run/frozen-snapd/snapd.sock": {Mode: fs.ModeSocket}}, "/run/frozen-snapd/snapd.sock"},
	} {
		x.m.root = c.files
		if got := x.run("", "list"); got.Exit != 1 || !strings.Contains(got.Err, "is not running at "+c.want+":") {
			t.Errorf("%v: %+v, expected %s", c.files, got, c.want)
		}
	}
}

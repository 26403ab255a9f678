package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/regfile"
)

// Without --socket, snapctl connects to the socket of the service if it exists.
func TestDefaultSocket(t *testing.T) {
	x := newTester(t)
	x.env = nil
	dir := t.TempDir()
	t.Chdir(dir) // a socket's path is short
	x.m.root = regfile.DirFS(dir)
	connectsTo := func(want string) {
		t.Helper()
		if got := x.run("", "list"); got.Exit != 1 || !strings.Contains(got.Err, "is not running at "+want+":") {
			t.Errorf("%+v, expected %s", got, want)
		}
	}
	connectsTo("/var/lib/frozen-snapd/snapd.sock")
	if err := os.MkdirAll("run/frozen-snapd", 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", "run/frozen-snapd/snapd.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connectsTo(filepath.Join("/", l.Addr().String()))
}

package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A busy port is named together with the program that has it.
func TestBusyPort(t *testing.T) {
	for _, network := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", network)
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		address := l.Addr().String()
		_, err = listenPublic(address)
		if !errors.Is(err, ErrPort) {
			t.Fatalf("%v, expected %v", err, ErrPort)
		}
		name, err2 := os.ReadFile("/proc/self/comm")
		if err2 != nil {
			t.Fatal(err2)
		}
		want := fmt.Sprintf("%s: the port is in use by %s (process %d)", address, strings.TrimSpace(string(name)), os.Getpid())
		if err.Error() != want {
			t.Errorf("%q, expected %q", err, want)
		}
	}
}

// Who has a port is told only where it can be found out.
func TestPortHolder(t *testing.T) {
	proc := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("net/tcp", `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 640 1 0 100 0 0 10 0
   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 641 1 0 100 0 0 10 0
`)
	write("17/comm", "nginx\n")
	write("17/fd/.keep", "")
	for fd, inode := range map[string]string{"3": "641", "4": "640"} {
		if err := os.Symlink("socket:["+inode+"]", filepath.Join(proc, "17/fd", fd)); err != nil {
			t.Fatal(err)
		}
	}
	for port, want := range map[int]string{0x1f90: "nginx (process 17)", 0x1f91: "", 22: ""} {
		if got := portHolder(proc, port); got != want {
			t.Errorf("port %d: %q, expected %q", port, got, want)
		}
	}
	if got := portHolder(t.TempDir(), 0x1f90); got != "" {
		t.Errorf("without proc: %q", got)
	}
}

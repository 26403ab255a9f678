package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"example.org/snapd/internal/errclass"
)

// ErrPort means that another program listens on the public address.
var ErrPort = errclass.New(errclass.Conflict, "the port is in use")

// listenPublic listens on address. If another program does so already, the error names it
// where that can be determined.
func listenPublic(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	_, service, _ := net.SplitHostPort(address)
	if port, err := net.LookupPort("tcp", service); err == nil {
		if by := portHolder("/proc", port); by != "" {
			return nil, fmt.Errorf("%s: %w by %s", address, ErrPort, by)
		}
	}
	return nil, fmt.Errorf("%s: %w by another program", address, ErrPort)
}

// portHolder returns the name and the process ID of the program that listens on a TCP
// port, from proc(5). It returns "" if it finds none: root sees every program, other
// users only their own.
func portHolder(proc string, port int) string {
	sockets := map[string]bool{}
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		data, err := os.ReadFile(filepath.Join(proc, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			// sl local_address rem_address st … uid timeout inode
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" { // TCP_LISTEN
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == port {
				sockets["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(sockets) == 0 {
		return ""
	}
	links, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*")) // the pattern is valid
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !sockets[target] {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		name, err := os.ReadFile(filepath.Join(process, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(process))
	}
	return ""
}

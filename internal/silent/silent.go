// Package silent ends connections whose other end no longer acknowledges what is sent, as
// when a network loses packets without telling.
package silent

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limit returns a net.Dialer.Control that has the kernel end a TCP connection with what was
// not acknowledged within a time (TCP_USER_TIMEOUT in tcp(7)).
func Limit(d time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) (err error) {
		if network == "unix" {
			return nil
		}
		if control := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
		}); control != nil {
			return control
		}
		return err
	}
}

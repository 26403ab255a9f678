package silent

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A connection has the limit; one by a socket on this machine needs none.
func TestLimit(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/s"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d := net.Dialer{Control: Limit(1500 * time.Millisecond)}
		c, err := d.DialContext(t.Context(), network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			continue
		}
		raw, err := tcp.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			if ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || ms != 1500 {
				t.Errorf("limit of %d ms, %v, expected 1500", ms, err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}

package httpd

import (
	"testing"
	"time"
)

// ClientAddr is the address of a client behind trusted proxies.
var ClientAddr = clientAddr

// SetStallTime shortens the time that clients of the control API may stall. It is called
// before the server is made, which ends before it is restored.
func SetStallTime(t testing.TB, d time.Duration) {
	old := stallTime
	stallTime = d
	t.Cleanup(func() { stallTime = old })
}

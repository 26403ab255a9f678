package httpd

import (
	"net/http"
	"time"
)

// stallTime is how long a client of the control API may go without sending or accepting a
// byte. Tests shorten it.
var stallTime = time.Minute

// readSoon bounds the next read of a request's body.
func readSoon(rc *http.ResponseController) { _ = rc.SetReadDeadline(time.Now().Add(stallTime)) }

// readAnyTime removes that deadline, for the next request of the connection.
func readAnyTime(rc *http.ResponseController) { _ = rc.SetReadDeadline(time.Time{}) }

// writeSoon bounds the next write of n bytes of an answer.
func writeSoon(rc *http.ResponseController, n int) {
	_ = rc.SetWriteDeadline(time.Now().Add(stallTime + time.Duration(n>>20)*time.Second))
}

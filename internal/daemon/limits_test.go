package daemon

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

// A header larger than the limit is refused, and the server goes on.
func TestHeaderLimit(t *testing.T) {
	r := start(t, testConfig(t, ""))
	for n, want := range map[int]int{maxHeader / 2: http.StatusOK, 4 * maxHeader: http.StatusRequestHeaderFieldsTooLarge} {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.public, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: %s\r\n\r\n", strings.Repeat("x", n))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("header of %d bytes: %v", n, err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("header of %d bytes: status %d, expected %d", n, resp.StatusCode, want)
		}
	}
}

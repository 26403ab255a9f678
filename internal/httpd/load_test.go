package httpd_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// stuck sends a request and reads nothing of the answer.
func (s *site) stuck(network, addr, request string) net.Conn {
	s.t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		s.t.Fatal(err)
	}
	if t, ok := c.(*net.TCPConn); ok {
		t.SetReadBuffer(4096)
	}
	if _, err := io.WriteString(c, request); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// A client that stops reading, on whatever is streamed to it, holds up no sync:
// no store transaction is open while bytes move.
func TestSlowClients(t *testing.T) {
	s := newSite(t, nil)
	n := 200
	if testing.Short() {
		n = 20
	}
	big := bytes.Repeat([]byte("snapd 16 bytes.."), 512<<10) // 8 MiB
	s.Archive.Add(debtest.Package{Name: "big", Body: big}, debtest.Package{Name: "big2", Body: append([]byte("2"), big...)})
	for i := range 40 {
		s.Archive.Add(debtest.Package{Name: fmt.Sprintf("filler-%03d", i), Body: []byte{byte(i), byte(i >> 8)}, Description: strings.Repeat("long ", 800) + strconv.Itoa(i)})
	}
	s.publish()
	at := s.sync()
	s.call("record/start", api.RecordStart{Name: "rec"}, nil)
	s.call("freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"big"}, NoSources: true}, nil)
	deb, deb2 := s.Archive.Default().PathOf("big"), s.Archive.Default().PathOf("big2")
	s.get("/archive/debian/" + at + "/" + deb) // hashed; from now on by sendfile
	addr := s.conf.Server.Listen
	for _, line := range []string{
		"GET /archive/debian/" + at + "/" + deb, "GET /archive/debian/latest/" + deb2, "GET /archive/debian/" + at + "/dists/stable/main/binary-amd64/Packages",
		"GET /archive/debian/" + at + "/pool/main/f/", "GET /frozen/4.1/debian/" + deb, "GET /record/rec/debian/" + deb2,
		"GET " + s.Server.URL + "/" + deb2, "GET /by-hash/SHA256/" + strings.Repeat("0", 64), "GET /", "GET /mirror/debian", "GET /snapshot/debian@latest", "GET /freeze/4.1", "GET /package/big", "GET /metrics",
	} {
		for range 2 {
			// Asked again and again on one connection, until nothing fits any more.
			s.stuck("tcp", addr, strings.Repeat(line+" HTTP/1.1\r\nHost: x\r\n"+auth("rec")+"\r\n\r\n", 40))
		}
	}
	for verb, req := range map[string]any{"packages": api.RefRequest{Ref: "debian@latest"}, "list": api.ListRequest{}, "find": api.FindRequest{Name: "big"}} {
		body, _ := json.Marshal(req)
		s.stuck("unix", s.socket.Addr().String(), fmt.Sprintf("POST /api/v1/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", verb, len(body), body))
	}
	// And clients that are slow to say what they want.
	s.stuck("tcp", addr, "GET /archive/debian/latest/dists/stable/InRelease HTTP/1.1\r\nHost:")
	s.stuck("unix", s.socket.Addr().String(), "POST /api/v1/freeze HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	time.Sleep(100 * time.Millisecond)
	var longest time.Duration
	for i := range n {
		s.Archive.Default().Override("filler-000", "Section", fmt.Sprint("section", i))
		s.publish()
		start := time.Now()
		s.sync()
		longest = max(longest, time.Since(start))
		if i%10 == 0 {
			if a := s.get("/archive/debian/latest/dists/stable/InRelease"); a.StatusCode != 200 {
				t.Fatalf("sync %d: InRelease: status %d", i, a.StatusCode)
			}
		}
	}
	t.Logf("%d syncs beside stuck clients, the longest took %v", n, longest)
	if longest > 20*time.Second {
		t.Errorf("a sync took %v", longest)
	}
}

// Readers of every kind, syncs, freezes, removals and recordings at one time;
// mostly for the race detector.
func TestConcurrency(t *testing.T) {
	s := newSite(t, nil, func(c *config.Config) { c.Server.CacheSize = 16 << 10 })
	for i := range 20 {
		s.Archive.Add(debtest.Package{Name: fmt.Sprint("p", i), Body: bytes.Repeat([]byte{byte(i + 1)}, 1000*(i+1))})
	}
	s.publish()
	first := s.sync()
	s.call("record/start", api.RecordStart{Name: "rec"}, nil)
	s.call("freeze", api.FreezeRequest{Name: "fz"}, nil)
	var paths []string
	for i := range 20 {
		paths = append(paths, s.Archive.Default().PathOf(fmt.Sprint("p", i)))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			client := &http.Client{}
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				base := []string{"/archive/debian/latest/", "/archive/debian/" + first + "/", "/frozen/fz/debian/", "/record/rec/debian/"}[(i+g)%4]
				j := (i*7 + g) % 20
				resp, err := client.Get(s.conf.Server.PublicURL + base + paths[j])
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || len(body) != 1000*(j+1) || body[0] != byte(j+1) {
					t.Errorf("%s%s: status %d, %d bytes, %v", base, paths[j], resp.StatusCode, len(body), err)
					return
				}
				if i%10 == g {
					for _, p := range []string{"/", "/snapshot/debian@latest", "/package/" + fmt.Sprint("p", j), "/metrics", "/archive/debian/", "/diff?a=fz&b=debian@latest"} {
						if resp, err := client.Get(s.conf.Server.PublicURL + p); err != nil || resp.StatusCode != 200 {
							t.Errorf("%s: %v %v", p, resp, err)
						} else {
							io.Copy(io.Discard, resp.Body)
							resp.Body.Close()
						}
					}
				}
			}
		})
	}
	for i := range 12 {
		s.Archive.Add(debtest.Package{Name: fmt.Sprint("new", i), Body: []byte{byte(i)}})
		s.publish()
		at := s.sync()
		name := fmt.Sprint("f", i)
		s.call("freeze", api.FreezeRequest{Name: name}, nil)
		s.call("pin", api.PinRequest{Ref: "debian@" + at}, nil)
		s.call("status", api.Empty{}, nil)
		s.call("rm", api.RefRequest{Ref: name}, nil)
		if i > 2 {
			var l api.SnapshotList
			s.call("list", api.ListRequest{}, &l)
			s.call("unpin", api.PinRequest{Ref: l.Snapshots[1].ID}, nil)
			s.call("rm", api.RefRequest{Ref: l.Snapshots[1].ID}, nil)
		}
	}
	close(stop)
	wg.Wait()
}

var anonRE = regexp.MustCompile(`RssAnon:\s+(\d+) kB`)

// anon is this process's anonymous memory, in bytes.
func anon(t *testing.T) int64 {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := anonRE.FindSubmatch(data)
	if m == nil {
		t.Skip("no RssAnon here")
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}

// Memory stays flat under many connections, most of which stopped reading.
func TestManyConnections(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 200
	}
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur < uint64(4*n) {
		t.Skipf("%d files may be open, %d are needed (%v)", lim.Cur, 4*n, err)
	}
	s := newSite(t, nil)
	big := bytes.Repeat([]byte("snapd 16 bytes.."), 1<<20) // 16 MiB
	s.Archive.Add(debtest.Package{Name: "hashed", Body: big}, debtest.Package{Name: "sent", Body: append([]byte("2"), big...)}, debtest.Package{Name: "small", Body: big[:200<<10]})
	s.publish()
	base := "/archive/debian/" + s.sync() + "/"
	s.get(base + s.Archive.Default().PathOf("sent"))
	before := anon(t)
	var conns []net.Conn
	for i := range n {
		name := []string{"hashed", "sent", "small"}[i%3]
		times := 1
		if name == "small" {
			times = 60
		}
		conns = append(conns, s.stuck("tcp", s.conf.Server.Listen, strings.Repeat("GET "+base+s.Archive.Default().PathOf(name)+" HTTP/1.1\r\nHost: x\r\n\r\n", times)))
	}
	time.Sleep(500 * time.Millisecond)
	if a := s.get(base + "dists/stable/InRelease"); a.StatusCode != 200 {
		t.Errorf("beside %d connections: status %d", n, a.StatusCode)
	}
	grown := anon(t) - before
	each := grown / int64(n)
	t.Logf("%d connections: %d KiB more, %d KiB each", n, grown>>10, each>>10)
	if each > 64<<10 && !raceEnabled { // the detector has its own
		t.Errorf("%d KiB of memory for each connection, expected at most 64", each>>10)
	}
	// They are all alive: each of them can go on.
	resp, err := http.ReadResponse(bufio.NewReader(conns[0]), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("a slow client: %v", err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 16<<10); err != nil {
		t.Errorf("a slow client: %v", err)
	}
}

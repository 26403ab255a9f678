package httpd_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo/deb/debtest"
)

// While upstream has not sent the last byte, a client has at least the last
// 64 KiB not: it cannot take what turns out to be wrong for the whole.
func TestHoldBack(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	s.Archive.Add(debtest.Package{Name: "a", Body: []byte(strings.Repeat("0123456789abcdef", 40_000))})
	s.publish()
	file := s.Archive.Default().PathOf("a")
	data := s.Archive.Get(file)
	release := make(chan struct{})
	s.Archive.Hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".deb") {
			return false
		}
		w.Header().Set("Content-Length", "640000")
		w.Write(data[:len(data)-1])
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-release
		w.Write([]byte("?"))
		return true
	}
	if len(data) != 640_000 {
		t.Fatalf("%d bytes", len(data))
	}
	resp, err := http.Get(s.conf.Server.PublicURL + "/archive/debian/" + s.sync() + "/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	var got atomic.Int64
	ended := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := resp.Body.Read(buf)
			got.Add(int64(n))
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	for i := 0; got.Load() < int64(len(data))/2; i++ {
		if i > 500 {
			t.Fatalf("%d bytes arrived: nothing passes while it is fetched", got.Load())
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond)
	if most := int64(len(data) - acquire.HoldBack); got.Load() > most {
		t.Errorf("%d bytes arrived before the last was fetched, expected at most %d", got.Load(), most)
	}
	close(release)
	if err := <-ended; err == io.EOF {
		t.Errorf("wrong bytes came to a good end, after %d of %d", got.Load(), len(data))
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign"
)

// fixtureKey signs the upstreams.
type fixtureKey struct {
	signer  *sign.Signer
	keyring string // file of the public key
}

const keyFile = "key.asc"

// loadFixtureKey reads the key of the upstreams, or generates one. The key is stored in
// the same directory as the upstreams, because they can be verified only with it.
func loadFixtureKey(dir string) (*fixtureKey, error) {
	file := filepath.Join(dir, keyFile)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		k, err := sign.Generate("Upstream", "upstream@example.org", time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), sign.GenerateOptions{RSABits: 2048})
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, k.Armored(), 0o600); err != nil {
			return nil, err
		}
	}
	k, err := sign.LoadPrivateKey(file)
	if err != nil {
		return nil, err
	}
	s, err := sign.NewSigner(k)
	if err != nil {
		return nil, err
	}
	out := &fixtureKey{signer: s, keyring: filepath.Join(dir, "keyring.gpg")}
	return out, os.WriteFile(out.keyring, k.Keyring().Export(), 0o600)
}

// upstream is the server that both programs mirror. It runs in a separate process.
//
//	/<name>/pool/…      the file in the current state; if it does not exist, the path and a newline
//	/<name>/Packages/…  an rpm package
//	/<name>/…           a file of the current state of <name>
type upstream struct {
	url string
	cmd *exec.Cmd
}

// serve starts the upstream server for the fixtures.
func (b *bench) serve(ctx context.Context) error {
	if b.up != nil {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "@upstream", b.fixtures)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var addr string
	if _, err := fmt.Fscanln(out, &addr); err != nil {
		return fmt.Errorf("upstream did not start: %w", err)
	}
	b.up = &upstream{url: "http://" + addr, cmd: cmd}
	return nil
}

func (u *upstream) stop() {
	_ = u.cmd.Process.Kill()
	_ = u.cmd.Wait()
}

// count returns the requests answered and the bytes of bodies sent so far.
func (u *upstream) count() (requests, bytes int64) {
	resp, err := http.Get(u.url + "/-/count")
	if err != nil {
		return 0, 0
	}
	defer resp.Body.Close()
	var c [2]int64
	if json.NewDecoder(resp.Body).Decode(&c) != nil {
		return 0, 0
	}
	return c[0], c[1]
}

// state sets the state of a repository that the server serves.
func (u *upstream) state(name, state string) error {
	resp, err := http.Get(u.url + "/-/state/" + name + "/" + state)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("upstream has no state %s of %s", state, name)
	}
	return nil
}

func serveUpstream(ctx context.Context, dir string) error {
	key, err := loadFixtureKey(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var requests, sent atomic.Int64
	states := map[string]*atomic.Value{"deb": {}, "files": {}, "rpm": {}}
	for _, s := range states {
		s.Store("0")
	}
	large := &rpmtest.Large{}
	files := func(w http.ResponseWriter, r *http.Request) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(path.Clean(r.URL.Path), "/"), "/")
		state := states[name]
		if state == nil {
			http.NotFound(w, r)
			return
		}
		f, err := os.Open(filepath.Join(dir, name, state.Load().(string), filepath.FromSlash(rest)))
		if err == nil {
			defer f.Close()
			if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
				http.ServeContent(w, r, "", st.ModTime(), f)
				return
			}
			http.NotFound(w, r)
			return
		}
		if name == "deb" && strings.HasPrefix(rest, "pool/") {
			body := tinyBody(rest)
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.Header().Set("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
			_, _ = w.Write(body)
			return
		}
		if i, ok := largePackage(name, rest); ok {
			p := large.Package(i)
			body := p.Build(key.signer).Bytes
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
			return
		}
		http.NotFound(w, r)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/-/count", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode([2]int64{requests.Load(), sent.Load()})
	})
	mux.HandleFunc("/-/state/{name}/{state}", func(w http.ResponseWriter, r *http.Request) {
		s := states[r.PathValue("name")]
		if s == nil {
			http.NotFound(w, r)
			return
		}
		if _, err := os.Stat(filepath.Join(dir, r.PathValue("name"), r.PathValue("state"))); err != nil {
			http.NotFound(w, r)
			return
		}
		s.Store(r.PathValue("state"))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		files(&counted{w, &sent}, r)
	})
	fmt.Println(l.Addr())
	s := &http.Server{Handler: mux}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// largePackage returns the number of the rpm package at a path.
func largePackage(name, rest string) (int, bool) {
	rest, ok := strings.CutPrefix(rest, "Packages/p/package")
	if name != "rpm" || !ok || len(rest) < 6 {
		return 0, false
	}
	i, err := strconv.Atoi(rest[:6])
	return i, err == nil
}

// counted counts the bytes of response bodies.
type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// tinyBody returns the content of a generated deb package.
func tinyBody(path string) []byte { return []byte(path + "\n") }

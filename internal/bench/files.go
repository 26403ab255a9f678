package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.org/snapd/internal/meta/bolt"
)

func openStore(dir string) (*bolt.Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return bolt.Open(filepath.Join(dir, "meta.db"), bolt.Options{})
}

const (
	wrkTime   = 2 * time.Second
	wrkRounds = 5
)

// Long because each measurement depends on the state that the previous one left.
func runFiles(ctx context.Context, b *bench) error {
	if err := b.makeFiles(ctx); err != nil {
		return err
	}
	if err := b.serve(ctx); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "files")
	mirror := fmt.Sprintf("[[mirror]]\nname = \"files\"\ntype = \"deb\"\nurl = %q\nsuites = [\"stable\"]\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\nkeyring = %q\nsources = false\ndownload = \"all\"\ninterval = \"\"\nlanguages = []\n", b.up.url+"/files", b.key.keyring)
	s, err := b.start(ctx, dir, "", mirror)
	if err != nil {
		return err
	}
	defer func() { s.stop() }()
	c, err := s.ctl(ctx, "sync", "files")
	if err != nil {
		return err
	}
	total := int64(largeFiles*largeSize + smallFiles*smallSize)
	b.add(row{work: "first sync of 1.1 GB in 2,064 files", ours: fmt.Sprintf("%s, %.0f MB/s", seconds(c.wall), float64(total)/1e6/c.wall.Seconds()), note: c.detail()})
	if err := b.physical(filepath.Join(dir, "physical"), filepath.Join(s.dir, "blobs")); err != nil {
		return err
	}
	if _, err := s.ctl(ctx, "freeze", "whole", "--mirror", "files"); err != nil {
		return err
	}
	if err := b.deep(ctx, s); err != nil {
		return err
	}
	ids, err := s.snapshots(ctx)
	if err != nil {
		return err
	}
	_, timestamp, _ := strings.Cut(ids[0], "@")

	// nginx serves hard links to the same inodes.
	tree := filepath.Join(dir, "tree")
	names := map[string][]string{}
	pool := filepath.Join(b.fixtures, "files", "0", "pool")
	err = filepath.WalkDir(pool, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(filepath.Dir(pool), p)
		if err != nil {
			return err
		}
		kind := "large"
		if strings.HasPrefix(d.Name(), "small") {
			kind = "small"
		}
		names[kind] = append(names[kind], rel)
		to := filepath.Join(tree, "archive", "files", timestamp, rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return linkOrCopy(p, to)
	})
	if err != nil {
		return err
	}
	var n *nginx
	if !b.quick {
		if n, err = startNginx(ctx, dir, tree); err != nil {
			return err
		}
		defer n.stop()
	}
	load := func(s *server, what string, paths []string, conns int, share float64, bytes bool) error {
		script := filepath.Join(dir, "paths.lua")
		if err := writePaths(script, "/archive/files/"+timestamp+"/", paths); err != nil {
			return err
		}
		// snapd hashes a blob on its first complete read after a start. Do that before
		// measuring.
		if err := s.fetchEach("/archive/files/"+timestamp+"/", paths); err != nil {
			return err
		}
		var ours, theirs []float64
		var oursCPU, theirsCPU time.Duration
		peak := watch(s.cmd.Process.Pid)
		one := func(addr string, pids []int, rates *[]float64, cpu *time.Duration) error {
			before := cpuOf(pids)
			v, err := wrk(ctx, addr, script, conns, bytes)
			*rates = append(*rates, v)
			*cpu += cpuOf(pids) - before
			return err
		}
		for range wrkRounds {
			if n != nil {
				if err := one(n.addr, n.pids(), &theirs, &theirsCPU); err != nil {
					return err
				}
			}
			if err := one(s.addr, []int{s.cmd.Process.Pid}, &ours, &oursCPU); err != nil {
				return err
			}
		}
		anon := peak()
		unit := "requests/s"
		if bytes {
			unit = "MB/s"
		}
		r := row{work: what, ours: fmt.Sprintf("%.0f %s", slices.Max(ours), unit), bound: fmt.Sprintf(">= %.2f of nginx", share), note: fmt.Sprintf("%d connections, peak %s, %s", conns, mega(anon), perUnit(ours, oursCPU, bytes))}
		if n != nil {
			q := slices.Max(ours) / slices.Max(theirs)
			r.other, r.ratio, r.ok = fmt.Sprintf("%.0f %s", slices.Max(theirs), unit), fmt.Sprintf("%.2f", q), judge(q >= share)
			r.note += "; nginx " + perUnit(theirs, theirsCPU, bytes)
		}
		b.add(r)
		return nil
	}
	if err := load(s, "serve files of 16 MiB", names["large"], 16, 0.9, true); err != nil {
		return err
	}
	if err := load(s, "serve files of 10 kB, from memory", names["small"], 64, 0.6, false); err != nil {
		return err
	}
	if err := b.crowd(ctx, s, timestamp, names["large"]); err != nil {
		return err
	}
	s.stop()
	if s, err = b.start(ctx, dir, "cache_size = \"4KiB\"\n", mirror); err != nil {
		return err
	}
	return load(s, "serve files of 10 kB, not cached", names["small"], 64, 0.4, false)
}

// perUnit returns the server's CPU time per request or megabyte, as text. Other work on
// the machine affects it less than the rate.
func perUnit(rates []float64, cpu time.Duration, bytes bool) string {
	var sum float64
	for _, r := range rates {
		sum += r * wrkTime.Seconds()
	}
	if bytes {
		return fmt.Sprintf("%.0f us CPU a MB", float64(cpu.Microseconds())/sum)
	}
	return fmt.Sprintf("%.1f us CPU a request", float64(cpu.Microseconds())/sum)
}

func cpuOf(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		sum += processUsage(pid).cpu
	}
	return sum
}

// fetchEach downloads files completely, one after the other.
func (s *server) fetchEach(prefix string, paths []string) error {
	for _, p := range paths {
		resp, err := http.Get("http://" + s.addr + prefix + p)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("get %s: %s", p, resp.Status)
		}
	}
	return nil
}

// deep compares verify --deep with sha256sum on the same files and as many cores.
func (b *bench) deep(ctx context.Context, s *server) error {
	var best, sums cost
	for range 3 {
		cmd := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf("find %s -type f -print0 | xargs -0 -n 8 -P %d sha256sum >/dev/null", filepath.Join(s.dir, "blobs"), runtime.NumCPU()))
		c, err := b.measure(ctx, cmd)
		if err != nil {
			return err
		}
		if sums.wall == 0 || c.wall < sums.wall {
			sums = c
		}
		if c, err = s.ctl(ctx, "verify", "whole", "--deep"); err != nil {
			return err
		}
		if best.wall == 0 || c.wall < best.wall {
			best = c
		}
	}
	q := sums.wall.Seconds() / best.wall.Seconds()
	b.add(row{
		work: "verify --deep of 1.1 GB", other: seconds(sums.wall) + " (sha256sum)", ours: seconds(best.wall), ratio: fmt.Sprintf("%.2f of its rate", q),
		bound: ">= 0.80 of its rate", ok: judge(q >= 0.8), note: best.detail() + "; sha256sum " + fmt.Sprintf("%.2f s CPU", sums.cpu.Seconds()),
	})
	m := float64(best.anon) / float64(largeSize)
	b.add(row{work: "verify --deep, memory", other: mega(largeSize) + " of the largest file", ours: mega(best.anon), ratio: fmt.Sprintf("%.2f", m), bound: "<= 4 of it", ok: judge(m <= 4)})
	return nil
}

func linkOrCopy(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// crowd measures requests while many slow clients keep their connections open.
func (b *bench) crowd(ctx context.Context, s *server, timestamp string, large []string) error {
	const slow, fast = 900, 100
	pid := s.cmd.Process.Pid
	before := rssAnon(pid)
	peak := watch(pid)
	slowCtx, stop := context.WithCancel(ctx)
	defer stop()
	var held sync.WaitGroup
	var open atomic.Int64
	for i := range slow {
		held.Go(func() {
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.(*net.TCPConn).SetReadBuffer(16 << 10)
			end := context.AfterFunc(slowCtx, func() { conn.Close() })
			defer end()
			if _, err := fmt.Fprintf(conn, "GET /archive/files/%s/%s HTTP/1.1\r\nHost: bench\r\n\r\n", timestamp, large[i%len(large)]); err != nil {
				return
			}
			buf := make([]byte, 2<<10)
			for first := true; ; first = false {
				if _, err := conn.Read(buf); err != nil {
					return
				}
				if first {
					open.Add(1)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	for range 200 {
		if open.Load() >= slow {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	v, err := wrk(ctx, s.addr, filepath.Join(filepath.Dir(s.conf), "paths.lua"), fast, false)
	if err != nil {
		return err
	}
	n := open.Load()
	stop()
	held.Wait()
	anon := peak()
	b.add(row{
		work: "memory under 1,000 connections, 900 of them slow", ours: mega(anon) + " peak", other: mega(before) + " before", ratio: fmt.Sprintf("%.2f", float64(anon)/float64(before)), bound: "<= 3 of it", ok: judge(anon <= 3*before && n == slow),
		note: fmt.Sprintf("%d slow connections held, %.0f requests/s beside them", n, v),
	})
	return nil
}

// nginx is a running nginx, the server with which snapd is compared.
type nginx struct {
	addr string
	cmd  *exec.Cmd
}

func startNginx(ctx context.Context, dir, tree string) (*nginx, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &nginx{addr: l.Addr().String()}
	l.Close()
	conf := fmt.Sprintf(`worker_processes auto;
daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log;
worker_rlimit_nofile 8192;
%[4]s
events { worker_connections 4096; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 10000000;
	open_file_cache max=10000;
	default_type application/octet-stream;
	client_body_temp_path %[1]s/nginx-tmp;
	proxy_temp_path %[1]s/nginx-tmp;
	fastcgi_temp_path %[1]s/nginx-tmp;
	uwsgi_temp_path %[1]s/nginx-tmp;
	scgi_temp_path %[1]s/nginx-tmp;
	server { listen %[2]s; root %[3]s; }
}
`, dir, n.addr, tree, map[bool]string{true: "user root;"}[os.Geteuid() == 0])
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	n.cmd = exec.Command("nginx", "-p", dir, "-e", filepath.Join(dir, "nginx.log"), "-c", file)
	n.cmd.Stderr = os.Stderr
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		if resp, err := http.Get("http://" + n.addr + "/"); err == nil {
			resp.Body.Close()
			return n, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.stop()
	return nil, fmt.Errorf("nginx does not answer")
}

// pids returns the process ids of the master and its workers.
func (n *nginx) pids() []int {
	master := n.cmd.Process.Pid
	out := []int{master}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", master))
	if err != nil {
		return out
	}
	for f := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

func (n *nginx) stop() {
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	_ = n.cmd.Wait()
}

// writePaths writes a wrk script that requests each path in turn.
func writePaths(file, prefix string, paths []string) error {
	var s strings.Builder
	s.WriteString("local paths = {\n")
	for _, p := range paths {
		fmt.Fprintf(&s, "%q,\n", prefix+p)
	}
	s.WriteString(`}
local requests = {}
local i = 0
init = function(args)
	for k, p in ipairs(paths) do requests[k] = wrk.format("GET", p) end
	i = math.random(#requests)
end
request = function()
	i = i % #requests + 1
	return requests[i]
end
done = function(summary)
	local e = summary.errors
	io.write(string.format("RESULT %d %d %d %d\n", summary.requests, summary.bytes, summary.duration, e.connect + e.read + e.write + e.status))
	io.write(string.format("ERRORS connect %d read %d write %d status %d timeout %d\n", e.connect, e.read, e.write, e.status, e.timeout))
end
`)
	return os.WriteFile(file, []byte(s.String()), 0o600)
}

// wrk runs wrk and returns the requests per second or, with bytes, megabytes per second.
func wrk(ctx context.Context, addr, script string, conns int, bytes bool) (float64, error) {
	cmd := exec.CommandContext(ctx, "wrk", "-t", "2", "-c", fmt.Sprint(conns), "-d", fmt.Sprint(int(wrkTime.Seconds()))+"s", "--timeout", "30s", "-s", script, "http://"+addr)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w\n%s", err, tail(out))
	}
	sc := bufio.NewScanner(strings.NewReader(string(out)))
	for sc.Scan() {
		var requests, size, micros, failed int64
		if n, _ := fmt.Sscanf(sc.Text(), "RESULT %d %d %d %d", &requests, &size, &micros, &failed); n != 4 {
			continue
		}
		if failed > 0 {
			return 0, fmt.Errorf("wrk: %d of %d requests failed\n%s", failed, requests, tail(out))
		}
		if bytes {
			return float64(size) / float64(micros), nil
		}
		return float64(requests) / (float64(micros) / 1e6), nil
	}
	return 0, fmt.Errorf("wrk: no result\n%s", tail(out))
}

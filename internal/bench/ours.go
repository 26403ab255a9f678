package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/daemon"
)

// build compiles snapd and snapctl.
func (b *bench) build(ctx context.Context) error {
	b.bin = filepath.Join(b.dir, "bin")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.bin+"/", "./cmd/snapd", "./cmd/snapctl")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build (run this in the project's directory): %w\n%s", err, out)
	}
	return nil
}

// server is a running snapd.
type server struct {
	b    *bench
	dir  string // data directory
	conf string
	addr string
	cmd  *exec.Cmd
	log  *os.File
}

// start writes a configuration and runs snapd with it. extra is added to its [server]
// section.
func (b *bench) start(ctx context.Context, dir, extra, mirrors string) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{b: b, dir: filepath.Join(dir, "data"), conf: filepath.Join(dir, "config.toml"), addr: l.Addr().String()}
	l.Close()
	// Disable background work, because it would be counted in the row being measured.
	text := fmt.Sprintf("data_dir = %q\n[server]\nlisten = %q\n%s\n[store]\nscrub_interval = \"\"\ngc_interval = \"\"\n%s\n", s.dir, s.addr, extra, mirrors)
	if err := os.WriteFile(s.conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return s, s.run(ctx)
}

func (s *server) run(ctx context.Context) (err error) {
	if s.log, err = os.OpenFile(filepath.Join(filepath.Dir(s.conf), "snapd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	s.cmd = exec.Command(filepath.Join(s.b.bin, "snapd"), "--config", s.conf)
	if s.b.profile != "" || s.b.heap != "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		s.cmd = exec.Command(self, "@daemon", s.conf, s.b.profile, s.b.heap)
	}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for range 500 {
		if resp, err := http.Get("http://" + s.addr + "/readyz"); err == nil {
			resp.Body.Close()
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	data, _ := os.ReadFile(s.log.Name())
	return fmt.Errorf("snapd does not answer\n%s", tail(data))
}

func (s *server) stop() {
	if s == nil || s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
	s.log.Close()
	s.cmd = nil
}

// ctl runs a snapctl command against the server and measures both processes.
func (s *server) ctl(ctx context.Context, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.b.bin, "snapctl"), append([]string{"--socket", filepath.Join(s.dir, "snapd.sock")}, args...)...)
	return s.b.measure(ctx, cmd, s.cmd.Process.Pid)
}

// repeated runs a command n times and returns the median.
func (s *server) repeated(ctx context.Context, n int, args ...string) (cost, error) {
	var all []cost
	for range n {
		c, err := s.ctl(ctx, args...)
		if err != nil {
			return c, err
		}
		all = append(all, c)
	}
	return median(all), nil
}

// helper runs as a child process of the benchmark, such as the upstream server.
func helper(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch args[0] {
	case "@daemon":
		return profiled(ctx, args[1], args[2], args[3])
	case "@upstream":
		return serveUpstream(ctx, args[1])
	case "@compact":
		return compactDir(args[1])
	case "@unxz":
		return unxz(args[1])
	}
	return fmt.Errorf("unknown helper %q", args[0])
}

// profiled runs snapd in this process and writes profiles of it.
func profiled(ctx context.Context, conf, cpu, heap string) error {
	cfg, err := config.Load(conf)
	if err != nil {
		return err
	}
	if cpu != "" {
		// A section may start snapd several times. Each start gets its own profile.
		for i := 2; ; i++ {
			if _, err := os.Stat(cpu); err != nil {
				break
			}
			cpu = fmt.Sprintf("%s.%d", strings.TrimSuffix(cpu, fmt.Sprintf(".%d", i-1)), i)
		}
		f, err := os.Create(cpu)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if err := daemon.Run(ctx, cfg, daemon.Options{Version: "bench", Log: daemon.NewLog(os.Stderr, daemon.LogText, slog.LevelInfo)}); err != nil {
		return err
	}
	if heap != "" {
		f, err := os.Create(heap)
		if err != nil {
			return err
		}
		defer f.Close()
		runtime.GC()
		return pprof.Lookup("allocs").WriteTo(f, 0)
	}
	return nil
}

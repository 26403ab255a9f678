package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sampling is the interval between measurements of memory.
const sampling = 20 * time.Millisecond

// cost is the resources that a piece of work used.
type cost struct {
	wall     time.Duration
	cpu      time.Duration // user and system, of all processes
	anon     int64         // peak of the sum of RssAnon, in bytes
	read     int64         // bytes read by system calls (rchar in proc_pid_io(5))
	written  int64         // bytes written by system calls (wchar)
	requests int64         // answered by upstream
	served   int64         // bytes of bodies sent by upstream
	out      []byte        // standard output
}

func (c cost) detail() string {
	s := fmt.Sprintf("%.2f s CPU, %s peak, %s read, %s written", c.cpu.Seconds(), mega(c.anon), mega(c.read), mega(c.written))
	if c.requests > 0 {
		s += fmt.Sprintf(", %d requests, %s fetched", c.requests, mega(c.served))
	}
	return s
}

// median returns the cost with the median time, but with the peak memory of all. It sorts
// costs.
func median(costs []cost) cost {
	slices.SortFunc(costs, func(a, b cost) int { return int(a.wall - b.wall) })
	c := costs[len(costs)/2]
	for _, o := range costs {
		c.anon = max(c.anon, o.anon)
	}
	return c
}

// measure runs a command and returns its cost. The cost includes the resources that
// the processes pids, which do the work for it, used in the meantime.
func (b *bench) measure(ctx context.Context, cmd *exec.Cmd, pids ...int) (cost, error) {
	var c cost
	var out, errs bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &errs
	}
	before := make([]usage, len(pids))
	for i, pid := range pids {
		before[i] = processUsage(pid)
	}
	var n0, s0 int64
	if b.up != nil {
		n0, s0 = b.up.count()
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return c, err
	}
	peak := watch(append(slices.Clone(pids), cmd.Process.Pid)...)
	// WNOWAIT leaves the process as a zombie, whose counters can still be read.
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	c.wall = time.Since(start)
	c.anon = peak()
	last := processUsage(cmd.Process.Pid)
	err := cmd.Wait()
	c.read, c.written = last.read, last.written
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	for i, pid := range pids {
		u := processUsage(pid)
		c.cpu += u.cpu - before[i].cpu
		c.read += u.read - before[i].read
		c.written += u.written - before[i].written
	}
	if b.up != nil {
		n, s := b.up.count()
		c.requests, c.served = n-n0, s-s0
	}
	c.out = out.Bytes()
	if err != nil {
		return c, fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, tail(out.Bytes()), tail(errs.Bytes()))
	}
	return c, nil
}

func tail(p []byte) []byte { return p[max(0, len(p)-2000):] }

// watch samples the memory of processes until the returned function is called, which
// returns the peak of their sum in bytes.
func watch(pids ...int) func() int64 {
	var peak int64
	stop := make(chan struct{})
	var done sync.WaitGroup
	look := func() {
		var sum int64
		for _, pid := range pids {
			sum += rssAnon(pid)
		}
		peak = max(peak, sum)
	}
	done.Go(func() {
		t := time.NewTicker(sampling)
		defer t.Stop()
		for {
			look()
			select {
			case <-stop:
				return
			case <-t.C:
			}
		}
	})
	return func() int64 {
		close(stop)
		done.Wait()
		return peak
	}
}

// rssAnon returns the anonymous resident memory of a process in bytes. It does not count
// bbolt's mapping of its file, which is page cache.
func rssAnon(pid int) int64 {
	return statusField(pid, "RssAnon:")
}

func statusField(pid int, name string) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// usage is the resources that a process has used since it started.
type usage struct {
	cpu           time.Duration
	read, written int64
}

func processUsage(pid int) (u usage) {
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		if i := bytes.LastIndexByte(data, ')'); i >= 0 {
			f := strings.Fields(string(data[i+1:]))
			if len(f) > 12 {
				// Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
				a, _ := strconv.ParseInt(f[11], 10, 64)
				b, _ := strconv.ParseInt(f[12], 10, 64)
				u.cpu = time.Duration(a+b) * 10 * time.Millisecond
			}
		}
	}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil {
		for line := range strings.Lines(string(data)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
			n, _ := strconv.ParseInt(v, 10, 64)
			switch k {
			case "rchar":
				u.read = n
			case "wchar":
				u.written = n
			}
		}
	}
	return u
}

// Cluster runs three nodes on this machine that share a PostgreSQL database and a bucket,
// behind a small load balancer. It mirrors, syncs, freezes and verifies on them, makes
// apt and dnf read the freezes from each node, and keeps serving until Ctrl-C. Everything
// is in a temporary directory and is deleted afterwards.
//
// It needs the programs in bin, PostgreSQL and versitygw: make cluster builds and
// installs them. The S3 server is behind the fault proxy of the tests.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"example.org/snapd/internal/cas/s3/s3test"
	"example.org/snapd/internal/demo/balancer"
	"example.org/snapd/internal/meta/postgres/pgtest"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` of the balancer")
	config := flag.String("config", "", "configuration `file` whose mirrors are used (default: the apt sources of this machine)")
	once := flag.Bool("once", false, "stop after the main job")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *config, *once); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// run starts the parts, in the order in which they need each other.
func run(ctx context.Context, listen, mirrors string, once bool) (err error) {
	parts := &parts{ctx: ctx}
	defer parts.close()
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok {
				panic(p)
			}
			err = f.error
		}
	}()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("%w (choose another address: make cluster LISTEN=127.0.0.1:8081)", err)
	}
	parts.Cleanup(func() { l.Close() })
	say("PostgreSQL: initdb in a temporary directory")
	db := pgtest.Start(parts)
	say("S3: versitygw, behind the fault proxy")
	s3 := s3test.Start(parts)
	c := &cluster{dir: parts.TempDir(), public: "http://" + l.Addr().String()}
	store := fmt.Sprintf("metadata = %q\nblobs = %q\ncredentials_file = %q\ncache = \"1GiB\"\n",
		db.Database(parts), s3.Location(s3.Bucket(parts), "snapd"), s3test.CredentialsFile(parts))
	if c.config, err = c.configuration(mirrors, store); err != nil {
		return err
	}
	for _, m := range mirrorName.FindAllStringSubmatch(c.config, -1) {
		c.mirrors = append(c.mirrors, m[1])
	}
	more, key := sampleMirror(parts)
	c.config, c.sampleKey = c.config+more, key
	for i, role := range []string{"all", "all", "serve"} {
		n, err := c.start(i, role)
		if err != nil {
			return err
		}
		parts.Cleanup(n.stop)
		say("node %d: %s, role %s, http://%s/", i+1, n.name, role, n.addr)
	}
	b := &balancer.Balancer{}
	for _, n := range c.nodes {
		b.Nodes = append(b.Nodes, n.addr)
	}
	go b.Run(ctx, l)
	say("balancer: %s/", c.public)
	if err := c.mainJob(ctx, mirrors != ""); err != nil {
		return err
	}
	say("")
	if err := c.clients(ctx, parts); err != nil || once {
		return err
	}
	say("\nserving %s/ until Ctrl-C; in another terminal: export SNAPCTL_SOCKET=%s; bin/snapctl status", c.public, c.nodes[0].socket())
	<-ctx.Done()
	return nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// cluster is the nodes, and what they share.
type cluster struct {
	dir, public, config string
	mirrors             []string // all but sample
	sampleKey           string
	nodes               []*node
}

// node is a running snapd.
type node struct {
	name, dir, addr string
	cmd             *exec.Cmd
	ended           chan struct{}
}

func (n *node) socket() string { return filepath.Join(n.dir, "data/snapd.sock") }

// configuration returns the configuration of a node: the mirrors of a file, or of this
// machine's apt sources, with the store that the nodes share.
func (c *cluster) configuration(mirrors, store string) (string, error) {
	file := mirrors
	if file == "" {
		file = filepath.Join(c.dir, "config.toml")
		out, err := exec.Command("bin/snapctl", "init", "--from-apt", "--data-dir", "DATA", "--output", file).CombinedOutput()
		// 3: some of the sources cannot be mirrored, and were named.
		if exit := new(exec.ExitError); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
			return "", fmt.Errorf("snapctl init: %w: %s", err, out)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	_, tables, ok := strings.Cut(string(text), "[[mirror]]")
	if !ok {
		return "", fmt.Errorf("%s: no [[mirror]]", file)
	}
	var kept []string
	for _, line := range strings.Split("[[mirror]]"+tables, "\n") {
		if !strings.HasPrefix(strings.TrimSpace(line), "interval") {
			kept = append(kept, line)
		}
	}
	return "data_dir = \"DATA\"\n[server]\nlisten = \"ADDR\"\npublic_url = \"" + c.public + "\"\n[store]\nrole = \"ROLE\"\n" + store + strings.Join(kept, "\n"), nil
}

// keys are the files that every signing node must have.
var keys = []string{"signing-key.asc", "log-key"}

// start starts a node and waits until it answers.
func (c *cluster) start(i int, role string) (*node, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &node{name: fmt.Sprintf("node%d", i+1), addr: l.Addr().String(), ended: make(chan struct{})}
	l.Close()
	n.dir = filepath.Join(c.dir, n.name)
	data := filepath.Join(n.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	if i > 0 && role == "all" {
		for _, name := range keys {
			key, err := os.ReadFile(filepath.Join(c.nodes[0].dir, "data", name))
			if err == nil {
				err = os.WriteFile(filepath.Join(data, name), key, 0o600)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	file := filepath.Join(n.dir, "config.toml")
	text := strings.NewReplacer(`"DATA"`, fmt.Sprintf("%q", data), `"ADDR"`, fmt.Sprintf("%q", n.addr), `"ROLE"`, fmt.Sprintf("%q", role)).Replace(c.config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var log bytes.Buffer
	n.cmd = exec.Command("bin/snapd", "--config", file)
	n.cmd.Stderr = &log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // only this program handles Ctrl-C
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = n.cmd.Wait()
		close(n.ended)
	}()
	c.nodes = append(c.nodes, n)
	for {
		if _, err := n.snapctl(context.Background(), "status"); err == nil {
			return n, nil
		}
		select {
		case <-n.ended:
			return nil, fmt.Errorf("%s ended: %s", n.name, log.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop ends a node cleanly.
func (n *node) stop() {
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	<-n.ended
}

// snapctl runs a command at a node and returns its output.
func (n *node) snapctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "bin/snapctl", args...)
	cmd.Env = append(os.Environ(), "SNAPCTL_SOCKET="+n.socket())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("snapctl %s at %s: %w: %s", strings.Join(args, " "), n.name, err, out)
	}
	return string(out), nil
}

// mainJob syncs at one node, freezes at another and verifies at the third.
func (c *cluster) mainJob(ctx context.Context, all bool) error {
	freeze := []string{"freeze", "demo-1", "--manifest", "internal/demo/demo.manifest", "--format", "debootstrap", "--with-deps"}
	if all {
		freeze = []string{"freeze", "demo-1", "--all"}
	}
	for _, m := range c.mirrors {
		freeze = append(freeze, "--mirror", m)
	}
	for _, job := range []struct {
		node int
		args []string
	}{{0, []string{"sync"}}, {1, freeze}, {0, []string{"freeze", sample + "-1", "--mirror", sample, "--all"}}, {2, []string{"verify", "demo-1"}}, {2, []string{"status"}}, {2, []string{"sources", "demo-1"}}} {
		n := c.nodes[job.node]
		say("\n%s$ snapctl %s", n.name, strings.Join(job.args, " "))
		out, err := n.snapctl(ctx, job.args...)
		if err != nil {
			return err
		}
		fmt.Print(out)
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// network gives each node a network namespace, connected to this machine by a router: the
// services that the nodes use have addresses at this end. The router drops packets
// silently, as a broken network does: nobody is notified, and connections stay open.
//
// A namespace exists as long as a process in it, which ends with this program. So no
// this program ends.
type network struct {
	prefix string // of all addresses: three bytes
	router *namespace
	nodes  []*namespace
}

// Last bytes of the addresses of services.
const (
	hostDatabase = 2
	hostStandby  = 3
	hostBucket   = 4
	hostUpstream = 5
	hostRouter   = 6
)

// errNoNetwork means that network namespaces are not available to this user or on this
// machine.
var errNoNetwork = errors.New("network namespaces cannot be created")

// namespace is a network namespace, kept alive by a process.
type namespace struct {
	pid     int
	address string // of a node
}

// newNamespace creates a namespace, with a process that ends with this one.
func newNamespace(tb testing.TB) (*namespace, error) {
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := cmd.StdinPipe() // the process ends when this pipe is closed
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoNetwork, err)
	}
	tb.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	n := &namespace{pid: cmd.Process.Pid}
	return n, n.run("ip", "link", "set", "lo", "up")
}

// command returns a command that runs in the namespace.
func (n *namespace) command(argv ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/proc/" + strconv.Itoa(n.pid) + "/ns/net", "--"}, argv...)...)
}

func (n *namespace) run(argv ...string) error { return output(n.command(argv...)) }

// output runs a command and returns its output only in an error.
func output(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// newNetwork creates the namespaces of some nodes. It returns errNoNetwork if it may not.
func newNetwork(tb testing.TB, nodes int) (*network, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: not root", errNoNetwork)
	}
	for _, program := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoNetwork, err)
		}
	}
	n := &network{}
	var err error
	if n.router, err = newNamespace(tb); err != nil {
		return nil, err
	}
	link, err := n.connect()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoNetwork, err)
	}
	tb.Cleanup(func() { _ = exec.Command("ip", "link", "del", link).Run() })
	for i := range nodes {
		node, err := newNamespace(tb)
		if err == nil {
			err = n.join(node, i)
		}
		if err != nil {
			return nil, err
		}
		n.nodes = append(n.nodes, node)
	}
	return n, nil
}

// connect connects the router with this machine by a link. Its addresses are unused ones
// of the range that is reserved for network tests.
func (n *network) connect() (link string, err error) {
	for range 20 {
		i := rand.IntN(256)
		n.prefix, link = fmt.Sprintf("198.18.%d.", i), fmt.Sprintf("torture%d", i)
		if err = output(exec.Command("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(n.router.pid))); err == nil {
			break
		}
	}
	if err != nil {
		return "", err
	}
	// This program sends its requests to nodes from the first address.
	for _, last := range []int{1, hostDatabase, hostStandby, hostBucket, hostUpstream} {
		if err := output(exec.Command("ip", "addr", "add", n.host(last)+"/29", "dev", link)); err != nil {
			return "", err
		}
	}
	if err := output(exec.Command("ip", "link", "set", link, "up")); err != nil {
		return "", err
	}
	if err := output(exec.Command("ip", "route", "add", n.prefix+"0/24", "via", n.host(hostRouter), "src", n.host(1))); err != nil {
		return "", err
	}
	return link, errors.Join(n.router.run("ip", "addr", "add", n.host(hostRouter)+"/29", "dev", "eth0"), n.router.run("ip", "link", "set", "eth0", "up"),
		n.router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"))
}

// host returns an address at this machine's end.
func (n *network) host(last int) string { return n.prefix + strconv.Itoa(last) }

// join connects the namespace of node i with the router.
func (n *network) join(node *namespace, i int) error {
	near, far, link := n.host(9+8*i), n.host(10+8*i), "node"+strconv.Itoa(i)
	node.address = far
	for _, step := range []struct {
		in   *namespace
		argv []string
	}{
		{n.router, []string{"ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(node.pid)}},
		{n.router, []string{"ip", "addr", "add", near + "/29", "dev", link}},
		{n.router, []string{"ip", "link", "set", link, "up"}},
		{node, []string{"ip", "addr", "add", far + "/29", "dev", "eth0"}},
		{node, []string{"ip", "link", "set", "eth0", "up"}},
		{node, []string{"ip", "route", "add", "default", "via", near}},
	} {
		if err := step.in.run(step.argv...); err != nil {
			return fmt.Errorf("%w: %w", errNoNetwork, err)
		}
	}
	return nil
}

// cut drops the packets between a node and services from now on. It drops those in both
// directions, or only those to the node, so that the node's requests are executed but no
// answer arrives. mend ends it.
func (n *network) cut(node *namespace, bothWays bool, services ...int) error {
	for _, last := range services {
		err := n.drop("add", n.host(last), node.address)
		if err == nil && bothWays {
			err = n.drop("add", node.address, n.host(last))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mend lets all packets pass again.
func (n *network) mend() {
	for n.router.run("ip", "rule", "del", "pref", "10") == nil {
		continue
	}
}

func (n *network) drop(verb, from, to string) error {
	return n.router.run("ip", "rule", verb, "pref", "10", "from", from, "to", to, "blackhole")
}

// freePort returns a port that is free on all given addresses.
func freePort(hosts ...string) (int, error) {
	for range 20 {
		var all []io.Closer
		port, err := 0, error(nil)
		for _, host := range hosts {
			var l net.Listener
			if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))); err != nil {
				break
			}
			all = append(all, l)
			port = l.Addr().(*net.TCPAddr).Port
		}
		for _, l := range all {
			l.Close()
		}
		if err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no port is free on all of %v", hosts)
}

// Package balancer is a simple load balancer for a few nodes on one machine.
package balancer

import (
	"context"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"time"
)

// Balancer passes connections to nodes that are ready. A client stays on one node as long
// as that node is ready.
type Balancer struct {
	// Nodes are the addresses of the nodes.
	Nodes []string
	// Client returns the identity of a client; nil: its address.
	Client func(net.Conn) string
}

// Run accepts connections until the listener is closed.
func (b *Balancer) Run(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go b.pass(ctx, c)
	}
}

// pass connects a client with a node.
func (b *Balancer) pass(ctx context.Context, client net.Conn) {
	defer client.Close()
	node := b.choose(ctx, client)
	if node == "" {
		_, _ = io.WriteString(client, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n")
		return
	}
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", node)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, server)
}

// choose returns the node for a client: the first ready node, starting with one that
// depends on the client; "" if no node is ready.
func (b *Balancer) choose(ctx context.Context, client net.Conn) string {
	name, _, _ := net.SplitHostPort(client.RemoteAddr().String())
	if b.Client != nil {
		name = b.Client(client)
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, name)
	for i := range b.Nodes {
		if n := b.Nodes[(int(h.Sum32()%uint32(len(b.Nodes)))+i)%len(b.Nodes)]; ready(ctx, n) {
			return n
		}
	}
	return ""
}

// ready asks a node whether it is ready.
func ready(ctx context.Context, node string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+node+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

package main

import (
	"context"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"time"
)

// balancer passes connections on to nodes that are ready. A client stays on one node
// by its address, as long as that is ready.
type balancer struct{ nodes []*node }

// run accepts connections until the listener is closed.
func (b *balancer) run(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go b.pass(ctx, c)
	}
}

// pass connects a client with a node.
func (b *balancer) pass(ctx context.Context, client net.Conn) {
	defer client.Close()
	n := b.choose(ctx, client.RemoteAddr())
	if n == nil {
		_, _ = io.WriteString(client, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n")
		return
	}
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", n.addr)
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

// choose returns the node of a client: the next one that is ready, from one that its
// address decides on.
func (b *balancer) choose(ctx context.Context, client net.Addr) *node {
	host, _, err := net.SplitHostPort(client.String())
	if err != nil {
		return nil
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, host)
	for i := range b.nodes {
		if n := b.nodes[(int(h.Sum32()%uint32(len(b.nodes)))+i)%len(b.nodes)]; ready(ctx, n) {
			return n
		}
	}
	return nil
}

// ready asks a node whether it serves.
func ready(ctx context.Context, n *node) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+"/readyz", nil)
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
